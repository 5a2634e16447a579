"""Keys of each hash slot, asked of the primaries a part at a time: CLUSTER COUNTKEYSINSLOT costs a server nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.model.slots import SLOTS, in_ranges
from redkeep.model.topology import NodeView
from redkeep.planning.reshard import Shard

if TYPE_CHECKING:
    from redkeep.model.topology import Observed
    from redkeep.planning.desired import Desired
    from redkeep.run.fleet import Fleet

#: Questions in one pipeline: a fraction of a millisecond of the server's time.
_AT_ONCE = 1024


async def counted(fleet: Fleet, desired: Desired, found: Sequence[Shard]) -> tuple[Shard, ...]:
    """The same shards with the keys of each of their slots."""

    async def one(shard: Shard) -> Shard:
        if not shard.keys:
            return shard
        return replace(shard, sizes=await _counts(fleet, desired, shard.name, in_ranges(shard.slots)))

    return tuple(await asyncio.gather(*map(one, found)))


async def strays(fleet: Fleet, desired: Desired, observed: Observed) -> tuple[int, ...]:
    """Slots of which a primary has keys without being their owner."""

    async def one(name: str, view: NodeView) -> set[int]:
        assert view.cluster is not None
        own = set(in_ranges(view.cluster.me.slots))
        if not view.keys:
            return set()
        counts = await _counts(fleet, desired, name, [s for s in range(SLOTS) if s not in own])
        return {slot for slot, count in counts.items() if count}

    asked = [
        one(n.name, view)
        for n in desired.present
        if isinstance(view := observed.nodes.get(n.name), NodeView)
        and view.cluster
        and view.cluster.me.is_primary
    ]
    found: set[int] = set()
    return tuple(sorted(found.union(*await asyncio.gather(*asked))))


async def _counts(fleet: Fleet, desired: Desired, name: str, slots: Sequence[int]) -> dict[int, float]:
    client = await fleet.client(desired.node(name))
    counts: dict[int, float] = {}
    for start in range(0, len(slots), _AT_ONCE):
        some = slots[start : start + _AT_ONCE]
        answers = await client.pipeline([("CLUSTER", "COUNTKEYSINSLOT", s) for s in some])
        counts.update(zip(some, map(float, answers), strict=True))
    return counts
