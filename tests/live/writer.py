"""An application's writer in threads, through redis-py: what it was told is written, it remembers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

#: Seconds after which a write that is held counts as failed: longer than anybody may hold it.
PATIENCE = 20.0


@dataclass(frozen=True)
class Target:
    """How the application reaches the deployment. ``tags``: a hash tag for each shard that is written to."""

    mode: str
    ports: tuple[int, ...]
    password: str
    sentinels: tuple[int, ...] = ()
    name: str = ""
    tags: tuple[str, ...] = ("a",)
    host: str = "127.0.0.1"


def connect(target: Target) -> Any:
    common: dict[str, Any] = {
        "password": target.password,
        "socket_timeout": PATIENCE,
        "decode_responses": True,
    }
    if target.mode == "cluster":
        nodes: Any = [ClusterNode(target.host, p) for p in target.ports]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **common)
    if target.mode == "sentinel":
        addresses = [(target.host, p) for p in target.sentinels]
        watch: Any = Sentinel(  # type: ignore[no-untyped-call]
            addresses, sentinel_kwargs={"password": target.password}, **common
        )
        return watch.master_for(target.name)
    for port in target.ports:
        client: Any = Redis(host=target.host, port=port, **common)
        if client.execute_command("ROLE")[0] in ("master", b"master"):
            return client
        client.close()
    raise ConnectionError("no primary")


class Writer:
    """Lanes of numbered writes, a hash tag and a thread each: ``with Writer(connect) as writer: ...; writer.lost()``."""

    def __init__(
        self, connect: Callable[[], Any], tags: Sequence[str] = ("a",), *, interval: float = 0.001
    ) -> None:
        self._connect = connect
        self.interval = interval
        self.run = str(time.time_ns())
        self.acknowledged: dict[str, list[int]] = {tag: [] for tag in tags}
        self.times: dict[str, list[float]] = {tag: [] for tag in tags}
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(tag,)) for tag in tags]

    def __enter__(self) -> Writer:
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 60
        while not all(self.times.values()):
            assert time.monotonic() < deadline, self.errors[:3]
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def key(self, tag: str, number: int) -> str:
        return f"redkeep:test:{{{tag}}}:{self.run}:{number}"

    def _write(self, tag: str) -> None:
        client: Any = None
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                if client is None:
                    client = self._connect()
                client.set(self.key(tag, number), str(number), ex=3600)
            except Exception as error:  # whatever the library raises is what the application sees
                self.errors.append(f"{type(error).__name__}: {error}")
                if client is not None:
                    client.close()
                client = None
                time.sleep(0.005)
                continue
            self.acknowledged[tag].append(number)
            self.times[tag].append(time.monotonic())
            time.sleep(self.interval)
        if client is not None:
            client.close()

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def window(self) -> float:
        """The longest time in seconds between two acknowledged writes of one lane."""
        return max(b - a for times in self.times.values() for a, b in itertools.pairwise(times))

    def moves_on(self, writes: int = 200) -> None:
        """Waits until so many more writes were acknowledged on every lane."""
        before = {tag: len(found) for tag, found in self.acknowledged.items()}
        deadline = time.monotonic() + 60
        while any(len(found) < before[tag] + writes for tag, found in self.acknowledged.items()):
            assert time.monotonic() < deadline, self.errors[-3:]
            time.sleep(0.01)

    def lost(self) -> list[str]:
        """Acknowledged writes that an independent reader does not find. Ask it after the end."""
        client = self._connect()
        missing = []
        try:
            for tag, numbers in self.acknowledged.items():
                for first in range(0, len(numbers), 500):
                    part = numbers[first : first + 500]
                    found = client.mget([self.key(tag, n) for n in part])
                    missing += [self.key(tag, n) for n, v in zip(part, found, strict=True) if v != str(n)]
        finally:
            client.close()
        return missing
