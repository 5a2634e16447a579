"""Addresses under which others know a node that was asked elsewhere: behind a NAT each server has several.

``10.0.0.12:6379``, which a Sentinel lists with a run ID, is the server that told us this run ID at its public address:
one server, and not a second one that does not answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.model.topology import Address
from redkeep.planning.evidence.handouts import handouts
from redkeep.planning.evidence.trust import is_loopback

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup, Node


def recognised(checkup: Checkup, named: Collection[Address]) -> Checkup:
    """Without the nodes that are others' further addresses, except where the user ``named`` them."""
    known = aliases(checkup)
    nodes = tuple(n for n in checkup.nodes if n.seen or n.address not in known or n.address in named)
    return replace(checkup, nodes=nodes, known_as=known)


def aliases(checkup: Checkup) -> Mapping[Address, str]:
    """Address -> name of the node that is meant by it, of addresses at which nobody was asked."""
    seen = replace(checkup, nodes=tuple(n for n in checkup.nodes if n.seen), known_as={})
    asked = {n.address for n in seen.nodes}
    told: dict[Address, set[str]] = defaultdict(set)
    for handout in handouts(seen):
        owner = seen.by_id(handout.identity) if handout.identity else None
        if owner is not None:
            told[handout.address].add(owner.name)
    for node, view in seen.replicas:
        primary = seen.primary_of(node)
        if primary is not None and view.primary and view.link_up and not view.cluster:
            if line := line_of(seen, primary, node):
                told[line].add(node.name)
            told[view.primary].add(primary.name)
    return {
        address: next(iter(names))
        for address, names in told.items()
        if len(names) == 1 and address not in asked and not is_loopback(address.host)
    }


def line_of(checkup: Checkup, primary: Node, replica: Node) -> Address | None:
    """The address under which its primary lists a replica; ``None`` where that cannot be told."""
    view, theirs = replica.seen, primary.seen
    if view is None or theirs is None or not view.link_up:
        return None
    port = replica.setting("replica-announce-port") or "0"
    port = port if port != "0" else view.info.get("tcp_port", "")
    lines = {line.address for line in theirs.replicas if str(line.address.port) == port}
    mine = {replica.address, *_as_sentinels_say(checkup, view.run_id)} & lines
    if len(mine) == 1:
        return mine.pop()
    # its link is up, so that one of these lines is its own
    left = {
        a for a in lines if checkup.at(a) in (None, replica) and not _is_anothers(checkup, a, view.run_id)
    }
    return left.pop() if len(left) == 1 else None


def _as_sentinels_say(checkup: Checkup, run_id: str) -> set[Address]:
    return {a for a, i in _listed(checkup) if i == run_id}


def _is_anothers(checkup: Checkup, address: Address, run_id: str) -> bool:
    return any(a == address and i and i != run_id for a, i in _listed(checkup))


def _listed(checkup: Checkup) -> set[tuple[Address, str]]:
    """Replicas as Sentinels list them, with their run IDs."""
    return {
        (watched.address, watched.run_id)
        for _, view in checkup.sentinels
        for entry in view.monitored
        for watched in entry.watched_replicas
    }
