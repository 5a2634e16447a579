"""Repairs of a Cluster's bookkeeping: slots that an interrupted move left open, and nodes that nobody is any more."""

from __future__ import annotations

from redkeep.model.checkup import Node
from redkeep.model.topology import ClusterView
from redkeep.planning.repairs.base import IN_NODES_CONF, Case, Command, Repair, Repairs
from redkeep.planning.rules.clusterviews import Whole, wholes

_LEFTOVER = frozenset({"handshake", "noaddr"})


def slots_open(case: Case) -> Repairs:
    """Only where the target has no key yet: the slot stays where it is. First the source, then the target."""
    for whole in wholes(case.checkup):
        for target, view in whole.members:
            for slot, source_id in view.me.importing.items():
                if target.details.open_keys.get(slot) == 0:
                    yield from _stays(whole, slot, source_id, target, view)


def _stays(whole: Whole, slot: int, source_id: str, target: Node, view: ClusterView) -> Repairs:
    sources = whole.ids.get(source_id, [])
    if len(sources) != 1 or len(whole.ids[view.my_id]) != 1:
        return
    source = sources[0]
    theirs = source.seen.cluster if source.seen else None
    if theirs is None or not _owns(theirs, source_id, slot) or not _owns(view, source_id, slot):
        return
    goes_to = theirs.me.migrating.get(slot)
    keys = source.details.open_keys.get(slot)
    if goes_to is not None and (goes_to != view.my_id or keys is None):
        return
    stable: tuple[Command, ...] = (("CLUSTER", "SETSLOT", str(slot), "STABLE"),)
    count: Command = ("CLUSTER", "COUNTKEYSINSLOT", str(slot))
    why = f"slot {slot} stays with {source.name}: {target.name} has no key of it"
    if goes_to is not None:
        guards = ((count, str(keys)),)
        yield Repair("slots-open", source.name, why, stable, IN_NODES_CONF, stage="slots", guards=guards)
    yield Repair("slots-open", target.name, why, stable, IN_NODES_CONF, guards=((count, "0"),))


def _owns(view: ClusterView, node_id: str, slot: int) -> bool:
    line = view.by_id(node_id)
    return line is not None and any(slot in part for part in line.slots)


def node_stale(case: Case) -> Repairs:
    """Who has no address, or was forgotten by some, answers nobody and owns nothing: all forget it within a minute."""
    for whole in wholes(case.checkup):
        if not _all_asked(whole):
            continue
        for node_id, lines in whole.lines.items():
            gone = all("noaddr" in line.flags for _, line in lines)
            half = len(lines) < len(whole.members) and all(
                line.flags & {"noaddr", "fail"} for _, line in lines
            )
            useful = any(line.slots or "handshake" in line.flags for _, line in lines)
            if node_id in whole.ids or useful or _has_replicas(whole, node_id) or not (gone or half):
                continue
            for node, _ in lines:
                command: Command = ("CLUSTER", "FORGET", node_id)
                why = f"all forget {node_id[:12]}, which is gone"
                yield Repair("node-stale", node.name, why, (command,), IN_NODES_CONF, stage="remove")


def _all_asked(whole: Whole) -> bool:
    """Somebody who is not asked would tell the others of it again."""
    return all(
        node_id in whole.ids or all(line.flags & (_LEFTOVER | {"fail"}) for _, line in lines)
        for node_id, lines in whole.lines.items()
    )


def _has_replicas(whole: Whole, node_id: str) -> bool:
    return any(view.me.primary_id == node_id for _, view in whole.members)
