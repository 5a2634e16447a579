"""Is the cluster whole? Each broken Cluster is built with real servers, found, mended as the finding says, and fine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.live.deployments import clustered
from tests.live.doctor import doctor
from tests.live.fleets import Fleet, cluster_nodes, fleet, my_id, of_a_file
from tests.live.servers import Binary, Server, available, free_port, running, until

pytestmark = pytest.mark.live

#: Where the engine makes no difference.
one_cluster = pytest.mark.parametrize("cluster", available()[:1], indirect=True, ids=str)

FAMILY = ("slots", "epoch", "node-", "foreign")


@pytest.fixture(scope="module", params=available(), ids=str)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three primaries and a replica of the first. Each test leaves it as it was."""
    with fleet(request.param, tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def one() -> Binary:
    """Where the engine makes no difference."""
    return available()[0]


def whole(*servers: Server) -> bool:
    return not [f for f in doctor(*servers).findings if f.rule.startswith(FAMILY)]


def test_healthy(cluster: Fleet) -> None:
    assert whole(cluster.replica), doctor(cluster.replica).told


def test_slots_uncovered(cluster: Fleet) -> None:
    cluster.tell("CLUSTER", "DELSLOTS", 7, 8, 100)
    found = doctor(cluster.replica).only("slots-uncovered")
    assert found.severity == "error"
    assert found.subject == "slots 7-8, 100"
    assert "3 of 16384 slots have no owner (CLUSTER NODES of all 4 nodes)" in found.evidence
    command, _, _ = found.fix.partition(" (")
    if shutil.which("redis-cli"):
        subprocess.run(shlex.split(command), input=b"yes\n", check=True, capture_output=True, timeout=60)
    else:
        cluster.primaries[0].client().execute_command("CLUSTER", "ADDSLOTS", 7, 8, 100)
    until(lambda: whole(cluster.replica), seconds=30)


def test_slots_open(cluster: Fleet) -> None:
    a, b, _ = cluster.primaries
    a.client().execute_command("CLUSTER", "SETSLOT", 20, "MIGRATING", my_id(b))
    a.client().execute_command("CLUSTER", "SETSLOT", 21, "MIGRATING", my_id(b))
    b.client().execute_command("CLUSTER", "SETSLOT", 20, "IMPORTING", my_id(a))
    found = doctor(cluster.replica).only("slots-open")
    assert found.severity == "error"
    assert found.subject == "slots 20-21"
    assert f"slots 20-21 migrating at 127.0.0.1:{a.port}" in found.evidence
    assert f"slot 20 importing at 127.0.0.1:{b.port} (CLUSTER NODES)" in found.evidence
    assert "CLUSTER SETSLOT 20 STABLE" in found.fix
    for server, slot in ((a, 20), (a, 21), (b, 20)):
        server.client().execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
    assert whole(cluster.replica)


def test_slots_disputed(cluster: Fleet) -> None:
    """Somebody said SETSLOT NODE on one node only."""
    a, b, c = cluster.primaries
    a.client().execute_command("CLUSTER", "SETSLOT", 30, "NODE", my_id(b))
    found = until(lambda: doctor(cluster.replica).of("slots-disputed"))[0]
    assert found.severity == "error"
    assert found.subject == "slot 30"
    told = {
        part.split(" owns")[0]: part for part in found.evidence.removesuffix(" (CLUSTER NODES)").split("; ")
    }
    assert set(told) == {f"127.0.0.1:{s.port}" for s in (a, b)}
    assert (
        f"127.0.0.1:{a.port}" in told[f"127.0.0.1:{b.port}"]
    )  # where it was said; Valkey tells its replica as well
    owner = found.fix.split("CLUSTER SETSLOT 30 NODE ")[1].split(",")[0]
    winner = next(s for s in (a, b) if my_id(s) == owner)
    assert f"-p {winner.port} CLUSTER BUMPEPOCH" in found.fix
    for server in (winner, *(s for s in (a, b, c) if s is not winner)):
        server.client().execute_command("CLUSTER", "SETSLOT", 30, "NODE", owner)
    winner.client().execute_command("CLUSTER", "BUMPEPOCH")
    until(lambda: whole(cluster.replica), seconds=30)


@one_cluster
def test_slots_unbalanced(cluster: Fleet) -> None:
    _, b, c = cluster.primaries
    assert not doctor(cluster.replica).of("slots-unbalanced")
    move(cluster, c, b, range(11_000, 12_200))
    finding = doctor(cluster.replica).only("slots-unbalanced")
    assert finding.severity == "info"
    assert re.search(rf"127\.0\.0\.1:{b.port} 66\d\d", finding.evidence)
    assert "the average of those that serve any is 5461" in finding.evidence
    assert "--cluster rebalance" in finding.fix
    move(cluster, b, c, range(11_000, 12_200))
    assert not doctor(cluster.replica).of("slots-unbalanced")


def move(cluster: Fleet, source: Server, target: Server, slots: range) -> None:
    """Slots without keys, as any tool moves them; all slots in one step after the other."""
    old, new = my_id(source), my_id(target)
    steps = (
        (target, "IMPORTING", old),
        (source, "MIGRATING", new),
        (target, "NODE", new),
        (source, "NODE", new),
    )
    for server, *state in steps:
        pipe = server.client(socket_timeout=30).pipeline(transaction=False)
        for slot in slots:
            pipe.execute_command("CLUSTER", "SETSLOT", slot, *state)
        pipe.execute()
    until(lambda: not doctor(cluster.replica).of("slots-disputed"), seconds=30)


@one_cluster
def test_node_failing(cluster: Fleet) -> None:
    """A primary without a replica dies, and comes back."""
    _, b, _ = cluster.primaries
    b.process.kill()
    b.process.wait(5)
    until(lambda: "fail" in marks(cluster, b), seconds=30)
    until(lambda: len(doctor(cluster.replica).of("node-failing")) == 1, seconds=30)
    told = doctor(cluster.replica)
    found = told.only("node-failing")
    assert found.severity == "error"
    assert found.subject.startswith(f"127.0.0.1:{b.port} (")
    assert "marked fail by" in found.evidence
    assert "CLUSTER FORGET" in found.fix
    lost = told.only("slots-uncovered")
    assert f"their owner 127.0.0.1:{b.port} (" in lost.evidence
    assert "is marked fail (CLUSTER NODES)" in lost.evidence
    text = "cluster-enabled yes\ncluster-node-timeout 1000\n"
    with running(b.binary, b.folder, text, port=b.port):
        until(lambda: whole(cluster.replica), seconds=30)
    until(lambda: doctor(cluster.replica).of("node-failing"), seconds=30)


def marks(cluster: Fleet, server: Server) -> set[str]:
    """The flags that the replica shows of that node."""
    lines = cluster_nodes(cluster.replica)
    return {mark for words in lines if f":{server.port}@" in words[1] for mark in words[2].split(",")}


def test_node_stale_where_one_was_forgotten_by_some(one: Binary, tmp_path: Path) -> None:
    with fleet(one, tmp_path) as cluster:
        a, b, c = cluster.primaries
        c.client().execute_command("CLUSTER", "FLUSHSLOTS")
        a.client().execute_command("CLUSTER", "FORGET", my_id(c))
        found = doctor(b).only("node-stale")
        assert found.severity == "warning"
        assert found.subject == f"127.0.0.1:{c.port}"
        assert f"not known to 127.0.0.1:{a.port}, known to others of 4 (CLUSTER NODES)" in found.evidence
        command, _, meet = found.fix.partition("CLUSTER ")
        assert f"-p {a.port} " in command
        a.client().execute_command("CLUSTER", *meet.split())
        until(lambda: not doctor(b).of("node-stale"), seconds=30)

        nowhere = free_port()
        a.client().execute_command("CLUSTER", "MEET", "127.0.0.1", nowhere)
        found = doctor(b).only("node-stale")
        assert found.subject == f"127.0.0.1:{nowhere}"
        assert f"in handshake for 127.0.0.1:{a.port} (CLUSTER NODES)" in found.evidence
        with running(one, tmp_path / "late", "cluster-enabled yes\n", port=nowhere):
            until(
                lambda: not [f for f in doctor(b).of("node-stale") if "handshake" in f.evidence], seconds=30
            )


def line(node: str, server_port: int, bus: int, flags: str, epoch: int, slots: str) -> str:
    return f"{node} 127.0.0.1:{server_port}@{bus} {flags} - 0 0 {epoch} connected {slots}\n"


@contextmanager
def colliding(binary: Binary, folder: Path) -> Iterator[tuple[Server, Server]]:
    """Two primaries with one config epoch, who do not hear each other: each has a wrong bus port of the other."""
    ids, ports, dead = ("a" * 40, "b" * 40), (free_port(), free_port()), free_port()
    shares = ("0-8191", "8192-16383")
    with ExitStack() as stack:
        servers = []
        for i, other in ((0, 1), (1, 0)):
            there = folder / ids[i][0]
            there.mkdir(parents=True)
            mine = line(ids[i], ports[i], ports[i] + 10_000, "myself,master", 5, shares[i])
            its = line(ids[other], ports[other], dead, "master", 5, shares[other])
            (there / "nodes.conf").write_text(f"{mine}{its}vars currentEpoch 5 lastVoteEpoch 0\n")
            text = "cluster-enabled yes\ncluster-node-timeout 60000\n"
            servers.append(stack.enter_context(running(binary, there, text, port=ports[i])))
        yield servers[0], servers[1]


def test_epoch_collision(one: Binary, tmp_path: Path) -> None:
    with colliding(one, tmp_path) as (a, b):
        found = doctor(a).only("epoch-collision")
        assert found.severity == "error"
        assert f"127.0.0.1:{a.port}, 127.0.0.1:{b.port}" == found.subject
        assert "config epoch 5 at each of 2 primaries" in found.evidence
        assert f"-p {b.port} CLUSTER BUMPEPOCH" in found.fix
        # they reach each other's bus again, and settle it themselves
        a.client().execute_command("CLUSTER", "MEET", "127.0.0.1", b.port)
        until(lambda: not doctor(a).of("epoch-collision"), seconds=30)


def test_foreign_node_with_a_copied_file(one: Binary, tmp_path: Path) -> None:
    with clustered(one, tmp_path) as (a, b):
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copy(a.folder / "nodes.conf", copy)
        text = "cluster-enabled yes\n"
        with running(one, copy, text) as twin:
            found = doctor(a, b, twin).only("foreign-node")
            assert found.severity == "error"
            assert found.subject == f"127.0.0.1:{a.port}, 127.0.0.1:{twin.port}"
            assert (
                f"the same node ID {my_id(a)[:12]} (CLUSTER NODES) with different run IDs" in found.evidence
            )
            assert f"add-node 127.0.0.1:{twin.port} 127.0.0.1:{a.port}" in found.fix
            port = twin.port
        (copy / "nodes.conf").unlink()
        with running(one, copy, text, port=port) as fresh:
            fresh.client().execute_command("CLUSTER", "MEET", "127.0.0.1", b.port)
            until(lambda: len(cluster_nodes(fresh)) == 3)
            assert not doctor(a, b, fresh).of("foreign-node")


def test_foreign_node_that_lost_its_file(one: Binary, tmp_path: Path) -> None:
    """It comes back without its nodes.conf, and with another bus: nobody, at the address where somebody is expected."""
    with clustered(one, tmp_path) as (a, b):
        expected = my_id(b)
        b.process.kill()
        b.process.wait(5)
        (b.folder / "nodes.conf").unlink()
        text = f"cluster-enabled yes\ncluster-port {free_port()}\n"
        with running(one, b.folder, text, port=b.port) as fresh:
            found = doctor(a).only("foreign-node")
            assert found.severity == "error"
            assert found.subject == f"127.0.0.1:{b.port}"
            assert f"its node ID is {my_id(fresh)[:12]} (CLUSTER NODES)" in found.evidence
            assert f"expect {expected[:12]}; it knows nobody" in found.evidence
            assert f"-p {b.port} CLUSTER MEET 127.0.0.1 {a.port}" in found.fix
            fresh.client().execute_command("CLUSTER", "MEET", "127.0.0.1", a.port)
            until(lambda: not doctor(a).of("foreign-node"), seconds=30)


def test_foreign_node_that_the_file_does_not_name(one: Binary, tmp_path: Path) -> None:
    with (
        clustered(one, tmp_path) as (a, b),
        running(one, tmp_path / "c", "cluster-enabled yes\n") as stranger,
    ):
        own = (a, b)
        stranger.client().execute_command("CLUSTER", "MEET", "127.0.0.1", a.port)
        until(lambda: all(len(cluster_nodes(s)) == 3 for s in own))
        until(lambda: all("handshake" not in str(cluster_nodes(s)) for s in own))
        (found,) = (f for f in of_a_file(own) if f.rule == "foreign-node")
        assert found.severity == "error"
        assert found.subject == f"127.0.0.1:{stranger.port} ({my_id(stranger)[:8]})"
        assert "and not in the deployment file" in found.evidence
        assert f"CLUSTER FORGET {my_id(stranger)}" in found.fix
        for server in own:
            server.client().execute_command("CLUSTER", "FORGET", my_id(stranger))
        assert "foreign-node" not in {f.rule for f in of_a_file(own)}
