"""A Cluster that gets more shards, or fewer: which hash slots move, how much data that is, and roughly how long it takes.

Every shard that stays gets an even share. What one gives away is always its upper slots, dealt to the takers in the order
of the shards: so what is left of an interrupted change is what it would have done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redkeep.model.sizes import human
from redkeep.model.slots import SLOTS, even_shares, in_ranges, to_ranges
from redkeep.model.topology import NodeView
from redkeep.planning.cluster import primaries_of, views_of
from redkeep.planning.provision import reachable
from redkeep.planning.replication import current_primary
from redkeep.planning.reshard import Move, data_bytes, moving

if TYPE_CHECKING:
    from redkeep.model.plan import Plan, Step
    from redkeep.model.topology import ClusterView, Observed
    from redkeep.planning.desired import Desired

#: Keys and bytes a second that a move does at least, on two cores (Redis 7.0, values of 100 B and of 10 KB).
KEYS_PER_SECOND, BYTES_PER_SECOND = 20_000, 50 * 1024**2


@dataclass(frozen=True)
class Freight:
    """What some slots of a primary hold, about: ``bytes`` as in its memory; ``seconds`` to move them."""

    slots: int
    keys: int
    bytes: int

    @property
    def seconds(self) -> float:
        return max(self.keys / KEYS_PER_SECOND, self.bytes / BYTES_PER_SECOND)

    def __str__(self) -> str:
        return f"about {self.keys:,} keys, {human(self.bytes)}, {duration(self.seconds)}"

    def __add__(self, other: Freight) -> Freight:
        return Freight(self.slots + other.slots, self.keys + other.keys, self.bytes + other.bytes)

    def as_json(self) -> dict[str, Any]:
        return {
            "slots": self.slots,
            "keys": self.keys,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
        }


def duration(seconds: float) -> str:
    """For people, roughly."""
    if seconds < 1:
        return "below a second"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def leveling(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Moves into shards that join and out of those that go; nothing where the number of shards stays."""
    leaving = _going(desired)
    for move in moves(desired, observed):
        freight = freight_of(observed, desired, move)
        target = "a new shard" if desired.node(move.target).shard in desired.joining else "the others"
        source = desired.node(move.source)
        why = f"shard {source.shard + 1} {'goes' if source.shard in leaving else 'shares'}: {move.count} slots to {target}"
        yield from moving(desired, [move], why=f"{why}; {freight}")


def moves(desired: Desired, observed: Observed) -> Iterator[Move]:
    """What moves because the number of shards is another one."""
    if desired.spec.mode == "cluster" and (desired.joining or _going(desired)):
        views = views_of(desired, observed)
        yield from _moves(desired, views, primaries_of(desired, views))


def _going(desired: Desired) -> set[int]:
    """Shards that shall be no more."""
    return {n.shard for n in desired.leaving if n.shard >= desired.spec.shards and not n.sentinel}


def _moves(
    desired: Desired, views: Mapping[str, ClusterView], primaries: Mapping[int, str]
) -> Iterator[Move]:
    """From the first giver to the first taker, until both are done with; then the next."""
    shares = {n: share.size for n, share in enumerate(even_shares(desired.spec.shards))}
    owned = {
        shard: in_ranges(views[name].me.slots) if name in views and views[name].me.is_primary else []
        for shard, name in primaries.items()
    }
    if sum(map(len, owned.values())) != SLOTS:
        return  # as it is being created, or a primary does not answer
    lack = {n: share - len(owned.get(n, ())) for n, share in shares.items()}
    takers = [n for n in sorted(lack) if lack[n] > 0]
    for shard in sorted(owned):
        extra = len(owned[shard]) - shares.get(shard, 0)
        for taker in takers:
            count = min(extra, lack[taker])
            if count > 0:
                slots = owned[shard][-count:]
                del owned[shard][-count:]
                extra -= count
                lack[taker] -= count
                yield Move(primaries[shard], primaries[taker], to_ranges(slots))


def freight_of(observed: Observed, desired: Desired, move: Move) -> Freight:
    """As if its keys were spread evenly over its slots."""
    view = reachable(observed, desired.node(move.source))
    if view is None or view.cluster is None or not view.cluster.me.slot_count:
        return Freight(move.count, 0, 0)
    part = move.count / view.cluster.me.slot_count
    return Freight(move.count, round(view.keys * part), round(data_bytes(view.info) * part))


def freight(desired: Desired, observed: Observed) -> Freight:
    """All that moves between shards."""
    each = (freight_of(observed, desired, move) for move in moves(desired, observed))
    return sum(each, Freight(0, 0, 0))


def copying(desired: Desired, observed: Observed, plan: Plan) -> Freight:
    """What new servers copy from their primaries; ``slots`` is 0, and all copies go on at the same time."""
    sources = [str(s.args["primary"]) for s in plan if s.action == "replicate"]
    if desired.spec.mode != "cluster":
        new = {s.node for s in plan if s.action == "write-files"} - _answering(observed)
        sources += [current_primary(desired, observed).name for n in desired.servers if n.name in new]
    found = Freight(0, 0, 0)
    for name in sources:
        if view := reachable(observed, desired.node(name)):
            found += Freight(0, view.keys, data_bytes(view.info))
    return found


def _answering(observed: Observed) -> set[str]:
    """Those that answered."""
    return {name for name, view in observed.nodes.items() if isinstance(view, NodeView)}
