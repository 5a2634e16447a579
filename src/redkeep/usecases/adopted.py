"""Deployments that Redkeep did not make: looked at by the addresses in their file, and not changed by apply."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.model.hostspec import LOCAL
from redkeep.model.slots import SLOTS
from redkeep.model.targets import Target
from redkeep.model.topology import Address, Unreachable
from redkeep.planning.evidence.handouts import handouts
from redkeep.run.outposts import Outposts, Wanted, outposts
from redkeep.run.sessions import key_question
from redkeep.run.vault import Vault
from redkeep.usecases.check import Access, Checked, examine, judged, require_one
from redkeep.usecases.status import NodeStatus, State, Status

if TYPE_CHECKING:
    from pathlib import Path

    from redkeep.model.checkup import Checkup, Node
    from redkeep.model.events import Approve
    from redkeep.model.hostspec import HostSpec
    from redkeep.model.spec import Spec
    from redkeep.run.visits import Visitor


def targets(spec: Spec) -> tuple[Target, ...]:
    """Where its nodes may be: at the first port of each host, and the Sentinels'. What these tell of is found by itself."""
    ports = [(spec.port, False), *([(spec.sentinel_port, True)] if spec.mode == "sentinel" else [])]
    return tuple(
        Target(Address(_address(spec, host), port), tls=spec.tls is True, sentinel=sentinel)
        for host in spec.hosts
        for port, sentinel in ports
    )


def _address(spec: Spec, host: HostSpec) -> str:
    if host.is_local:
        return host.private or "127.0.0.1"
    first, second = (host.public, host.private) if spec.clients == "public" else (host.private, host.public)
    return first or second or host.ssh_host


async def check_adopted(spec: Spec, file: Path, access: Access, approve: Approve) -> Checked:
    """Raises as ``check_targets`` does."""
    async with posts_of(spec, file, access, approve) as posts:
        checkup, _ = await examine_adopted(spec, file, access, posts)
        return judged(checkup, spec, posts)


def posts_of(
    spec: Spec, file: Path, access: Access, approve: Approve
) -> AbstractAsyncContextManager[Outposts]:
    """Sessions with its hosts, where somebody filled in how to log in there."""
    described = [h.name for h in spec.hosts if h.ssh not in (h.name, LOCAL)]
    folder = Vault(file, spec.name).root
    return outposts(Wanted(access.vantages, access.machines, described, spec, folder), key_question(approve))


async def examine_adopted(
    spec: Spec, file: Path, access: Access, posts: Outposts | None = None
) -> tuple[Checkup, Visitor]:
    guesses = targets(spec)
    checkup, visitor = await examine(guesses, access, posts, spec)
    return replace(without_guesses(checkup, {t.address for t in guesses}), target=str(file)), visitor


def without_guesses(checkup: Checkup, guesses: set[Address]) -> Checkup:
    """A host need not have a node at the first port, where it has others and nobody tells of one there."""
    inhabited = {n.address.host for n, _ in checkup.seen}
    idle = guesses - {h.address for h in handouts(checkup)}
    nodes = tuple(
        n
        for n in checkup.nodes
        if n.seen or n.address not in idle or n.address.host not in inhabited or not _refused(n)
    )
    return replace(checkup, nodes=nodes)


def _refused(node: Node) -> bool:
    return isinstance(node.view, Unreachable) and node.view.refused


async def status_of(spec: Spec, file: Path, access: Access) -> Status:
    """As each node says itself; what is unreachable is shown as that, never left out."""
    checkup, _ = await examine_adopted(spec, file, access)
    withheld = any(visit.login == "withheld" for visit in checkup.visits.values())
    if not checkup.seen or (withheld and not checkup.servers):  # not known is not down
        require_one(checkup)
    engines = Counter(str(v.engine) for _, v in checkup.servers or checkup.seen)
    nodes = tuple(_node(checkup, n) for n in checkup.nodes)
    return Status(spec.name, spec.mode, engines.most_common(1)[0][0], _state(spec, checkup), nodes)


def _node(checkup: Checkup, node: Node) -> NodeStatus:
    view = node.view
    if isinstance(view, Unreachable):
        visit = checkup.visit(node)
        reason = visit.login_detail if visit and visit.login_detail else view.reason
        return NodeStatus(
            node.name, node.host, "unreachable", node.name, None, None, None, reason, None, None
        )
    primary = checkup.primary_of(node)
    followed = primary.name if primary else str(view.primary) if view.primary else None
    return NodeStatus(
        node.name,
        node.host,
        view.role,
        str(node.address),
        followed,
        view.cluster.me.slot_count if view.cluster else None,
        view.memory,
        "up" if view.link_up else "syncing" if view.syncing else "down",
        max(0, primary.seen.offset - view.offset) if primary and primary.seen else None,
        str(view.engine),
    )


def _state(spec: Spec, checkup: Checkup) -> State:
    if spec.mode == "cluster":
        serving = sum(
            v.cluster.me.slot_count for _, v in checkup.primaries if v.cluster and v.cluster.state_ok
        )
        if serving < SLOTS:
            return "down"
    elif not checkup.primaries:
        return "down"
    well = len(checkup.seen) == len(checkup.nodes) and all(v.link_up for _, v in checkup.seen)
    return "ok" if well and (spec.mode == "cluster" or len(checkup.primaries) == 1) else "degraded"
