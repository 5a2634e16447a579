"""The two ends of a move: connections of their own, and what CLUSTER SETSLOT says of slots that are on their way.

The order is the Cluster specification's ("Live reconfiguration", CLUSTER SETSLOT): importing at the target before
migrating at the source, and in the end the new owner at the target before the source. A target that takes a slot over
while the source still has keys of it would make the source delete them (``clusterUpdateSlotsConfigWith``, "dirty slots",
in cluster.c of Redis 6 and 7): the source is counted empty first, and nothing new can come about in a slot that it marks
as migrating.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redkeep.errors import EngineError, NodeUnreachable, ReplyError
from redkeep.model.slots import in_ranges
from redkeep.wire.client import Client, Login
from redkeep.wire.replies import cluster_view, info, text

if TYPE_CHECKING:
    from redkeep.model.topology import ClusterView
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.fleet import Fleet

#: Seconds for commands that may have to wait for others in the server.
PATIENCE = 60.0
#: Hash slots that get their new owner at once, and seconds until the next. The target tells each of them to every node
#: (``clusterBroadcastPong`` in SETSLOT NODE), which then goes through all slots: 64 at once held every node of the
#: Cluster up for 5 ms.
AT_ONCE = 8
BREATH = 0.002
#: Seconds until a target that has just got its first slot, or has just met the others, says that the Cluster is well.
OK_LIMIT = 30.0


@dataclass
class End:
    """A node that takes part, its ID, and our own connection to it."""

    node: DesiredNode
    id: str
    client: Client

    @property
    def name(self) -> str:
        return self.node.name

    async def all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """A pipeline in which an error reply is raised, naming the node."""
        try:
            return await self.client.all(commands, timeout=PATIENCE)
        except ReplyError as error:
            error.where = self.name
            raise

    async def counts(self, slots: Sequence[int]) -> dict[int, int]:
        """Keys in each of the slots that it has, whoever owns them."""
        answers = await self.all([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots])
        return {slot: int(count) for slot, count in zip(slots, answers, strict=True)}

    async def view(self) -> ClusterView:
        return cluster_view(*await self.all([("CLUSTER", "NODES"), ("CLUSTER", "INFO")]))

    async def learn(self, owner: str, slots: Sequence[int]) -> None:
        """It takes this node as the owner of the slots, where it does not already, or owns them itself.

        Of slots that it imports it hears no news (``clusterUpdateSlotsConfigWith``): when their owner died and a replica
        took over, it knows of no owner any more, and answers CLUSTERDOWN to whoever asks for their keys.
        """
        view = await self.view()
        known = {s for n in view.nodes if n.id == owner for s in in_ranges(n.slots)}
        known.update(in_ranges(view.me.slots))
        await self.all([("CLUSTER", "SETSLOT", s, "NODE", owner) for s in slots if s not in known])


@dataclass
class Road:
    """From one end to the other. ``login``: as whom the source may write to the target."""

    source: End
    target: End
    login: Login

    def migrate(self, keys: Sequence[bytes], *, timeout: int, replace: bool = False) -> tuple[Any, ...]:
        """One MIGRATE. ``timeout``: milliseconds that the target may be silent; the source serves nobody meanwhile."""
        host, port = self.target.node.announced
        auth = ("AUTH2", self.login.user, self.login.password) if self.login.password else ()
        options = ("REPLACE",) if replace else ()
        return ("MIGRATE", host, port, "", 0, timeout, *options, *auth, "KEYS", *keys)

    async def mark(self, slots: Sequence[int]) -> None:
        """From now on clients look for a missing key of these slots at the target."""
        await self.target.learn(self.source.id, slots)
        await self.target.all([("CLUSTER", "SETSLOT", s, "IMPORTING", self.source.id) for s in slots])
        await self.source.all([("CLUSTER", "SETSLOT", s, "MIGRATING", self.target.id) for s in slots])

    async def hand_over(self, slots: Sequence[int]) -> None:
        """The target owns them. Raises ``EngineError`` where the source still has keys: it would lose them."""
        left = {slot: count for slot, count in (await self.source.counts(slots)).items() if count}
        if left:
            raise EngineError(
                f"{sum(left.values())} keys of {len(left)} hash slots are still there",
                where=self.source.name,
                next="run it again: the move goes on where it stopped",
            )
        owner = [("CLUSTER", "SETSLOT", slot, "NODE", self.target.id) for slot in slots]
        for start in range(0, len(owner), AT_ONCE):
            await self.target.all(owner[start : start + AT_ONCE])
            await asyncio.sleep(BREATH)
        for answer in await self.source.client.pipeline(owner, timeout=PATIENCE):
            if isinstance(answer, ReplyError) and await self._source_is_primary():
                answer.where = self.source.name
                raise answer

    async def _source_is_primary(self) -> bool:
        """Without its last slot it becomes the target's replica, as soon as it hears of it, and loads what that one has."""
        try:
            return (await self.source.view()).me.is_primary
        except ReplyError as error:
            if error.what.startswith("LOADING"):
                return False
            raise


@contextlib.asynccontextmanager
async def end(fleet: Fleet, node: DesiredNode) -> AsyncIterator[End]:
    client = await fleet.another(node)
    try:
        yield End(node, text(await client.call("CLUSTER", "MYID")), client)
    finally:
        client.close()


@contextlib.asynccontextmanager
async def road(fleet: Fleet, source: DesiredNode, target: DesiredNode) -> AsyncIterator[Road]:
    """Ready to be used: the target says that the Cluster is well. Raises ``EngineError`` where it does not."""
    async with end(fleet, source) as a, end(fleet, target) as b:
        await until_ok(b)
        yield Road(a, b, fleet.login or Login())


async def until_ok(target: End) -> None:
    """A target answers CLUSTERDOWN until its own state is ok."""
    deadline = asyncio.get_running_loop().time() + OK_LIMIT
    while True:
        found = info(await target.client.call("CLUSTER", "INFO"))
        if found.get("cluster_state") == "ok":
            return
        if asyncio.get_running_loop().time() > deadline:
            raise EngineError(
                f"{target.name} does not say that the cluster is well, and would refuse every key",
                where=target.node.host,
                next="redkeep status, then redkeep check, say what is wrong",
            )
        await asyncio.sleep(0.02)


async def until_answers(fleet: Fleet, found: End, *, seconds: float) -> bool:
    """Whether it answers within so many seconds, on a new connection that replaces a broken one."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            if found.client.closed:
                found.client = await fleet.another(found.node)
            await found.client.call("PING")
            return True
        except NodeUnreachable:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.1)
