"""The file says another number, and ``apply`` makes it so while an application writes: nothing acknowledged is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.cli import Redkeep, remove_aside
from tests.ports import free_block
from tests.writing import access_of, writing

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]


class Deployed:
    """A deployment on this machine whose file is written anew."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.port = free_block(12)
        self.mode, self.name = mode, f"scale-{self.port}"
        self.run = Redkeep(folder, environment={"HOME": str(folder)})

    def write(self, **keys: Any) -> None:
        lines = [f"name: {self.name}", f"mode: {self.mode}", "hosts: [local]", f"port: {self.port}"]
        lines += [
            f"{k}: {v}" for k, v in ({"failover": "fast", "sentinel_port": self.port + 6} | keys).items()
        ]
        self.run.write("\n".join(lines) + "\n")

    def apply(self, **keys: Any) -> list[dict[str, Any]]:
        """The steps that were done; applied again, there is none."""
        self.write(**keys)
        applied = self.run("apply", "--yes", "--json").ok().json
        assert applied["verified"]["ok"], applied["verified"]
        assert self.run("apply", "--yes", "--json").ok().json["steps"] == []
        return list(applied["steps"])

    def nodes(self, role: str = "") -> dict[str, dict[str, Any]]:
        found = self.run("status", "--json").ok().json["nodes"]
        return {n["name"]: n for n in found if role in ("", n["role"])}

    def admin(self, name: str) -> Any:
        password = self.run("url", "--user", "admin", "--reveal", "--json").ok().json["password"]
        return Redis(
            port=int(name.partition(":")[2]), username="redkeep", password=password, decode_responses=True
        )

    def members(self) -> set[str]:
        """Addresses that anybody in the Cluster knows."""
        lines = [
            line
            for name in self.nodes()
            for line in str(self.admin(name).execute_command("CLUSTER", "NODES")).splitlines()
        ]
        return {line.split()[1].partition("@")[0] for line in lines}


def deployed(folder: Path, mode: str) -> Iterator[Deployed]:
    found = Deployed(folder, mode)
    try:
        found.apply()
        yield found
    finally:
        found.run("destroy", "--yes", "--delete-data").ok()
        remove_aside(found.name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    yield from deployed(tmp_path_factory.mktemp("cluster"), "cluster")


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Deployed]:
    yield from deployed(tmp_path, "sentinel")


def test_from_three_shards_to_four_and_back(cluster: Deployed) -> None:
    with writing(access_of(cluster.run)) as load:
        cluster.write(shards=4)
        plan = cluster.run("plan", "--json").ok().json
        moves = [s for s in plan["steps"] if s["action"] == "move-slots"]
        assert all("keys" in s["why"] and "new shard" in s["why"] for s in moves)
        assert plan["moves"]["slots"] == 4096
        steps = cluster.apply(shards=4)
        assert [s["action"] for s in steps].count("move-slots") == len(moves) == 3
        assert sorted(n["slots"] for n in cluster.nodes("primary").values()) == [4096] * 4
        assert {n["slots"] for n in cluster.nodes("replica").values()} == {0}
        steps = cluster.apply(shards=3)
    assert load.acknowledged > 500
    assert load.lost() == 0
    gone = {s["node"] for s in steps if s["action"] == "remove-node"}
    assert len(gone) == 2
    assert len(cluster.members()) == 6
    assert sorted(n["slots"] for n in cluster.nodes("primary").values()) == [5461, 5461, 5462]


def test_a_replica_more_and_a_replica_less(cluster: Deployed) -> None:
    with writing(access_of(cluster.run)) as load:
        steps = cluster.apply(replicas=2)
        assert not any(s["destructive"] for s in steps)
        assert len(cluster.nodes("replica")) == 6
        first = min(cluster.nodes("replica").values(), key=lambda n: n["name"])
        cluster.admin(first["name"]).execute_command("CLUSTER", "FAILOVER")
        steps = cluster.apply(replicas=1)
    assert load.lost() == 0
    removed = [s["node"] for s in steps if s["action"] == "remove-node"]
    assert len(removed) == 3
    assert first["name"] not in removed, "it had become the primary"
    assert len(cluster.members()) == 6


def test_sentinels_and_replicas_come_and_go(sentinel: Deployed) -> None:
    with writing(access_of(sentinel.run), lanes=1) as load:
        sentinel.apply(sentinels=5, replicas=3)
        assert {e["quorum"] for e in _entries(sentinel)} == {3}
        sentinel.apply(sentinels=3, replicas=1)
    assert load.lost() == 0
    entries = _entries(sentinel)
    assert len(entries) == 3
    assert {(e["quorum"], e["num-other-sentinels"], e["num-slaves"]) for e in entries} == {(2, 2, 1)}


def _entries(sentinel: Deployed) -> list[dict[str, Any]]:
    return [sentinel.admin(n).sentinel_master(sentinel.name) for n in sentinel.nodes("sentinel")]


@pytest.mark.long
def test_plain_replication_grows_and_shrinks(tmp_path: Path) -> None:
    for found in deployed(tmp_path, "standalone"):
        with writing(access_of(found.run), lanes=1) as load:
            found.apply(replicas=2)
            assert len(found.nodes("replica")) == 2
            found.apply(replicas=0)
        assert load.lost() == 0
        assert list(found.nodes()) == [f"local:{found.port}"]
