"""Who stays, who comes and who leaves, when the deployment file says something else than what its hosts remember.

A node that has been marked as leaving leaves, whatever the file says meanwhile: what is missing then is made anew beside
it. So a change that was interrupted, or overtaken by another one, always knows what is left to do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from redkeep.model.topology import NodeView, Role, Unreachable
from redkeep.planning.placing.placement import Existing, PlacedNode, Placement, host_of, place, port_of

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.identity import HostEntry, Identity


@dataclass(frozen=True)
class Memory:
    """What the hosts of a deployment remember, all together. ``places`` has the leaving nodes as well.

    ``joining``: shards that still get their share of the slots.
    """

    places: Existing
    leaving: frozenset[str] = frozenset()
    joining: frozenset[int] = frozenset()
    entries: Mapping[str, HostEntry] = field(default_factory=dict)

    @classmethod
    def of(cls, identities: Iterable[Identity]) -> Memory | None:
        """A change that was cut short has reached some hosts and not the others: each may know of nodes that the
        others do not. ``None`` where nobody remembers anything."""
        places: dict[str, tuple[int | None, Role]] = {}
        entries: dict[str, HostEntry] = {}
        leaving: set[str] = set()
        joining: set[int] = set()
        for identity in identities:
            for name, (shard, role) in {**identity.places, **identity.leaving}.items():
                before = places.get(name)
                places[name] = before if before and before[1] == "primary" else (shard, role)
            leaving |= identity.leaving.keys()
            joining |= identity.joining
            entries |= {n: e for n, e in identity.hosts.items() if e or n not in entries}
        return cls(places, frozenset(leaving), frozenset(joining), entries) if places else None


@dataclass(frozen=True)
class Seen:
    """What a node was found to be: its role, the shard whose primary it is or follows, and whether it owns slots."""

    role: Role
    shard: int | None
    owner: bool


@dataclass(frozen=True)
class Lineup:
    """``entries`` are those of the hosts that only leaving nodes are on and that the file does not name."""

    placement: Placement
    leaving: tuple[PlacedNode, ...] = ()
    joining: frozenset[int] = frozenset()
    entries: Mapping[str, HostEntry] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[PlacedNode, ...]:
        """Those that shall be, and those that still are."""
        return (*self.placement.nodes, *self.leaving)

    def on(self, host: str) -> tuple[PlacedNode, ...]:
        return tuple(n for n in self.nodes if n.host == host)


def lineup(spec: Spec, memory: Memory | None, seen: Mapping[str, Seen] | None = None) -> Lineup:
    """``seen``: what is known of the nodes' present roles and shards; it decides only where something changes."""
    if memory is None:
        return Lineup(place(spec))
    staying, going = _chosen(spec, memory, {})
    if seen and (going or {n.name for n in place(spec, staying).nodes} != memory.places.keys()):
        staying, going = _chosen(spec, memory, seen)
    placement = _led(place(spec, staying, taken=going))
    leaving = tuple(_leaver(name, memory.places[name]) for name in sorted(going))
    named = {h.name for h in spec.hosts}
    gone = {n.host for n in leaving if n.host not in named}
    entries = {h: memory.entries.get(h, {}) for h in sorted(gone)}
    return Lineup(placement, leaving, _joining(spec, memory, staying, going, seen or {}), entries)


def seen_of(
    lineup: Lineup, views: Mapping[str, NodeView | Unreachable], gone: Collection[str]
) -> dict[str, Seen]:
    """From the nodes' own views; a replica belongs to the shard of whom it follows. ``gone``: nodes of which nothing is
    left on their hosts."""
    shards = {n.name: n.shard for n in lineup.nodes}
    by_id = {v.cluster.my_id: n for n, v in views.items() if isinstance(v, NodeView) and v.cluster}
    found = {n.name: Seen(n.initial_role, n.shard, owner=False) for n in lineup.leaving if n.name in gone}
    for name, view in views.items():
        if name not in shards or not isinstance(view, NodeView):
            continue
        shard = shards[name]
        if view.cluster and not view.cluster.me.is_primary:
            shard = shards.get(by_id.get(view.cluster.me.primary_id, ""), shard)
        found[name] = Seen(view.role, shard, bool(view.cluster and view.cluster.me.slots))
    return found


def _chosen(
    spec: Spec, memory: Memory, seen: Mapping[str, Seen]
) -> tuple[dict[str, tuple[int | None, Role]], set[str]]:
    """Who stays, with shard and first role, and who leaves."""
    named = {h.name: h.zone or h.name for h in spec.hosts}
    staying: dict[str, tuple[int | None, Role]] = {}
    for name, (shard, role) in memory.places.items():
        its = seen.get(name)
        if shard is not None and its is not None and its.shard is not None:
            shard = its.shard  # the engine moved it: it counts where it is
        wanted = shard is None or shard < spec.shards
        if name not in memory.leaving and host_of(name) in named and wanted:
            staying[name] = (shard, role)
    roles = {n: seen[n].role if n in seen else role for n, (_, role) in staying.items()}
    groups: dict[int | None, list[str]] = defaultdict(list)
    for name, (shard, _) in staying.items():
        groups[shard].append(name)
    load = Counter(host_of(n) for n in staying)
    for shard, names in groups.items():
        most = spec.sentinels if shard is None else 1 + spec.replicas
        while len(names) > most:
            first = max(names, key=lambda n: _dispensable(n, names, named, roles, load))
            names.remove(first)
            load[host_of(first)] -= 1
            del staying[first]
    return staying, memory.places.keys() - staying.keys()


def _dispensable(
    name: str, group: list[str], zones: Mapping[str, str], roles: Mapping[str, Role], load: Mapping[str, int]
) -> tuple[object, ...]:
    """How little a node would be missed: a primary last; then who shares its host or zone with others of its kind."""
    host = host_of(name)
    others = [host_of(n) for n in group if n != name]
    return (
        roles[name] != "primary",
        others.count(host),
        sum(zones[o] == zones[host] for o in others),
        load[host],
        host,
        port_of(name),
    )


def _led(placement: Placement) -> Placement:
    """One node of each shard counts as its first primary, also where the one that did has left."""
    first: dict[int, str] = {}
    for wanted in ("primary", "replica"):
        for node in placement.servers:
            if node.initial_role == wanted:
                first.setdefault(node.shard or 0, node.name)

    def role(node: PlacedNode) -> Role:
        if node.kind == "sentinel":
            return "sentinel"
        return "primary" if first[node.shard or 0] == node.name else "replica"

    return Placement(tuple(replace(n, initial_role=role(n)) for n in placement.nodes))


def _leaver(name: str, place: tuple[int | None, Role]) -> PlacedNode:
    shard, role = place
    kind = "sentinel" if shard is None else "server"
    return PlacedNode(name, host_of(name), port_of(name), kind, shard, role, 0)  # type: ignore[arg-type]


def _joining(
    spec: Spec, memory: Memory, staying: Existing, going: Iterable[str], seen: Mapping[str, Seen]
) -> frozenset[int]:
    """Shards that nobody has had. One whose nodes all leave is led on by its new nodes, unless it is empty already."""
    if spec.mode != "cluster":
        return frozenset()
    there = {shard for shard, _ in staying.values()}
    there |= {memory.places[n][0] for n in going if n not in seen or seen[n].owner}
    fresh = {shard for shard in range(spec.shards) if shard not in there}
    return frozenset(fresh | {shard for shard in memory.joining if shard < spec.shards})
