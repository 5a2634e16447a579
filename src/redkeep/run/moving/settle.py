"""Slots whose move was interrupted, by whomever: one owner each, and all of their keys there.

Which of the half-migrated states a slot is in does not matter: every primary is asked for its marks and for keys of the
slot, ``planning/halfway.py`` says who owns it and where it shall be, and keys elsewhere are brought there. No key is
dropped to make a state look clean; one that exists twice is saved with both values before one of them goes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, WireError
from redkeep.model.slots import in_ranges, ranges_text
from redkeep.planning.halfway import Lost, Verdict, verdicts
from redkeep.planning.reshard import unsettled
from redkeep.run.moving.drain import Drain, by_slot
from redkeep.run.moving.ends import End, Road, end, until_ok
from redkeep.run.moving.heavy import survey
from redkeep.run.moving.pace import watched
from redkeep.run.moving.windows import consent
from redkeep.wire.client import Login

if TYPE_CHECKING:
    from redkeep.model.topology import ClusterView
    from redkeep.run.steps.context import Context

#: Seconds until all primaries say the same of slots that were settled.
_AGREE = 30.0


@dataclass(frozen=True)
class _Scene:
    """All primaries: our connections, how each sees the Cluster, and how many keys of each slot it has."""

    ends: Mapping[str, End]
    views: Mapping[str, ClusterView]
    counts: Mapping[str, Mapping[int, int]]

    def holders(self, slot: int) -> list[str]:
        return [name for name, counts in self.counts.items() if counts.get(slot)]

    def owns(self, name: str, slot: int) -> bool:
        return any(slot in part for part in self.views[name].me.slots)


async def settle(context: Context, slots: Sequence[int]) -> None:
    """Raises ``EngineError`` for slots of which nobody can tell where they belong; the others are settled all the same."""
    async with contextlib.AsyncExitStack() as stack:
        ends = await _primaries(context, stack)
        scene = await _look(ends, slots)
        found = verdicts(scene.views, frozenset(slots))
        groups: dict[Verdict, list[int]] = {}
        for slot, verdict in sorted(found.items()):
            if isinstance(verdict, Verdict):
                groups.setdefault(verdict, []).append(slot)
        for verdict, some in groups.items():
            if verdict.home == verdict.owner:
                await _stay(context, scene, verdict.owner, some)
            else:
                await _go_on(context, scene, verdict, some)
            await _tidy(scene, verdict.home, some)
        await _agreed(ends, [s for some in groups.values() for s in some])
        lost = {s: v.reason for s, v in found.items() if isinstance(v, Lost)}
        if lost:
            slot, reason = min(lost.items())
            raise EngineError(
                f"hash slot {slot} cannot be settled: {reason}",
                where=f"hash slots {ranges_text(lost)}",
                next="bring that node back, then run it again; redkeep check shows who says what",
            )


async def _primaries(context: Context, stack: contextlib.AsyncExitStack) -> dict[str, End]:
    """Asked now who is one: a server may have failed over since the last look."""
    ends = {}
    for node in context.desired.present:
        try:
            found = await stack.enter_async_context(end(context.fleet, node))
        except WireError:
            continue  # a replica is not needed; for what a primary alone knows, halfway.py has no verdict
        if (await found.view()).me.is_primary:
            ends[node.name] = found
    return ends


async def _look(ends: Mapping[str, End], slots: Sequence[int]) -> _Scene:
    views = await asyncio.gather(*(e.view() for e in ends.values()))
    counts = await asyncio.gather(*(e.counts(slots) for e in ends.values()))
    return _Scene(ends, dict(zip(ends, views, strict=True)), dict(zip(ends, counts, strict=True)))


async def _go_on(context: Context, scene: _Scene, verdict: Verdict, slots: Sequence[int]) -> None:
    """Finishes the move. What third nodes have of the slots comes last: the owner's values and what clients wrote at the
    target since count for more."""
    way = Road(scene.ends[verdict.owner], scene.ends[verdict.home], context.fleet.login or Login())
    await until_ok(way.target)
    await way.mark(slots)
    await _bring(context, way, slots, owner_is_source=True)
    for name in scene.ends.keys() - {verdict.owner, verdict.home}:
        await _bring_strays(context, scene, name, verdict.home, verdict.owner, slots)
    await way.hand_over(slots)
    context.traffic.settled += len(slots)


async def _stay(context: Context, scene: _Scene, owner: str, slots: Sequence[int]) -> None:
    """The slots are where they belong; keys that others have come back."""
    home = scene.ends[owner]
    await until_ok(home)
    migrating = [s for s in slots if s in scene.views[owner].me.migrating]
    await home.all([("CLUSTER", "SETSLOT", s, "STABLE") for s in migrating])
    unclaimed = [s for s in slots if not scene.owns(owner, s)]
    other = next((e.id for n, e in scene.ends.items() if n != owner), "")
    # Only a slot that was marked as importing gets a new config epoch, without which nobody else would believe it.
    await home.all(
        [
            ("CLUSTER", "SETSLOT", s, "IMPORTING", other)
            for s in unclaimed
            if s not in scene.views[owner].me.importing
        ]
    )
    await home.all([("CLUSTER", "SETSLOT", s, "NODE", home.id) for s in unclaimed])
    for name in scene.ends.keys() - {owner}:
        await _bring_strays(context, scene, name, owner, owner, slots)
    context.traffic.settled += len(slots)


async def _bring_strays(
    context: Context, scene: _Scene, holder: str, home: str, owner: str, slots: Sequence[int]
) -> None:
    """Keys that a node has of slots that are not its own."""
    held = [s for s in slots if scene.counts[holder].get(s)]
    if not held:
        return
    found = scene.ends[holder]
    # A server takes MIGRATE for a slot that it imports, wherever it goes; one that believes to own it takes it anyway.
    foreign = [s for s in held if not scene.owns(holder, s)]
    await found.learn(scene.ends[owner].id, foreign)
    await found.all([("CLUSTER", "SETSLOT", s, "IMPORTING", scene.ends[owner].id) for s in foreign])
    way = Road(found, scene.ends[home], context.fleet.login or Login())
    await _bring(context, way, held, owner_is_source=False)


async def _bring(context: Context, way: Road, slots: Sequence[int], *, owner_is_source: bool) -> None:
    counts = await way.source.counts(slots)
    if not any(counts.values()):
        return
    async with watched(context.fleet, way.source.node, context.traffic.max_latency) as pace:
        heavy = await survey(way.source, counts)
        await consent(context, way.source.node, heavy)
        drain = Drain(
            context.fleet, way, pace, context.traffic, by_slot(heavy), owner_is_source=owner_is_source
        )
        await drain.slots(counts)


async def _tidy(scene: _Scene, home: str, slots: Sequence[int]) -> None:
    """Takes the marks away that are left. Nobody but the home has a key of these slots any more."""
    for name, found in scene.ends.items():
        others: list[tuple[object, ...]] = []
        if name != home:
            kept = {slot for slot, count in (await found.counts(slots)).items() if count}
            if kept:
                raise EngineError(
                    f"keys of hash slots {ranges_text(kept)} came back while they were settled",
                    where=name,
                    next="run it again",
                )
            owner = [("CLUSTER", "SETSLOT", s, "NODE", scene.ends[home].id) for s in slots]
            others += [c for s, c in zip(slots, owner, strict=True) if scene.owns(name, s)]
        await found.all([*others, *(("CLUSTER", "SETSLOT", s, "STABLE") for s in slots)])


async def _agreed(ends: Mapping[str, End], slots: Sequence[int]) -> None:
    deadline = asyncio.get_running_loop().time() + _AGREE
    while True:
        seen = dict(zip(ends, await asyncio.gather(*(e.view() for e in ends.values())), strict=True))
        open_ = set(unsettled(seen)) & set(slots)
        if not open_:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise EngineError(
                f"{len(open_)} hash slots are still not settled after {_AGREE:.0f} s",
                where=f"hash slots {ranges_text(open_)}",
                next="can the nodes reach each other? redkeep check; then run it again",
            )
        await asyncio.sleep(0.05)


async def owned(at: End, slots: Sequence[int]) -> list[int]:
    """Which of the slots a node owns, as it says itself right now."""
    mine = set(in_ranges((await at.view()).me.slots))
    return [s for s in slots if s in mine]
