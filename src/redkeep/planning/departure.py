"""Nodes that leave: handed over, stopped, forgotten by all, and cleaned up after; their data is kept aside.

A node is stopped before it is forgotten. One that went on would keep greeting the others, and they bar a forgotten node
for 60 s only. So what a kill leaves behind is a node that is known and dead, as after any crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.plan import Step
from redkeep.model.topology import HostFacts, Unreachable
from redkeep.planning.cluster import lines_at, primaries_of, views_of
from redkeep.planning.provision import changed_files, gone, reachable
from redkeep.planning.replication import current_primary
from redkeep.planning.switchover import hand_over_step

if TYPE_CHECKING:
    from redkeep.model.topology import ClusterView, NodeView, Observed
    from redkeep.planning.desired import Desired, DesiredNode


def departure(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Every step from a deployment with leaving nodes to one without; and the end of any change of who is there."""
    yield from _hand_overs(desired, observed)
    for node in desired.leaving:
        if not gone(node, observed):
            why = f"{'the Sentinel' if node.sentinel else 'the server'} is no longer wanted; its data is kept aside"
            yield Step("remove", "remove-node", node.host, node.name, why=why, destructive=True)
    if desired.spec.mode == "cluster":
        yield from _forgotten(desired, views_of(desired, observed))
    yield from _resets(desired, observed)
    yield from _cleaned(desired, observed)
    yield from _tidied(desired, observed)


def _hand_overs(desired: Desired, observed: Observed) -> Iterator[Step]:
    for name, heir in heirs(desired, observed).items():
        yield hand_over_step(desired, name, heir.name, f"it leaves, and {heir.name} stays")


def heirs(desired: Desired, observed: Observed) -> dict[str, DesiredNode]:
    """Primaries that leave and whose shard stays -> the first of the others, in the order of the placement."""
    if not desired.leaving:
        return {}
    found = {}
    if desired.spec.mode == "cluster":
        leaders = primaries_of(desired, views_of(desired, observed))
    else:
        leaders = {0: current_primary(desired, observed).name}
    leaving = {n.name for n in desired.leaving}
    for shard, name in leaders.items():
        heir = next((n for n in desired.servers if n.shard == shard and n.name != name), None)
        if name not in leaving or heir is None or shard in desired.joining:
            continue
        if reachable(observed, desired.node(name)) is None:
            continue  # it is refused before, or about to be replaced by the vote
        found[name] = heir
    return found


def _forgotten(desired: Desired, views: Mapping[str, ClusterView]) -> Iterator[Step]:
    """By identity: what a leaving node says of itself, or what the others know at its address."""
    leaving = {n.name for n in desired.leaving}
    current = {v.my_id for name, v in views.items() if name not in leaving}
    for node in desired.leaving:
        ids = {views[node.name].my_id} if node.name in views else set()
        for name, view in views.items():
            if name not in leaving:
                ids |= {line.id for line in lines_at(node, view)}
        for found in sorted(ids - current):
            args = {"id": found}
            yield Step("forget", "forget", "", node.name, why="the others still remember it", args=args)


def _resets(desired: Desired, observed: Observed) -> Iterator[Step]:
    """A Sentinel never forgets by itself. Each is reset alone, and finds the living again before the next one is."""
    leaving = {n.announced for n in desired.leaving}
    still_there = any(not gone(n, observed) for n in desired.leaving)
    for node in desired.sentinels if desired.leaving else ():
        view = reachable(observed, node)
        if still_there or (view is not None and leaving & _listed(desired, view)):
            why = "it still remembers nodes that are gone"
            yield Step("reset", "reset-sentinel", node.host, node.name, why=why)


def _listed(desired: Desired, view: NodeView) -> set[tuple[str, int]]:
    entries = [e for e in view.monitored if e.name == desired.spec.name]
    return {(a.host, a.port) for e in entries for a in (*e.replicas, *e.sentinels)}


def _cleaned(desired: Desired, observed: Observed) -> Iterator[Step]:
    for host in desired.hosts.values():
        facts = observed.hosts.get(host.name)
        if isinstance(facts, HostFacts) and facts.identity and desired.settled and not desired.on(host.name):
            yield Step("clean", "clean-host", host.name, why="nothing of the deployment is left there")


def _tidied(desired: Desired, observed: Observed) -> Iterator[Step]:
    later = desired.settled
    for host in later.hosts.values() if later else ():
        facts = observed.hosts.get(host.name)
        known = facts if isinstance(facts, HostFacts) else None
        nodes = later.on(host.name) if later else ()
        files = (*host.files, *(f for n in nodes for f in n.files))
        if nodes and changed_files(files, known):
            why = "the change is over: nobody is named any more who is gone"
            yield Step("tidy", "tidy", host.name, why=why)


def check_departure(desired: Desired, observed: Observed) -> None:
    """Raises ``RefusedError`` where data would leave with a node that cannot be asked, or nobody is there to take it."""
    silent = [n for n in desired.leaving if not n.sentinel and _lost(n, observed)]
    if desired.spec.mode != "cluster":
        leader = current_primary(desired, observed) if desired.leaving else None
        if leader in silent:
            raise _waits(leader.name, observed, "it is the primary, as far as the others know")
        return
    views = views_of(desired, observed)
    for node in silent:
        lines = [line for v in views.values() for line in lines_at(node, v)]
        if any(line.slots for line in lines):
            failed = any("fail" in line.flags for line in lines)
            state = "it is down, and no replica has taken over yet" if failed else "and it serves them"
            raise _waits(node.name, observed, f"hash slots are its own, {state}")


def _lost(node: DesiredNode, observed: Observed) -> bool:
    return isinstance(observed.hosts.get(node.host), Unreachable) or (
        reachable(observed, node) is None and not gone(node, observed)
    )


def _waits(name: str, observed: Observed, why: str) -> RefusedError:
    view = observed.nodes.get(name)
    reason = view.reason if isinstance(view, Unreachable) else "no reason known"
    return RefusedError(
        f"{name} shall leave and cannot be asked; {why}",
        where=f"{name}: {reason}",
        next="wait for the failover, or bring it back; with no replica left, its data is gone for good: redkeep status",
    )


def left_behind(desired: Desired, observed: Observed) -> list[str]:
    """What stays on hosts that are not in the file any more and cannot be reached."""
    notes = []
    for host in dict.fromkeys(n.host for n in desired.leaving):
        facts = observed.hosts.get(host)
        if isinstance(facts, Unreachable):
            units = " ".join(n.paths.unit for n in desired.leaving if n.host == host)
            base = desired.hosts[host].layout.base
            notes.append(
                f"{host} cannot be reached ({facts.reason}), and is not in the file any more: {base} stays there, "
                f"and its servers start with it; if it comes back: systemctl disable --now {units}"
            )
    return notes
