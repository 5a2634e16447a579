"""Which hash slots go where: pure, from what each shard has to a list of moves.

    found = shards(desired, observed)
    moves = rebalance(found, weights={"sz-1:6379": 2.0})
    steps = moving(desired, moves, why="even shares")

A shard is named after the node that is its primary now. Slots leave a shard from its upper end, so that what moves is
few, large ranges: an atomic migration has a fixed cost each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from redkeep.model.engine import Capability
from redkeep.model.plan import Step
from redkeep.model.slots import SlotRange, in_ranges, parse_ranges, ranges_text, to_ranges
from redkeep.model.topology import NodeView
from redkeep.planning.provision import reachable

if TYPE_CHECKING:
    from redkeep.model.plan import Plan
    from redkeep.model.topology import ClusterView, Observed
    from redkeep.planning.desired import Desired, DesiredNode

By = Literal["slots", "keys", "memory"]
Way = Literal["atomic", "migrate"]

#: Seconds that clients of a source wait around an atomic change of owner, at most (measured: 0.07 to 0.17 on
#: Valkey 9.1, 0.05 on Redis 8.6).
ATOMIC_PAUSE = 0.2

#: A shard that is off its share by less than this part of it is left alone, where keys or memory count: both change all
#: the time. (redis-cli rebalances from 2 % on as well.)
TOLERANCE = 0.02
#: Keys of this many slots are written to, to tell what clients feel.
_PROBED = 8

_ATOMIC = (Capability.ATOMIC_MIGRATION_SOURCE, Capability.ATOMIC_MIGRATION_TARGET)


@dataclass(frozen=True)
class Shard:
    """What a primary has. ``sizes``: keys (or bytes) of single slots, where somebody counted; else the average counts."""

    name: str
    slots: tuple[SlotRange, ...]
    keys: int = 0
    memory: int = 0
    sizes: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def count(self) -> int:
        return sum(r.size for r in self.slots)


@dataclass(frozen=True)
class Move:
    """These slots go from one shard's primary to another's; both are node names."""

    source: str
    target: str
    slots: tuple[SlotRange, ...]

    @property
    def count(self) -> int:
        return sum(r.size for r in self.slots)


def shards(desired: Desired, observed: Observed) -> tuple[Shard, ...]:
    """Every primary that answers, with or without slots, in the order of the placement."""
    found = []
    for node in desired.present:
        view = reachable(observed, node)
        if view is not None and view.cluster is not None and view.cluster.me.is_primary:
            found.append(Shard(node.name, view.cluster.me.slots, view.keys, data_bytes(view.info)))
    return tuple(found)


def data_bytes(info: Mapping[str, str]) -> int:
    """What the keys take, without the server's own buffers."""
    return int(info.get("used_memory_dataset", info.get("used_memory", "0")))


def rebalance(
    found: Sequence[Shard], *, by: By = "slots", weights: Mapping[str, float] | None = None
) -> tuple[Move, ...]:
    """Shares in proportion to the weights (1 where none is given; 0 empties a shard), with as few slots moved as can be.

    Twice in a row gives no move the second time: slots are whole, and keys and memory have a tolerance.
    """
    weight = {s.name: (weights or {}).get(s.name, 1.0) for s in found}
    if sum(weight.values()) <= 0:
        raise ValueError("all weights are 0")
    if by == "slots" or not sum(_size(s, by) for s in found):
        return _dealt(found, _whole_shares(found, weight))
    return _dealt(found, _shares(found, weight, by), by=by)


def empty(found: Sequence[Shard], name: str) -> tuple[Move, ...]:
    """All slots of one shard to the others: those with the fewest get the most. The others give nothing."""
    others = [s for s in found if s.name != name]
    giver = next(s for s in found if s.name == name)
    if not others:
        raise ValueError("the only shard cannot be emptied")
    want = {name: 0.0, **{s.name: float(s.count) for s in others}}
    for _ in range(giver.count):
        least = min(others, key=lambda s: want[s.name])
        want[least.name] += 1
    return _dealt(found, want)


def take(found: Sequence[Shard], sources: Sequence[str], target: str, count: int) -> tuple[Move, ...]:
    """So many slots for one shard, from each of the sources in proportion to what it has.

    ``ValueError`` where they have fewer.
    """
    givers = [s for s in found if s.name in sources and s.name != target]
    total = sum(s.count for s in givers)
    if not givers:
        raise ValueError(f"--from and --to are the same shard, that of {target}")
    if count > total:
        raise ValueError(f"{count} slots are wanted, and only {total} slots there")
    taken = _apportioned(count, {s.name: float(s.count) for s in givers}, {s.name: s.count for s in givers})
    moves = [Move(s.name, target, _upper(s.slots, taken[s.name])) for s in givers if taken[s.name]]
    return tuple(moves)


def towards(found: Sequence[Shard], wanted: Mapping[str, Iterable[int]]) -> tuple[Move, ...]:
    """What is left to do until these slots are at the shards named. Slots that nobody owns are passed over."""
    owner = {slot: s.name for s in found for slot in in_ranges(s.slots)}
    moves: dict[tuple[str, str], list[int]] = {}
    for target, slots in wanted.items():
        for slot in slots:
            if (source := owner.get(slot)) is not None and source != target:
                moves.setdefault((source, target), []).append(slot)
    return tuple(Move(a, b, to_ranges(slots)) for (a, b), slots in moves.items())


def emptied(found: Iterable[Shard], moves: Iterable[Move]) -> tuple[str, ...]:
    """Shards that have no slot left afterwards."""
    change: dict[str, int] = {}
    for move in moves:
        change[move.source] = change.get(move.source, 0) - move.count
        change[move.target] = change.get(move.target, 0) + move.count
    return tuple(s.name for s in found if s.count and s.count + change.get(s.name, 0) <= 0)


def probed(desired: Desired, found: Sequence[Shard], plan: Plan) -> dict[int, tuple[str, int]]:
    """Slots whose keys tell what clients feel, and where these find them: of each move the first, and beside it one that
    its source keeps."""
    chosen: dict[int, tuple[str, int]] = {}
    kept = {shard.name: in_ranges(shard.slots) for shard in found}
    for step in plan:
        if step.action != "move-slots":
            continue
        source = desired.node(step.node)
        address = (source.wire.client_announce or source.wire.announce, source.port)
        going = in_ranges(parse_ranges(str(step.args["slots"])))
        staying = next((s for s in kept.get(step.node, ()) if s not in going), None)
        for slot in (going[0], staying):
            if slot is not None and len(chosen) < _PROBED:
                chosen[slot] = address
    return chosen


def goals(moves: Iterable[Move]) -> dict[str, tuple[SlotRange, ...]]:
    """The absolute form of moves: which slots each target shall have in the end, whoever has them now."""
    found: dict[str, list[int]] = {}
    for move in moves:
        found.setdefault(move.target, []).extend(in_ranges(move.slots))
    return {name: to_ranges(slots) for name, slots in found.items()}


def moving(desired: Desired, moves: Iterable[Move], *, why: str) -> Iterator[Step]:
    """The steps of moves, each done by ``move-slots`` on its own; all at once."""
    for move in moves:
        args = {"from": move.source, "to": move.target, "slots": ranges_text(in_ranges(move.slots))}
        yield Step("move", "move-slots", desired.node(move.source).host, move.source, why=why, args=args)


def settling(desired: Desired, observed: Observed, also: Iterable[int] = ()) -> Iterator[Step]:
    """One step for all slots whose move was interrupted; none where every slot has one owner who is not moving it.

    ``also``: slots of which keys were found at a node that does not own them, which no view shows.
    """
    slots = sorted({*unsettled(views(desired, observed)), *also})
    if slots:
        count = f"{len(slots)} hash slots were" if len(slots) > 1 else "a hash slot was"
        why = f"{count} left in the middle of a move"
        yield Step("settle", "settle-slots", "", why=why, args={"slots": ranges_text(slots)})


def views(desired: Desired, observed: Observed) -> dict[str, ClusterView]:
    """The views of all nodes that answer, by node name."""
    return {
        n.name: view.cluster
        for n in desired.present
        if (view := reachable(observed, n)) is not None and view.cluster is not None
    }


def unsettled(seen: Mapping[str, ClusterView]) -> tuple[int, ...]:
    """Slots that a primary marks as migrating or importing, or that several primaries claim, or that a primary has given
    away to one that does not know it."""
    claims: dict[int, int] = {}
    primaries = [v for v in seen.values() if v.me.is_primary]
    found: set[int] = set()
    for view in primaries:
        found.update(view.me.migrating, view.me.importing)
        for slot in in_ranges(view.me.slots):
            claims[slot] = claims.get(slot, 0) + 1
    ids = {v.my_id for v in primaries}
    given = {slot for v in primaries for n in v.nodes if n.id in ids for slot in in_ranges(n.slots)}
    found |= {slot for slot, count in claims.items() if count > 1} | (given - claims.keys())
    return tuple(sorted(found))


def merged(desired: Desired, observed: Observed) -> Iterator[str]:
    """Shards of the file that are none any more, in lines: who gave the last slot away became a replica of who took it
    (``cluster-allow-replica-migration``). ``reshard`` avoids that; other tools do not."""
    seen = views(desired, observed)
    names = {view.my_id: name for name, view in seen.items()}
    for shard in range(desired.spec.shards):
        mine = [n.name for n in desired.servers if n.shard == shard]
        known = [seen[n] for n in mine if n in seen]
        if len(known) < len(mine) or any(v.me.is_primary for v in known):
            continue
        leaders = {names.get(v.me.primary_id, "") for v in known}
        if leaders & set(mine) or "" in leaders:
            continue
        yield (
            f"shard {shard + 1} is none any more, since it was emptied: {', '.join(mine)} follow{'s' * (len(mine) == 1)} "
            f"{', '.join(sorted(leaders))}. To have it again: CLUSTER RESET SOFT there, then redkeep apply, then "
            "redkeep reshard --rebalance"
        )


def primary_of(name: str, desired: Desired, observed: Observed) -> DesiredNode | None:
    """The node that serves the shard of this node: itself, or whom it follows; ``None`` where that cannot be told."""
    seen = views(desired, observed)
    view = seen.get(name)
    if view is None:
        return None
    wanted = view.my_id if view.me.is_primary else view.me.primary_id
    return next((desired.node(n) for n, v in seen.items() if v.my_id == wanted), None)


def way(observed: Observed, source: str, target: str, max_pause: float | None) -> Way:
    """How slots go from one node to another: by the engine as a whole where both can and the user bears its pause
    (``max_pause`` in seconds; ``None``: yes), else key by key. MIGRATE knows one database only, so several go as a whole.
    """
    seen = [observed.nodes.get(name) for name in (source, target)]
    able = any(all(isinstance(v, NodeView) and v.engine.supports(c) for v in seen) for c in _ATOMIC)
    several = any(isinstance(v, NodeView) and int(v.config.get("cluster-databases", "1")) > 1 for v in seen)
    return "atomic" if able and (max_pause is None or max_pause >= ATOMIC_PAUSE or several) else "migrate"


# Shares ---------------------------------------------------------------------------------------------------------------


def _whole_shares(found: Sequence[Shard], weight: Mapping[str, float]) -> dict[str, float]:
    """Whole slots; what does not divide goes to those who have it already."""
    total = sum(s.count for s in found)
    shares = _apportioned(total, weight, {s.name: s.count for s in found}, bound=False)
    return {name: float(count) for name, count in shares.items()}


def _apportioned(
    count: int, weight: Mapping[str, float], has: Mapping[str, int], *, bound: bool = True
) -> dict[str, int]:
    """``count`` in proportion to the weights, in whole numbers. ``bound``: nobody gives more than it has."""
    total = sum(weight.values()) or 1.0
    exact = {name: count * w / total for name, w in weight.items()}
    shares = {name: int(part) for name, part in exact.items()}
    left = count - sum(shares.values())
    # To the largest remainders; but whoever is above its whole share today keeps what it has.
    order = sorted(
        (n for n in weight if weight[n] > 0),
        key=lambda n: (bound or has[n] <= shares[n], shares[n] - exact[n]),
    )
    while left:
        for name in order:
            if left and (not bound or shares[name] < has[name]):
                shares[name] += 1
                left -= 1
    return shares


def _shares(found: Sequence[Shard], weight: Mapping[str, float], by: By) -> dict[str, float]:
    total, all_weights = sum(_size(s, by) for s in found), sum(weight.values())
    wanted = {s.name: total * weight[s.name] / all_weights for s in found}
    near = {
        s.name: _size(s, by)
        for s in found
        if (weight[s.name] > 0 or not s.count)
        and abs(_size(s, by) - wanted[s.name]) <= TOLERANCE * max(wanted[s.name], 1.0)
    }
    return wanted if len(near) < len(found) else near


def _size(shard: Shard, by: By | None) -> float:
    if by is None or by == "slots":
        return float(shard.count)
    return float(shard.keys if by == "keys" else shard.memory)


def _dealt(found: Sequence[Shard], want: Mapping[str, float], *, by: By = "slots") -> tuple[Move, ...]:
    """From those who have more than they shall to those who have less; the largest surplus to the largest lack first."""
    surplus = {s.name: _size(s, by) - want[s.name] for s in found}
    left = {s.name: in_ranges(s.slots) for s in found}
    by_name = {s.name: s for s in found}
    moves: dict[tuple[str, str], list[int]] = {}
    givers = sorted(
        (n for n in surplus if surplus[n] > 0 or (want[n] == 0 and left[n])), key=lambda n: -surplus[n]
    )
    for giver in givers:
        empties = want[giver] == 0
        for taker in sorted((n for n in surplus if surplus[n] < 0), key=lambda n: surplus[n]):
            while left[giver] and surplus[taker] < 0 and (empties or surplus[giver] > 0):
                slot = left[giver].pop()
                size = _slot_size(by_name[giver], slot, by)
                # What would overshoot by more than it helps stays where it is, and so does what helps nobody.
                if not empties and size >= -2 * surplus[taker]:
                    left[giver].append(slot)
                    break
                if not empties and (not size or size >= 2 * surplus[giver]):
                    continue
                moves.setdefault((giver, taker), []).append(slot)
                surplus[giver] -= size
                surplus[taker] += size
        if empties and left[giver]:
            last = min((n for n in surplus if want[n] > 0), key=lambda n: surplus[n])
            moves.setdefault((giver, last), []).extend(left[giver])
            left[giver] = []
    return tuple(Move(a, b, to_ranges(slots)) for (a, b), slots in moves.items())


def _slot_size(shard: Shard, slot: int, by: By) -> float:
    if by == "slots":
        return 1.0
    if shard.sizes:
        total = sum(shard.sizes.values()) or 1.0
        return _size(shard, by) * shard.sizes.get(slot, 0.0) / total
    return _size(shard, by) / max(shard.count, 1)


def _upper(ranges: Sequence[SlotRange], count: int) -> tuple[SlotRange, ...]:
    slots = in_ranges(ranges)
    return to_ranges(slots[len(slots) - count :])
