"""Hash slots in the middle of a move: who owns each, and where its keys shall be. Pure.

The owner is the one who says so itself; of several the one with the greatest config epoch, as the engine decides it
(Cluster specification, "Hash slots configuration propagation"). A slot that its owner marks as migrating goes on to where
the mark points, because clients already look there (ASK). A slot that is only marked as importing stays with its owner:
what the importing side has comes back. Where nobody says that it owns a slot, it is whoever the former owner gave it to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from redkeep.model.slots import in_ranges
from redkeep.model.topology import ClusterView


@dataclass(frozen=True)
class Verdict:
    """``owner`` has the last word on its values now; ``home`` shall have the slot and all of its keys."""

    owner: str
    home: str


@dataclass(frozen=True)
class Lost:
    """Nobody can tell where the slot belongs, and why."""

    reason: str


def verdicts(primaries: Mapping[str, ClusterView], slots: frozenset[int]) -> dict[int, Verdict | Lost]:
    """For each of the slots; ``primaries`` are the views of all nodes that are primaries, by name."""
    names = shard_names(primaries)
    known = {n.id for view in primaries.values() for n in view.nodes}
    claims: dict[int, dict[str, int]] = {}
    named: dict[int, Counter[str]] = {}
    for name, view in primaries.items():
        for node in view.nodes:
            for slot in slots.intersection(in_ranges(node.slots)):
                if node.id == view.my_id:
                    claims.setdefault(slot, {})[name] = node.config_epoch
                elif node.id in names:
                    named.setdefault(slot, Counter())[names[node.id]] += 1
    return {
        s: _verdict(s, primaries, names, known, claims.get(s, {}), named.get(s, Counter())) for s in slots
    }


def shard_names(primaries: Mapping[str, ClusterView]) -> dict[str, str]:
    """Node ID -> the primary of its shard: itself, or whom it follows since a failover."""
    found = {
        n.id: name
        for name, view in primaries.items()
        for other in primaries.values()
        for n in other.nodes
        if n.primary_id == view.my_id
    }
    return found | {view.my_id: name for name, view in primaries.items()}


def _verdict(
    slot: int,
    primaries: Mapping[str, ClusterView],
    names: Mapping[str, str],
    known: set[str],
    claims: Mapping[str, int],
    named: Counter[str],
) -> Verdict | Lost:
    if claims:
        owner = max(claims, key=lambda name: claims[name])
    else:
        importing = [name for name in named if slot in primaries[name].me.importing]
        candidates = importing or [name for name, _ in named.most_common(1)]
        if not candidates:
            return Lost("nobody owns it")
        owner = candidates[0]
    goes_to = primaries[owner].me.migrating.get(slot)
    if goes_to is None or goes_to == primaries[owner].my_id or not claims:
        return Verdict(owner, owner)
    if goes_to in names:
        return Verdict(owner, names[goes_to])
    if goes_to in known:
        return Lost(
            f"it is on its way from {owner} to node {goes_to[:8]}, which does not answer and may have keys of it"
        )
    return Verdict(owner, owner)  # that node is gone for good: nobody knows it any more
