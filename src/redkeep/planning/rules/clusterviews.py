"""The nodes' own views of their Cluster, side by side: who knows whom, and who owns what for whom.

At 200 nodes there are 40,000 lines: each view is walked once, and equal views are one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from redkeep.model.checkup import Checkup, Node
from redkeep.model.slots import SLOTS, SlotRange, to_ranges
from redkeep.model.topology import ClusterNode, ClusterView
from redkeep.model.values import Value
from redkeep.planning.evidence.clusterlines import Said, clustered, said, said_by
from redkeep.planning.rules.words import listed

Member = tuple[Node, ClusterView]

#: Ranges of slots in one sentence, at most.
_RANGES = 8


class SlotMap(Value):
    """Who owns each slot (a node ID, or nothing), as these nodes see it."""

    owners: tuple[str, ...]
    holders: tuple[Node, ...]


class Whole(Value):
    """Nodes that know each other, in one direction at least. ``said``: node ID -> its lines, with those who say them."""

    members: tuple[Member, ...]
    said: Mapping[str, list[Said]]

    @cached_property
    def lines(self) -> Mapping[str, list[tuple[Node, ClusterNode]]]:
        """node ID -> what each node says of it."""
        order = {node.name: place for place, (node, _) in enumerate(self.members)}
        pairs = {i: [(node, line) for line, nodes in said for node in nodes] for i, said in self.said.items()}
        return {i: sorted(each, key=lambda pair: order[pair[0].name]) for i, each in pairs.items()}

    @cached_property
    def marks(self) -> frozenset[str]:
        """All flags that anybody has on any line: where one is not among them, no line need be looked at for it."""
        return frozenset[str]().union(*(line.flags for said in self.said.values() for line, _ in said))

    @cached_property
    def ids(self) -> Mapping[str, list[Node]]:
        """node ID -> those who say that it is theirs."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node, view in self.members:
            found[view.my_id].append(node)
        return found

    @cached_property
    def maps(self) -> list[SlotMap]:
        """The views of the slots that differ, the one of most nodes first."""
        # a node's own line differs from what others say of it, and not in its slots
        shares = {id(line): (line.id, line.slots) for said in self.said.values() for line, _ in said}
        known: dict[tuple[str, tuple[SlotRange, ...]], int] = {}
        numbers = {
            key: known.setdefault(share, len(known)) if share[1] else -1 for key, share in shares.items()
        }
        alike: dict[frozenset[int], list[Member]] = defaultdict(list)
        for node, view in self.members:
            shares_of = frozenset(map(numbers.__getitem__, map(id, view.nodes))) - {-1}
            alike[shares_of].append((node, view))
        every = sorted(alike.values(), key=len, reverse=True)
        return [SlotMap(_owners(same[0][1]), tuple(node for node, _ in same)) for same in every]

    def name(self, node_id: str) -> str:
        """For people: the node's name where it is known, else the beginning of its ID."""
        owners = self.ids.get(node_id)
        if owners:
            return owners[0].name
        lines = self.said.get(node_id, [])
        address = next((str(line.address) for line, _ in lines if line.address.host), "")
        return f"{address or 'node'} ({node_id[:8]})"


def wholes(checkup: Checkup) -> list[Whole]:
    """The Clusters among the nodes that were asked; those in which most nodes are come first."""
    return checkup.once(_wholes)


def _wholes(checkup: Checkup) -> list[Whole]:
    members = clustered(checkup.servers)
    leader = {view.my_id: view.my_id for _, view in members}
    by_name = {node.name: view.my_id for node, view in members}
    apart = len(leader)

    def lead(one: str) -> str:
        while leader[one] != one:
            leader[one] = leader[leader[one]]
            one = leader[one]
        return one

    for line, nodes in said(checkup):
        if apart == 1:
            break
        if line.id in leader and "handshake" not in line.flags:
            for node in nodes:
                known, first = lead(line.id), lead(by_name[node.name])
                if known != first:
                    leader[known] = first
                    apart -= 1
    parts: dict[str, list[Member]] = defaultdict(list)
    for node, view in members:
        parts[lead(view.my_id)].append((node, view))
    told = [said(checkup)] if len(parts) == 1 else [said_by(part) for part in parts.values()]
    every = [Whole(tuple(part), _by_id(lines)) for part, lines in zip(parts.values(), told, strict=True)]
    return sorted(every, key=lambda w: -len(w.members))


def _by_id(lines: Iterable[Said]) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = defaultdict(list)
    for line, nodes in lines:
        found[line.id].append((line, nodes))
    return dict(found)


def _owners(view: ClusterView) -> tuple[str, ...]:
    owners = [""] * SLOTS
    for line in view.nodes:
        for part in line.slots:
            owners[part.first : part.last + 1] = [line.id] * part.size
    return tuple(owners)


def slots_text(slots: Iterable[int]) -> str:
    """``slot 5``, ``slots 0-99, 200 and 3 more ranges``"""
    ranges = to_ranges(slots)
    many = sum(r.size for r in ranges) > 1
    more = f" and {len(ranges) - _RANGES} more ranges" if len(ranges) > _RANGES else ""
    return f"slot{'s' if many else ''} {', '.join(map(str, ranges[:_RANGES]))}{more}"


def tool(checkup: Checkup, node: Node) -> str:
    visit = checkup.visit(node)
    return f"redis-cli{' --tls' if visit and visit.tls else ''} --cluster"


def across(checkup: Checkup, node: Node, verb: str, *words: str) -> str:
    """The command line that does this over all nodes that this one knows."""
    return " ".join((tool(checkup, node), verb, str(node.address), *words))


def by_group(found: Mapping[str, Sequence[Node]]) -> dict[tuple[str, ...], list[str]]:
    """Keys with the same nodes are one: names of the nodes -> keys."""
    grouped: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, nodes in found.items():
        grouped[tuple(n.name for n in nodes)].append(key)
    return grouped


def names(nodes: Iterable[Node], of: int) -> str:
    """``a, b and 3 more``; where it is all of them, that."""
    every = list(nodes)
    return f"all {of} nodes" if len(every) == of > 1 else listed(every)
