"""Writes to one shard while its primary changes, and reads everything again afterwards, over connections of its own.

It goes where servers are managed from, the hosts themselves, so it works wherever ``status`` does. It looks for the
primary as client libraries do: a Cluster's redirections, the Sentinels' answer, and with plain replication the list of
servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, WireError
from redkeep.model.slots import hash_tag
from redkeep.model.topology import NodeView
from redkeep.planning.hostfiles.acl import APP
from redkeep.run.load import EXPIRY, Audit, Lane, audit
from redkeep.wire import replies
from redkeep.wire.client import Client, Login

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.deployment import Deployment, Sight

#: Seconds between two writes, for a write to be answered, and before another look for the primary.
INTERVAL, WRITE_LIMIT, RETRY = 0.001, 5.0, 0.005
#: Seconds that are written before the change and after it.
CALM = 0.3
#: Seconds for writes to go on after the change.
AGAIN_LIMIT = 30.0


class Prober:
    """``start``, then what is to be measured, then ``stop``, ``window_ms`` and ``verdict``."""

    def __init__(self, deployment: Deployment, sight: Sight, shard: int, slot: int | None) -> None:
        self._deployment, self._sight = deployment, sight
        self._group = [n for n in sight.desired.servers if n.shard == shard]
        # no tag twice: what an earlier run left behind must not pass for what this one wrote
        self.lane = Lane(f"shard {shard + 1}", hash_tag(slot, f"{time.time_ns()}-"))
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write())
        deadline = time.monotonic() + 10
        while not self.lane.times:
            if self._task.done() or time.monotonic() > deadline:
                why = self.lane.errors[-1][1] if self.lane.errors else "no answer"
                raise RedkeepError(
                    f"the probe cannot write: {why}", where=self.lane.shard, next="see redkeep status"
                )
            await asyncio.sleep(0.01)
        await asyncio.sleep(CALM)

    async def stop(self) -> None:
        if self._task is None:
            return
        asked, deadline = time.monotonic(), time.monotonic() + AGAIN_LIMIT
        while self.lane.times and self.lane.times[-1] < asked and time.monotonic() < deadline:  # noqa: ASYNC110  a thing to look at
            await asyncio.sleep(0.01)
        await asyncio.sleep(CALM)
        self._stopping.set()
        await self._task

    def window_ms(self) -> float:
        """The longest time between two acknowledged writes."""
        times = self.lane.times
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0) * 1000

    async def verdict(self) -> Audit:
        """What an independent reader finds; then what was written is removed."""
        client = await self._primary()
        try:

            async def read(lane: Lane, keys: list[str]) -> list[Any]:
                return await client.pipeline([("GET", k) for k in keys])

            found = await audit([self.lane], read)
            for first in range(0, self.lane.sent, 500):
                keys = [self.lane.key(n) for n in range(first, min(first + 500, self.lane.sent))]
                await client.pipeline([("DEL", k) for k in keys])
            return found
        finally:
            client.close()

    async def _write(self) -> None:
        client: Client | None = None
        lane = self.lane
        while not self._stopping.is_set():
            began, number = time.monotonic(), lane.sent
            lane.sent += 1
            try:
                if client is None:
                    client = await self._primary()
                await client.call("SET", lane.key(number), lane.value(number), "EX", EXPIRY)
            except (RedkeepError, OSError) as error:
                lane.errors.append((time.monotonic(), str(error).partition("\n")[0]))
                if client is not None:
                    client.close()
                client = None
                await asyncio.sleep(RETRY)
                continue
            now = time.monotonic()
            lane.acknowledged.append(number)
            lane.times.append(now)
            lane.latencies.append(now - began)
            await asyncio.sleep(max(0.0, INTERVAL - (now - began)))
        if client is not None:
            client.close()

    async def _primary(self) -> Client:
        """A connection to whoever is the primary, as far as clients are told."""
        for node in await self._candidates():
            with contextlib.suppress(WireError, OSError):
                client = await self._open(node)
                role = await client.call("ROLE")
                if role[0] == b"master":
                    return client
                client.close()
        raise WireError("no primary was found", where=self.lane.shard)

    async def _candidates(self) -> list[DesiredNode]:
        desired = self._sight.desired
        for sentinel in desired.sentinels:
            with contextlib.suppress(WireError):
                said: Any = await self._deployment.fleet.call(
                    sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", desired.spec.name
                )
                node = desired.at(replies.text(said[0]), int(said[1]))
                return [node] if node else []
        return self._group

    async def _open(self, node: DesiredNode) -> Client:
        fleet = self._deployment.fleet
        host = fleet.hosts[node.host]

        async def opener() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await host.connect("127.0.0.1", node.port, timeout=WRITE_LIMIT)

        login = Login(APP, self._deployment.secrets.app or "")
        return await Client.open(opener, where=node.name, login=login, tls=fleet.tls, timeout=WRITE_LIMIT)


def slot_of(sight: Sight, node: DesiredNode) -> int | None:
    """A hash slot that the node owns; ``None`` outside a Cluster."""
    view = sight.observed.nodes.get(node.name)
    if isinstance(view, NodeView) and view.cluster and view.cluster.me.slots:
        return view.cluster.me.slots[0].first
    return None
