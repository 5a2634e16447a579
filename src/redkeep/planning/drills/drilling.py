"""Which node or host a drill breaks, and when it refuses to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError, UsageError
from redkeep.model.drill import FAULTS, HELD, OF_HOSTS, Kind, Target
from redkeep.model.topology import HostFacts, NodeView, Role, Unreachable
from redkeep.planning.placing.placement import majority
from redkeep.planning.placing.survival import Survival, after_loss

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.model.topology import Observed
    from redkeep.planning.desired import Desired, DesiredNode
    from redkeep.planning.placing.placement import Placement

#: A node this full of its memory is not drilled: what the drill writes might push out the application's keys.
FULLEST = 0.8
#: Seconds that a fault is held beyond what the deployment needs to notice it.
_BEYOND = 5.0


def check_allowed(spec: Spec, file: str) -> None:
    """Raises ``RefusedError`` for a deployment that is not marked for it, whatever else was said."""
    if spec.drills != "allowed":
        raise RefusedError(
            "drills are refused for this deployment",
            where=f"{file}: drills: {spec.drills}",
            next="a drill breaks it on purpose: write drills: allowed into the file, if that is what you want",
        )


def check_kind(text: str) -> Kind:
    """Raises ``UsageError`` for an unknown fault."""
    for kind in FAULTS:
        if kind == text:
            return kind
    raise UsageError(f"no such fault: {text}", where="redkeep drill", next=f"one of {', '.join(FAULTS)}")


def hold_seconds(spec: Spec, wanted: float | None) -> float:
    """How long a fault that must be undone lasts: long enough for three detections."""
    return wanted if wanted is not None else 3 * spec.timing.detection_ms / 1000 + _BEYOND


def parse_groups(text: str, hosts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``a,b/c,d``: two groups of hosts; ``a,b`` alone stands against all the others.

    Raises ``UsageError`` for a host that is not in the file, is in both, or where a group is empty.
    """
    halves = text.split("/")
    groups = [tuple(dict.fromkeys(n.strip() for n in half.split(",") if n.strip())) for half in halves]
    if len(groups) == 1:
        groups.append(tuple(h for h in hosts if h not in groups[0]))
    unknown = [n for group in groups for n in group if n not in hosts]
    problem = (
        "more than two groups"
        if len(groups) > 2
        else f"no such host: {unknown[0]}"
        if unknown
        else "a group without a host"
        if not all(groups)
        else f"in both groups: {min(set(groups[0]) & set(groups[1]))}"
        if set(groups[0]) & set(groups[1])
        else ""
    )
    if problem:
        raise UsageError(
            problem,
            where=f"redkeep drill partition --groups {text}",
            next=f"two groups of hosts, as in --groups {hosts[0]}/{','.join(hosts[1:3]) or 'OTHER'}; "
            f"there are: {', '.join(hosts)}",
        )
    return groups[0], groups[1]


def choose(
    kind: Kind, desired: Desired, observed: Observed, *, wanted: str | None, hold: float | None
) -> Target:
    """The target of one run. ``wanted`` is a node, a host, or a shard as it is shown (``shard 1``, or ``1``).

    Raises ``UsageError`` where there is nothing of the kind.
    """
    node = _pick(kind, desired, observed, wanted)
    lasting = hold_seconds(desired.spec, hold) if kind in HELD else 0.0
    nodes = desired.on(node.host) if kind in OF_HOSTS else (node,)
    apart = tuple(h for h in desired.hosts if h != node.host) if kind == "partition" else ()
    return Target(kind, tuple(n.name for n in nodes), (node.host,), _led_by(nodes, observed), lasting, apart)


def part(
    groups: tuple[tuple[str, ...], tuple[str, ...]],
    desired: Desired,
    observed: Observed,
    placement: Placement,
    *,
    hold: float | None,
) -> Target:
    """A partition between two groups. What is measured is the side that the deployment can do without; the fault is
    caused on its hosts.

    Raises ``RefusedError`` where it can do without neither.
    """
    sides = sorted(groups, key=lambda g: sum(len(desired.on(h)) for h in g))
    roles = _roles(observed)
    losses = [after_loss(desired.spec, placement, side, roles) for side in sides]
    able = [i for i, loss in enumerate(losses) if _survived(loss)]
    chosen = able[0] if able else 0
    side, rest = sides[chosen], sides[1 - chosen]
    nodes = [n for host in side for n in desired.on(host)]
    lasting = hold_seconds(desired.spec, hold)
    target = Target(
        "partition", tuple(n.name for n in nodes), side, _led_by(nodes, observed), lasting, tuple(rest)
    )
    if not able:
        raise _too_much(target, f"neither side can go on alone: {losses[0].why}; {losses[1].why}")
    return target


def _led_by(nodes: Iterable[DesiredNode], observed: Observed) -> tuple[int, ...]:
    return tuple(sorted({n.shard for n in nodes if not n.sentinel and _role(observed, n) == "primary"}))


def _roles(observed: Observed) -> dict[str, Role]:
    return {n: v.role for n, v in observed.nodes.items() if isinstance(v, NodeView)}


def _survived(loss: Survival) -> bool:
    return loss.writes and loss.data


def _pick(kind: Kind, desired: Desired, observed: Observed, wanted: str | None) -> DesiredNode:
    role: Role = "sentinel" if kind == "sentinel-kill" else "replica" if kind == "replica-kill" else "primary"
    fitting = [n for n in desired.nodes if _role(observed, n) == role]
    if wanted is None:
        found = fitting
    elif kind in OF_HOSTS:
        found = [n for n in desired.nodes if wanted in (n.host, n.name)]
        found = found or [n for n in fitting if _is_shard(n, wanted)]
    else:
        found = [n for n in fitting if wanted in (n.name, n.host) or _is_shard(n, wanted)]
    if found:
        return found[0]
    have = ", ".join(n.name for n in fitting[:6]) or "none"
    raise UsageError(
        f"no {role} to break" + (f" is called {wanted}" if wanted else ""),
        where=f"redkeep drill {kind}",
        next=f"there are: {have}",
    )


def _is_shard(node: DesiredNode, wanted: str) -> bool:
    return not node.sentinel and wanted.removeprefix("shard ").strip() == str(node.shard + 1)


def _role(observed: Observed, node: DesiredNode) -> str:
    view = observed.nodes.get(node.name)
    return view.role if isinstance(view, NodeView) else "unreachable"


def check_survivable(target: Target, desired: Desired, observed: Observed, placement: Placement) -> None:
    """Raises ``RefusedError`` where the deployment is not well, is nearly full, or would not come through by itself."""
    _check_well(observed)
    _check_room(desired, observed)
    if target.fault in ("host-loss", "partition"):
        if len(desired.hosts) < 2:
            raise _too_much(target, "all of the deployment is on this one host")
        loss = after_loss(desired.spec, placement, target.hosts, _roles(observed))
        if not _survived(loss):
            raise _too_much(target, loss.why)
    elif target.fault in ("primary-kill", "primary-hang"):
        _check_primary(target, desired, observed)
    elif target.fault == "sentinel-kill":
        total = len(desired.sentinels)
        if total - 1 < majority(total):
            raise _too_much(
                target, f"{total - 1} of {total} Sentinels would be left, {majority(total)} must agree"
            )


def _check_well(observed: Observed) -> None:
    for name, view in observed.nodes.items():
        if isinstance(view, Unreachable):
            raise _not_well(name, view.reason)
        if not view.link_up:
            raise _not_well(name, "it is not in sync with its primary")
        if view.cluster is not None and not view.cluster.state_ok:
            raise _not_well(name, "cluster_state is not ok")


def _not_well(name: str, reason: str) -> RefusedError:
    return RefusedError(
        "the deployment is not well, so nothing is broken on top of that",
        where=f"{name}: {reason}",
        next="redkeep check tells what is wrong; redkeep apply may mend it",
    )


def _check_room(desired: Desired, observed: Observed) -> None:
    used_on: dict[str, int] = {}
    for node in desired.servers:
        view = observed.nodes.get(node.name)
        if not isinstance(view, NodeView):
            continue
        used_on[node.host] = used_on.get(node.host, 0) + view.memory
        limit = int(view.info.get("maxmemory", "0") or 0)
        if limit and view.memory > FULLEST * limit:
            raise _full(node.name, f"{view.memory / limit:.0%} of maxmemory is in use")
    for host, used in used_on.items():
        facts = observed.hosts.get(host)
        if isinstance(facts, HostFacts) and facts.memory and used > FULLEST * facts.memory:
            raise _full(host, f"its servers use {used / facts.memory:.0%} of its memory")


def _full(where: str, reason: str) -> RefusedError:
    return RefusedError(
        "too little memory is left for the keys that a drill writes",
        where=f"{where}: {reason}",
        next="give it more (maxmemory in the deployment file), then drill",
    )


def _check_primary(target: Target, desired: Desired, observed: Observed) -> None:
    spec, node = desired.spec, desired.node(target.nodes[0])
    if spec.mode == "standalone":
        if target.fault == "primary-hang":
            return  # it goes on where it stood
        if spec.replicas:
            raise _too_much(
                target, "nobody promotes a replica by itself in plain replication; its primary would wait"
            )
        if not spec.aof:
            raise _too_much(
                target, f"with persistence: {spec.persistence} a killed process loses acknowledged writes"
            )
        return
    heirs = [
        n
        for n in desired.servers
        if n.shard == node.shard and n.name != node.name and _role(observed, n) == "replica"
    ]
    if not heirs:
        raise _too_much(target, "its shard has no replica")
    voters = len(desired.sentinels) if spec.mode == "sentinel" else _led(desired.servers, observed.nodes)
    left = voters if spec.mode == "sentinel" else voters - 1
    if left < majority(voters):
        raise _too_much(target, f"{left} of {voters} primaries would be left, {majority(voters)} must agree")


def _led(servers: Iterable[DesiredNode], views: Mapping[str, NodeView | Unreachable]) -> int:
    """Primaries with hash slots: they vote."""
    found = 0
    for node in servers:
        view = views.get(node.name)
        found += isinstance(view, NodeView) and bool(view.cluster and view.cluster.me.slots)
    return found


def _too_much(target: Target, why: str) -> RefusedError:
    return RefusedError(
        f"the deployment would not survive {target.fault} of {target.subject} by itself",
        where=f"{target.subject}: {why}",
        next="redkeep plan shows which losses it survives; add what is missing, then drill",
    )
