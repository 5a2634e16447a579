"""A Cluster's hash slots: moved from one primary to another, and put right where a move was interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, ReplyError
from redkeep.model.slots import in_ranges, parse_ranges
from redkeep.planning.reshard import ATOMIC_PAUSE, way
from redkeep.run.moving.atomic import atomically, until_idle
from redkeep.run.moving.ends import end
from redkeep.run.moving.functions import bring_functions
from redkeep.run.moving.heavy import survey
from redkeep.run.moving.settle import owned, settle
from redkeep.run.moving.windows import by_windows

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context

#: Seconds that a migration which somebody else began may still take, and that an interrupted one may take to end well.
_OTHERS = 600.0
_GRACE = 60.0


async def move_slots(context: Context, step: Step) -> None:
    """Moves ``args["slots"]`` (``0-100,205``) from node ``args["from"]`` to node ``args["to"]``, with their keys.

    Slots that the source does not own are passed over. Ends when both sides agree on the new owner. Cancelled, it ends
    at a consistent point: no slot stays open. Interrupted otherwise, ``settle-slots`` finishes what is open.
    """
    await _to_a_consistent_end(lambda stop: _move(context, step, stop))


async def settle_slots(context: Context, step: Step) -> None:
    """Gives each of ``args["slots"]`` one owner, and brings all of its keys there."""
    slots = in_ranges(parse_ranges(str(step.args["slots"])))
    await _to_a_consistent_end(lambda _: settle(context, slots))


async def _to_a_consistent_end(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Ctrl-C asks the work to stop where nothing is half done, instead of breaking it off."""
    stop = asyncio.Event()
    task = asyncio.create_task(work(stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(TimeoutError, RedkeepError):
            async with asyncio.timeout(_GRACE):
                await task
        raise


async def _move(context: Context, step: Step, stop: asyncio.Event) -> None:
    source = context.desired.node(str(step.args["from"]))
    target = context.desired.node(str(step.args["to"]))
    wanted = in_ranges(parse_ranges(str(step.args["slots"])))
    context.traffic.begins(len(wanted))
    async with context.traffic.turns[source.name]:
        async with end(context.fleet, source) as at:
            await until_idle(at, seconds=_OTHERS)
            slots = await owned(at, wanted)
            context.traffic.planned_slots -= len(wanted) - len(slots)
            await _ready(context, source, target, slots)
            whole, single = await _split(context, source, target, slots, at)
        if whole and not stop.is_set():
            async with context.traffic.by("atomic", source.name, target.name):
                single = await _as_a_whole(context, source, target, whole, stop) + single
        if single and not stop.is_set():
            async with (
                context.traffic.by("migrate", source.name, target.name),
                context.traffic.arrivals[target.name],
            ):
                context.traffic.methods.add("migrate")
                await by_windows(context, source, target, sorted(single), stop)


async def _ready(context: Context, source: DesiredNode, target: DesiredNode, slots: list[int]) -> None:
    """The target has what the slots' keys need: the functions that applications call.

    What it has of slots that are not its own yet goes back to the owner first, who may have it as well.
    """
    async with end(context.fleet, source) as here, end(context.fleet, target) as there:
        async with context.traffic.doors[target.name]:
            if slots and await bring_functions(here, there):
                context.note(f"{target.name} has the functions of {source.name} now: its first slots come")
        strays = [slot for slot, count in (await there.counts(slots)).items() if count]
    if strays:
        async with context.traffic.by("migrate", source.name, target.name):
            await settle(context, strays)


async def _split(
    context: Context, source: DesiredNode, target: DesiredNode, slots: list[int], at: Any
) -> tuple[list[int], list[int]]:
    """Which slots the engine moves as a whole, and which go key by key.

    Where the pause of an atomic change of owner is too long for the user, only slots with keys that would take even
    longer by themselves are moved that way.
    """
    if way(context.observed, source.name, target.name, context.traffic.max_pause) == "atomic":
        return slots, []
    if way(context.observed, source.name, target.name, None) == "migrate":
        return [], slots
    large = {h.slot for h in await survey(at, await at.counts(slots)) if h.cost > ATOMIC_PAUSE}
    return [s for s in slots if s in large], [s for s in slots if s not in large]


async def _as_a_whole(
    context: Context, source: DesiredNode, target: DesiredNode, slots: list[int], stop: asyncio.Event
) -> list[int]:
    """Returns what is left for the other way, where the engine does not do it (modules can forbid it)."""
    try:
        await atomically(context, source, target, slots, stop)
    except ReplyError as error:
        context.note(f"{source.name} does not migrate atomically ({error.what}): moving key by key instead")
        return slots
    context.traffic.methods.add("atomic")
    return []


ACTIONS = {"move-slots": move_slots, "settle-slots": settle_slots}
