"""What the figures of a page are computed from: the nodes of one deployment, running, only planned, or an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from redkeep.model.engine import Capability
from redkeep.model.slots import SlotRange, even_shares
from redkeep.model.timing import DETECTION_MS
from redkeep.model.topology import Address, NodeView, Unreachable
from redkeep.planning.rules.words import number

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.model.topology import Role
    from redkeep.planning.placing.placement import Placement

#: ``seen``: it runs; ``planned``: as the deployment file has it; ``example``: no deployment was named.
Source = Literal["seen", "planned", "example"]

#: Both engines' default of replica-priority.
_PRIORITY = 100
#: Both engines' defaults of detection in milliseconds: (cluster-node-timeout, down-after-milliseconds).
_CLUSTER_DEFAULT_MS, _SENTINEL_DEFAULT_MS = DETECTION_MS["patient"]


@dataclass(frozen=True)
class Member:
    """A server. ``offset`` and ``id`` are known of running ones only. ``id``: its node ID, or its run ID outside a
    Cluster: what ties are broken by. ``barred``: why it would not be promoted; empty where nothing speaks against it."""

    name: str
    host: str
    role: Role | Literal["unreachable"]
    shard: int
    slots: tuple[SlotRange, ...] = ()
    offset: int | None = None
    priority: int = _PRIORITY
    id: str = ""
    barred: str = ""

    @property
    def slot_count(self) -> int:
        return sum(r.size for r in self.slots)


@dataclass(frozen=True)
class Shape:
    """One deployment. ``voters``: name -> host, of the primaries with slots, or of the Sentinels."""

    name: str
    mode: Literal["standalone", "sentinel", "cluster"]
    source: Source
    members: tuple[Member, ...]
    voters: Mapping[str, str]
    detection_ms: int
    quorum: int = 0
    elects_at_once: bool = False
    hook: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def shards(self) -> tuple[tuple[Member, ...], ...]:
        """The servers of each shard, its primary first."""
        numbers = sorted({m.shard for m in self.members})
        return tuple(
            tuple(
                sorted((m for m in self.members if m.shard == n), key=lambda m: (m.role != "primary", m.name))
            )
            for n in numbers
        )

    @property
    def primaries(self) -> tuple[Member, ...]:
        return tuple(m for shard in self.shards for m in shard if m.role == "primary")

    def replicas_of(self, primary: Member) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.shard == primary.shard and m.role == "replica")


@dataclass(frozen=True)
class Entry:
    """A node as it was asked: for ``seen``."""

    name: str
    host: str
    address: Address
    view: NodeView | Unreachable


def example() -> Shape:
    """A Cluster of three shards with a replica each, on three hosts, with the engines' own patience."""
    members = []
    for shard, slots in enumerate(even_shares(3)):
        members.append(Member(f"{'ABC'[shard]}1", f"host-{shard + 1}", "primary", shard, (slots,)))
        members.append(Member(f"{'ABC'[shard]}2", f"host-{(shard + 1) % 3 + 1}", "replica", shard))
    voters = {m.name: m.host for m in members if m.role == "primary"}
    return Shape("", "cluster", "example", tuple(members), voters, _CLUSTER_DEFAULT_MS)


def planned(spec: Spec, placement: Placement) -> Shape:
    """As the file says that it will be."""
    shares = even_shares(spec.shards) if spec.mode == "cluster" else ()
    members = tuple(
        Member(
            n.name,
            n.host,
            n.initial_role,
            n.shard or 0,
            (shares[n.shard or 0],) if shares and n.initial_role == "primary" else (),
        )
        for n in placement.servers
    )
    voters = {m.name: m.host for m in members if m.role == "primary" and spec.mode == "cluster"}
    voters |= {n.name: n.host for n in placement.sentinels}
    return Shape(
        spec.name,
        spec.mode,
        "planned",
        members,
        voters,
        spec.timing.detection_ms,
        quorum=spec.quorum,
        hook=spec.crash_failover,
        settings={
            "appendonly": "yes" if spec.aof else "no",
            "appendfsync": spec.appendfsync,
            **{k: str(v) for k, v in spec.settings.items()},
        },
    )


def seen(name: str, entries: Sequence[Entry], *, hook: bool = False) -> Shape | None:
    """As its nodes say now; ``None`` where none of them is a primary or replica that answers."""
    views = [(e, e.view) for e in entries if isinstance(e.view, NodeView)]
    servers = [(e, v) for e, v in views if v.role != "sentinel"]
    if not servers:
        return None
    sentinels = [(e, v) for e, v in views if v.role == "sentinel"]
    in_cluster = any(v.cluster for _, v in servers)
    numbers = _numbered(servers)
    members = tuple(_member(e, v, numbers[e.name], in_cluster=in_cluster) for e, v in servers)
    watched = [m for _, v in sentinels for m in v.monitored]
    voters = {e.name: e.host for e, _ in sentinels}
    if in_cluster:
        voters = {m.name: m.host for m in members if m.role == "primary" and m.slots}
    return Shape(
        name,
        "cluster" if in_cluster else "sentinel" if watched else "standalone",
        "seen",
        members,
        voters,
        _detection(servers, (m.settings for m in watched), in_cluster=in_cluster),
        quorum=max((m.quorum for m in watched), default=0),
        elects_at_once=all(v.engine.supports(Capability.ELECTS_AT_ONCE) for _, v in servers),
        hook=hook,
        settings=next((v.config for _, v in servers if v.role == "primary"), servers[0][1].config),
    )


def _numbered(servers: Sequence[tuple[Entry, NodeView]]) -> dict[str, int]:
    """The shard of each server: the primaries in the order of their slots, the replicas with whom they follow."""
    primaries = [(e, v) for e, v in servers if v.role == "primary"]
    primaries.sort(key=lambda p: (_first_slot(p[1]), p[0].name))
    found = {e.name: i for i, (e, _) in enumerate(primaries)}
    ids = {v.cluster.my_id: found[e.name] for e, v in primaries if v.cluster}
    places = {e.address: found[e.name] for e, _ in primaries}
    for entry, view in servers:
        if view.role == "primary":
            continue
        if view.cluster:
            shard = ids.get(view.cluster.me.primary_id)
        else:
            shard = places.get(view.primary) if view.primary else None
            shard = 0 if shard is None and len(primaries) == 1 else shard
        found[entry.name] = len(primaries) if shard is None else shard
    return found


def _first_slot(view: NodeView) -> int:
    slots = view.cluster.me.slots if view.cluster else ()
    return slots[0].first if slots else -1


def _member(entry: Entry, view: NodeView, shard: int, *, in_cluster: bool) -> Member:
    return Member(
        entry.name,
        entry.host,
        view.role,
        shard,
        view.cluster.me.slots if view.cluster and view.role == "primary" else (),
        view.offset,
        number(view.info.get("slave_priority"), _PRIORITY),
        view.cluster.my_id if view.cluster else view.run_id,
        _barred(view, in_cluster=in_cluster) if view.role == "replica" else "",
    )


def _barred(view: NodeView, *, in_cluster: bool) -> str:
    """In the server's own words, which are the same in every language."""
    if not view.link_up:
        return f"master_link_status down, {view.info.get('master_link_down_since_seconds', '?')} s"
    if in_cluster and view.cluster and "nofailover" in view.cluster.me.flags:
        return "cluster-replica-no-failover yes"
    if not in_cluster and view.info.get("slave_priority") == "0":
        return "replica-priority 0"
    return ""


def _detection(
    servers: Sequence[tuple[Entry, NodeView]], watched: Iterable[Mapping[str, str]], *, in_cluster: bool
) -> int:
    """Milliseconds; the slowest decides, since a majority must agree."""
    if in_cluster:
        return max(number(v.config.get("cluster-node-timeout"), _CLUSTER_DEFAULT_MS) for _, v in servers)
    found = [number(s.get("down-after-milliseconds"), _SENTINEL_DEFAULT_MS) for s in watched]
    return max(found, default=_SENTINEL_DEFAULT_MS)
