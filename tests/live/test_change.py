"""A changed file: the smallest change that makes it true, on a Cluster of six on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from redkeep.model.slots import key_slot
from tests.cli import Redkeep
from tests.ports import free_block

from .servers import until

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

FILE = "name: changed-{port}\nmode: cluster\nhosts: [local]\nport: {port}\nfailover: fast\n"


class Cluster:
    """The deployment, and its servers as administration sees them."""

    def __init__(self, folder: Path) -> None:
        self.port = free_block(6)
        self.run = Redkeep(folder, environment={"HOME": str(folder)})
        self.write("")

    def write(self, more: str) -> None:
        self.run.write(FILE.format(port=self.port) + more)

    def apply(self) -> list[dict[str, Any]]:
        """The steps that were done."""
        applied = self.run("apply", "--yes", "--json").ok().json
        assert applied["verified"]["ok"], applied
        return list(applied["steps"])

    def status(self) -> list[dict[str, Any]]:
        return list(self.run("status", "--json").ok().json["nodes"])

    def admin(self, port: int) -> Any:
        password = self.run("url", "--user", "admin", "--reveal", "--json").ok().json["password"]
        return Redis(port=port, username="redkeep", password=password, decode_responses=True)

    def all(self) -> list[Any]:
        return [self.admin(self.port + i) for i in range(6)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("changed"))
    try:
        found.apply()
        yield found
    finally:
        found.run("destroy", "--yes", "--delete-data").ok()


def run_ids(cluster: Cluster) -> list[str]:
    return [server.info("server")["run_id"] for server in cluster.all()]


def test_a_setting_that_the_engine_can_change_restarts_nothing(cluster: Cluster) -> None:
    before = run_ids(cluster)
    cluster.write("maxmemory: 64MiB\neviction: allkeys-lru\n")
    steps = cluster.apply()
    assert {s["action"] for s in steps} == {"write-files", "set"}
    assert run_ids(cluster) == before
    assert {s.config_get("maxmemory")["maxmemory"] for s in cluster.all()} == {str(64 * 1024**2)}
    assert cluster.apply() == []


def test_what_somebody_set_by_hand_is_set_back(cluster: Cluster) -> None:
    server = cluster.admin(cluster.port)
    server.config_set("cluster-node-timeout", 60000)
    server.execute_command("ACL", "SETUSER", "default", "+flushall")
    server.execute_command("ACL", "SETUSER", "stranger", "on", "nopass", "+@all", "~*")
    steps = cluster.apply()
    assert sorted(s["action"] for s in steps) == ["set", "set-users"]
    assert server.config_get("cluster-node-timeout")["cluster-node-timeout"] == "2000"
    assert "stranger" not in server.execute_command("ACL", "USERS")
    assert cluster.apply() == []


def test_a_setting_that_needs_a_start_restarts_replicas_first_and_loses_nothing(cluster: Cluster) -> None:
    app = cluster.run("url", "--reveal", "--json").ok().json["password"]
    owner = Redis(port=cluster.port, password=app, decode_responses=True)
    tag = next(str(i) for i in range(100_000) if key_slot(str(i).encode()) <= 5460)  # the first third
    for i in range(200):
        owner.set(f"{{{tag}}}:{i}", i)
    before = run_ids(cluster)
    roles = {n["name"]: n["role"] for n in cluster.status()}
    cluster.write("maxmemory: 64MiB\neviction: allkeys-lru\nsettings: {tcp-backlog: 256}\n")
    steps = [s for s in cluster.apply() if s["action"] == "restart"]
    assert len(steps) == 6
    assert [roles[s["node"]] for s in steps] == ["replica", "primary"] * 3
    assert not set(before) & set(run_ids(cluster))
    assert {s.config_get("tcp-backlog")["tcp-backlog"] for s in cluster.all()} == {"256"}
    kept = [server for server in cluster.all() if _serves(server, tag)]
    assert [kept[0].get(f"{{{tag}}}:{i}") for i in range(200)] == [str(i) for i in range(200)]
    assert cluster.apply() == []


def test_after_a_failover_there_is_nothing_to_do(cluster: Cluster) -> None:
    replica = next(n for n in cluster.status() if n["role"] == "replica")
    server = cluster.admin(int(replica["name"].partition(":")[2]))
    server.execute_command("CLUSTER", "FAILOVER")
    deadline = time.monotonic() + 30
    while server.info("replication")["role"] != "master":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert cluster.apply() == []


def test_a_shard_without_its_replica_is_not_called_well(cluster: Cluster) -> None:
    """A replica follows another shard's primary: every node is up, every slot is served, and one shard is alone."""

    def state() -> str:
        return str(cluster.run("status", "--json").ok().json["state"])

    nodes = cluster.status()
    ids = {n["name"]: cluster.admin(int(n["name"].partition(":")[2])).cluster("MYID") for n in nodes}
    replica = next(n for n in nodes if n["role"] == "replica")
    other = next(n for n in nodes if n["role"] == "primary" and n["name"] != replica["primary"])
    moved = cluster.admin(int(replica["name"].partition(":")[2]))
    for server in cluster.all():  # else the engine itself puts that right within seconds
        server.config_set("cluster-allow-replica-migration", "no")
    try:
        assert state() == "ok"
        moved.cluster("REPLICATE", ids[other["name"]])
        until(lambda: moved.info("replication")["master_link_status"] == "up", seconds=30)
        assert state() == "degraded"
    finally:
        moved.cluster("REPLICATE", ids[replica["primary"]])
        for server in cluster.all():
            server.config_set("cluster-allow-replica-migration", "yes")
    until(lambda: state() == "ok", seconds=30)


def test_a_file_with_its_keys_in_another_order_changes_nothing(cluster: Cluster) -> None:
    text = cluster.run.file.read_text()
    cluster.run.file.write_text("\n".join(reversed(text.splitlines())) + "\n")
    assert cluster.apply() == []


def test_a_server_that_died_with_its_supervisor_is_started_again(cluster: Cluster) -> None:
    victim = cluster.admin(cluster.port + 1)
    process = victim.info("server")["process_id"]
    folder = Path(victim.config_get("dir")["dir"])
    supervisor = int((folder / "supervisor.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    assert [s["action"] for s in cluster.apply()] == ["start"]


def _serves(server: Any, tag: str) -> bool:
    try:
        server.get(f"{{{tag}}}:0")
    except Exception:  # MOVED: another shard's
        return False
    return bool(server.info("replication")["role"] == "master")
