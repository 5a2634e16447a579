"""Restarts in turn: shard by shard the replicas, then the primary's role goes to one of them, then the former primary;
Sentinels last. Pure.

A primary without a replica is restarted in place, and the plan says what that means. So is the primary of plain
replication: its applications know one address, and would write to a replica after a change of roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.model.plan import Step
from redkeep.planning.departure import heirs
from redkeep.planning.provision import reachable
from redkeep.planning.switchover import followers, hand_over_step, leads, obstacles

if TYPE_CHECKING:
    from redkeep.model.topology import Observed
    from redkeep.planning.desired import Desired, DesiredNode


def rolling(desired: Desired, observed: Observed, reasons: Mapping[str, str]) -> Iterator[Step]:
    """Steps that restart the nodes of ``reasons`` (node -> why), all of them running."""
    if not reasons:
        return
    leaders = [n for n in desired.servers if leads(observed, n)]
    primaries = sorted((*leaders, *heirs(desired, observed).values()), key=lambda n: n.shard)
    left = [n for n in desired.servers if n.name in reasons]
    leading = {n.name: n for n in primaries}  # and later whoever takes over
    for primary in primaries:
        replicas = _replicas(desired, observed, primary)
        yield from (_restart(n, reasons[n.name]) for n in replicas if n.name in reasons)
        if primary.name in reasons:
            yield from _primary(desired, observed, primary, replicas, reasons[primary.name], leading)
        left = [n for n in left if n != primary and n not in replicas]
    yield from (_restart(n, reasons[n.name]) for n in left)  # they follow nobody, and own nothing
    yield from (_restart(n, reasons[n.name]) for n in desired.sentinels if n.name in reasons)


def _replicas(desired: Desired, observed: Observed, primary: DesiredNode) -> tuple[DesiredNode, ...]:
    """Those that follow it, and those of its shard that will by then: a node that is new or down is started first."""
    following = followers(desired, observed, primary)
    coming = [n for n in desired.servers if n.shard == primary.shard and not leads(observed, n)]
    return tuple(n for n in desired.servers if n in following or (n in coming and n != primary))


def _restart(node: DesiredNode, why: str) -> Step:
    return Step("restart", "restart", node.host, node.name, why=why)


def _primary(
    desired: Desired,
    observed: Observed,
    primary: DesiredNode,
    replicas: tuple[DesiredNode, ...],
    why: str,
    leading: dict[str, DesiredNode],
) -> Iterator[Step]:
    spec = desired.spec
    if replicas and (spec.mode != "standalone"):
        others = [n for name, n in leading.items() if name != primary.name]
        heir = leading[primary.name] = _heir(desired, observed, primary, replicas, others)
        step = hand_over_step(
            desired, primary.name, heir.name, f"{primary.name} is to be restarted, and leads"
        )
        view = reachable(observed, primary)
        one_way = view is not None and not view.engine.loads_from(heir.engine)
        # Its own version may not be able to copy from the new one; it is that no longer when it needs to.
        args = {**step.args, "one_way": True} if one_way else step.args
        yield replace(step, stage="restart", args=args)
        yield _restart(primary, why)
        return
    if replicas:
        what = "in place, since applications know its address: writes stand still until it runs again"
    else:
        what = "it has no replica, so what it serves is away until it runs again"
    yield _restart(primary, f"{why}; {what}")


def _heir(
    desired: Desired,
    observed: Observed,
    primary: DesiredNode,
    replicas: tuple[DesiredNode, ...],
    others: list[DesiredNode],
) -> DesiredNode:
    """Who takes over, with the ``others`` leading by then. Whether it has caught up is seen by the step; what it is does
    not change until then."""
    able = [
        n
        for n in replicas
        if not any("must not" in o for o in obstacles(desired, observed, primary, n, one_way=True))
    ]
    zones = {h.name: h.zone or h.name for h in desired.spec.hosts}

    def wish(node: DesiredNode) -> tuple[int, int, str]:
        on_host = sum(n.host == node.host for n in others)
        in_zone = sum(zones.get(n.host) == zones.get(node.host) for n in others)
        return on_host, in_zone, node.name

    return min(able or replicas, key=wish)
