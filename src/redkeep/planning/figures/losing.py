"""``consistency``: what an acknowledged write can lose here, and what the last drills saw of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redkeep.planning.figures.figure import Figure, figure
from redkeep.planning.figures.shape import Shape
from redkeep.planning.rules.words import listed, number

#: Milliseconds between two of a replica's words on what it has (replication.c: replicationCron, once a second).
_ACK_MS = 1000
#: The engines' default.
_MAX_LAG_S = 10


def consistency(shape: Shape, drills: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """``drills``: documents of ``redkeep drill --json``, the oldest first."""
    yield from _copies(shape)
    yield from _behind(shape)
    yield from _cut_off(shape)
    yield from _on_disk(shape)
    yield from _drilled(shape, drills)


def _copies(shape: Shape) -> Iterator[Figure]:
    bare = [p.name for p in shape.primaries if not shape.replicas_of(p)]
    if bare:
        yield figure("consistency.bare", nodes=listed(bare))
    if len(bare) < len(shape.primaries):
        yield figure("consistency.asynchronous")


def _behind(shape: Shape) -> Iterator[Figure]:
    for primary in shape.primaries:
        for replica in shape.replicas_of(primary):
            if primary.offset is not None and replica.offset is not None:
                behind = max(0, primary.offset - replica.offset)
                yield figure("consistency.behind", node=replica.name, primary=primary.name, bytes=behind)


def _cut_off(shape: Shape) -> Iterator[Figure]:
    """A primary that clients still reach, and nobody else."""
    least = number(shape.settings.get("min-replicas-to-write"), 0)
    lag = number(shape.settings.get("min-replicas-max-lag"), _MAX_LAG_S)
    if shape.mode == "cluster":
        yield figure("consistency.cluster-cut-off", timeout=shape.detection_ms)
    elif shape.mode == "sentinel":
        yield figure("consistency.sentinel-cut-off", timeout=shape.detection_ms)
    if not any(shape.replicas_of(p) for p in shape.primaries):
        return
    if least and lag:
        yield figure("consistency.bounded", least=least, lag=lag, most=lag + _ACK_MS // 1000)
    else:
        yield figure("consistency.unbounded", lag=lag)


def _on_disk(shape: Shape) -> Iterator[Figure]:
    fsync = shape.settings.get("appendfsync", "everysec")
    if shape.settings.get("appendonly") != "yes":
        yield figure("consistency.no-aof")
    else:
        yield figure(f"consistency.fsync-{fsync if fsync in ('always', 'no') else 'everysec'}")


def _drilled(shape: Shape, drills: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """The last of each fault."""
    last = {str(d.get("fault")): d for d in drills if d.get("runs")}
    for fault, document in sorted(last.items(), key=lambda item: str(item[1].get("began"))):
        runs = document["runs"]
        yield figure(
            "consistency.drill",
            fault=fault,
            began=document.get("began", "?"),
            runs=len(runs),
            lost=sum(int(r.get("lost", 0)) for r in runs),
            acknowledged=sum(int(r.get("acknowledged", 0)) for r in runs),
            window=f"{float(document.get('median_window_ms', 0)):.0f}",
        )
    if not last and shape.source != "example":
        yield figure("consistency.no-drill")
