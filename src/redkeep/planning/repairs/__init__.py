"""What ``redkeep check --fix`` may do: for each rule that can be mended safely, what was seen -> repairs. Pure.

Everything else is explained by the finding, and left to a person. A repair comes out of the state, not out of the
finding's words: once it is done, the next look has none. A server is only ever told what it can be told over its
protocol. A kernel is changed on this machine, for a deployment file that says that all of it is here, and on hosts where
the user gave the login of root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from redkeep.model.plan import Plan
from redkeep.planning.repairs import announcing, cluster, sentinels, settings
from redkeep.planning.repairs.base import Case, Command, Repair, Secret, Settled
from redkeep.planning.repairs.machines import MachineRepair, machine_repairs

#: The functions, with the rules that each of them mends.
REPAIRS: tuple[tuple[frozenset[str], Callable[[Case], Iterator[Repair]]], ...] = (
    (frozenset({"keepalive-off"}), settings.keepalive_off),
    (frozenset({"protected-mode-off"}), settings.protected_mode_off),
    (frozenset({"primary-cannot-rejoin"}), settings.primary_cannot_rejoin),
    (frozenset({"replication-auth", "replication-broken"}), settings.replication_auth),
    (frozenset({"announce-loopback", "announce-unroutable", "announce-differs"}), announcing.replicas),
    (frozenset({"announce-loopback", "announce-unroutable"}), announcing.sentinels),
    (frozenset({"announce-loopback", "announce-unroutable"}), announcing.cluster),
    (frozenset({"announce-loopback", "announce-unroutable"}), sentinels.watched_wrongly),
    (frozenset({"sentinel-ghost"}), sentinels.sentinel_ghost),
    (frozenset({"quorum-too-low", "quorum-too-high"}), sentinels.quorum),
    (frozenset({"backlog-too-small"}), settings.backlog_too_small),
    (frozenset({"replication-not-persisted"}), settings.replication_not_persisted),
    (frozenset({"slots-open"}), cluster.slots_open),
    (frozenset({"node-stale"}), cluster.node_stale),
)


def repairs(case: Case) -> tuple[Repair, ...]:
    """Everything that can be mended now; what waits for that comes with the next look."""
    found: dict[tuple[str, str], Repair] = {}
    for rules, function in REPAIRS:
        if rules & case.rules:
            for repair in function(case):
                found.setdefault((repair.node, repair.shown), repair)
    return tuple(found.values())


def steps(
    case: Case, found: Iterable[Repair | MachineRepair]
) -> tuple[Plan, Mapping[str, Repair | MachineRepair]]:
    """The plan, and the repair of each of its steps."""
    by_id: dict[str, Repair | MachineRepair] = {}
    planned = []
    for repair in found:
        step = repair.step(case.nodes[repair.node].host) if isinstance(repair, Repair) else repair.step()
        by_id[step.id] = repair
        planned.append(step)
    return Plan.of(planned), by_id


__all__ = [
    "Case",
    "Command",
    "MachineRepair",
    "Repair",
    "Secret",
    "Settled",
    "machine_repairs",
    "repairs",
    "steps",
]
