"""How fast keys may go: as fast as clients of the source do not feel it.

While a MIGRATE runs, the source serves nobody, so a batch may take a sixth of what clients are promised at most: some meet
two in a row, some are sent on to the target, which has batches of its own to take in, and the rest is the machine's
(measured on two cores with 5 ms: a half gave clients a 99th percentile of 8 ms, a fifth 4.8 to 5.9, a sixth 4.3 to 5.1).

Beside that, a probe on a connection of its own waits in the same queue as clients do. It is asked too seldom for a 99th
percentile, which would be the worst of its eighty answers and often our own delay; when its 95th is above the limit,
batches become smaller and pauses between them longer; where that does not help, the cause is another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from statistics import linear_regression
from typing import TYPE_CHECKING

from redkeep.errors import RedkeepError

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.fleet import Fleet

#: Seconds between two probes, and how many of them are judged together.
INTERVAL = 0.005
_SAMPLES = 80
#: A batch may take this part of the limit.
SHARE = 6
#: Keys of a first batch, when nothing is known yet, and of the largest.
_FIRST, _MOST = 32, 2000
#: Keys of a batch that is not made smaller for what all batches take alike.
_FEW = 8
#: Batches that are judged together.
_REMEMBERED = 20
#: Seconds of a pause between two batches.
_SHORTEST_GAP, _LONGEST_GAP = 0.0005, 0.02
#: How often in a row it may be slowed down without effect.
_PATIENCE = 3


class Pace:
    """``keys``: how many a batch may have now; ``gap``: seconds to wait after it."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.keys = _FIRST
        self.gap = 0.0
        self._budget = limit / SHARE
        self._samples: list[float] = []
        self._batches: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._base = float("inf")
        #: what is late for other reasons than ours, and how late it was when we began to go slower
        self._usual = 0.0
        self._before = 0.0
        self._slowed = 0

    def took(self, keys: int, seconds: float) -> None:
        """A batch of so many keys held the source up for so long.

        Part of that is the same for one key as for eight: the way to the target, and on a busy machine the target's
        waiting for a core. Smaller batches only have more of it, so where few keys would fit it is what each key costs
        that counts.
        """
        seconds = max(seconds, 1e-5)
        self._batches.append((keys, seconds))
        fitting = keys * self._budget / seconds
        if fitting < _FEW and (each := self._each()) is not None:
            fitting = max(fitting, min(_FEW, self._budget / max(each, 1e-6)))
        if fitting < keys:
            self.keys = max(1, int(fitting))
        elif keys * 2 >= self.keys:
            self.keys = int(min(_MOST, max(self.keys, fitting * 0.8), self.keys * 2))

    def _each(self) -> float | None:
        """Seconds that one more key adds to a batch; ``None`` where all of the last ones had as many."""
        keys, seconds = zip(*self._batches, strict=True)
        return linear_regression(keys, seconds).slope if len(set(keys)) > 1 else None

    def waited(self, seconds: float) -> None:
        """A probe came back after so long."""
        self._base = min(self._base, seconds)
        self._samples.append(seconds)
        if len(self._samples) >= _SAMPLES:
            late, self._samples = self._late(), []
            self._adapt(late)

    def calm(self) -> None:
        """Nothing was moved until now: what was measured is what clients are used to."""
        self._usual, self._samples = self._late(), []

    @property
    def round_trip(self) -> float:
        """Seconds; the quickest answer so far."""
        return 0.0 if self._base == float("inf") else self._base

    def _late(self) -> float:
        """Seconds that one of twenty probes waited, the way there and back taken off."""
        if not self._samples:
            return 0.0
        ordered = sorted(self._samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] - self.round_trip

    def _adapt(self, late: float) -> None:
        limit = max(self.limit, 2 * self._usual)
        if late <= limit:
            if late < 0.7 * limit:
                self._budget = min(self.limit / SHARE, self._budget * 1.3)
                self.gap = 0.0 if self.gap < _SHORTEST_GAP else self.gap * 0.6
            self._usual *= 0.95
            self._slowed = 0
            return
        if not self._slowed:
            self._before = late
        self._slowed += 1
        if self._slowed > _PATIENCE and late > 0.8 * self._before:
            # Going slower does not help, so the machine is busy with something else.
            self._usual, self._slowed = late, 0
            self._budget, self.gap = self.limit / SHARE, 0.0
            return
        self._budget = max(self.limit / 10, self._budget * 0.7)
        self.keys = max(1, int(self.keys * 0.7))
        self.gap = min(_LONGEST_GAP, max(_SHORTEST_GAP, self.gap * 2))


@contextlib.asynccontextmanager
async def watched(fleet: Fleet, node: DesiredNode, limit: float) -> AsyncIterator[Pace]:
    """A pace that a probe on the node keeps up to date."""
    pace = Pace(limit)
    client = await fleet.another(node)

    async def probe() -> None:
        while True:
            began = time.monotonic()
            try:
                await client.call("PING")
            except RedkeepError:
                return  # whoever moves keys sees that too, and says so
            pace.waited(time.monotonic() - began)
            await asyncio.sleep(INTERVAL)

    task = asyncio.create_task(probe())
    try:
        yield pace
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.close()
