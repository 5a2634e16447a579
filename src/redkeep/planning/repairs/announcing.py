"""Repairs of the addresses that servers and Sentinels announce: that at which each was asked, and answered."""

from __future__ import annotations

from redkeep.model.checkup import Checkup, Node
from redkeep.model.engine import Capability
from redkeep.model.topology import Address, NodeView
from redkeep.planning.evidence.aliases import line_of
from redkeep.planning.evidence.handouts import handouts
from redkeep.planning.repairs.base import (
    IN_SENTINELS_FILE,
    Case,
    Command,
    Linked,
    Listed,
    Repair,
    Repairs,
    config,
    reachable_address,
)
from redkeep.planning.repairs.useless import rule_of, useless
from redkeep.planning.rules.clusterviews import Whole, wholes
from redkeep.planning.rules.meant import unannounced
from redkeep.planning.rules.words import number

#: A replica that connects anew says its address again; what it missed meanwhile it gets from the backlog.
_CONNECT_ANEW: Command = ("CLIENT", "KILL", "TYPE", "master")


def replicas(case: Case) -> Repairs:
    """Servers outside a Cluster; a primary announces as a replica once it has become one."""
    for node, view in case.checkup.servers:
        if view.cluster is None and (right := reachable_address(case.checkup, node)):
            yield from _replica(case.checkup, node, view, right)


def _replica(checkup: Checkup, node: Node, view: NodeView, right: str) -> Repairs:
    port = number(node.setting("replica-announce-port")) or number(view.info.get("tcp_port"))
    configured = node.setting("replica-announce-ip")
    if configured is None or port != node.address.port:
        return
    primary = checkup.primary_of(node) if view.role == "replica" else None
    line = line_of(checkup, primary, node) if primary else None
    told = configured or (line.host if line else "")
    if not told or told == right or not useless(checkup, Address(told, port), node):
        if unannounced(checkup, node):
            why = f"it says its address {right} as a replica, as the others do"
            commands, keeps = config(node, ("replica-announce-ip", right))
            yield Repair("announce-differs", node.name, why, commands, keeps)
        yield from _say_again(node, view, primary, Address(configured, port))
        return
    commands, keeps = config(node, ("replica-announce-ip", right))
    settled = Linked(node.name, primary.name, Address(right, port)) if primary else None
    yield Repair(
        rule_of(Address(told, port)),
        node.name,
        f"it announces {right} and not {told}, which is of no use to others",
        (*commands, _CONNECT_ANEW) if primary else commands,
        keeps,
        settled=settled,
    )


def _say_again(node: Node, view: NodeView, primary: Node | None, wanted: Address) -> Repairs:
    """What was set at run time counts from the next connection on."""
    if primary is None or primary.seen is None or not wanted.host or not view.link_up:
        return
    if wanted not in [line.address for line in primary.seen.replicas]:
        yield Repair(
            "announce-differs",
            node.name,
            f"it connects to {primary.name} anew, and says its address {wanted.host}",
            (_CONNECT_ANEW,),
            "the setting is there already",
            settled=Linked(node.name, primary.name, wanted),
        )


def sentinels(case: Case) -> Repairs:
    """Sentinels that others know by a useless address. They can be told since 6.2."""
    for node, view in case.checkup.sentinels:
        right = reachable_address(case.checkup, node)
        if not right or not view.engine.supports(Capability.SENTINEL_HOSTNAMES):
            continue
        given = [h for h in handouts(case.checkup) if h.sentinel and case.checkup.by_id(h.identity) is node]
        bad = {h.address: h.by for h in given if useless(case.checkup, h.address, node)}
        address = next(iter(bad), None)
        if address is None or address.port != node.address.port or address.host == right:
            continue
        others = tuple(
            sorted({n.name for h in given if h.audience == "clients" for n in h.by})
        )  # who list it
        yield Repair(
            rule_of(address),
            node.name,
            f"it tells the others {right} and not {address.host}, which is of no use to them",
            (("SENTINEL", "CONFIG", "SET", "announce-ip", right),),
            IN_SENTINELS_FILE,
            settled=Listed(Address(right, address.port), others) if others else None,
        )


def cluster(case: Case) -> Repairs:
    """Only where every node was asked, and so has an address that is known to work."""
    for whole in wholes(case.checkup):
        alive = {
            i
            for i, lines in whole.lines.items()
            if not all(n.flags & {"noaddr", "handshake"} for _, n in lines)
        }
        if alive - whole.ids.keys():
            continue
        apart = all(v.engine.supports(Capability.CLIENT_ADDRESS) for n, _ in whole.members if (v := n.seen))
        for node_id, nodes in whole.ids.items():
            if len(nodes) == 1 and (right := reachable_address(case.checkup, nodes[0])):
                yield from _cluster_node(case.checkup, whole, node_id, right, apart)


def _cluster_node(checkup: Checkup, whole: Whole, node_id: str, right: str, apart: bool) -> Repairs:
    """``apart``: all engines can hand clients another address than the bus uses, which is the safer change."""
    node = whole.ids[node_id][0]
    given = {h.address for h in handouts(checkup) if h.identity == node_id and h.source.startswith("CLUSTER")}
    bad = next((a for a in sorted(given, key=str) if useless(checkup, a, node)), None)
    if bad is None or bad.port != node.address.port:
        return
    family = "ipv6" if ":" in right else "ipv4"
    setting = f"cluster-announce-client-{family}" if apart else "cluster-announce-ip"
    before = node.setting(setting)
    if before is None or before == right:
        return
    commands, keeps = config(node, (setting, right))
    undo, _ = config(node, (setting, before))
    others = tuple(n.name for n, _ in whole.members if n is not node)
    yield Repair(
        rule_of(bad),
        node.name,
        f"it is handed out as {right} and not {bad.host}, which is of no use to clients",
        commands,
        keeps,
        stage="settings" if apart else "in-turn",
        settled=Listed(Address(right, bad.port), others) if others else None,
        undo=undo,
    )
