"""How long ``redkeep check`` takes, against ``redis-cli --cluster check``, on Clusters of small real servers.

Both look at the same Cluster in turns, so that other load on the machine meets both alike. Three times are measured:
the whole command from a cold start, the check alone in a program that has started (its second look, as ``--watch`` has
it), and redis-cli's. Given are the shortest and the median of several rounds; the ratio is of rounds, not of medians.
The Clusters are given to their servers as nodes.conf, which takes a minute for 200 nodes on two cores.

    python bench/check.py                    6, 60 and 200 nodes
    python bench/check.py --nodes 60
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.readymade import readymade

#: nodes -> (the check alone, at most so many times redis-cli's; the whole command in ms at most)
GOALS = {60: (2.0, 400.0), 200: (1.0, 600.0)}

#: The check alone: what a program does that has looked before, until the text for the terminal is there.
_STARTED = """
import asyncio, gc, sys, time
from redkeep.faces.findings import checked_text
from redkeep.usecases.check import Access, check_targets, targets_of
gc.disable()  # as the command does
for _ in range(2):
    begun = time.perf_counter()
    text = checked_text(asyncio.run(check_targets(targets_of([sys.argv[1]]), Access())))
print(time.perf_counter() - begun)
"""


@dataclass(frozen=True)
class Times:
    """Seconds: the whole command, the check alone, and redis-cli's."""

    cold: float
    alone: float
    theirs: float


def seconds(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    taken = time.perf_counter() - begun
    if done.returncode not in (0, 3):
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
    return taken


def alone(target: str) -> float:
    command = [sys.executable, "-c", _STARTED, target]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    return float(done.stdout.split()[-1])


def environment() -> dict[str, str]:
    """Ours, with compiled modules as after an installation."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
        "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "redkeep-bench-pyc")
    }


def disputes(ports: Sequence[int], cli: str) -> tuple[int, int, int]:
    """Slots that one node each is told to belong to somebody else; how many redis-cli names, and we."""
    slots = []
    for port, other in zip(ports, (*ports[1:], ports[0]), strict=True):
        owner = said(cli, other, "CLUSTER", "MYID")
        mine = next(line for line in said(cli, port, "CLUSTER", "NODES").splitlines() if "myself" in line)
        slot = mine.split()[8].rpartition("-")[2]  # the last one: readiness was tried with keys of the first
        if said(cli, port, "CLUSTER", "SETSLOT", slot, "NODE", owner) != "OK":
            raise SystemExit(f"slot {slot} could not be made disputed")
        slots.append(slot)
    target, own = f"127.0.0.1:{ports[-1]}", str(Path(sys.executable).with_name("redkeep"))
    theirs = subprocess.run([cli, "--cluster", "check", target], check=False, capture_output=True, text=True)
    ours = subprocess.run(
        [own, "check", target, "--json"], check=False, capture_output=True, text=True, env=environment()
    )
    found = " ".join(
        f["subject"] for f in json.loads(ours.stdout)["findings"] if f["rule"] == "slots-disputed"
    )
    differing = [line for line in theirs.stdout.splitlines() if "ERR" in line or "WARNING" in line]
    return (
        len(slots),
        sum(re.search(rf"\b{slot}\b", " ".join(differing)) is not None for slot in slots),
        sum(re.search(rf"\b{slot}\b", found) is not None for slot in slots),
    )


def said(cli: str, port: int, *words: str) -> str:
    done = subprocess.run([cli, "-p", str(port), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def look(port: int, cli: str, rounds: int) -> list[Times]:
    target, own = f"127.0.0.1:{port}", str(Path(sys.executable).with_name("redkeep"))
    times = []
    for _ in range(rounds + 1):
        theirs = seconds([cli, "--cluster", "check", target])
        cold = seconds([own, "check", target])
        times.append(Times(cold, alone(target), theirs))
    return times[1:]  # once, so that compiled modules are there


def measured(nodes: int, cli: str, rounds: int) -> tuple[list[Times], tuple[int, int, int]]:
    with tempfile.TemporaryDirectory(prefix="redkeep-bench-") as name, readymade(nodes, Path(name)) as ports:
        return look(ports[0], cli, rounds), disputes(ports[:3], cli)


def report(nodes: int, times: list[Times], found: tuple[int, int, int]) -> bool:
    most, slowest = GOALS.get(nodes, (float("inf"), float("inf")))
    ratio = statistics.median(t.alone / t.theirs for t in times)
    best = min(t.alone / t.theirs for t in times)
    print(
        f"{nodes:4} nodes   in ms: the shortest, the median of {len(times)} rounds; load {os.getloadavg()[0]:.1f}"
    )
    print(f"     redis-cli --cluster check {_ms([t.theirs for t in times])}")
    print(
        f"     redkeep, started already  {_ms([t.alone for t in times])}   ratio {best:.2f}, {ratio:.2f}"
        f"{f' (goal: at most {most:g})' if nodes in GOALS else ''}"
    )
    print(
        f"     redkeep, from cold start  {_ms([t.cold for t in times])}"
        f"{f'   (goal: {slowest:g})' if nodes in GOALS else ''}"
    )
    made, named_by_them, named_by_us = found
    print(f"     of {made} disputed slots redis-cli names {named_by_them}, redkeep {named_by_us}", flush=True)
    return ratio <= most and statistics.median(t.cold for t in times) * 1000 <= slowest


def _ms(seconds: list[float]) -> str:
    return f"{min(seconds) * 1000:7.1f} {statistics.median(seconds) * 1000:7.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, action="append", help="repeatable (default: 6, 60 and 200)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cli = shutil.which("redis-cli")
    if not cli:
        print("no redis-cli here, so nothing to compare with: apt-get install redis-tools")
        return 1
    before = os.getloadavg()[0]
    fine = [report(n, *measured(n, cli, arguments.rounds)) for n in arguments.nodes or (6, 60, 200)]
    print(f"load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores")
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
