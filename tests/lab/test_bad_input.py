"""What goes wrong between an operator and real hosts: three clear lines, no damage, and afterwards the same command
finishes. One lab serves all tests; each finds its hosts without a deployment and leaves them so."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from . import Lab
from .conftest import LabFactory
from .site import NAME, Site, unit

HOSTS = ("a11", "a12", "a13", "b21")
THREE = ("a11", "a12", "a13")
CLUSTER = "mode: cluster\nreplicas: 0\naccept_risk: true"
STANDALONE = "mode: standalone"
PAIR = "mode: standalone\nreplicas: 1\naccept_risk: true"
BUNDLED = "engine: {source: bundled}"
BASE = f"/var/lib/redkeep/{NAME}"
#: Everything that a configuration file, a shell or a URL could stumble over.
AWKWARD = "a b\"c'd#e ü€ %@:/\\x$(id)`id`"

_CLEAN = f"""
systemctl list-units --all --plain --no-legend 'redkeep-*' | while read -r unit rest; do systemctl stop "$unit"; done
rm -rf /etc/systemd/system/redkeep-* /etc/systemd/system/*.wants/redkeep-* /etc/sysctl.d/90-redkeep.conf /usr/local/bin/*
for folder in {BASE} /opt; do while mountpoint -q $folder; do umount -l $folder; done; done
rm -rf /var/lib/redkeep /opt/redkeep
systemctl daemon-reload
systemctl reset-failed
"""


@pytest.fixture(scope="module")
def lab(lab_factory: LabFactory) -> Lab:
    return lab_factory(dict.fromkeys(HOSTS, "bookworm"))


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    yield Site.at(lab, tmp_path)
    for name in HOSTS:
        lab.exec(name, _CLEAN)


def write(
    site: Site, text: str, hosts: Sequence[str] = ("a11",), *, user: str = "root", more: str = ""
) -> None:
    """The file, with both addresses of each host and no zones."""
    lines = [
        f"  - {{name: {h.name}, ssh: {user}@{h.public}, private: {h.private}, public: {h.public}{more}}}"
        for h in map(site.lab.__getitem__, hosts)
    ]
    site.run.write(f"name: {NAME}\n{text}\nhosts:\n" + "\n".join(lines) + "\n")


def at(site: Site, ssh: str) -> None:
    site.run.write(f"name: {NAME}\nmode: standalone\nhosts:\n  - {{name: a11, ssh: {ssh}}}\n")


def untouched(lab: Lab, *names: str) -> None:
    """Nothing of a deployment is on these hosts, but perhaps the file that was locked."""
    for name in names or HOSTS:
        places = f"{BASE}/* /etc/systemd/system/redkeep-* /opt/redkeep"
        found = lab.exec(name, f"ls -d {places} 2>/dev/null | grep -v '/lock$'", check=False)
        assert found.stdout == "", name


def finishes(site: Site) -> None:
    site.run("apply", "--yes").ok()
    again = site.apply()
    assert again["steps"] == [], again


# --- the way to a host ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ssh", "words"),
    [
        ("root@203.0.113.9", ("no way to a11", "Network is unreachable", "check the address")),
        ("root@198.51.100.77", ("no way to a11", "No route to host", "check the address")),
        ("root@127.0.0.1", ("refuses SSH connections", "nothing listens", "check the port")),
        (
            "root@nowhere.invalid",
            ("name of a11 could not be resolved", "root@nowhere.invalid", "~/.ssh/config"),
        ),
        ("bob@198.51.100.11", ("does not accept this login", "bob@198.51.100.11", "ssh-copy-id")),
    ],
    ids=["no network", "nobody there", "refused", "name", "user"],
)
def test_a_host_that_cannot_be_reached(site: Site, ssh: str, words: tuple[str, ...]) -> None:
    at(site, ssh)
    site.run("plan").error(1, *words)
    site.run("apply", "--yes", "--json").error(1, *words)


def test_a_silent_host_among_others(site: Site) -> None:
    site.lab.network.close_port(22, "a12")
    try:
        write(site, PAIR, ("a11", "a12"))
        site.run("apply", "--yes").error(1, "a12 did not answer", "host a12", "security group")
        assert [n["role"] for n in site.status()["nodes"]] == ["unreachable", "unreachable"]
    finally:
        site.lab.network.open_port(22, "a12")
    untouched(site.lab)


def test_where_to_connect_while_a_host_is_lost(site: Site) -> None:
    """Its address was found out on the host, and the other one remembers it."""
    lines = [f"  - {{name: {h}, ssh: root@{site.lab[h].public}, network: one}}\n" for h in ("a11", "a12")]
    site.run.write(f"name: {NAME}\n{PAIR}\n{BUNDLED}\nhosts:\n{''.join(lines)}")
    finishes(site)
    before = site.run("url", "--reveal", "--json").ok().json
    assert len(before["urls"]) == 2
    site.lab.power_cut("a12")
    try:
        assert site.run("url", "--reveal", "--json").ok().json == before
    finally:
        site.lab.power_on("a12")
        site.lab.wait_ready("a12")
    site.wait_ok()


def test_one_machine_under_two_names(site: Site) -> None:
    config = Path(site.run.environment["HOME"], ".ssh/config")
    config.write_text(f"Host other\n  HostName {site.lab['a11'].public}\n  User root\n\n{config.read_text()}")
    keys = config.parent / "known_hosts"
    keys.write_text(keys.read_text() + keys.read_text().replace(site.lab["a11"].public, "other"))
    names = f"{{name: a11, ssh: root@{site.lab['a11'].public}}}, {{name: twin, ssh: other}}"
    site.run.write(f"name: {NAME}\n{PAIR}\n{BUNDLED}\nhosts: [{names}]\n")
    for command in (("plan",), ("apply", "--yes")):
        site.run(*command).error(2, "a11 and twin are the same machine", "list it once")
    untouched(site.lab)


def test_a_wrong_login_key(site: Site, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    config = tmp_path / "home/.ssh/config"
    right = config.read_text()
    config.write_text(right.replace(str(site.lab.ssh.key), str(tmp_path / "other")))
    write(site, STANDALONE)
    site.run("apply", "--yes").error(
        1, "does not accept this login: no key of ours fits", "host a11", "ssh-add"
    )
    config.write_text(right)
    site.run("plan").ok()


def test_an_unknown_host_key_and_its_fingerprint(site: Site, tmp_path: Path) -> None:
    (tmp_path / "home/.ssh/known_hosts").write_text("")
    ours, other = site.lab.ssh.fingerprint("a11"), site.lab.ssh.fingerprint("a12")
    write(site, STANDALONE)
    for command in (("plan",), ("apply", "--yes"), ("apply", "--yes", "--json")):
        site.run(*command).error(4, "nobody to ask", "a11", ours, "fingerprint:")
    write(site, PAIR, ("a11", "a12"))
    site.run("apply", "--yes").error(4, "2 hosts", ours, other, "fingerprint:")
    write(site, STANDALONE, more=f', fingerprint: "{other}"')
    site.run("apply", "--yes").error(1, "host key of a11", "changed", f"expected {other}", f"offered {ours}")
    assert not (tmp_path / ".redkeep/known_hosts").exists()
    untouched(site.lab)
    write(site, STANDALONE, more=f', fingerprint: "{ours}"')
    site.run("plan").ok()


def test_a_changed_host_key(site: Site, tmp_path: Path) -> None:
    lab = site.lab
    write(site, STANDALONE, ("a13",))
    before = lab.ssh.fingerprint("a13")
    after = lab.change_host_key("a13")
    try:
        site.run("apply", "--yes").error(1, "host key of a13 has changed", before, after, "ssh-keygen -R")
        assert "has changed" in site.status()["nodes"][0]["link"]
    finally:
        lab.ssh.write_client_files(lab.hosts.values())
    untouched(lab)
    shutil.copy(lab.ssh.known_hosts, tmp_path / "home/.ssh/known_hosts")
    site.run("plan").ok()


def test_a_user_without_sudo_and_one_with(site: Site) -> None:
    write(site, STANDALONE, user="nosudo")
    site.run("apply", "--yes").error(1, "sudo asks nosudo on a11 for a password", "host a11", "NOPASSWD")
    untouched(site.lab)
    write(site, STANDALONE, user="ops")
    finishes(site)
    site.run("destroy", "--yes").ok()


def test_a_host_without_systemd(site: Site) -> None:
    site.lab.exec("a11", "mv /run/systemd/system /run/systemd/away")
    try:
        write(site, STANDALONE)
        site.run("apply", "--yes").error(4, "no systemd", "a11", "a host with systemd")
    finally:
        site.lab.exec("a11", "mv /run/systemd/away /run/systemd/system")
    untouched(site.lab)


# --- the server software --------------------------------------------------------------------------------------------


def fake(lab: Lab, tool: str, answer: str) -> None:
    """A tool at the beginning of root's PATH that says something else than the real one."""
    script = f"/usr/local/bin/{tool}"
    lab.exec("a11", f"cat >{script} <<'END'\n#!/bin/sh\n{answer}\nEND\nchmod 755 {script}")


def test_another_architecture_and_an_old_c_library(site: Site) -> None:
    write(site, f"{STANDALONE}\n{BUNDLED}")
    fake(site.lab, "uname", '[ "$1" = -m ] && echo aarch64 || exec /usr/bin/uname "$@"')
    site.run("apply", "--yes").error(
        1, "a11 is aarch64", "bundled server here is for x86_64", "source: package"
    )
    site.lab.exec("a11", "rm /usr/local/bin/uname")
    fake(site.lab, "getconf", "echo glibc 2.17")
    site.run("apply", "--yes").error(1, "glibc 2.17", "needs glibc 2.28", "source: package")
    site.lab.exec("a11", "rm /usr/local/bin/getconf")
    untouched(site.lab)
    finishes(site)


def test_packages_that_are_not_on_offer(site: Site) -> None:
    write(site, f"{STANDALONE}\nengine: {{flavor: valkey, source: package}}")
    words = "debian 12 has no package valkey-server", "host a11 (debian 12)", "source: bundled"
    site.run("apply", "--yes").error(1, *words)
    write(site, f"{STANDALONE}\nengine: {{flavor: redis, source: package, version: '9.9'}}")
    site.run("apply", "--yes", "--json").error(
        1, "redis-server 9.9 is not on offer", "only 5:7.0", "host a11"
    )
    untouched(site.lab)
    write(site, f"{STANDALONE}\nengine: {{flavor: redis, source: package, version: '7.0'}}")
    finishes(site)


def test_compilers_that_cannot_build(site: Site, tmp_path: Path) -> None:
    tree = tmp_path / "redis-7.2.5"
    (tree / "src").mkdir(parents=True)
    (tree / "src/version.h").write_text('#define REDIS_VERSION "7.2.5"\n')
    (tree / "src/server.c").write_text("int main(void) { return 0; }\n")
    with tarfile.open(tmp_path / "redis.tar.gz", "w:gz") as archive:
        archive.add(tree, "redis-7.2.5")
    write(site, f"{STANDALONE}\nengine: {{flavor: redis, source: tarball, path: redis.tar.gz}}", ("a11",))
    fake(site.lab, "cc", "echo 'gcc (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)'")
    site.run("apply", "--yes").error(1, "too old for redis 7.2.5", "4.8.5", "gcc 4.9", "source: package")
    fake(site.lab, "cc", "echo 'cc: internal error: no headers here' >&2; exit 1")
    fake(site.lab, "apt-get", "echo 'E: Unable to locate package gcc' >&2; exit 100")
    site.run("apply", "--yes").error(1, "could not be installed", "Unable to locate package", "host a11")
    site.lab.exec("a11", "rm /usr/local/bin/*")
    write(site, f"{STANDALONE}\n{BUNDLED}")
    finishes(site)


# --- places that are taken ------------------------------------------------------------------------------------------


def test_ports_of_another_redis_and_of_another_program(site: Site) -> None:
    lab = site.lab
    write(site, f"{CLUSTER}\n{BUNDLED}", THREE)
    lab.exec("a11", "apt-get update -qq && apt-get install -qq redis-server && systemctl stop redis-server")
    lab.exec(
        "a11",
        "systemd-run -q --unit=theirs redis-server --bind 10.77.0.11 --port 6379 --protected-mode no --dir /tmp --save ''",
    )
    cli = "redis-cli -h 10.77.0.11"
    lab.exec("a11", f"until {cli} set theirs value; do sleep 0.1; done", timeout=20)
    pid = lab.exec("a11", "systemctl show -P MainPID theirs").stdout.strip()
    try:
        words = (
            "port 6379 is taken",
            f"redis-server, pid {pid} listens on 10.77.0.11",
            "a11:6379",
            "another port:",
        )
        site.run("apply", "--yes").error(4, *words)
        site.run("status")
        site.run("destroy", "--yes").ok()
        assert lab.exec("a11", f"{cli} get theirs").stdout == "value\n"
        assert lab.exec("a11", "systemctl show -P MainPID theirs").stdout.strip() == pid
        assert "cmdstat_auth" not in lab.exec("a11", f"{cli} info commandstats").stdout
    finally:
        lab.exec("a11", "systemctl stop theirs")
    untouched(lab)
    listen = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 16379, Listen => 1); sleep 600"
    lab.exec(
        "a12",
        f"systemd-run -q --unit=theirs perl -e '{listen}'; until ss -Htln | grep -q :16379; do sleep 0.1; done",
    )
    try:
        site.run("apply", "--yes").error(4, "port 16379 is taken: perl", "a12:16379", "Cluster bus")
    finally:
        lab.exec("a12", "systemctl stop theirs")
    untouched(lab)
    finishes(site)


def test_a_foreign_nodes_conf_on_one_host(site: Site) -> None:
    data = f"{BASE}/6379/data"
    site.lab.exec("a12", f"mkdir -p {data} && echo theirs >{data}/nodes.conf")
    write(site, CLUSTER, THREE)
    site.run("apply", "--yes").error(4, "did not make", f"a12: {data}/nodes.conf", "nothing was changed")
    untouched(site.lab, "a11", "a13")
    assert site.lab.exec("a12", f"cat {data}/nodes.conf").stdout == "theirs\n"


# --- the network between hosts, and to clients ----------------------------------------------------------------------


@contextlib.contextmanager
def closed(lab: Lab, port: int, host: str) -> Iterator[None]:
    lab.network.close_port(port, host)
    try:
        yield
    finally:
        lab.network.open_port(port, host)


def test_a_security_group_without_the_ports(site: Site) -> None:
    write(site, f"{CLUSTER}\nclients: public\ntls: false", THREE)
    rule = "add to the security group of a12: inbound, TCP, port"
    with closed(site.lab, 6379, "a12"):
        site.run("apply", "--yes").error(
            1, "cannot reach 198.51.100.12 port 6379", "a12:6379", f"{rule} 6379, source"
        )
    with closed(site.lab, 16379, "a12"):
        words = "cannot reach 198.51.100.12 port 16379 (bus)", "without the bus port", f"{rule} 16379, source"
        site.run("apply", "--yes").error(1, *words, "198.51.100.11/32", "198.51.100.13/32")
    untouched(site.lab)


def test_private_addresses_that_are_not_routed(site: Site) -> None:
    write(site, PAIR, ("a11", "b21"), more=", network: one")
    site.run("apply", "--yes").error(1, "cannot reach 10.", "10.88.0.21", "network:", "public:")
    lines = "".join(f"  - {{name: {n}, ssh: root@{site.lab[n].public}}}\n" for n in ("a11", "b21"))
    site.run.write(f"name: {NAME}\n{PAIR}\nhosts:\n{lines}")
    site.run("apply", "--yes").error(
        2, "a11 has no public address", "redkeep.yaml: hosts: a11", "add public:"
    )
    write(site, STANDALONE)
    site.run.write(site.run.file.read_text().replace("private: 10.77.0.11", "private: 10.77.0.99"))
    site.run("apply", "--yes").error(2, "10.77.0.99 is not an address of a11", "it has 10.77.0.11")
    untouched(site.lab)


# --- disks ----------------------------------------------------------------------------------------------------------


def test_disks_that_are_full(site: Site) -> None:
    lab = site.lab
    write(site, f"{CLUSTER}\n{BUNDLED}", THREE)
    lab.exec("a11", f"mkdir -p {BASE}")
    lab.disk.shrink("a11", BASE, "16M")
    site.run("apply", "--yes").error(1, "16 MiB are free", "a11", "free some space")
    lab.exec("a11", f"umount {BASE}")
    untouched(lab)

    lab.disk.shrink("a11", "/opt", "1M")
    advice = "free space on the host's disk, then run it again"
    site.run("apply", "--yes").error(1, "No space left on device", "host a11", advice)
    assert lab.exec("a11", "find /opt -type f").stdout == ""
    lab.exec("a11", "umount /opt")

    lab.disk.shrink("a11", BASE, "300M")
    with held_at(site, "stage  host") as process:
        lab.disk.fill("a11", BASE)
        process.send_signal(signal.SIGCONT)
        output = process.stdout.read() if process.stdout else ""
        assert process.wait(60) == 1, output
        assert output.splitlines()[-2:] == ["host a11", f"{advice}: it goes on where it stopped"]
    lab.disk.free("a11", BASE)
    finishes(site)


# --- interrupted, and at the same time ------------------------------------------------------------------------------


@contextlib.contextmanager
def held_at(site: Site, word: str) -> Iterator[subprocess.Popen[str]]:
    """An apply that has just printed this word, stopped there; ended in any case."""
    process = site.lab.popen(
        site.run.argv("apply", "--yes"),
        cwd=site.run.folder,
        env=site.run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            seen = []
            for line in process.stdout or ():
                seen.append(line)
                if word in line:
                    process.send_signal(signal.SIGSTOP)
                    break
            assert process.poll() is None, "".join(seen)
            yield process
        finally:
            process.kill()


def test_two_operators_the_death_of_one_and_control_c(site: Site) -> None:
    write(site, CLUSTER, THREE)
    with held_at(site, "stage  files") as first:
        words = "another operator is at work", "a11: ", " since ", " UTC (apply)", "wait until it ends"
        site.run("apply", "--yes").error(1, *words)
        site.run("destroy", "--yes", "--json").error(1, *words)
        first.kill()
    for stage in ("start", "meet"):
        with held_at(site, f"stage  {stage}") as process:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)
            output = process.stdout.read() if process.stdout else ""
            assert process.wait(60) == 130, output
            assert output.splitlines()[-1] == "interrupted; run the same command again to finish"
    finishes(site)
    assert site.status()["state"] == "ok"


# --- a running deployment -------------------------------------------------------------------------------------------


def test_what_a_running_deployment_refuses(site: Site) -> None:
    lab = site.lab
    write(site, CLUSTER, THREE)
    finishes(site)
    pids = [lab.exec(h, f"systemctl show -P MainPID {unit(6379)}").stdout for h in THREE]
    for text, word in (
        (STANDALONE, "the mode changed from cluster to standalone"),
        (f"{CLUSTER}\nport: 7000", "port changed from 6379 to 7000"),
    ):
        write(site, text, THREE, more=", network: one")
        site.run("apply", "--yes").error(4, word, "nothing was changed")
    write(site, CLUSTER, THREE)
    second = site.run.file.read_text().replace(f"name: {NAME}\n", "name: second\n")
    site.run.write(second)
    site.run("apply", "--yes").error(4, "port 6379 is taken: redis-server", "not touched", "another port:")
    assert lab.exec("a11", "ls /var/lib/redkeep").stdout.split() == [NAME]
    write(site, f"{CLUSTER}\nsettings: {{nonsense: 1}}", THREE)
    words = "redis 7.0.15 refuses the setting nonsense 1: Bad directive", "settings: nonsense"
    site.run("apply", "--yes").error(1, *words, "correct or remove it")
    assert "nonsense" not in lab.exec("a11", f"cat {BASE}/6379/conf/managed.conf").stdout
    lab.power_cut("a13")
    try:
        write(site, CLUSTER, THREE)
        site.run("apply", "--yes").error(1, "a13 did not answer", "host a13", "is it up")
        site.run.write(site.run.file.read_text().replace(", private: 10.77.0.13", ""))
        shown = {n["name"]: n["role"] for n in site.status()["nodes"]}
        assert shown == {"a11:6379": "primary", "a12:6379": "primary", "a13:6379": "unreachable"}
    finally:
        lab.power_on("a13")
    write(site, CLUSTER, THREE)
    site.wait_ok()
    assert site.apply()["steps"] == []
    assert [lab.exec(h, f"systemctl show -P MainPID {unit(6379)}").stdout for h in THREE[:2]] == pids[:2]


@pytest.mark.parametrize(
    "engine", ["engine: {flavor: redis, source: package}", BUNDLED], ids=["redis", "bundled"]
)
def test_an_awkward_password_from_end_to_end(site: Site, engine: str) -> None:
    users = "passwords: {app: {env: APP}, admin: {env: ADMIN}, replication: {env: REPLICATION}}"
    site.run.environment = {
        **site.run.environment,
        "APP": AWKWARD,
        "ADMIN": f"{AWKWARD}2",
        "REPLICATION": f"{AWKWARD}3",
    }
    write(site, f"{PAIR}\nclients: public\ntls: false\n{users}\n{engine}", ("a11", "a12"))
    site.run("apply", "--yes").ok()
    assert site.apply()["steps"] == []
    url = site.run("url", "--reveal").ok().stdout.split()[0]
    with site.lab.inside(), redis.Redis.from_url(url, socket_timeout=5, decode_responses=True) as client:
        assert client.set("k", "v")
        assert client.get("k") == "v"
        assert client.wait(1, 5000) == 1
    # another password in its source is changed on the servers, by way of both
    other = {"ADMIN": f"{AWKWARD}4"}
    site.run("apply", "--yes", env=other).ok()
    assert site.run("apply", "--yes", "--json", env=other).ok().json["steps"] == []
