"""How far work on keys is, how fast, and how long it will take: said twice a second."""

from __future__ import annotations

import time

from redkeep.model.events import Emit, Progress

_EVERY = 0.5


class Pace:
    def __init__(self, what: str, total: int, emit: Emit) -> None:
        self._what, self._total, self._emit = what, total, emit
        self._began = self._said = time.monotonic()
        self.done = 0

    def add(self, keys: int) -> None:
        self.done += keys
        now = time.monotonic()
        if now - self._said >= _EVERY:
            self._said = now
            rate = self.done / (now - self._began)
            left = max(0, self._total - self.done) / rate if rate else 0
            self._tell(f"keys  {rate:,.0f} a second  {left:.0f} s left")

    def end(self) -> None:
        self._total = self.done
        self._tell("keys")

    def _tell(self, unit: str) -> None:
        self._emit(Progress(self._what, self.done, max(self.done, self._total), unit))
