"""A move by MIGRATE: a window of slots after the other is marked, emptied and handed over.

While one window is emptied, the next is marked and the one before handed over. To be stopped takes as long as two small
windows, and leaves no slot open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.events import Approval
from redkeep.run.moving.drain import Drain, by_slot
from redkeep.run.moving.ends import road
from redkeep.run.moving.heavy import Heavy, survey
from redkeep.run.moving.pace import watched

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context

#: Slots of a window, and keys after which no further slot is taken in.
SLOTS, KEYS = 64, 5000
#: Seconds that one key may hold everybody up without anybody being asked.
UNASKED = 0.1
_NAMED = 5


async def by_windows(
    context: Context, source: DesiredNode, target: DesiredNode, slots: Sequence[int], stop: asyncio.Event
) -> None:
    """Until all slots are at the target, or ``stop`` is set and the open windows are through."""
    traffic, fleet = context.traffic, context.fleet
    async with road(fleet, source, target) as way, watched(fleet, source, traffic.max_latency) as pace:
        counts = await way.source.counts(slots)
        heavy = await survey(way.source, counts)
        await consent(context, source, heavy)
        pace.calm()
        drain = Drain(
            fleet, way, pace, traffic, by_slot([h for h in heavy if h.cost > traffic.max_latency / 4])
        )
        ahead: asyncio.Task[None] | None = None
        behind: asyncio.Task[None] | None = None
        try:
            windows = list(_windows(slots, counts))
            ahead = asyncio.create_task(way.mark(windows[0]))
            for index, window in enumerate(windows):
                await ahead
                more = index + 1 < len(windows) and not stop.is_set()
                ahead = asyncio.create_task(way.mark(windows[index + 1])) if more else None
                await drain.slots({slot: counts[slot] for slot in window})
                if behind is not None:
                    await behind
                behind = asyncio.create_task(way.hand_over(window))
                traffic.moved(len(window), context.emit)
                if ahead is None:
                    break
            if behind is not None:
                await behind
        finally:
            await asyncio.gather(*(t for t in (ahead, behind) if t is not None), return_exceptions=True)


async def consent(context: Context, source: DesiredNode, heavy: Sequence[Heavy]) -> None:
    """Asks before the first key goes, where single keys will hold the server up for long."""
    limit = context.traffic.max_pause or UNASKED
    long = sorted((h for h in heavy if h.cost > limit), key=lambda h: -h.cost)
    if not long:
        return
    lines = [f"{source.name} serves nobody while one of these keys goes; a server moves a key as a whole:"]
    lines += [f"  {h}" for h in long[:_NAMED]]
    lines += [f"  and {len(long) - _NAMED} more"] if len(long) > _NAMED else []
    question = Approval(
        "ordinary", f"move {len(long)} such keys from {source.name} all the same?", "\n".join(lines)
    )
    if not await context.approve(question):
        raise RefusedError(
            f"nothing was moved from {source.name}: its large keys were not approved",
            where=str(long[0]),
            next="split such keys, or leave their hash slots where they are",
        )


def _windows(slots: Sequence[int], counts: Mapping[int, int]) -> Iterator[list[int]]:
    window: list[int] = []
    keys = 0
    for slot in slots:
        if window and (len(window) >= SLOTS or keys + counts[slot] > KEYS):
            yield window
            window, keys = [], 0
        window.append(slot)
        keys += counts[slot]
    if window:
        yield window
