"""What clients saw, as a picture of characters."""

from __future__ import annotations

from redkeep.usecases.demo import Demo

_BARS = " ▁▂▃▄▅▆▇█"
#: Tenths of a second that fit on a line of 80 columns.
_WIDTH = 64


def demo_text(found: Demo, *, staying: bool) -> str:
    seen = found.outage
    lines = [
        "",
        f"Writes acknowledged, a column for each {_step(found) * 100} ms; ! is the kill of {seen.killed}:",
    ]
    step = _step(found)
    pulses = {shard: _folded(counts, step) for shard, counts in seen.pulse.items()}
    most = max((max(p) for p in pulses.values() if p), default=1)
    for shard, counts in pulses.items():
        lines.append(f"  {shard:<9} {''.join(_bar(c, most) for c in counts)}")
    lines.append(f"  {'':<9} {' ' * (seen.fault_at // step)}!")
    lines += [
        "",
        f"  no writes to {seen.shard} for {seen.window_ms:,.0f} ms; redundant again after {seen.redundant_again_ms:,.0f} ms",
        f"  {seen.audit.acknowledged:,} writes acknowledged, {seen.audit.lost:,} of them lost "
        f"(read back by another client), {seen.errors:,} errors seen",
        f"  {found.engine}; {len(found.nodes)} processes, ready after {found.ready_seconds:.2f} s",
    ]
    if staying:
        lines += ["", "It runs on, until Ctrl-C. Connect with:", *(f"  {u}" for u in found.urls[:3])]
    return "\n".join(lines)


def _step(found: Demo) -> int:
    longest = max((len(p) for p in found.outage.pulse.values()), default=1)
    return max(1, -(-longest // _WIDTH))


def _folded(counts: list[int], step: int) -> list[int]:
    return [sum(counts[i : i + step]) for i in range(0, len(counts), step)]


def bars(counts: list[int]) -> str:
    """A line of characters as high as the counts, the highest of them full."""
    most = max(counts, default=0)
    return "".join(_bar(c, most) for c in counts)


def _bar(count: int, most: int) -> str:
    """Nothing at all is a blank; anything is at least the lowest bar."""
    if not count or not most:
        return _BARS[0]
    return _BARS[max(1, round(count / most * (len(_BARS) - 1)))]
