"""What runs: nodes, roles, slots, memory, lag; each as it says itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from redkeep.model.slots import SLOTS
from redkeep.model.topology import Address, HostFacts, NodeView, Observed, Unreachable
from redkeep.planning.identity import check_owner
from redkeep.planning.switchover import suggestions
from redkeep.run.deployment import check_twins
from redkeep.run.opening import opened
from redkeep.run.targets import read_targets

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import Desired, DesiredNode

State = Literal["ok", "degraded", "down"]


@dataclass(frozen=True)
class NodeStatus:
    """One node. What could not be asked is ``None``, and ``link`` says why."""

    name: str
    host: str
    role: str
    announced: str
    primary: str | None
    slots: int | None
    memory_bytes: int | None
    link: str
    lag_bytes: int | None
    version: str | None

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Status:
    name: str
    mode: str
    engine: str
    state: State
    nodes: tuple[NodeStatus, ...]
    #: what one may want to do; nothing here is done by itself
    suggestions: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "mode": self.mode,
            "engine": self.engine,
            "state": self.state,
            "nodes": [n.as_json() for n in self.nodes],
            "suggestions": list(self.suggestions),
        }


async def status(spec: Spec, file: Path) -> Status:
    """Asks every host and node; what is unreachable is shown as that, never left out.

    Raises ``RefusedError`` where the hosts are another deployment's: servers that do not let us in are not down.
    """
    async with opened(spec, file, keep=False) as deployment:
        sight = await deployment.look()
        desired, observed = sight.desired, sight.observed
        check_twins(sight)
        check_owner(desired, observed, sight.identity)
        nodes = tuple(_node(n, desired, observed) for n in desired.everyone)
        told = suggestions(desired, observed, read_targets(deployment.vault))
        return Status(spec.name, spec.mode, str(deployment.expected), _state(desired, observed), nodes, told)


def _node(node: DesiredNode, desired: Desired, observed: Observed) -> NodeStatus:
    announced = str(Address(node.wire.client_announce or node.wire.announce or "?", node.port))
    view = observed.nodes.get(node.name, Unreachable("not asked"))
    if isinstance(view, Unreachable):
        host = observed.hosts.get(node.host)
        reason = f"host: {host.reason}" if isinstance(host, Unreachable) else view.reason
        if isinstance(host, HostFacts) and host.services.get(node.paths.unit) == "activating":
            reason = "waits at its gate (redkeep explain gate)"
        return NodeStatus(
            node.name, node.host, "unreachable", announced, None, None, None, reason, None, None
        )
    primary = _primary_of(view, desired, observed)
    slots = view.cluster.me.slot_count if view.cluster else None
    lag = None
    if primary is not None:
        theirs = observed.nodes.get(primary)
        lag = max(0, theirs.offset - view.offset) if isinstance(theirs, NodeView) else None
    return NodeStatus(
        node.name,
        node.host,
        view.role,
        announced,
        primary or (str(view.primary) if view.primary else None),
        slots,
        view.memory,
        "up" if view.link_up else "syncing" if view.syncing else "down",
        lag,
        str(view.engine),
    )


def _primary_of(view: NodeView, desired: Desired, observed: Observed) -> str | None:
    """The name of the node that a replica follows, where it is one of ours."""
    if view.primary is None:
        return None
    if view.cluster:
        wanted = view.cluster.me.primary_id
        for name, other in observed.nodes.items():
            if isinstance(other, NodeView) and other.cluster and other.cluster.my_id == wanted:
                return name
    found = desired.at(view.primary.host, view.primary.port)
    return found.name if found else None


def _state(desired: Desired, observed: Observed) -> State:
    """``down``: some data cannot be written; ``degraded``: it can, but something that was planned is missing."""
    views = [observed.nodes.get(n.name) for n in desired.present]
    known = [v for v in views if isinstance(v, NodeView)]
    primaries = [v for v in known if v.role == "primary"]
    if desired.spec.mode == "cluster":
        serving = sum(v.cluster.me.slot_count for v in primaries if v.cluster and v.cluster.state_ok)
        if serving < SLOTS:
            return "down"
    elif not primaries:
        return "down"
    every = [observed.nodes.get(n.name) for n in desired.nodes]
    well = all(isinstance(v, NodeView) and v.link_up for v in every)
    if desired.spec.mode == "cluster":
        return "ok" if well and not _lonely(desired, known) else "degraded"
    return "ok" if well and len(primaries) == 1 else "degraded"


def _lonely(desired: Desired, known: list[NodeView]) -> bool:
    """A shard has fewer replicas than the file says: one was cut short in a move, or follows another shard's primary."""
    followed = Counter(v.cluster.me.primary_id for v in known if v.cluster and not v.cluster.me.is_primary)
    owners = [v.cluster.my_id for v in known if v.cluster and v.cluster.me.is_primary and v.cluster.me.slots]
    return any(followed[owner] < desired.spec.replicas for owner in owners)
