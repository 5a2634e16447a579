"""A Cluster's own steps: owners for all hash slots, nodes that know each other, replicas behind their primaries.

The engine is the authority on roles: whoever owns slots is a primary, whatever the placement once said. Only what
nobody owns and who follows nobody is planned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from redkeep.model.plan import Step
from redkeep.model.slots import SLOTS, even_shares, to_ranges
from redkeep.model.topology import ClusterNode, ClusterView, HostFacts, Observed
from redkeep.planning.provision import gone, reachable

if TYPE_CHECKING:
    from redkeep.planning.desired import Desired, DesiredNode

#: Up to here every node is introduced to every other; beyond, a sparse pattern spreads faster. 100 nodes on two cores
#: know each other after 3-4 s by the chords below, 4 s by a ring or eight hubs, 5 s by a star, 8 s all to all.
FULL_MESH = 30


def cluster(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Steps from running, strange nodes to a Cluster; none for a Cluster that stands."""
    views, away = views_of(desired, observed), _away(desired, observed)
    if all(n.name in views or gone(n, observed) for n in desired.leaving):
        yield from _slots(desired, views, away)
    if not _formed(desired, views, away):
        yield Step("meet", "meet", "", why=f"not all of the {len(desired.servers)} nodes know each other")
    yield from _replicas(desired, views, away)
    yield from _ghosts(desired, views, away)


def in_creation(desired: Desired, observed: Observed) -> bool:
    """Nodes are still to meet, and nobody serves all slots yet: short timeouts do no harm, and save seconds."""
    if desired.spec.mode != "cluster":
        return False
    views = views_of(desired, observed)
    serving = any(v.slots_assigned == SLOTS for v in views.values())
    return not serving and not _formed(desired, views, _away(desired, observed))


def views_of(desired: Desired, observed: Observed) -> dict[str, ClusterView]:
    """By name, of all servers that answer; those that leave among them."""
    return {n.name: v.cluster for n in desired.present if (v := reachable(observed, n)) and v.cluster}


def _away(desired: Desired, observed: Observed) -> frozenset[str]:
    """Nodes that do not answer and were started before: what they are is seen when they run again.

    As far as the others tell, they belong to the Cluster.
    """
    views = views_of(desired, observed)
    found = set()
    for node in desired.servers:
        facts = observed.hosts.get(node.host)
        started = isinstance(facts, HostFacts) and node.paths.members in facts.present
        if node.name not in views and started and all(lines_at(node, v) for v in views.values()):
            found.add(node.name)
    return frozenset(found)


def lines_at(node: DesiredNode, view: ClusterView) -> list[ClusterNode]:
    """What a view says of whoever has the node's address."""
    return [
        n
        for n in view.nodes
        if (n.address.host, n.address.port) == node.announced and "handshake" not in n.flags
    ]


def _formed(desired: Desired, views: Mapping[str, ClusterView], away: AbstractSet[str]) -> bool:
    wanted = [n for n in desired.servers if n.name in views]
    return len(wanted) + len(away) == len(desired.servers) and _all_known(views)


def introductions(count: int) -> list[tuple[int, int]]:
    """Who is to meet whom, by index: all to all in both directions, or a ring with chords of 4, 16, 64 and so on."""
    if count <= FULL_MESH:
        return [(a, b) for a in range(count) for b in range(count) if a != b]
    pairs = []
    for a in range(count):
        step = 1
        while step < count:
            pairs.append((a, (a + step) % count))
            step *= 4
    return pairs


def _all_known(views: Mapping[str, ClusterView]) -> bool:
    ids = {v.my_id for v in views.values()}
    return all(ids <= {n.id for n in v.nodes if "handshake" not in n.flags} for v in views.values())


def _slots(desired: Desired, views: Mapping[str, ClusterView], away: AbstractSet[str]) -> Iterator[Step]:
    """Unowned slots go to the primaries of the placement that own none. Views of all nodes count as owners."""
    ranges = {r for view in views.values() for n in view.nodes for r in n.slots}
    owned = {slot for r in ranges for slot in r}
    if len(owned) == SLOTS or (away and not views):
        return
    shares = even_shares(desired.spec.shards)
    for node in desired.servers:
        view = views.get(node.name)
        has_none = view is None or (view.me.is_primary and not view.me.slots)
        if node.initial_role != "primary" or not has_none or node.name in away:
            continue
        share = to_ranges(slot for slot in shares[node.shard] if slot not in owned)
        if share:
            yield Step(
                "slots",
                "assign-slots",
                node.host,
                node.name,
                why="nobody owns these hash slots",
                args={"slots": " ".join(map(str, share)), "epoch": node.shard + 1},
            )


def _replicas(desired: Desired, views: Mapping[str, ClusterView], away: AbstractSet[str]) -> Iterator[Step]:
    """A node that owns nothing and follows nobody becomes the replica that its shard lacks."""
    primaries = primaries_of(desired, views)
    for node in desired.servers:
        view, primary = views.get(node.name), primaries[node.shard]
        idle = view is None or (view.me.is_primary and not view.me.slots)
        if not idle or node.name in away or node.name == primary:
            continue
        yield Step(
            "replicate",
            "replicate",
            node.host,
            node.name,
            why=f"shard {node.shard + 1} has a replica too few",
            args={"primary": primary},
        )


def primaries_of(desired: Desired, views: Mapping[str, ClusterView]) -> dict[int, str]:
    """Shard -> the node that owns its slots now: the placement's primary, or whoever was promoted in its place.

    Also one that leaves, as long as nobody took over; and those of shards that shall be no more.
    """
    found: dict[int, str] = {}
    for node in sorted(desired.present, key=lambda n: n.initial_role != "primary"):
        view = views.get(node.name)
        if view and view.me.is_primary and view.me.slots:
            found.setdefault(node.shard, node.name)
    by_id = {v.my_id: name for name, v in views.items()}
    for node in desired.servers:
        view = views.get(node.name)
        if (
            node.shard not in desired.joining
            and view
            and not view.me.is_primary
            and view.me.primary_id in by_id
        ):
            found.setdefault(node.shard, by_id[view.me.primary_id])
    for node in desired.present:
        # it is away, and the others remember what it was
        lines = [n for v in views.values() for n in lines_at(node, v)] if node.name not in views else []
        if any(n.is_primary and n.slots for n in lines):
            found.setdefault(node.shard, node.name)
    for node in desired.servers:
        if node.initial_role == "primary":
            found.setdefault(node.shard, node.name)
    return found


def _ghosts(desired: Desired, views: Mapping[str, ClusterView], away: AbstractSet[str]) -> Iterator[Step]:
    """A node that came back with an empty disk has a new identity; the old one is forgotten by all.

    Beside the address of a node that is not away, it is known by having none: an address that answers under a new
    identity is taken from the old one.
    """
    current = {v.my_id for v in views.values()}
    expected = {n.name for n in desired.servers} - away
    whole = all(n.name in views for n in desired.servers)
    ghosts: dict[str, ClusterNode] = {}
    for view in views.values():
        for n in view.nodes:
            if n.id in current or n.slots or "handshake" in n.flags:
                continue
            node = desired.at(n.address.host, n.address.port)
            nameless = "noaddr" in n.flags and not away and whole and not desired.leaving
            if nameless or (node and node.name in expected):
                ghosts[n.id] = n
    for ghost in ghosts.values():
        what = f"an earlier identity of {ghost.address}" if ghost.address.port else f"node {ghost.id[:8]}"
        yield Step("forget", "forget", "", why=f"{what} is gone, and still remembered", args={"id": ghost.id})
