"""A Cluster that ``redkeep apply`` made, with keys of every kind and a model of them, for tests of moving hash slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster

from redkeep.model.slots import SLOTS, key_slot
from tests.cli import Redkeep
from tests.ports import free_block

#: How a deployment file names the two engines that tests have.
ENGINES = {
    "redis-7.0": "{flavor: redis, source: package}",
    "valkey-9.1": "{flavor: valkey, source: bundled}",
}


@dataclass
class Cluster:
    """``primaries`` are ports; ``model`` is what every key should hold."""

    run: Redkeep
    first: int
    shards: int
    model: dict[str, Any] = field(default_factory=dict)
    admin_password: str = ""
    app_password: str = ""

    @property
    def ports(self) -> list[int]:
        return [self.first + i for i in range(self.shards)]

    def name(self, index: int) -> str:
        return f"local:{self.first + index}"

    def admin(self, index: int) -> Any:
        return Redis(
            port=self.first + index, username="redkeep", password=self.admin_password, decode_responses=True
        )

    def ids(self) -> list[str]:
        return [str(self.admin(i).execute_command("CLUSTER", "MYID")) for i in range(self.shards)]

    def client(self) -> Any:
        nodes: list[Any] = [
            ClusterNode(  # type: ignore[no-untyped-call]
                "127.0.0.1", port
            )
            for port in self.ports
        ]
        return RedisCluster(
            startup_nodes=nodes, password=self.app_password, decode_responses=True, socket_timeout=30
        )

    def fill(self, count: int) -> None:
        """Strings, with and without time to live, and one of each other kind for every tenth."""
        client = self.client()
        for n in range(count):
            self.model[f"s:{n}"] = str(n)
            client.set(f"s:{n}", n, ex=100_000 if n % 3 == 0 else None)
            if n % 10 == 0:
                client.hset(f"h:{n}", mapping={"a": n, "b": "x" * 50})
                client.rpush(f"l:{n}", *range(5))
                client.zadd(f"z:{n}", {"m": n})
                client.sadd(f"e:{n}", n)
                self.model |= {f"h:{n}": {"a": str(n), "b": "x" * 50}, f"l:{n}": list("01234")}
                self.model |= {f"z:{n}": [("m", float(n))], f"e:{n}": {str(n)}}
        client.close()

    def check(self) -> None:
        """Every key has what it should, and there are no others."""
        client = self.client()
        read: dict[str, Any] = {
            "s": lambda k: client.get(k),
            "h": lambda k: client.hgetall(k),
            "l": lambda k: client.lrange(k, 0, -1),
            "z": lambda k: [tuple(pair) for pair in client.zrange(k, 0, -1, withscores=True)],
            "e": lambda k: set(client.smembers(k)),
        }
        wrong = {}
        for key, value in self.model.items():
            found = read[key[0]](key)
            if found != value:
                wrong[key] = (found, value)
        client.close()
        assert not wrong, (len(wrong), list(wrong.items())[:5])
        total = sum(int(self.admin(i).dbsize()) for i in range(self.shards))
        assert total == len(self.model), "keys that nobody knows, or that exist twice"

    def agreed(self) -> bool:
        """Whether all views are the same."""
        try:
            self.owners()
        except AssertionError:
            return False
        return True

    def owners(self) -> list[set[int]]:
        """The slots of each, as it says itself. Asserts that nothing is open and that all views are the same."""
        maps, own = [], []
        for index in range(self.shards):
            text = str(self._nodes(index))
            assert not {"->-", "-<-"} & {w[w.find("-") :][:3] for w in text.split() if w.startswith("[")}, (
                text
            )
            slots: dict[str, set[int]] = {}
            for line in text.splitlines():
                words = line.split()
                slots[words[0]] = {
                    s
                    for part in words[8:]
                    for s in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)
                }
                if "myself" in words[2]:
                    own.append(slots[words[0]])
            maps.append({node: mine for node, mine in slots.items() if mine})
        assert all(m == maps[0] for m in maps), "views differ"
        assert sum(map(len, own)) == SLOTS
        return own

    def owners_loosely(self) -> list[set[int]]:
        """The slots of each, as it says itself, whatever is open."""
        found = []
        for index in range(self.shards):
            line = next(line for line in self._nodes(index).splitlines() if "myself" in line)
            parts = [part.split("-") for part in line.split()[8:] if not part.startswith("[")]
            found.append({s for part in parts for s in range(int(part[0]), int(part[-1]) + 1)})
        return found

    def _nodes(self, index: int) -> str:
        # redis-py would parse the answer of CLUSTER NODES
        raw: Any = Redis(port=self.first + index, username="redkeep", password=self.admin_password)
        raw.response_callbacks.clear()
        return str(raw.execute_command("CLUSTER", "NODES").decode())

    def owner_of(self, slot: int) -> int:
        return next(i for i, own in enumerate(self.owners()) if slot in own)

    def reshard(self, *arguments: str) -> dict[str, Any]:
        found = self.run("reshard", *arguments, "--yes", "--json").ok().json
        assert found["verified"]["ok"], found
        return dict(found)


@contextmanager
def cluster(
    folder: Path, engine: str, *, shards: int = 3, keys: int = 1500, persistence: str = "none"
) -> Iterator[Cluster]:
    """``engine``: one of ``ENGINES``, or what a deployment file says."""
    first = free_block(shards)
    run = Redkeep(folder, environment={"HOME": str(folder)})
    run.write(
        f"name: slots-{first}\nmode: cluster\nengine: {ENGINES.get(engine, engine)}\nhosts: [local]\nport: {first}\n"
        f"shards: {shards}\nreplicas: 0\npersistence: {persistence}\naccept_risk: true\n"
    )
    try:
        run("apply", "--yes").ok()
        found = Cluster(run, first, shards)
        found.admin_password = run("url", "--user", "admin", "--reveal", "--json").ok().json["password"]
        found.app_password = run("url", "--reveal", "--json").ok().json["password"]
        for index in range(
            shards
        ):  # a shard that was emptied shall stay a primary, so that tests can go on with it
            found.admin(index).config_set("cluster-allow-replica-migration", "no")
        found.fill(keys)
        yield found
    finally:
        run("destroy", "--yes", "--delete-data")


def key_in(slot: int, prefix: str = "s:x") -> str:
    """A key of this slot."""
    number = 0
    while key_slot(f"{prefix}{{{number}}}".encode()) != slot:
        number += 1
    return f"{prefix}{{{number}}}"


class Writer:
    """Writes all the time, and remembers in the model what was acknowledged."""

    def __init__(self, on: Cluster, *, keys: int = 200) -> None:
        self._on, self._keys = on, keys
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.errors: list[str] = []
        self.writes = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _write(self) -> None:
        client = self._on.client()
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"s:w{number % self._keys}"
            try:
                client.set(key, number)
            except Exception as error:  # whatever the client library does not retry by itself
                self.errors.append(f"{type(error).__name__}: {error}")
                self._settle(client, key)
                continue
            self._on.model[key] = str(number)
            self.writes += 1
        client.close()

    def _settle(self, client: Any, key: str) -> None:
        """Whether a write that failed came through is read afterwards: both are right."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                found = client.get(key)
            except Exception:  # still not well
                time.sleep(0.05)
                continue
            if found is not None:
                self._on.model[key] = found
            return
