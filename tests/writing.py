"""Applications that write all the time while a test changes their deployment, and a reader that counts what is missing.

with writing(access) as load: ...
assert load.lost() == 0
"""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode
from redis.sentinel import Sentinel

from redkeep.model.slots import SLOTS, key_slot
from redkeep.run.load import Access, Lane, Load, connect
from tests.cli import Redkeep

#: Runs a function to its end, somewhere: here, or with another network.
Call = Callable[[Callable[[], None]], Any]


@dataclass
class Writing:
    """Streams of numbered writes, spread over the hash slots."""

    access: Access
    call: Call
    lanes: list[Lane] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        return sum(len(lane.acknowledged) for lane in self.lanes)

    @property
    def longest_gap(self) -> float:
        """Seconds for which some stream had no write acknowledged, between its first and its last."""
        gaps = [b - a for lane in self.lanes for a, b in zip(lane.times, lane.times[1:], strict=False)]
        return max(gaps, default=0.0)

    def lost(self) -> int:
        """Acknowledged writes that a client which comes afterwards does not find, or finds with another value."""
        found: list[int] = []

        def read() -> None:
            client = reader(self.access)
            for lane in self.lanes:
                for start in range(0, len(lane.acknowledged), 500):
                    numbers = lane.acknowledged[start : start + 500]
                    values = client.mget([lane.key(n) for n in numbers])  # one tag, one slot
                    pairs = zip(numbers, values, strict=True)
                    found.append(sum(v != lane.value(n).encode() for n, v in pairs))
            client.close()

        self.call(read)
        return sum(found)


def reader(access: Access) -> Any:
    """A client of redis-py that has not taken part in anything."""
    if access.mode == "cluster":
        nodes: Any = [ClusterNode(h, p) for h, p in access.servers]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, password=access.password)
    if access.mode == "sentinel":
        login: Any = {"password": access.password}
        sentinels: Any = Sentinel(list(access.sentinels), sentinel_kwargs=login, **login)  # type: ignore[no-untyped-call]
        return sentinels.master_for(access.primary_name)
    host, port = access.servers[0]
    return Redis(host=host, port=port, password=access.password)


async def application(access: Access) -> Any:
    """As applications have it: RedisCluster with the three tries that it makes by itself; with Sentinels the library makes
    none unless it is told to, and ``redkeep client redis-py`` tells it to go on for a while and to ask them each time."""
    from redis.asyncio import RedisCluster
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection
    from redis.backoff import ConstantBackoff

    class Asking(SentinelManagedConnection):
        """Else the second try of a command goes to where the primary was (github.com/redis/redis-py/issues/3874)."""

        async def connect_check_health(
            self, check_health: bool = True, retry_socket_connect: bool = True
        ) -> None:
            if retry_socket_connect:
                await self.connect()  # type: ignore[no-untyped-call]
            else:
                await super().connect_check_health(check_health, retry_socket_connect)

    login: dict[str, Any] = {"password": access.password, "socket_timeout": 5.0}
    if access.mode == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(h, p) for h, p in access.servers], **login)
    sentinels: Any = Sentinel(list(access.sentinels), sentinel_kwargs=login, **login)  # type: ignore[no-untyped-call]
    patient = Retry(ConstantBackoff(0.2), 30)
    return sentinels.master_for(access.primary_name, retry=patient, connection_class=Asking)


def access_of(run: Redkeep) -> Access:
    """What an application is configured with."""
    urls = run("url", "--reveal", "--json").ok().json
    return Access(
        urls["mode"],
        tuple(map(_pair, urls["urls"])),
        tuple(map(_pair, urls["sentinels"])),
        urls["primary_name"],
        urls["password"],
        urls["ca"] if urls["tls"] else "",
    )


def _pair(address: str) -> tuple[str, int]:
    host, _, port = (
        address.rpartition("@")[2].removeprefix("redis://").removeprefix("rediss://").rpartition(":")
    )
    return host, int(port)


def tags(count: int) -> dict[str, str]:
    """So many hash tags whose slots lie evenly in all of them."""
    step = SLOTS // count
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        number += 1
        found.setdefault(key_slot(str(number).encode()) // step, str(number))
    return {f"lane {part}": found[part] for part in sorted(found)}


def here(action: Callable[[], None]) -> None:
    action()


@contextmanager
def writing(
    access: Access,
    *,
    lanes: int = 12,
    interval: float = 0.02,
    call: Call = here,
    client: Callable[[Access], Awaitable[Any]] = connect,
) -> Iterator[Writing]:
    """Writes until the block ends; waits for the first write of each stream before it begins."""
    found = Writing(access, call)
    stop, begun = threading.Event(), threading.Event()

    async def write() -> None:
        limit = 1.0 if client is connect else 30.0  # for all of a client's own tries
        load = Load(lambda _: client(access), tags(lanes), interval=interval, limit=limit)
        found.lanes = load.lanes
        await load.start()
        while not stop.is_set():
            if all(lane.acknowledged for lane in load.lanes):
                begun.set()
            await asyncio.sleep(0.02)
        await load.stop()

    thread = threading.Thread(target=lambda: call(lambda: asyncio.run(write())))
    thread.start()
    try:
        assert begun.wait(60), [lane.errors[-1:] for lane in found.lanes]
        yield found
    finally:
        stop.set()
        thread.join(60)
        with (
            warnings.catch_warnings()
        ):  # the library leaves connections to servers that went away to whoever comes
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
