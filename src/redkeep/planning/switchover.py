"""A planned change of primary: which replica takes over, and what stands against it. Pure.

The replica that takes over is one that the engine would promote, that has nearly everything already, and on whose host
the primaries are spread best. What stands against a replica is told in words; with no replica left the change is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.engine import Capability
from redkeep.model.plan import Step
from redkeep.planning.placing.placement import majority
from redkeep.planning.provision import reachable

if TYPE_CHECKING:
    from redkeep.model.topology import NodeView, Observed
    from redkeep.planning.desired import Desired, DesiredNode

#: Bytes that a replica may be behind: what it takes in within the moment for which writes are held.
LAG_LIMIT = 16 * 1024**2
#: Seconds since a replica last heard of its primary, which speaks at least every ten.
SILENCE_LIMIT = 15
#: With less than this between them, replicas count as equally far.
_ALIKE = 1024**2


@dataclass(frozen=True)
class Move:
    """A primary and the replica that takes over, by name."""

    shard: int
    primary: str
    replica: str

    def __str__(self) -> str:
        return f"shard {self.shard + 1}: {self.primary} hands over to {self.replica}"


def hand_over_step(desired: Desired, primary: str, replica: str, why: str) -> Step:
    """The step for ``run/steps/handover.py``."""
    node = desired.node(primary)
    return Step("hand-over", "hand-over", node.host, primary, why=why, args={"from": primary, "to": replica})


def primary_of(desired: Desired, observed: Observed, shard: int) -> DesiredNode | None:
    """The shard's primary as it says itself; ``None`` where none answers, or where two say so."""
    found = [n for n in desired.servers if n.shard == shard and leads(observed, n)]
    if len(found) > 1 and desired.spec.mode != "cluster":
        followed = [n for n in found if followers(desired, observed, n)]
        found = followed or found
    return found[0] if len(found) == 1 else None


def leads(observed: Observed, node: DesiredNode) -> bool:
    """Whether it says that it is a primary (in a Cluster: of hash slots)."""
    view = reachable(observed, node)
    if view is None or view.role != "primary":
        return False
    return view.cluster is None or bool(view.cluster.me.slots)


def check_known(desired: Desired, observed: Observed, nodes: Iterable[DesiredNode]) -> None:
    """Raises ``RefusedError`` for a node that may lead for all we know: it is silent, and nobody leads in its place."""
    for node in nodes:
        others = [n for n in desired.servers if n.shard == node.shard]
        if reachable(observed, node) is None and not any(leads(observed, n) for n in others):
            raise RefusedError(
                f"{node.name} does not answer, so nobody can tell whether it leads, and it cannot hand over",
                where=f"shard {node.shard + 1}",
                next="see redkeep status; a dead primary is replaced by the engine's own failover, then run it again",
            )


def followers(desired: Desired, observed: Observed, primary: DesiredNode) -> tuple[DesiredNode, ...]:
    """The replicas that say they follow it."""
    return tuple(n for n in desired.servers if n != primary and _follows(desired, observed, n, primary))


def _follows(desired: Desired, observed: Observed, node: DesiredNode, primary: DesiredNode) -> bool:
    view, its = reachable(observed, node), reachable(observed, primary)
    if view is None or view.role != "replica":
        return False
    if view.cluster is not None:
        return its is not None and its.cluster is not None and view.cluster.me.primary_id == its.cluster.my_id
    return view.primary is not None and desired.at(view.primary.host, view.primary.port) == primary


def choose(
    desired: Desired,
    observed: Observed,
    primary: DesiredNode,
    *,
    to: str | None = None,
    elsewhere: bool = False,
    one_way: bool = False,
) -> DesiredNode:
    """The replica that takes over from ``primary``.

    ``to`` names it. ``elsewhere``: on another host. ``one_way`` accepts one
    from which the old primary could not take a full copy (an upgrade).
    Raises ``RefusedError`` with what stands against every replica.
    """
    shard = f"shard {primary.shard + 1}"
    if against := "; ".join(_against_any(desired, observed, primary)):
        raise RefusedError(
            f"{primary.name} cannot hand over: {against}", where=shard, next="see redkeep status, then again"
        )
    replicas = followers(desired, observed, primary)
    if to is not None:
        replicas = tuple(n for n in replicas if n.name == to)
    if elsewhere:
        replicas = tuple(n for n in replicas if n.host != primary.host)
    if not replicas:
        place = " on another host" if elsewhere else ""
        what = f"it has no replica{place} that answers"
        if to is not None:
            silent = reachable(observed, desired.node(to)) is None
            what = f"{to} {'does not answer' if silent else 'is no replica of it'}"
        raise RefusedError(
            f"nobody can take over from {primary.name}: {what}", where=shard, next="see redkeep status"
        )
    found = {
        n.name: obstacles(desired, observed, primary, n, named=to is not None, one_way=one_way)
        for n in replicas
    }
    able = [n for n in replicas if not found[n.name]]
    if not able:
        told = "; ".join(f"{name} {', '.join(reasons)}" for name, reasons in found.items())
        raise RefusedError(
            f"no replica can take over from {primary.name}: {told}",
            where=shard,
            next="wait or mend that, then run it again",
        )
    return min(able, key=lambda n: _wish(desired, observed, primary, n))


def obstacles(
    desired: Desired,
    observed: Observed,
    primary: DesiredNode,
    replica: DesiredNode,
    *,
    named: bool = False,
    one_way: bool = False,
) -> tuple[str, ...]:
    """What stands against this replica, in words that follow its name. Nothing: it can take over.

    ``named``: somebody asked for this one, which overrules what only automatic failovers mind.
    """
    view, its = reachable(observed, replica), reachable(observed, primary)
    if view is None:
        return ("does not answer",)
    if its is None or not _follows(desired, observed, replica, primary):
        return (f"does not follow {primary.name}",)
    return tuple(_obstacles(desired, view, its, named=named, one_way=one_way))


def _obstacles(
    desired: Desired, view: NodeView, its: NodeView, *, named: bool, one_way: bool
) -> Iterator[str]:
    if view.info.get("loading") == "1":
        yield "is still loading its data"
    if view.syncing:
        yield "is still copying"
    elif not view.link_up:
        yield "has no link to it"
    elif int(view.info.get("master_last_io_seconds_ago", "0")) > SILENCE_LIMIT:
        yield f"has heard nothing from it for {view.info['master_last_io_seconds_ago']} s"
    behind = its.offset - view.offset
    if behind > LAG_LIMIT:
        yield f"is {behind / 1024**2:.0f} MiB behind (at most {LAG_LIMIT // 1024**2})"
    priority = view.config.get("replica-priority") or view.info.get("slave_priority")
    if priority == "0" and (desired.spec.mode == "sentinel" or not named):
        yield "must not be promoted (replica-priority 0)"
    if view.config.get("cluster-replica-no-failover") == "yes" and view.cluster and not named:
        yield "must not be promoted (cluster-replica-no-failover)"
    if not one_way and not its.engine.loads_from(view.engine):
        yield f"runs {view.engine}, from which {its.engine} could not copy afterwards"
    if view.cluster is not None:
        voters = [n for n in view.cluster.nodes if n.is_primary and n.slots]
        up = [
            n
            for n in voters
            if n.id == view.cluster.me.primary_id or (n.link_up and not n.flags & {"fail", "fail?"})
        ]
        if len(up) < majority(len(voters)):
            yield f"sees {len(up)} of {len(voters)} primaries, and their majority has to vote"


def _against_any(desired: Desired, observed: Observed, primary: DesiredNode) -> Iterator[str]:
    """What stands against every replica alike."""
    view = reachable(observed, primary)
    if view is None:
        yield "it does not answer, and a change without loss needs its help"
        return
    if view.cluster is not None:
        if view.cluster.me.migrating or view.cluster.me.importing:
            yield "hash slots of it are being moved just now"
        return
    if not view.engine.supports(Capability.PAUSE_WRITES):
        yield f"{view.engine} cannot hold writes alone"
    if not desired.sentinels:
        return
    watching = [n for n in desired.sentinels if reachable(observed, n)]
    if len(watching) < majority(len(desired.sentinels)):
        yield f"{len(watching)} of {len(desired.sentinels)} Sentinels answer, which is no majority"


def _wish(
    desired: Desired, observed: Observed, primary: DesiredNode, replica: DesiredNode
) -> tuple[int, int, int, int, str]:
    """Least is best: what it lacks, the other primaries on its host and in its zone, then how far it is."""
    its, view = reachable(observed, primary), reachable(observed, replica)
    assert its is not None
    assert view is not None
    others = [n for n in desired.servers if n != primary and leads(observed, n)]
    zones = {h.name: h.zone or h.name for h in desired.spec.hosts}
    lacking = max(0, its.offset - view.offset) // _ALIKE
    on_host = sum(n.host == replica.host for n in others)
    in_zone = Counter(zones.get(n.host, n.host) for n in others)[zones.get(replica.host, replica.host)]
    return lacking, on_host, in_zone, -view.offset, replica.name


# Where primaries should be -------------------------------------------------------------------------------------------


def displaced(desired: Desired, observed: Observed) -> tuple[Move, ...]:
    """The moves after which every shard's primary is the one that the placement chose; none for shards where neither
    answers."""
    moves = []
    for node in desired.servers:
        if node.initial_role != "primary" or leads(observed, node):
            continue
        primary = primary_of(desired, observed, node.shard)
        if primary is not None and reachable(observed, node) is not None:
            moves.append(Move(node.shard, primary.name, node.name))
    return tuple(moves)


def crowded(desired: Desired, observed: Observed) -> str:
    """Why the primaries should be spread anew, or an empty text: a host, or a zone, has more of them than it was to have."""
    moves = displaced(desired, observed)
    if not moves:
        return ""
    now = [n for n in desired.servers if leads(observed, n)]
    then = [n for n in desired.servers if n.initial_role == "primary"]
    zones = {h.name: h.zone or "" for h in desired.spec.hosts}
    for kind, place in (("host", {h: h for h in zones}), ("zone", zones)):
        have, wanted = (Counter(place[n.host] for n in group if place[n.host]) for group in (now, then))
        for name, count in have.most_common(1):
            if count > max(wanted.values(), default=0):
                return f"{kind} {name} has {count} of {len(now)} primaries"
    return ""


def suggestions(desired: Desired, observed: Observed, unfinished: Sequence[Move] = ()) -> tuple[str, ...]:
    """What somebody may want to do about primaries, in lines. It is never done by ``apply``."""
    found = [f"a switchover was cut off ({move}); redkeep switchover goes on with it" for move in unfinished]
    if reason := crowded(desired, observed):
        moves = "; ".join(map(str, displaced(desired, observed)))
        found.append(f"{reason}; redkeep switchover --restore spreads them again ({moves})")
    return tuple(found)
