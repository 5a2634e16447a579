"""What a look finds on real servers: alone, as a Cluster's node, as a Sentinel, with few rights, and while loading."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redkeep.errors import NodeUnreachable, ReplyError
from redkeep.model.slots import SLOTS
from redkeep.model.topology import NodeView
from redkeep.wire.client import Client, Login, direct
from redkeep.wire.observe import observe
from tests.live.servers import Binary, Server, available, running, until

pytestmark = pytest.mark.live


@pytest.fixture(params=available(), ids=str, scope="module")
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


@pytest.fixture(scope="module")
def server(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(binary, tmp_path_factory.mktemp("alone"), "maxmemory 100mb\n") as found:
        yield found


async def look(server: Server, login: Login | None = None) -> NodeView:
    async with await Client.open(direct("127.0.0.1", server.port), where="here", login=login) as client:
        return await observe(client)


async def test_alone(server: Server) -> None:
    with server.client() as client:
        client.set("a", "1")
        client.set("b", "1")
    view = await look(server)
    assert (view.role, view.engine.flavor, view.engine.version) == (
        "primary",
        server.binary.engine.flavor,
        server.binary.engine.version,
    )
    assert (view.keys, view.primary, view.cluster, view.monitored, view.replicas) == (2, None, None, (), ())
    assert view.config["maxmemory"] == str(100 * 1024**2)
    assert view.config["port"] == str(server.port)
    assert len(view.run_id) == 40
    assert view.memory > 0
    assert [line.split()[1] for line in view.acl] == ["default"]


async def test_an_account_with_few_rights(server: Server) -> None:
    """What it may not read stays empty; without INFO there is no view at all."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "watcher", "on", ">pw", "+info", "+ping")
        client.execute_command("ACL", "SETUSER", "nobody", "on", ">pw", "+ping")
    view = await look(server, Login("watcher", "pw"))
    assert (view.role, view.engine.version) == ("primary", server.binary.engine.version)
    assert (view.config, view.acl, view.cluster, view.monitored) == ({}, (), None, ())
    with pytest.raises(ReplyError) as raised:
        await look(server, Login("nobody", "pw"))
    assert raised.value.code == "NOPERM"
    with pytest.raises(ReplyError) as raised:
        await look(server, Login("watcher", "wrong"))
    assert raised.value.code in ("WRONGPASS", "ERR")


async def test_a_primary_with_its_replica(binary: Binary, tmp_path: Path) -> None:
    with (
        running(binary, tmp_path / "one", "repl-diskless-sync-delay 0\n") as one,
        running(
            binary, tmp_path / "two", f"replicaof 127.0.0.1 {one.port}\nreplica-announce-ip 127.0.0.2\n"
        ) as two,
    ):
        with two.client() as client:
            await asyncio.to_thread(until, lambda: client.info("replication")["master_link_status"] == "up")
        with one.client() as client:
            await asyncio.to_thread(until, lambda: client.info("replication")["slave0"]["state"] == "online")
        primary, replica = await look(one), await look(two)
        assert (replica.role, str(replica.primary), replica.link_up) == (
            "replica",
            f"127.0.0.1:{one.port}",
            True,
        )
        assert [str(line.address) for line in primary.replicas] == [f"127.0.0.2:{two.port}"]
        assert primary.replicas[0].state == "online"


async def test_a_node_of_a_cluster(binary: Binary, tmp_path: Path) -> None:
    config = "cluster-enabled yes\ncluster-node-timeout 1000\n"
    with running(binary, tmp_path / "one", config) as one, running(binary, tmp_path / "two", config) as two:
        with one.client() as first, two.client() as second:
            first.execute_command("CLUSTER", "ADDSLOTS", *range(8000))
            second.execute_command("CLUSTER", "ADDSLOTS", *range(8000, SLOTS))
            second.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 7)
            lonely = await look(one)
            assert lonely.cluster is not None
            assert (lonely.cluster.slots_assigned, len(lonely.cluster.nodes)) == (8000, 1)
            first.execute_command("CLUSTER", "MEET", "127.0.0.1", two.port)
            await asyncio.to_thread(until, lambda: _serves_all(first))
            target = second.execute_command("CLUSTER", "MYID")
            first.execute_command("CLUSTER", "SETSLOT", 7, "MIGRATING", target)
        view = (await look(one)).cluster
        assert view is not None
        assert (view.state_ok, view.slots_assigned, view.current_epoch) == (True, SLOTS, 7)
        assert [str(r) for r in view.me.slots] == ["0-7999"]
        assert view.me.migrating == {7: target}
        other = view.by_id(target)
        assert other is not None
        assert (other.address.port, other.bus_port, other.config_epoch) == (two.port, two.port + 10000, 7)
        assert other.is_primary
        assert other.link_up


def _serves_all(client: Any) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    state = (
        info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.split() if ":" in line)
    )
    return bool(state["cluster_state"] == "ok" and int(state["cluster_slots_assigned"]) == SLOTS)


async def test_a_sentinel(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path / "one") as one:
        config = f"sentinel monitor shop 127.0.0.1 {one.port} 2\nsentinel down-after-milliseconds shop 1234\n"
        with running(binary, tmp_path / "watcher", config, sentinel=True) as watcher:
            view = await look(watcher)
    assert view.role == "sentinel"
    assert view.engine.version == binary.engine.version
    assert view.cluster is None
    (entry,) = view.monitored
    assert (entry.name, str(entry.address), entry.quorum) == ("shop", f"127.0.0.1:{one.port}", 2)
    assert entry.settings["down-after-milliseconds"] == "1234"
    assert "master" in entry.flags
    assert (entry.replicas, entry.sentinels) == ((), ())


async def test_a_server_that_loads_its_data_is_not_half_seen(binary: Binary, tmp_path: Path) -> None:
    """Where it answers INFO and refuses the rest, its place in a Cluster would look like none."""
    cluster = "cluster-enabled yes\n"
    with running(binary, tmp_path, cluster) as first, first.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS))
        await asyncio.to_thread(until, lambda: _serves_all(client))
        pipeline = client.pipeline(transaction=False)
        for number in range(3000):
            pipeline.set(f"key:{number}", "x" * 2000)
        pipeline.execute()
        client.save()
    # Microseconds for each key; the server looks up from its work every few hundred bytes.
    slowly = f"{cluster}key-load-delay 1000\nloading-process-events-interval-bytes 1024\n"
    with running(binary, tmp_path, slowly, port=first.port) as again:
        try:
            view = await look(again)
        except ReplyError as error:
            assert error.code == "LOADING"
            return
        # Valkey 9 answers everything that a look asks.
        assert view.info["loading"] == "1"
        assert view.cluster is not None
        assert view.cluster.me.slot_count == SLOTS


async def test_nobody_there(server: Server) -> None:
    with pytest.raises(NodeUnreachable) as raised:
        await Client.open(direct("127.0.0.1", 1), where="here")
    assert raised.value.refused
