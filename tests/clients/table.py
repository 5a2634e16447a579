"""The README's table: every library with the printed settings beside its own, through the same failovers.

    python -m tests.clients.table [--runs 3] [--only lettuce,jedis] [--json FILE]

Both programs of a library run at the same time against the same deployment, so each row is one fault seen twice. All
libraries share a fault too. Medians over the runs; "never back" where writes did not come back while we watched. Of a
planned switchover it is the time without writes, of a fault the time until they are back.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from redkeep.run.clientprograms import PROGRAMS, Command, Program
from redkeep.run.clientwatch import Outage, Watched, now, watching
from tests.clients.stage import Fault, Mode, Stage, staged, until

Kind = Literal["settings", "naive"]

#: Seconds that programs are watched after a fault.
WATCH = 30.0
#: Seconds for the start of all programs on a busy machine; and for libraries with their own settings after the others.
START, LATECOMERS = 300.0, 20.0
#: Why a library cannot even start with its own settings, where that is known.
_NO_START = "cannot log in"

_TITLES: dict[Fault, str] = {
    "kill": "primary killed",
    "freeze": "primary hangs",
    "switchover": "planned switchover",
}


def _back(run: Outage | None, fault: Fault) -> float:
    """Milliseconds. A switchover begins some time after it is asked for, so its own time is that without writes."""
    if run is None or run.back is None:
        return float("inf")
    return run.pause if fault == "switchover" else run.back


@dataclass(frozen=True)
class Row:
    library: str
    mode: Mode
    fault: Fault
    kind: Kind
    runs: tuple[Outage | None, ...]

    @property
    def back(self) -> float | None:
        """The median in milliseconds; ``None`` where most runs never came back."""
        backs = [_back(r, self.fault) for r in self.runs]
        middle = statistics.median(backs)
        return None if middle == float("inf") else middle

    @property
    def cell(self) -> str:
        if all(r is None for r in self.runs):
            return _NO_START
        if self.back is None:
            return "**never back**"
        failed = statistics.median(r.failed for r in self.runs if r is not None)
        back = f"{self.back / 1000:.{2 if self.fault == 'switchover' else 1}f} s"
        return f"{back}, {failed:,.0f} failed" if failed else back

    def as_json(self) -> dict[str, Any]:
        runs = [
            None
            if r is None
            else {"back_ms": r.back, "pause_ms": r.pause, "failed": r.failed, "errors": r.errors}
            for r in self.runs
        ]
        return {
            "library": self.library,
            "mode": self.mode,
            "fault": self.fault,
            "kind": self.kind,
            "runs": runs,
        }


def measure(
    programs: Sequence[Program],
    modes: Sequence[Mode],
    faults: Sequence[Fault],
    runs: int,
    watch: float,
    folder: Path,
) -> list[Row]:
    rows: list[Row] = []
    for mode in modes:
        (folder / mode).mkdir()
        with staged(mode, folder / mode) as stage:
            commands = {p.name: p.build(stage.printed(p.name), folder / f"{mode}-{p.name}") for p in programs}
            for fault in faults:
                seen: dict[tuple[str, Kind], list[Outage | None]] = {}
                for run in range(runs):
                    print(f"{mode}, {fault}, run {run + 1} of {runs}", file=sys.stderr)
                    try:
                        outages = one_fault(stage, fault, commands, watch)
                    except AssertionError as error:  # one that does not start must not cost what was measured
                        print(f"left out: {error}", file=sys.stderr)
                        continue
                    for key, outage in outages.items():
                        seen.setdefault(key, []).append(outage)
                found = [Row(name, mode, fault, kind, tuple(its)) for (name, kind), its in seen.items()]
                for row in found:
                    print(f"{row.library}, {mode}, {fault}, {row.kind}: {row.cell}", file=sys.stderr)
                rows += found
    return rows


def one_fault(
    stage: Stage, fault: Fault, commands: dict[str, Command], watch: float
) -> dict[tuple[str, Kind], Outage | None]:
    """What each program saw; ``None`` for one that never wrote anything."""
    with ExitStack() as stack:
        programs: dict[tuple[str, Kind], Watched] = {
            (name, kind): stack.enter_context(watching(f"{name} {kind}", command, kind, stage.environment()))
            for name, command in commands.items()
            for kind in get_args(Kind)
        }
        begun = now()

        def ready(program: Watched) -> bool:
            return all(program.writes_since(tag, begun) for tag in stage.tags)

        ours = [p for (_, kind), p in programs.items() if kind == "settings"]

        def started() -> bool:
            ended = [p.name for p in ours if p.process.poll() is not None]
            assert not ended, f"{', '.join(ended)} ended before writing"
            return all(map(ready, ours))

        until(
            started,
            lambda: f"writes by {', '.join(p.name for p in ours if not ready(p))}",
            START,
        )
        # a library's own settings may not even get it in, and then it tries for ever
        patience = time.monotonic() + LATECOMERS
        while time.monotonic() < patience and not all(map(ready, programs.values())):
            time.sleep(0.1)
        time.sleep(3)
        lost = stage.tags[0]
        at = now()
        with stage.fault(fault, lost):
            time.sleep(watch)
            of_lost = stage.tags_of(lost)
            return {key: p.outage(of_lost, at) if ready(p) else None for key, p in programs.items()}


def table(rows: Sequence[Row]) -> str:
    """In Markdown: a row for each library and mode; of each fault, the printed settings beside the library's own."""
    faults = list(dict.fromkeys(r.fault for r in rows))
    cells = {(r.library, r.mode, r.fault, r.kind): r.cell for r in rows}
    titles = [title for fault in faults for title in (_TITLES[fault], "its own")]
    lines = [f"| library | mode | {' | '.join(titles)} |", "|---" * (2 + len(titles)) + "|"]
    for library, mode in dict.fromkeys((r.library, r.mode) for r in rows):
        its = [cells.get((library, mode, fault, kind), "") for fault in faults for kind in get_args(Kind)]
        lines.append(f"| {library} | {mode} | {' | '.join(its)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--watch", type=float, default=WATCH, help="seconds after each fault")
    parser.add_argument("--only", default="", help="libraries, a comma between them")
    parser.add_argument("--mode", choices=get_args(Mode), action="append")
    parser.add_argument("--fault", choices=get_args(Fault), action="append")
    parser.add_argument("--json", type=Path, help="also every run, into this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    wanted = [p for p in PROGRAMS if not options.only or p.name in options.only.split(",")]
    for program in wanted:
        if reason := program.missing():
            print(f"{program.name} is left out: {reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="redkeep-clients-") as folder:
        there = [p for p in wanted if not p.missing()]
        modes, faults = options.mode or get_args(Mode), options.fault or get_args(Fault)
        rows = measure(there, modes, faults, options.runs, options.watch, Path(folder))
    if options.json:
        options.json.write_text(json.dumps([r.as_json() for r in rows], indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
