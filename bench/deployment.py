"""How long a 3+3 Cluster takes to deploy over SSH, and to deploy again unchanged: Redkeep against Ansible.

Six hosts of the test lab (Debian 12 with Redis 7.0 installed, behind NAT in two clouds), the same target on both sides,
whole processes from their cold start. Sides alternate, so that other load on the machine meets both alike. Needs root.

    python bench/deployment.py                 first and unchanged runs of both
    python bench/deployment.py --rtt 40        with 40 ms of round trip between operator and hosts
    python bench/deployment.py --only redkeep --tls
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab

HOSTS = ("a11", "a12", "a13", "b14", "b15", "b16")
PLAYBOOK = Path(__file__).with_name("playbook")
ANSIBLE = "ansible-core>=2.16"
#: Seconds: first run, unchanged run.
GOALS = (4.5, 0.5)

#: Both sides' traces on a host, and the distribution's own server, which would hold the port.
RESET = (
    "systemctl disable --now -q redis-server 'redkeep-*' shop-6379 2>/dev/null; "
    "for u in /etc/systemd/system/redkeep-*.service /etc/systemd/system/shop-*.service; do "
    '[ -e "$u" ] && systemctl disable --now -q "${u##*/}"; done; '
    "rm -rf /etc/systemd/system/redkeep-* /etc/systemd/system/shop-* /etc/systemd/system/*.wants/redkeep-* "
    "/var/lib/redkeep /var/lib/shop /etc/sysctl.d/90-* /etc/tmpfiles.d/redkeep.conf /etc/tmpfiles.d/shop.conf; "
    "userdel redkeep 2>/dev/null; userdel shop 2>/dev/null; echo 0 >/proc/sys/vm/overcommit_memory; "
    "systemctl daemon-reload; systemctl reset-failed; true"
)


@dataclass
class Side:
    """A way to deploy: its command, and what it took (seconds)."""

    name: str
    command: Callable[[], Sequence[str]]
    folder: Path
    nothing_done: str
    password: Callable[[], str]
    environment: dict[str, str] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)

    def run(self, lab: Lab, *, unchanged: bool = False) -> float:
        """Seconds. A run that should change nothing and does is a mistake of the benchmark."""
        begun = time.monotonic()
        done = lab.run(self.command(), cwd=self.folder, env={**os.environ, **self.environment}, timeout=300)
        seconds = time.monotonic() - begun
        if done.returncode:
            raise SystemExit(f"{self.name} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        if unchanged and self.nothing_done not in done.stdout:
            raise SystemExit(f"{self.name} changed something:\n{done.stdout[-3000:]}")
        return seconds


def redkeep(lab: Lab, folder: Path, *, tls: bool) -> Side:
    folder.mkdir()
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    shutil.copy(lab.ssh.key, home / ".ssh/id_ed25519")
    shutil.copy(lab.ssh.known_hosts, home / ".ssh/known_hosts")
    hosts = "".join(
        f"  - {{name: {h.name}, ssh: {h.ssh}, private: {h.private}, public: {h.public}, zone: {h.cloud}/{h.name}}}\n"
        for h in lab.hosts.values()
    )
    (folder / "redkeep.yaml").write_text(
        "name: shop\nmode: cluster\nengine: {flavor: redis, source: package}\nshards: 3\nreplicas: 1\n"
        f"clients: public\nfailover: fast\ntls: {'true' if tls else 'false'}\naccept_risk: true\nhosts:\n{hosts}"
    )

    def password() -> str:
        made = json.loads((folder / ".redkeep/shop/secrets.json").read_text())["passwords"]
        return str(made["admin"])

    program = str(Path(sys.executable).with_name("redkeep"))
    return Side(
        "redkeep", lambda: [program, "apply", "--yes"], folder, "nothing to do", password, {"HOME": str(home)}
    )


def ansible(lab: Lab, folder: Path, program: Path) -> Side:
    folder.mkdir()
    shutil.copytree(PLAYBOOK, folder, dirs_exist_ok=True)
    lines = "".join(f"{h.name} ansible_host={h.public} private={h.private}\n" for h in lab.hosts.values())
    (folder / "hosts.ini").write_text(
        f"[redis]\n{lines}[redis:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\n"
        "app_password=app-password\nadmin_password=admin-password\nreplication_password=replication-password\n"
    )
    (folder / "ansible.cfg").write_text(
        "[defaults]\ninventory = hosts.ini\nforks = 6\n[ssh_connection]\npipelining = True\n"
        f"ssh_args = -F {lab.ssh.config} -o ControlMaster=auto -o ControlPersist=60s\n"
    )
    environment = {
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": tempfile.mkdtemp(prefix="cp-"),
    }
    return Side(
        "ansible",
        lambda: [str(program), "site.yml"],
        folder,
        "unchanged: yes",
        lambda: "admin-password",
        environment,
    )


def ansible_program() -> Path:
    """ansible-playbook from a virtual environment of its own, made on first use and kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "redkeep-bench/ansible"
    program = cache / "bin/ansible-playbook"
    if not program.exists():
        print(f"installing {ANSIBLE} into {cache}")
        venv.create(cache, with_pip=True, clear=True)
        subprocess.run([cache / "bin/pip", "install", "--quiet", ANSIBLE], check=True)
    return program


def reset(lab: Lab, folder: Path) -> None:
    """All hosts, and what Redkeep keeps beside its file, as if nothing had ever been deployed."""
    shutil.rmtree(folder / ".redkeep", ignore_errors=True)
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(lambda name: lab.exec(name, RESET, check=False), lab.hosts))
    time.sleep(1)


def check(lab: Lab, side: Side, *, tls: bool) -> None:
    """Six nodes that say ok, three of them replicas in sync; tells by how much a side was done before that was true."""
    encrypted = "--tls --cacert /var/lib/redkeep/shop/tls/ca.crt" if tls else ""
    ask = f"redis-cli -h 127.0.0.1 {encrypted} --user redkeep --pass '{side.password()}' --no-auth-warning"
    begun = time.monotonic()
    while True:
        told = [
            lab.exec(name, f"{ask} cluster info; {ask} role; {ask} cluster nodes", check=False).stdout
            for name in lab.hosts
        ]
        well = all("cluster_state:ok" in t and "cluster_slots_assigned:16384" in t for t in told)
        linked = sum("slave" in t and "\nconnected\n" in t for t in told)
        waited = time.monotonic() - begun
        if well and linked == len(lab.hosts) // 2 and all(t.count("@16379") == len(lab.hosts) for t in told):
            break
        if waited > 60:
            raise SystemExit(f"{side.name}: this is no Cluster of six:\n{told[0]}")
        time.sleep(0.1)
    if waited > 2:
        print(f"{side.name} was done {waited:.1f} s before the Cluster was")


def measure(lab: Lab, sides: Sequence[Side], *, rounds: int, again: int, tls: bool) -> None:
    for number in range(rounds):
        for side in sides:
            reset(lab, side.folder)
            side.first.append(side.run(lab))
            check(lab, side, tls=tls)
            side.unchanged += [side.run(lab, unchanged=True) for _ in range(again)]
            print(
                f"round {number + 1}  {side.name:8} first {side.first[-1]:6.2f} s   unchanged "
                + " ".join(f"{s:.2f}" for s in side.unchanged[-again:]),
                flush=True,
            )


def report(sides: Sequence[Side]) -> bool:
    median = statistics.median
    for side in sides:
        print(f"{side.name:8} first {median(side.first):6.2f} s   unchanged {median(side.unchanged):6.2f} s")
    ours = sides[0]
    for other in sides[1:]:
        first = median(b / a for a, b in zip(ours.first, other.first, strict=True))
        print(
            f"{other.name} / {ours.name}   first {first:.1f}   "
            f"unchanged {median(other.unchanged) / median(ours.unchanged):.1f}"
        )
    print(f"goals    first {GOALS[0]:6.2f} s   unchanged {GOALS[1]:6.2f} s")
    return median(ours.first) <= GOALS[0] and median(ours.unchanged) <= GOALS[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", type=int, default=5, help="unchanged runs in a round")
    parser.add_argument("--rtt", type=float, default=0, help="milliseconds between operator and hosts")
    parser.add_argument("--only", choices=("redkeep",), help="leave out the other side")
    parser.add_argument("--tls", action="store_true", help="encrypt everything (our side only)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("not root: the lab's hosts cannot be started")
        return 0
    others = [] if arguments.only or arguments.tls else [ansible_program()]
    try:
        lab = Lab(dict.fromkeys(HOSTS, "bookworm"), layers=["redis"])
    except LabUnavailable as error:
        print(f"no lab here: {error}")
        return 0
    with lab, tempfile.TemporaryDirectory(prefix="redkeep-bench-") as name:
        folder = Path(name)
        sides = [
            redkeep(lab, folder / "redkeep", tls=arguments.tls),
            *(ansible(lab, folder / "ansible", program) for program in others),
        ]
        if arguments.rtt:
            lab.network.delay(arguments.rtt)
        before = os.getloadavg()[0]
        measure(lab, sides, rounds=arguments.rounds, again=arguments.again, tls=arguments.tls)
        fine = report(sides)
        print(
            f"load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores"
        )
    return 0 if fine or arguments.rtt or arguments.tls else 1


if __name__ == "__main__":
    sys.exit(main())
