"""How long ``redkeep --help`` takes to start, measured against a bare Python in the same run.

The goal is 10 starts of a bare Python. Both are run in turn, so that other load on the machine meets both alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROUNDS = 20
GOAL = 10.0


def seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int = ROUNDS) -> tuple[float, float]:
    """Medians in seconds: a bare Python, and ``redkeep --help``."""
    bare = [sys.executable, "-c", "pass"]
    command = [str(Path(sys.executable).with_name("redkeep")), "--help"]
    seconds(command)  # once, so that compiled modules are there
    pairs = [(seconds(bare), seconds(command)) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def main() -> int:
    bare, command = measure()
    ratio = command / bare
    print(f"python -c pass  {bare * 1000:6.1f} ms")
    print(f"redkeep --help  {command * 1000:6.1f} ms")
    print(f"ratio           {ratio:6.1f}    (goal: at most {GOAL:g})")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
