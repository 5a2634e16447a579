"""Addresses that servers and Sentinels hand out: to clients, to replicas, to each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from redkeep.model.values import Value
from redkeep.planning.evidence.clusterlines import Said, clustered, said, said_by

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup, Node, SlotOwner
    from redkeep.model.topology import Address, ClusterView, NodeView

Audience = Literal["clients", "servers", "sentinels"]

#: Flags of CLUSTER NODES on lines whose address nobody uses.
_GONE = frozenset({"noaddr", "handshake"})
#: Flags of CLUSTER NODES and of SENTINEL: peers know themselves that nobody is there.
_DOWN = frozenset({"fail", "fail?", "s_down", "o_down"})


class Handout(Value):
    """One address that ``by`` give to ``audience``; ``source`` is the command that shows it.

    ``identity`` is the run ID, node ID or Sentinel ID of whom it should lead to; empty where they do not know it.
    """

    address: Address
    by: tuple[Node, ...]
    source: str
    audience: Audience
    identity: str = ""
    sentinel: bool = False


def handouts(checkup: Checkup) -> tuple[Handout, ...]:
    """Everything that anybody hands out; worked out once for a checkup, and each once, with all who do."""
    return checkup.once(_handouts)


def believed(checkup: Checkup) -> tuple[Handout, ...]:
    """The same by those alone who do not know themselves that nobody is there: other rules tell of that."""
    return checkup.once(_believed)


def _handouts(checkup: Checkup) -> tuple[Handout, ...]:
    return tuple(_handed_out_by(checkup.seen, said(checkup)))


def _believed(checkup: Checkup) -> tuple[Handout, ...]:
    wary = {n.name for n, v in checkup.seen if v.monitored}
    wary |= {n.name for line, nodes in said(checkup) if line.flags & _DOWN for n in nodes}
    found = []
    for handout in handouts(checkup) if wary else ():
        by = tuple(n for n in handout.by if n.name not in wary or not _known_down(n, handout))
        if len(by) == len(handout.by):
            found.append(handout)
        elif by:
            found.append(replace(handout, by=by))
    return tuple(found) if wary else handouts(checkup)


def _known_down(node: Node, handout: Handout) -> bool:
    view = node.seen
    if view is None:
        return False
    if view.cluster:
        return handout.identity in view.cluster.down
    watched = [w for e in view.monitored for w in (*e.watched_replicas, *e.watched_sentinels)]
    return any(w.address == handout.address and w.flags & _DOWN for w in watched)


def handed_out_by(seen: Sequence[tuple[Node, NodeView]]) -> Iterator[Handout]:
    """What these hand out."""
    return _handed_out_by(seen, said_by(clustered(seen)))


def _handed_out_by(seen: Sequence[tuple[Node, NodeView]], lines: Iterable[Said]) -> Iterator[Handout]:
    for node, view in seen:
        if view.role == "sentinel":
            yield from _by_sentinel(node, view)
        elif not view.cluster:
            for line in view.replicas:
                yield Handout(line.address, (node,), "INFO replication", "sentinels")
            if view.primary:
                yield Handout(view.primary, (node,), "INFO replication", "servers")
            for heard in node.details.greetings:
                source = "__sentinel__:hello"
                yield Handout(heard.address, (node,), source, "sentinels", heard.sentinel_id, sentinel=True)
    yield from _by_cluster(clustered(seen), lines)


def _by_sentinel(node: Node, view: NodeView) -> Iterator[Handout]:
    for entry in view.monitored:
        yield Handout(
            entry.address,
            (node,),
            f"SENTINEL GET-MASTER-ADDR-BY-NAME {entry.name}",
            "clients",
            entry.settings.get("runid", ""),
        )
        source = f"SENTINEL REPLICAS {entry.name}"
        for replica in entry.watched_replicas:
            yield Handout(replica.address, (node,), source, "clients", replica.run_id)
        source = f"SENTINEL SENTINELS {entry.name}"
        for peer in entry.watched_sentinels:
            yield Handout(peer.address, (node,), source, "clients", peer.run_id, sentinel=True)


def _by_cluster(members: Sequence[tuple[Node, ClusterView]], lines: Iterable[Said]) -> Iterator[Handout]:
    """N nodes hand out N addresses each. What several were read to say alike (``Lines``, ``Owners``) is said once."""
    ids = {node.name: view.my_id for node, view in members}
    shown: dict[int, SlotOwner] = {}
    by: dict[int, list[Node]] = defaultdict(list)
    for node, _ in members:
        for owner in node.details.slot_owners:
            shown[id(owner)] = owner
            by[id(owner)].append(node)
    for key, owner in shown.items():
        # no address: clients take the one that they came by
        nodes = [n for n in by[key] if owner.address.host or ids[n.name] != owner.node_id]
        if nodes and not owner.unnamed:
            yield Handout(owner.address, tuple(nodes), "CLUSTER SLOTS", "clients", owner.node_id)
    yield from _by_lines(members, lines)


def _by_lines(members: Sequence[tuple[Node, ClusterView]], lines: Iterable[Said]) -> Iterator[Handout]:
    """Who shows clients a node by CLUSTER SLOTS shows its line to servers alone."""
    told = {n.name: frozenset(o.node_id for o in n.details.slot_owners) for n, _ in members}
    by_all = frozenset.intersection(*told.values()) if told else frozenset()
    for line, nodes in lines:
        # before the first handshake a node does not know its own address
        if line.flags & _GONE or ("myself" in line.flags and not line.address.host):
            continue
        shown = nodes if line.id in by_all else [n for n in nodes if line.id in told[n.name]]
        if shown:
            yield Handout(line.address, tuple(shown), "CLUSTER NODES", "servers", line.id)
        if len(shown) < len(nodes):
            hidden = tuple(n for n in nodes if line.id not in told[n.name])
            yield Handout(line.address, hidden, "CLUSTER NODES", "clients", line.id)
