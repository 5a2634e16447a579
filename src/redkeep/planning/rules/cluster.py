"""Is the cluster whole? The slots, as every node sees them, compared with all others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.slots import SLOTS
from redkeep.planning.rules.clusterviews import Whole, across, names, slots_text, wholes
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import cli, listed

#: A shard with so much more or less than the average is out of balance.
_UNBALANCED = 0.2


@rule("slots-uncovered", "error", needs=("cluster",))
def slots_uncovered(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        node = whole.members[0][0]
        unowned = (frozenset(slot for slot, owner in enumerate(m.owners) if not owner) for m in whole.maps)
        nobody = sorted(frozenset.intersection(*unowned)) if all("" in m.owners for m in whole.maps) else []
        if nobody:
            yield Found(
                slots_text(nobody),
                f"{len(nobody)} of {SLOTS} slots have no owner (CLUSTER NODES of "
                f"{names((n for n, _ in whole.members), len(whole.members))})",
                "Keys in these slots cannot be read or written. With cluster-require-full-coverage yes, no key can.",
                f"{across(checkup, node, 'fix')} (living nodes get them, empty; what a lost owner had, a backup has)",
            )
        for owner, slots in _with_owner_down(whole).items():
            yield Found(
                slots_text(slots),
                f"their owner {whole.name(owner)} is marked fail (CLUSTER NODES)",
                "Keys in these slots cannot be read or written until it is back or a replica is promoted. With "
                "cluster-require-full-coverage yes, no key can.",
                _bring_back(checkup, whole, owner),
            )


def _with_owner_down(whole: Whole) -> dict[str, list[int]]:
    down = {
        node_id
        for node_id, lines in (whole.lines.items() if "fail" in whole.marks else ())
        if sum("fail" in line.flags for _, line in lines) * 2 > len(lines)
    }
    slots: dict[str, list[int]] = defaultdict(list)
    for slot, owner in enumerate(whole.maps[0].owners) if down else ():
        if owner in down:
            slots[owner].append(slot)
    return slots


def _bring_back(checkup: Checkup, whole: Whole, owner: str) -> str:
    for node, view in whole.members:
        if view.me.primary_id == owner:
            return f"start it, or promote its replica: {cli(checkup, node, 'CLUSTER', 'FAILOVER', 'FORCE')}"
    fix = across(checkup, whole.members[0][0], "fix", "--cluster-fix-with-unreachable-masters")
    return f"start it; if it is gone for good, with its data: {fix}"


@rule("slots-open", "error", needs=("cluster",))
def slots_open(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        for (source, target), sides in _moves(whole).items():
            every = sorted(
                {slot for by_node in sides.values() for slots in by_node.values() for slot in slots}
            )
            seen = "; ".join(
                f"{slots_text(slots)} {side} at {node}"
                for side, by_node in sides.items()
                for node, slots in by_node.items()
            )
            node = next((n for i in (source, target) for n in whole.ids.get(i, [])), whole.members[0][0])
            yield Found(
                slots_text(every),
                f"from {whole.name(source)} to {whole.name(target)}: {seen} (CLUSTER NODES)",
                "A move was interrupted, or runs right now. Until it ends, commands with several keys of such a slot fail "
                "(TRYAGAIN), clients need another hop for keys that have moved (ASK), and no further move begins.",
                f"if no move is running, finish it: {across(checkup, node, 'fix')}; or, where {whole.name(target)} has no "
                f"key of it (CLUSTER COUNTKEYSINSLOT), on both: CLUSTER SETSLOT {every[0]} STABLE",
            )


def _moves(whole: Whole) -> dict[tuple[str, str], dict[str, dict[str, list[int]]]]:
    """(source, target) -> migrating or importing -> node -> slots. Replicas of Valkey 8 and later know their primary's."""
    moves: dict[tuple[str, str], dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(dict))
    for node, view in whole.members:
        owner = view.me.primary_id or view.my_id
        for side, open_slots in (("migrating", view.me.migrating), ("importing", view.me.importing)):
            for slot, other in open_slots.items():
                move = (owner, other) if side == "migrating" else (other, owner)
                moves[move][side].setdefault(node.name, []).append(slot)
    return moves


@rule("slots-disputed", "error", needs=("cluster",))
def slots_disputed(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        for slots, holders in _disputes(whole):
            told = "; ".join(
                f"{listed(whole.name(o) for o in owners) if any(owners) else 'nobody'} owns them for {listed(nodes)}"
                for owners, nodes in holders
            )
            yield Found(
                slots_text(slots),
                f"{told} (CLUSTER NODES)",
                "Each node answers by its own map. Clients are sent in circles, or writes of one key land on two servers, "
                "and those of one side are thrown away when the views agree again.",
                _settle(checkup, whole, [o for owners, _ in holders for o in owners if o], slots),
            )


def _disputes(whole: Whole) -> Iterator[tuple[list[int], list[tuple[list[str], list[Node]]]]]:
    """Slots, and who owns them for whom. Slots that some know no owner of, and the same ones, are told together."""
    if len(whole.maps) == 1:
        return
    grouped: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for slot, owners in enumerate(zip(*(m.owners for m in whole.maps), strict=True)):
        if owners.count(owners[0]) != len(owners):
            grouped[owners].append(slot)
    together: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for owners in grouped:
        one = len(set(owners) - {""}) == 1
        together[tuple("*" if owner else "" for owner in owners) if one else owners].append(owners)
    for same in together.values():
        holders: dict[str, list[Node]] = defaultdict(list)
        for owner, found in zip(same[0], whole.maps, strict=True):
            holders[owner] += found.holders
        slots = [slot for owners in same for slot in grouped[owners]]
        each = [next(o for o in owners if o) for owners in same]
        yield slots, [(each if owner and len(same) > 1 else [owner], n) for owner, n in holders.items()]


def _settle(checkup: Checkup, whole: Whole, owners: list[str], slots: list[int]) -> str:
    """The one that claims it itself, where only one does; the first of several as an example."""
    claiming = [
        o
        for o in owners
        if any(slots[0] in part for n, v in whole.members if v.my_id == o for part in v.me.slots)
    ]
    owner = (claiming or owners)[0]
    node = whole.ids[owner][0] if owner in whole.ids else whole.members[0][0]
    return (
        f"first open the bus between them; if it stays, say whose it is by the keys (CLUSTER COUNTKEYSINSLOT {slots[0]} on "
        f"each), the owner first, then all others: CLUSTER SETSLOT {slots[0]} NODE {owner}, and "
        f"{cli(checkup, node, 'CLUSTER', 'BUMPEPOCH')}"
    )


@rule("epoch-collision", "error", needs=("cluster",))
def epoch_collision(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        epochs: dict[int, list[Node]] = defaultdict(list)
        for node, view in whole.members:
            if view.me.is_primary and view.me.slots and node is whole.ids[view.my_id][0]:
                epochs[view.me.config_epoch].append(node)
        for epoch, nodes in epochs.items():
            if len(nodes) > 1:
                yield Found(
                    listed(nodes),
                    f"config epoch {epoch} at each of {len(nodes)} primaries (their own line of CLUSTER NODES)",
                    "The epoch decides who is right when two claim a slot. With equal ones nobody is, and nodes keep "
                    "different maps; it stays only where the two do not hear each other.",
                    "let them reach each other's bus, and wait some seconds; if it stays: "
                    + cli(checkup, nodes[-1], "CLUSTER", "BUMPEPOCH"),
                )


@rule("slots-unbalanced", "info", needs=("cluster",))
def slots_unbalanced(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        counts = {node.name: view.me.slot_count for node, view in whole.members if view.me.is_primary}
        serving = [count for count in counts.values() if count]
        if len(counts) < 2 or not serving:
            continue
        average = sum(serving) / len(serving)
        out = {name: count for name, count in counts.items() if abs(count - average) > _UNBALANCED * average}
        if out:
            told = ", ".join(f"{name} {count}" for name, count in list(out.items())[:6])
            more = f" and {len(out) - 6} more" if len(out) > 6 else ""
            fix = across(checkup, whole.members[0][0], "rebalance", "--cluster-use-empty-masters")
            yield Found(
                listed(out),
                f"slots: {told}{more}; the average of those that serve any is {average:.0f} (CLUSTER NODES)",
                "Slots stand for keys: such a shard gets more memory and load than the others, or less. The fullest one "
                "sets the limit for all.",
                f"redkeep reshard --rebalance, or {fix}" if checkup.spec else fix,
            )
