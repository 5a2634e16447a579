"""What a drill breaks, and what clients saw of it. Values only; times in milliseconds where a name ends in ``_ms``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Kind = Literal[
    "primary-kill",
    "primary-hang",
    "replica-kill",
    "sentinel-kill",
    "host-loss",
    "partition",
    "full-disk",
    "slow-disk",
]

#: What each fault is, in a line.
FAULTS: dict[Kind, str] = {
    "primary-kill": "kill -9 of a primary; its supervision brings the process back",
    "primary-hang": "a primary stands still (SIGSTOP) and comes back later, believing that it still is one",
    "replica-kill": "kill -9 of a replica",
    "sentinel-kill": "kill -9 of a Sentinel",
    "host-loss": "every process of a host is killed, and the host is cut off from everybody but SSH",
    "partition": "servers of some hosts are cut off from those of others; clients still reach both sides",
    "full-disk": "the disk under a host's data is full, and a snapshot is due",
    "slow-disk": "the disk under a host's data does ten writes a second for its servers, and a snapshot is due",
}

#: Those that last until they are undone.
HELD: frozenset[Kind] = frozenset({"primary-hang", "host-loss", "partition", "full-disk", "slow-disk"})
#: Those of whole hosts.
OF_HOSTS: frozenset[Kind] = frozenset({"host-loss", "partition", "full-disk", "slow-disk"})


@dataclass(frozen=True)
class Target:
    """What one run breaks. ``shards`` are those whose writes should stop for a while; ``hold`` is in seconds.

    ``hosts``: where it is caused, several in a partition only; ``apart``: whom a partition cuts them off from.
    """

    fault: Kind
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]
    shards: tuple[int, ...]
    hold: float
    apart: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The node, or the host or hosts where all of it is meant."""
        return "+".join(self.hosts) if self.fault in OF_HOSTS else self.nodes[0]


@dataclass(frozen=True)
class Happened:
    """Something that was seen at a node, so many milliseconds after the fault (before it: negative)."""

    at_ms: float
    node: str
    what: str

    def as_json(self) -> dict[str, Any]:
        return {"at_ms": round(self.at_ms, 1), "node": self.node, "what": self.what}


@dataclass(frozen=True)
class Felt:
    """What the writer of one shard felt. ``series``: for each slice of time its begin, the writes acknowledged in it,
    the highest latency of these in milliseconds, and the errors.

    For whoever counts again: ``sent`` keys were written, ``keys`` followed by 0, 1, 2, ...; all but ``unacknowledged``
    were acknowledged.
    """

    shard: str
    window_ms: float
    longest_gap_ms: float
    acknowledged: int
    lost: int
    errors: int
    keys: str = ""
    sent: int = 0
    unacknowledged: tuple[int, ...] = ()
    series: tuple[tuple[float, int, float, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "window_ms": round(self.window_ms, 1),
            "longest_gap_ms": round(self.longest_gap_ms, 1),
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "errors": self.errors,
            "keys": self.keys,
            "sent": self.sent,
            "unacknowledged": list(self.unacknowledged),
        }


@dataclass(frozen=True)
class ClientFelt:
    """What a real client library felt, with the settings that are printed for it, in milliseconds from the fault.

    ``window_ms`` is the end of its longest pause of writes (0: none over 250 ms); ``None``: not back within
    ``watched_ms``. ``failed`` counts operations; ``errors`` are the first of each kind.
    """

    library: str
    window_ms: float | None
    failed: int
    watched_ms: float
    errors: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "library": self.library,
            "window_ms": self.window_ms,
            "failed": self.failed,
            "watched_ms": round(self.watched_ms, 1),
            "errors": list(self.errors),
        }


@dataclass(frozen=True)
class Run:
    """One fault and its recovery. ``window_ms``: the longest of the shards that it hit; ``voted_ms``: until a replica
    said that it is the primary (``None``: none did); ``redundant_again_ms``: until every node was well again."""

    fault: Kind
    subject: str
    felt: tuple[Felt, ...]
    window_ms: float
    voted_ms: float | None
    redundant_again_ms: float
    stale_reads: int
    reordered: int
    reads: int
    happened: tuple[Happened, ...]
    client: ClientFelt | None = None

    @property
    def acknowledged(self) -> int:
        return sum(f.acknowledged for f in self.felt)

    @property
    def lost(self) -> int:
        return sum(f.lost for f in self.felt)

    @property
    def errors(self) -> int:
        return sum(f.errors for f in self.felt)

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "subject": self.subject,
            "window_ms": round(self.window_ms, 1),
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "stale_reads": self.stale_reads,
            "reordered": self.reordered,
            "reads": self.reads,
            "errors": self.errors,
            "voted_ms": None if self.voted_ms is None else round(self.voted_ms, 1),
            "redundant_again_ms": round(self.redundant_again_ms, 1),
            "shards": [f.as_json() for f in self.felt],
            "client": self.client and self.client.as_json(),
            "events": [h.as_json() for h in self.happened],
        }


@dataclass(frozen=True)
class Drill:
    """All runs of one command. ``fault`` is ``sequence`` where there were several kinds."""

    name: str
    mode: str
    engine: str
    began: str
    fault: str
    settings: Mapping[str, Any]
    runs: tuple[Run, ...]
    report: str | None = None

    @property
    def median_window_ms(self) -> float:
        return float(median(r.window_ms for r in self.runs)) if self.runs else 0.0

    @property
    def lost(self) -> int:
        return sum(r.lost for r in self.runs)

    def as_json(self) -> dict[str, Any]:
        windows = [r.window_ms for r in self.runs]
        return {
            "name": self.name,
            "mode": self.mode,
            "engine": self.engine,
            "began": self.began,
            "fault": self.fault,
            "settings": dict(self.settings),
            "runs": [r.as_json() for r in self.runs],
            "median_window_ms": round(self.median_window_ms, 1),
            "shortest_window_ms": round(min(windows, default=0.0), 1),
            "longest_window_ms": round(max(windows, default=0.0), 1),
            "lost": self.lost,
            "report": self.report,
        }
