"""A drill as text, for 80 columns."""

from __future__ import annotations

from typing import Any

from redkeep.faces.output import clean
from redkeep.faces.picture import bars
from redkeep.model.drill import ClientFelt, Drill, Felt, Run

_WIDTH = 60
#: Events that are named below a run.
_SHOWN = 12


def drill_text(found: Drill, report: str) -> str:
    lines: list[str] = []
    for number, run in enumerate(found.runs, 1):
        lines += ["", f"run {number}: {run.fault} of {run.subject}", *_run_lines(run)]
    lines.append("")
    if len(found.runs) > 1:
        windows = sorted(r.window_ms for r in found.runs)
        lines.append(
            f"{len(found.runs)} runs: no writes for {found.median_window_ms:,.0f} ms (median), "
            f"{windows[0]:,.0f} to {windows[-1]:,.0f}; {found.lost:,} acknowledged writes lost"
        )
    lines.append(f"report: {report}")
    return "\n".join(lines)


def _run_lines(run: Run) -> list[str]:
    lines = [f"  {felt.shard:<9} {_pulse(felt)}" for felt in run.felt]
    lost = f"{run.lost:,} of them LOST" if run.lost else "none of them lost"
    lines += [
        f"  no writes for {run.window_ms:,.0f} ms; all nodes well again after {run.redundant_again_ms:,.0f} ms",
        f"  {run.acknowledged:,} writes acknowledged, {lost}; {run.errors:,} errors",
        f"  {run.stale_reads:,} of {run.reads:,} reads stale, {run.reordered:,} went back in time",
    ]
    if run.client:
        lines += _client_lines(run.client)
    lines += [f"  {h.at_ms:>9,.0f} ms  {clean(h.node)}  {clean(h.what)}"[:100] for h in run.happened[:_SHOWN]]
    if len(run.happened) > _SHOWN:
        lines.append(f"  and {len(run.happened) - _SHOWN} more events, in the report")
    return lines


def _client_lines(felt: ClientFelt) -> list[str]:
    """The user's library beside our own writer."""
    if felt.window_ms is None:
        back = f"NOT back within {felt.watched_ms / 1000:,.0f} s"
    elif felt.window_ms:
        back = f"no writes for {felt.window_ms:,.0f} ms"
    else:
        back = "no pause of writes over 250 ms"
    lines = [f"  {felt.library}, printed settings: {back}; {felt.failed:,} operations failed"]
    return lines + [f"    {clean(e)}"[:100] for e in felt.errors[:3]]


def _pulse(felt: Felt) -> str:
    """Writes acknowledged over time; where there is nothing, there was nothing."""
    if not felt.series:
        return ""
    first, last = felt.series[0][0], felt.series[-1][0]
    width = (last - first) / _WIDTH or 1.0
    counts = [0] * (_WIDTH + 1)
    for at, acknowledged, _, _ in felt.series:
        counts[int((at - first) / width)] += acknowledged
    return bars(counts[:_WIDTH])


def history_text(records: list[dict[str, Any]]) -> str:
    if not records:
        return "no drill on record; redkeep drill primary-kill makes the first"
    lines = [f"{'when':<21}{'fault':<15}{'runs':>5}{'median ms':>11}{'longest ms':>12}{'lost':>8}"]
    for record in records:
        lines.append(
            f"{clean(str(record['began'])):<21}{clean(str(record['fault'])):<15}{len(record['runs']):>5}"
            f"{record['median_window_ms']:>11,.0f}{record['longest_window_ms']:>12,.0f}{record['lost']:>8,}"
        )
    return "\n".join(lines)
