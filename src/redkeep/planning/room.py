"""Whether the keys that a change brings to a primary fit below its ``maxmemory``, and those that it has below a smaller one.

Where they do not, a server without eviction refuses writes half way (OOM), and one that evicts throws the application's
keys away, other ones than those that move. Both are known beforehand, roughly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.sizes import format_size, human
from redkeep.planning.leveling import freight_of, moves
from redkeep.planning.provision import reachable
from redkeep.planning.reshard import Move

if TYPE_CHECKING:
    from redkeep.model.topology import NodeView, Observed
    from redkeep.planning.desired import Desired

#: Bytes that the hash tables take for a key, beside what INFO counts as its data (``used_memory_dataset``).
_ENTRY = 72


@dataclass(frozen=True)
class Tight:
    """A primary that would have more than it may: ``held`` and what comes in, in bytes, against its ``limit``.
    ``policy`` says what happens then."""

    node: str
    held: int
    coming: int
    limit: int
    policy: str

    @property
    def evicts(self) -> bool:
        return self.policy != "noeviction"

    def __str__(self) -> str:
        more = f" and would get about {human(self.coming)}" if self.coming else ""
        return f"{self.node} has {human(self.held)}{more}, with maxmemory {format_size(self.limit)}"


def tight(desired: Desired, observed: Observed) -> tuple[Tight, ...]:
    """For ``apply``. Other settings come before slots move, so the file's limit counts, and nothing has left by then."""
    coming: dict[str, int] = {}
    for move in moves(desired, observed):
        freight = freight_of(observed, desired, move)
        coming[move.target] = coming.get(move.target, 0) + freight.bytes + freight.keys * _ENTRY
    limits = {n.name: (n.settings.get("maxmemory", "0"), _policy(n.settings)) for n in desired.servers}
    return tuple(_tight(desired, observed, coming, limits))


def tight_for(
    desired: Desired, observed: Observed, wanted: Iterable[tuple[Move, int, float]]
) -> tuple[Tight, ...]:
    """For moves of so many keys and bytes each, with the limits that the servers have now."""
    coming: dict[str, int] = {}
    for move, keys, size in wanted:
        coming[move.target] = coming.get(move.target, 0) + int(size) + keys * _ENTRY
    views = {n.name: reachable(observed, n) for n in desired.present if n.name in coming}
    limits = {
        name: (view.config.get("maxmemory", "0"), _policy(view.config))
        for name, view in views.items()
        if view is not None
    }
    return tuple(_tight(desired, observed, coming, limits))


def _tight(
    desired: Desired,
    observed: Observed,
    coming: Mapping[str, int],
    limits: Mapping[str, tuple[str, str]],
) -> Iterator[Tight]:
    for name, (wanted, policy) in limits.items():
        limit, more = int(wanted), coming.get(name, 0)
        view = reachable(observed, desired.node(name))
        if not limit or (view is not None and view.role != "primary"):
            continue
        held = _counted(view) if view else 0
        lowered = view is not None and _is_lower(limit, int(view.config.get("maxmemory", "0")))
        if (more or lowered) and held + more > limit:
            yield Tight(name, held, more, limit, policy)


def _policy(settings: Mapping[str, str]) -> str:
    return settings.get("maxmemory-policy", "noeviction")


def _is_lower(limit: int, now: int) -> bool:
    return not now or limit < now


def _counted(view: NodeView) -> int:
    """What a server compares with its limit: the buffers of replicas and of the append-only file are left out
    (``freeMemoryGetNotCountedMemory`` in evict.c)."""
    return view.memory - int(view.info.get("mem_not_counted_for_evict", "0"))


def check_room(found: Iterable[Tight], *, where: str, instead: str) -> None:
    """Raises ``RefusedError`` where a server would refuse writes. ``instead``: what else one could do."""
    full = [t for t in found if not t.evicts]
    if full:
        needed = max(t.held + t.coming for t in full)
        raise RefusedError(
            f"the keys would not fit: {'; '.join(map(str, full))}; without eviction, writes are refused there",
            where=where,
            next=f"maxmemory: {_rounded(needed)} or more, or {instead}; nothing was changed",
        )


def _rounded(size: int) -> str:
    """With a fifth to spare, in whole MiB, as one writes it into the file."""
    return f"{-(-size * 6 // (5 * 1024**2))}MiB"


def evictions(found: Iterable[Tight]) -> str:
    """What would be thrown away, as a question's three lines; empty where nothing is."""
    some = [t for t in found if t.evicts]
    if not some:
        return ""
    return (
        f"keys would be evicted ({some[0].policy}), because they do not fit: {'; '.join(map(str, some))}\n"
        f"{', '.join(t.node for t in some)}\n"
        "give it a larger maxmemory; or, if those keys may go, write accept_risk: true into the deployment file"
    )
