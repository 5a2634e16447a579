"""What all moves of one command share: the limits that clients are promised, whose turn it is, and what was done."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from redkeep.model.events import Emit, Progress
from redkeep.planning.reshard import Way

#: Seconds; what a client of a source may wait in 99 of 100 cases.
MAX_LATENCY = 0.005
#: Sources that send one target keys at a time. While it takes those of one in, another gathers its own; a third mostly
#: holds its clients up (measured on two cores: with three a 99th percentile of 6.4 to 8.1 ms in 9 to 11 s, with two 4.0 to
#: 5.1 ms in 9.4 to 12.3 s).
ARRIVALS = 2


@dataclass
class Traffic:
    """``max_latency``: seconds that 99 of 100 commands of clients may take longer while keys are moved one batch after the
    other. ``max_pause``: seconds that all clients of a shard may wait at once; ``None``: what the fastest method
    needs (about 0.1 s for the change of owner in one atomic migration). ``folder``: where values are saved that exist on
    both sides, before one of them is given up; without a folder such keys stop the move.
    """

    max_latency: float = MAX_LATENCY
    max_pause: float | None = None
    folder: Path | None = None
    #: one move at a time from each source, and key by key from so many sources into each target
    turns: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    arrivals: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(ARRIVALS))
    )
    #: of targets that get what their first slots need
    doors: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    planned_slots: int = 0
    moved_slots: int = 0
    moved_keys: int = 0
    #: slots of interrupted moves that were put right
    settled: int = 0
    methods: set[str] = field(default_factory=set)
    #: keys that existed on both sides, and the file with both of their values
    doubles: int = 0
    saved: Path | None = None
    _ways: dict[Way, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition)
    _begun: float = 0.0
    _shown: float = 0.0

    @contextlib.asynccontextmanager
    async def by(self, way: Way, *nodes: str) -> AsyncIterator[None]:
        """The nodes move slots in this way only, until the block ends; several moves may do so at once.

        Valkey 9 refuses to mark a slot as importing while the engine itself imports others there ("Slot import in
        progress"), and the other way round.
        """

        def free() -> bool:
            return not any(self._ways[other][n] for other in list(self._ways) if other != way for n in nodes)

        async with self._ended:
            await self._ended.wait_for(free)
            self._ways[way].update(nodes)
        try:
            yield
        finally:
            async with self._ended:
                self._ways[way].subtract(nodes)
                self._ended.notify_all()

    def begins(self, slots: int) -> None:
        """A move of so many slots joins in."""
        self.planned_slots += slots
        self._begun = self._begun or time.monotonic()

    def moved(self, slots: int, emit: Emit) -> None:
        """So many more slots are where they shall be. Tells that a few times a second, with the rate and the time left."""
        self.moved_slots += slots
        now = time.monotonic()
        done = self.moved_slots >= self.planned_slots
        if not done and now - self._shown < 0.2:
            return
        self._shown = now
        seconds = max(now - self._begun, 1e-3)
        left = (
            seconds / self.moved_slots * (self.planned_slots - self.moved_slots) if self.moved_slots else 0.0
        )
        rate = f"{self.moved_keys / seconds:,.0f} keys/s" + ("" if done else f", about {left:.0f} s left")
        emit(Progress(f"moving hash slots ({rate})", self.moved_slots, self.planned_slots, "slots"))
