"""Can clients get there? Each broken deployment is built with real servers, found, mended as the finding says."""

from __future__ import annotations

import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live.deployments import FOR_OTHERS, clustered, linked, replicated, watched
from tests.live.doctor import doctor
from tests.live.public import PUBLIC, in_public_network, needs_network
from tests.live.servers import Binary, Server, available, free_port, running, until

pytestmark = pytest.mark.live


@pytest.fixture(params=available(), ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


def test_announce_loopback(binary: Binary, tmp_path: Path) -> None:
    replica = "replica-announce-ip 127.0.0.1\n"
    with replicated(binary, tmp_path, primary=FOR_OTHERS, replicas=(replica,)) as (primary, other):
        found = doctor(primary).only("announce-loopback")
        assert found.severity == "error"
        assert f"127.0.0.1:{other.port}" in found.evidence
        assert "INFO replication" in found.evidence
        assert "replica-announce-ip" in found.fix
        other.client().config_set("replica-announce-ip", "203.0.113.7")
        primary.client().execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: primary.client().info("replication")["slave0"]["ip"] == "203.0.113.7")
        assert not doctor(primary).of("announce-loopback")


def test_announce_loopback_is_right_for_this_machine_alone(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, _):
        assert not doctor(primary).of("announce-loopback")


def test_announce_loopback_of_a_sentinel(binary: Binary, tmp_path: Path) -> None:
    with (
        running(binary, tmp_path / "p", FOR_OTHERS) as primary,
        watched(binary, tmp_path / "s", primary) as sentinel,
    ):
        found = doctor(f"sentinel://127.0.0.1:{sentinel.port}/shop").only("announce-loopback")
        assert f"SENTINEL GET-MASTER-ADDR-BY-NAME shop of 127.0.0.1:{sentinel.port}" in found.evidence
        assert "SENTINEL MONITOR shop" in found.fix
        commands = sentinel.client()
        commands.execute_command("SENTINEL", "REMOVE", "shop")
        commands.execute_command("SENTINEL", "MONITOR", "shop", "203.0.113.7", primary.port, 1)
        assert not doctor(f"sentinel://127.0.0.1:{sentinel.port}/shop", primary).of("announce-loopback")


def test_no_address_is_handed_out_on_purpose(binary: Binary, tmp_path: Path) -> None:
    """Clients behind a load balancer go on using the one that they came by; where a name is missing, they cannot."""
    kind = "cluster-preferred-endpoint-type"
    with clustered(binary, tmp_path, extra=f"{FOR_OTHERS}{kind} unknown-endpoint\n") as (a, b):
        told = doctor(a)
        assert not told.of("announce-loopback") + told.of("announce-unroutable"), told.told
        for server in (a, b):
            server.client().config_set(kind, "hostname")
        assert doctor(a).of("announce-loopback")


def test_announce_unroutable(binary: Binary, tmp_path: Path) -> None:
    with clustered(binary, tmp_path) as (a, b):
        assert not doctor(a).of("announce-unroutable")
        nowhere = free_port()
        announce(b, "cluster-announce-port", nowhere)
        until(lambda: str(nowhere) in str(a.client().execute_command("CLUSTER", "SLOTS")))
        found = doctor(a, b).only("announce-unroutable")
        assert f"127.0.0.1:{nowhere} (CLUSTER SLOTS of" in found.evidence
        assert "connection refused" in found.evidence
        announce(b, "cluster-announce-port", 0)
        until(lambda: str(nowhere) not in str(a.client().execute_command("CLUSTER", "SLOTS")))
        assert not doctor(a, b).of("announce-unroutable")


def test_announce_unroutable_where_another_server_answers(binary: Binary, tmp_path: Path) -> None:
    with clustered(binary, tmp_path) as (a, b), running(binary, tmp_path / "c") as stranger:
        announce(b, "cluster-announce-port", stranger.port)
        until(lambda: str(stranger.port) in str(a.client().execute_command("CLUSTER", "SLOTS")))
        found = doctor(a, b).only("announce-unroutable")
        assert "another server answers there" in found.evidence
        assert stranger.client().info("server")["run_id"][:12] in found.evidence


def announce(server: Server, setting: str, value: int | str) -> None:
    server.client().config_set(setting, value)


def test_announce_differs(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, replica):
        assert not doctor(primary).of("announce-differs")
        replica.client().config_set("replica-announce-ip", "127.0.0.2")
        found = doctor(primary).only("announce-differs")
        assert found.severity == "warning"
        assert "replica-announce-ip is 127.0.0.2" in found.evidence
        assert f"127.0.0.1:{replica.port}" in found.evidence
        primary.client().execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: primary.client().info("replication").get("slave0", {}).get("ip") == "127.0.0.2")
        assert not doctor(primary).of("announce-differs")


def test_bus_unreachable(binary: Binary, tmp_path: Path) -> None:
    with clustered(binary, tmp_path) as (a, b):
        assert not doctor(a).of("bus-unreachable")
        announce(b, "cluster-announce-bus-port", free_port())
        until(lambda: "disconnected" in a.client().execute_command("CLUSTER", "NODES").__str__())
        found = doctor(a).only("bus-unreachable")
        assert "link disconnected in its CLUSTER NODES" in found.evidence
        assert found.subject == f"127.0.0.1:{b.port}"
        announce(b, "cluster-announce-bus-port", 0)
        until(lambda: not doctor(a).of("bus-unreachable"), seconds=30)


def test_sentinel_ghost(binary: Binary, tmp_path: Path) -> None:
    with (
        replicated(binary, tmp_path) as (primary, replica),
        watched(binary, tmp_path / "s", primary) as sentinel,
    ):
        target = f"sentinel://127.0.0.1:{sentinel.port}/shop"
        until(lambda: sentinel.client().sentinel_slaves("shop"), seconds=30, what="the replica is known")
        assert not doctor(target).of("sentinel-ghost")
        replica.process.kill()
        replica.process.wait(5)
        until(lambda: sentinel.client().sentinel_slaves("shop")[0]["is_sdown"], seconds=30)
        found = doctor(target).only("sentinel-ghost")
        assert found.subject == f"replica 127.0.0.1:{replica.port}"
        assert "gone" in found.evidence
        assert "SENTINEL REPLICAS shop" in found.evidence
        assert f"-p {sentinel.port} SENTINEL RESET shop" in found.fix
        sentinel.client().execute_command("SENTINEL", "RESET", "shop")
        assert not doctor(target).of("sentinel-ghost")


def test_announce_shared(binary: Binary, tmp_path: Path) -> None:
    same = f"replica-announce-ip 127.0.0.1\nreplica-announce-port {free_port()}\n"
    with replicated(binary, tmp_path, replicas=(same, same)) as (primary, first, _):
        found = doctor(primary).only("announce-shared")
        assert found.severity == "error"
        assert "lists it twice" in found.evidence
        first.client().config_set("replica-announce-port", first.port)
        primary.client().execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: ports(primary) >= {first.port} and len(ports(primary)) == 2)
        assert not doctor(primary).of("announce-shared")


def ports(primary: Server) -> set[int]:
    info: dict[str, Any] = primary.client().info("replication")
    return {v["port"] for k, v in info.items() if k.startswith("slave") and isinstance(v, dict)}


def test_keepalive_off(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path, "tcp-keepalive 0\n") as server:
        found = doctor(server).only("keepalive-off")
        assert "tcp-keepalive 0" in found.evidence
        assert f"-p {server.port} CONFIG SET tcp-keepalive 60" in found.fix
        server.client().config_set("tcp-keepalive", 60)
        assert not doctor(server).of("keepalive-off")


def test_wrong_primary_in_a_chain(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path, replicas=("", "")) as (primary, first, second):
        assert not doctor(primary).of("wrong-primary")
        second.client().replicaof("127.0.0.1", first.port)
        until(partial(linked, second))
        found = doctor(primary, second).only("wrong-primary")
        assert found.subject == f"127.0.0.1:{second.port}"
        names = " -> ".join(f"127.0.0.1:{s.port}" for s in (second, first, primary))
        assert f"follows a replica: {names}" in found.evidence
        assert f"REPLICAOF 127.0.0.1 {primary.port}" in found.fix
        second.client().replicaof("127.0.0.1", primary.port)
        until(partial(linked, second))
        assert not doctor(primary, second).of("wrong-primary")


def test_wrong_primary_in_a_loop(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, replica):
        primary.client().replicaof("127.0.0.1", replica.port)
        found = doctor(primary).of("wrong-primary")
        assert len(found) == 2
        assert all("in a loop" in f.evidence for f in found)
        primary.client().replicaof("NO", "ONE")
        until(partial(linked, replica), seconds=30)
        assert not doctor(primary).of("wrong-primary")


def test_wrong_primary_by_what_sentinels_watch(binary: Binary, tmp_path: Path) -> None:
    with (
        running(binary, tmp_path / "right") as right,
        replicated(binary, tmp_path / "wrong") as (wrong, replica),
        watched(binary, tmp_path / "s", right) as sentinel,
    ):
        targets = (f"sentinel://127.0.0.1:{sentinel.port}/shop", f"127.0.0.1:{replica.port}")
        found = doctor(*targets).only("wrong-primary")
        assert f"follows 127.0.0.1:{wrong.port}" in found.evidence
        assert f"Sentinels watch 127.0.0.1:{right.port}" in found.evidence
        replica.client().replicaof("127.0.0.1", right.port)
        until(partial(linked, replica))
        assert not doctor(*targets).of("wrong-primary")


def test_wrong_primary_that_should_be_a_replica(binary: Binary, tmp_path: Path) -> None:
    """Sentinels take some seconds until they make it follow again, and longer where they are refused there."""
    with (
        replicated(binary, tmp_path) as (primary, replica),
        watched(binary, tmp_path / "s", primary) as sentinel,
    ):
        commands = sentinel.client()
        until(lambda: commands.execute_command("SENTINEL", "REPLICAS", "shop"), what="the replica")
        target = f"sentinel://127.0.0.1:{sentinel.port}/shop"
        assert not doctor(target).of("wrong-primary")
        replica.client().replicaof("NO", "ONE")
        found = doctor(target).only("wrong-primary")
        assert found.subject == f"127.0.0.1:{replica.port}"
        assert f"as a replica of shop at 127.0.0.1:{primary.port} (SENTINEL REPLICAS)" in found.evidence
        assert f"REPLICAOF 127.0.0.1 {primary.port}" in found.fix
        replica.client().replicaof("127.0.0.1", primary.port)
        until(partial(linked, replica))
        assert not doctor(target).of("wrong-primary")


def test_a_name_for_loopback_is_this_machine_alone(binary: Binary, tmp_path: Path) -> None:
    """Debian has 127.0.1.1 for the machine's own name. The number is another name, which is known everywhere."""
    name = str(int.from_bytes(socket.inet_aton("127.0.0.1")))
    with replicated(binary, tmp_path) as (primary, _):
        told = doctor(f"{name}:{primary.port}")
        assert told.checked.servers == 2
        assert not told.of("no-password") + told.of("announce-loopback") + told.of("public-exposure"), (
            told.told
        )


@needs_network
def test_a_name_for_a_public_address(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        name = str(int.from_bytes(socket.inet_aton(PUBLIC)))
        with running(binary, tmp_path, f"bind 127.0.0.1 {PUBLIC}\nprotected-mode no\n") as server:
            assert doctor(f"{name}:{server.port}").only("public-exposure").subject == f"{name}:{server.port}"

    in_public_network(body)


def test_a_node_that_hangs(binary: Binary, tmp_path: Path) -> None:
    """Its port takes connections, and clients that are sent there wait. That is no sign of an intrusion."""
    with clustered(binary, tmp_path, extra="cluster-node-timeout 60000\n") as (one, other):
        other.process.send_signal(signal.SIGSTOP)
        try:
            told = doctor(one)
            found = told.only("announce-unroutable")
            assert f"127.0.0.1:{other.port}" in found.subject
            assert "from here: it accepts connections and says nothing" in found.evidence
            assert "look at its process" in found.fix
            assert not told.of("signs-of-intrusion")
        finally:
            other.process.send_signal(signal.SIGCONT)
        until(lambda: not doctor(one).of("announce-unroutable"), seconds=60)


@needs_network
def test_loopback_handed_out_to_the_internet(binary: Binary, tmp_path: Path) -> None:
    """Seen from another machine: loopback there is not ours, and is not visited."""

    def body() -> None:
        text = f"bind 127.0.0.1 {PUBLIC}\nprotected-mode no\n"
        replica = "replica-announce-ip 127.0.0.1\n"
        with replicated(binary, tmp_path, primary=text, replicas=(replica,)) as (primary, other):
            found = doctor(f"{PUBLIC}:{primary.port}").only("announce-loopback")
            assert f"127.0.0.1:{other.port}" in found.evidence

    in_public_network(body)
