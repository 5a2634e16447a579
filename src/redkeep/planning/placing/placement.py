"""Who runs where.

Servers are arranged on a ``Board``, which holds the order of wishes. Nodes are put one by one where that costs least,
then those that stand badly are moved or exchanged as long as it helps. Sentinels follow.

The same deployment file gives the same placement, so an interrupted creation goes on where it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from redkeep.model.topology import BUS_OFFSET, Role
from redkeep.planning.placing.board import Board, Seat

if TYPE_CHECKING:
    from redkeep.model.spec import Spec

Kind = Literal["server", "sentinel"]

#: Node name -> its shard (None: a Sentinel) and role, as observed.
Existing = Mapping[str, tuple[int | None, Role]]


@dataclass(frozen=True)
class PlacedNode:
    """A server or Sentinel at its place. ``index`` counts within its shard (0: placed as primary), or the Sentinels.

    ``initial_role`` is what it starts as for the first time; for an existing node, the role that was observed.
    """

    name: str
    host: str
    port: int
    kind: Kind
    shard: int | None
    initial_role: Role
    index: int

    @property
    def bus_port(self) -> int:
        return self.port + BUS_OFFSET


@dataclass(frozen=True)
class Placement:
    """All nodes: the servers by shard and index, then the Sentinels."""

    nodes: tuple[PlacedNode, ...]

    @property
    def servers(self) -> tuple[PlacedNode, ...]:
        return tuple(n for n in self.nodes if n.kind == "server")

    @property
    def sentinels(self) -> tuple[PlacedNode, ...]:
        return tuple(n for n in self.nodes if n.kind == "sentinel")

    @property
    def shards(self) -> tuple[tuple[PlacedNode, ...], ...]:
        """The servers of each shard, in the order of shard numbers."""
        found: dict[int, list[PlacedNode]] = defaultdict(list)
        for node in self.nodes:
            if node.shard is not None:
                found[node.shard].append(node)
        return tuple(tuple(found[number]) for number in sorted(found))

    def on(self, host: str) -> tuple[PlacedNode, ...]:
        return tuple(n for n in self.nodes if n.host == host)

    def node(self, name: str) -> PlacedNode:
        """The node of that name; ``KeyError`` where there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


def majority(members: int) -> int:
    """How many of so many voters decide."""
    return members // 2 + 1


def place(spec: Spec, existing: Existing | None = None, *, taken: Collection[str] = ()) -> Placement:
    """Where the deployment's nodes go. Existing nodes stay where and what they are; what is missing goes around them.

    ``existing`` holds the nodes whose shard is known. Those on hosts that the file no longer names are left out, and
    replaced. Where the rest is a part of what an untouched fleet would get, the answer is that, so a creation that was
    interrupted ends as it began. ``taken``: names, and so ports, of nodes that are on their way out.
    """
    hosts = {host.name for host in spec.hosts}
    kept = {name: found for name, found in (existing or {}).items() if host_of(name) in hosts}
    fresh = _arranged(spec, {}, taken)
    if not kept:
        return fresh
    planned = {node.name: node.shard for node in fresh.nodes}
    if all(name in planned and planned[name] == shard for name, (shard, _) in kept.items()):
        return _with_roles(fresh, kept)
    return _arranged(spec, kept, taken)


def _with_roles(placement: Placement, kept: Existing) -> Placement:
    """The observed roles; where another node is primary already, the one that was placed as such starts as a replica."""
    led = {shard for shard, role in kept.values() if role == "primary"}

    def role(node: PlacedNode) -> Role:
        if node.name in kept:
            return kept[node.name][1]
        return "replica" if node.shard in led and node.initial_role == "primary" else node.initial_role

    return Placement(tuple(replace(node, initial_role=role(node)) for node in placement.nodes))


def host_of(name: str) -> str:
    """The host in a node's name."""
    return name.rpartition(":")[0]


class _Ports:
    """Free ports of each host, counted up from the first one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._taken: dict[str, set[int]] = defaultdict(set)
        for name in names:
            self._taken[host_of(name)].add(port_of(name))

    def take(self, host: str, first: int) -> int:
        port = first
        while port in self._taken[host]:
            port += 1
        self._taken[host].add(port)
        return port


def port_of(name: str) -> int:
    """The port in a node's name."""
    return int(name.rpartition(":")[2])


def _arranged(spec: Spec, kept: Existing, taken: Collection[str] = ()) -> Placement:
    """Keeps what is there, and finds the best places for the rest."""
    ports = _Ports((*kept, *taken))
    board = Board(spec, _seats(spec, kept))
    board.arrange()
    names = [host.name for host in spec.hosts]
    counts: dict[int, int] = defaultdict(int)
    servers = []
    for seat in board.seats:
        host = names[seat.host]
        port = port_of(seat.name) if seat.name else ports.take(host, spec.port)
        role: Role = kept[seat.name][1] if seat.name else "primary" if seat.primary else "replica"
        servers.append(
            PlacedNode(f"{host}:{port}", host, port, "server", seat.shard, role, counts[seat.shard])
        )
        counts[seat.shard] += 1
    by_shard = sorted(servers, key=lambda node: (node.shard or 0, node.index))
    return Placement((*by_shard, *_sentinels(spec, kept, servers, ports)))


def _seats(spec: Spec, kept: Existing) -> list[Seat]:
    """Existing servers first, then the primaries of new shards, then missing replicas, one for each shard in turn.

    A shard of which any node exists gets no new primary: whoever leads it is the engine's business.
    """
    order = {host.name: index for index, host in enumerate(spec.hosts)}
    seats = [
        Seat(shard, role == "primary", order[host_of(name)], name)
        for name, (shard, role) in kept.items()
        if shard is not None
    ]
    seats.sort(key=lambda seat: (not seat.primary, seat.host, port_of(seat.name)))
    copies: dict[int, int] = defaultdict(int)
    for seat in seats:
        copies[seat.shard] += 1
    for copy in range(1 + spec.replicas):
        for shard in range(spec.shards):
            if copies[shard] <= copy:
                seats.append(Seat(shard, primary=not copies[shard]))
                copies[shard] += 1
    return seats


def _sentinels(spec: Spec, kept: Existing, servers: list[PlacedNode], ports: _Ports) -> list[PlacedNode]:
    """On distinct hosts and zones, and where there are enough hosts, on those that carry no server.

    A Sentinel beside the primary is lost together with it. Of two zones, the one without the primary gets the majority:
    if it is lost, the primary is still there, and if the other one is lost, those that can promote are.
    """
    there = sorted(name for name, (shard, _) in kept.items() if shard is None)
    hosts = [host_of(name) for name in there]
    zones = {host.name: host.zone or host.name for host in spec.hosts}
    load = [node.host for node in servers]
    leaders = [node.host for node in servers if node.initial_role == "primary"]
    led_zones = [zones[host] for host in leaders]

    def cost(host: str) -> tuple[int, ...]:
        zone = zones[host]
        in_zone = sum(zones[other] == zone for other in hosts)
        return hosts.count(host), in_zone, led_zones.count(zone), leaders.count(host), load.count(host)

    while len(hosts) < spec.sentinels:
        hosts.append(min((host.name for host in spec.hosts), key=cost))
    places = [(host_of(name), port_of(name)) for name in there]
    places += [(host, ports.take(host, spec.sentinel_port)) for host in hosts[len(there) :]]
    return [PlacedNode(f"{h}:{p}", h, p, "sentinel", None, "sentinel", i) for i, (h, p) in enumerate(places)]
