"""A client that writes all the time through a real client library, and a reader that counts what is missing after.

What the drills and the demo see of a failure is what this client sees: redis-py, without retries of its own, so
that an outage is not hidden (``Retry(NoBackoff(), 0)``).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

#: Values that Redkeep writes to measure; removed at the end, and expiring by themselves should it be killed.
PREFIX = "redkeep:drill"
EXPIRY = 3600


@dataclass(frozen=True)
class Access:
    """How an application reaches the deployment."""

    mode: str
    servers: tuple[tuple[str, int], ...]
    sentinels: tuple[tuple[str, int], ...] = ()
    primary_name: str = ""
    password: str | None = field(default=None, repr=False)
    ca: str = ""


@dataclass
class Lane:
    """One shard's stream of numbered writes. Times are seconds on the monotonic clock."""

    shard: str
    tag: str
    acknowledged: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: list[tuple[float, str]] = field(default_factory=list)
    sent: int = 0
    #: what the reader found: reads that were answered, those without a write that had been acknowledged before the read
    #: began, and those without a value that an earlier read had shown
    reads: int = 0
    stale: int = 0
    reordered: int = 0

    def key(self, number: int) -> str:
        return f"{PREFIX}:{{{self.tag}}}:{number}"

    def value(self, number: int) -> str:
        """Numbered and checksummed: a wrong value cannot pass for the right one."""
        return f"{number}:{hashlib.sha256(self.key(number).encode()).hexdigest()[:16]}"

    def window(self, since: float) -> float:
        """Seconds from ``since`` to the first write acknowledged again after the first failure, or 0.0.

        The pause counts from the last write acknowledged before it where that is later than ``since``: a failure
        is felt when the next write does not come through.
        """
        failed = [at for at, _ in self.errors if at >= since]
        after = [at for at in self.times if at >= since]
        if not failed:
            gaps = [b - a for a, b in zip([since, *after], after, strict=False)]
            return max(gaps, default=0.0) if gaps and max(gaps) > 0.05 else 0.0
        again = [at for at in after if at > failed[0]]
        return (again[0] if again else time.monotonic()) - since

    def longest_gap(self, since: float) -> float:
        """Seconds, the longest between two acknowledged writes since then."""
        before = [at for at in self.times if at < since][-1:] or [since]
        after = [at for at in self.times if at >= since]
        return max((b - a for a, b in zip([*before, *after], after, strict=False)), default=0.0)


#: Makes a client for a lane: something with ``set(key, value, ex=)``, ``mget(keys)`` and ``aclose()``.
Connect = Callable[[Lane], Awaitable[Any]]


class Load:
    """Writers on every shard, each with a connection that finds its primary anew after an error; and readers where
    ``read_interval`` (seconds) is given, each with a connection of its own."""

    def __init__(
        self,
        connect: Connect,
        tags: dict[str, str],
        *,
        interval: float = 0.001,
        read_interval: float | None = None,
        limit: float = 1.0,
    ) -> None:
        """``limit``: seconds for one command, with whatever the client retries by itself."""
        self.lanes = [Lane(shard, tag) for shard, tag in tags.items()]
        self._connect = connect
        self._interval = interval
        self._read_interval = read_interval
        self._limit = limit
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_told)
        self._tasks = [asyncio.create_task(self._write(lane)) for lane in self.lanes]
        if self._read_interval is not None:
            self._tasks += [asyncio.create_task(self._read(lane, self._read_interval)) for lane in self.lanes]

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _write(self, lane: Lane) -> None:
        """A write each interval, whatever happens; an error is noted and the next write looks for the primary."""
        client: Any = None
        while not self._stopping.is_set():
            began = time.monotonic()
            number = lane.sent
            lane.sent += 1
            try:
                if client is None:
                    client = await self._connect(lane)
                async with asyncio.timeout(self._limit):
                    await client.set(lane.key(number), lane.value(number), ex=EXPIRY)
            except Exception as error:  # whatever a client library raises is what the application sees
                lane.errors.append((time.monotonic(), f"{type(error).__name__}: {error}"[:200]))
                await _discard(client)
                client = None
                await asyncio.sleep(0.005)
                continue
            now = time.monotonic()
            lane.acknowledged.append(number)
            lane.times.append(now)
            lane.latencies.append(now - began)
            await asyncio.sleep(max(0.0, self._interval - (now - began)))
        await _discard(client)

    async def _read(self, lane: Lane, interval: float) -> None:
        """Asks for the newest acknowledged value and for the newest that it has seen; an outage is no stale read."""
        client: Any = None
        seen = -1
        while not self._stopping.is_set():
            await asyncio.sleep(interval)
            if not lane.acknowledged:
                continue
            newest = lane.acknowledged[-1]
            try:
                if client is None:
                    client = await self._connect(lane)
                async with asyncio.timeout(self._limit):
                    found = await client.mget([lane.key(newest), lane.key(max(seen, 0))])
            except Exception:  # the writer notes outages
                await _discard(client)
                client = None
                continue
            lane.reads += 1
            lane.stale += found[0] is None
            lane.reordered += seen >= 0 and found[1] is None
            if found[0] is not None:
                seen = max(seen, newest)
        await _discard(client)


def _told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """redis-py reports connections that it left to the garbage collector after a failure; nobody can act on that."""
    if not str(context.get("message", "")).startswith("Unclosed"):
        loop.default_exception_handler(context)


async def connect(access: Access) -> Any:
    """A redis-py client for the mode, with short timeouts and no retries of its own."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    common: dict[str, Any] = {
        "password": access.password,
        "socket_timeout": 1.0,
        "socket_connect_timeout": 1.0,
    }
    if access.ca:
        common |= {"ssl": True, "ssl_ca_certs": access.ca}
    once = Retry(NoBackoff(), 0)
    if access.mode == "cluster":
        nodes = [ClusterNode(h, p) for h, p in access.servers]
        return RedisCluster(startup_nodes=nodes, retry=once, **common)
    if access.mode == "sentinel":
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            list(access.sentinels), sentinel_kwargs=dict(common), **common, retry=once
        )
        return sentinel.master_for(access.primary_name, retry=once)
    if len(access.servers) == 1:
        host, port = access.servers[0]
        return Redis(host=host, port=port, retry=once, **common)
    for host, port in access.servers:  # plain replication: whoever is the primary now
        client: Any = Redis(host=host, port=port, retry=once, **common)
        try:
            if (await client.role())[0] in (b"master", "master"):
                return client
        except Exception:  # noqa: S110  the next one may be
            pass
        await _discard(client)
    raise ConnectionError("no server is the primary")


async def _discard(client: Any) -> None:
    if client is not None:
        try:
            await client.aclose()
        except Exception:  # noqa: S110  closing what is broken may fail in any way
            pass


@dataclass(frozen=True)
class Audit:
    """What an independent reader found of the acknowledged writes."""

    acknowledged: int
    lost: int


async def audit(lanes: list[Lane], read: Callable[[Lane, list[str]], Awaitable[list[Any]]]) -> Audit:
    """Reads every acknowledged key again (``read`` asks the lane's primary) and counts what is gone or wrong."""
    acknowledged = lost = 0
    for lane in lanes:
        for start in range(0, len(lane.acknowledged), 500):
            numbers = lane.acknowledged[start : start + 500]
            values = await read(lane, [lane.key(n) for n in numbers])
            acknowledged += len(numbers)
            lost += sum(v != lane.value(n).encode() for n, v in zip(numbers, values, strict=True))
    return Audit(acknowledged, lost)
