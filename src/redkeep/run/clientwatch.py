"""A load program while it runs, and what it saw of a fault."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO

from redkeep.run.clientprograms import Command

#: Milliseconds that one counter of a program stands for.
BUCKET = 10
#: A pause of this many milliseconds counts as an outage: writers of a tag come every 10 ms.
PAUSE = 250


@dataclass(frozen=True)
class Outage:
    """What one program saw. Milliseconds from the fault; ``back`` is ``None`` where writes never came back.

    ``back`` is the end of the longest pause of writes on a tag of the lost primary, ``pause`` its length. ``failed``
    counts operations, with those of the other tags.
    """

    back: int | None
    pause: int
    failed: int
    errors: tuple[str, ...]


@dataclass
class Watched:
    """The counters of a program: tag -> milliseconds since the epoch -> operations."""

    name: str
    process: subprocess.Popen[str]
    ok: dict[str, Counter[int]] = field(default_factory=dict)
    failed: dict[str, Counter[int]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    seen_until: int = 0

    def read(self, lines: IO[str]) -> None:
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "B":
                self._count(rest)
            elif word == "E":
                self.errors.append(rest[:300])
            else:
                self.tail = [*self.tail[-30:], line.rstrip()]

    def _count(self, rest: str) -> None:
        first, tag, *lists = rest.split(" ")
        for counters, listed in zip((self.ok, self.failed), lists, strict=True):
            its = counters.setdefault(tag, Counter())
            for i, number in enumerate(listed.split(",")):
                if number not in ("", "0"):
                    its[int(first) + i * BUCKET] += int(number)
        self.seen_until = int(first) + len(lists[0].split(",")) * BUCKET

    def writes_since(self, tag: str, at: int) -> bool:
        return any(t >= at for t in list(self.ok.get(tag, ())))

    def well(self, tags: tuple[str, ...], at: int) -> bool:
        """Every tag was written in each of the last two seconds, all of them after ``at``, and nothing failed there."""
        now = self.seen_until
        if now - 2000 < at:
            return False
        for tag in tags:
            times = [t for t in list(self.ok.get(tag, ())) if t >= now - 2000]
            if not any(t < now - 1000 for t in times) or not any(t >= now - 1000 for t in times):
                return False
            if any(t >= now - 2000 for t in list(self.failed.get(tag, ()))):
                return False
        return True

    def outage(self, lost: tuple[str, ...], at: int) -> Outage:
        """Of a fault at ``at`` that took the primary of the tags ``lost``."""
        pauses = [self._pause(tag, at) for tag in lost]
        backs = [self._back(gap, end, at) for gap, end in pauses]
        failed = sum(n for its in self.failed.values() for t, n in its.items() if t >= at)
        back = None if None in backs else max(b for b in backs if b is not None)
        return Outage(back, max(gap for gap, _ in pauses), failed, tuple(self.errors))

    def _pause(self, tag: str, at: int) -> tuple[int, int]:
        """The longest, and its end."""
        times = [at, *sorted(t for t in self.ok.get(tag, ()) if t > at), self.seen_until]
        return max((b - a, b) for a, b in pairwise(times))

    def _back(self, gap: int, end: int, at: int) -> int | None:
        if gap < PAUSE:
            return 0
        return None if end == self.seen_until and gap > 2 * PAUSE else end - at


@contextmanager
def watching(name: str, command: Command, kind: str, environment: Mapping[str, str]) -> Iterator[Watched]:
    """A running program. It ends with the block, in any case."""
    process = subprocess.Popen(
        [*command.argv, kind],
        cwd=command.folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    found = Watched(name, process)
    reader = threading.Thread(target=found.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.kill()
        process.wait()
        reader.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def now() -> int:
    """Milliseconds since the epoch, as the programs count."""
    return int(time.time() * 1000)
