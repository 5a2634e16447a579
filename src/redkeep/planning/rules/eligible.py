"""Which replicas may be promoted, as Sentinel and Cluster decide it."""

from __future__ import annotations

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import NodeView, SentinelEntry
from redkeep.model.values import Value
from redkeep.planning.rules.words import number

#: Both engines' defaults, where CONFIG GET was refused.
_NODE_TIMEOUT_MS, _VALIDITY_FACTOR, _PING_PERIOD_S = 15_000, 10, 10

#: Sentinel passes over a replica whose link is down for longer than ten times down-after-milliseconds (sentinel.c).
_SENTINEL_FACTOR = 10


class Barred(Value):
    """What bars it; ``setting`` is to have ``value`` again, where that is all."""

    seen: str
    setting: str = ""
    value: str = ""


def barred(checkup: Checkup, primary: Node, node: Node, view: NodeView) -> Barred | None:
    """Why this replica would not take over; ``None`` where it would, as far as can be told."""
    return _in_cluster(node, view) if view.cluster else _with_sentinel(checkup, primary, node, view)


def _in_cluster(node: Node, view: NodeView) -> Barred | None:
    assert view.cluster is not None
    name = "cluster-replica-no-failover"
    if node.setting(name) is None and node.setting("cluster-slave-no-failover") is not None:
        name = "cluster-slave-no-failover"
    if node.setting(name) == "yes":
        return Barred(f"{name} yes (CONFIG GET)", name, "no")
    if "nofailover" in view.cluster.me.flags:
        return Barred("flag nofailover (CLUSTER NODES)", name, "no")
    old = node.setting("cluster-slave-validity-factor") or ""
    factor = number(node.setting("cluster-replica-validity-factor") or old, _VALIDITY_FACTOR)
    timeout = number(node.setting("cluster-node-timeout"), _NODE_TIMEOUT_MS)
    period = number(node.setting("repl-ping-replica-period"), _PING_PERIOD_S) * 1000
    return _cut_off(view, timeout * factor + period) if factor else None


def _with_sentinel(checkup: Checkup, primary: Node, node: Node, view: NodeView) -> Barred | None:
    if view.info.get("slave_priority") == "0":
        old = node.setting("replica-priority") is None and node.setting("slave-priority") is not None
        return Barred(
            "replica-priority 0 (INFO replication)", "slave-priority" if old else "replica-priority", "100"
        )
    entries = [
        (sentinel, entry)
        for sentinel, v in checkup.sentinels
        for entry in v.monitored
        if checkup.at(entry.address) is primary
    ]
    if not entries:
        return None
    if node.setting("replica-announced") == "no":
        return Barred("replica-announced no (CONFIG GET)", "replica-announced", "yes")
    down_after = max(number(e.settings.get("down-after-milliseconds"), 30_000) for _, e in entries)
    if all(_taken_for_down(checkup, entry, node) for _, entry in entries):
        return Barred(f"s_down (SENTINEL REPLICAS {entries[0][1].name})")
    return _cut_off(view, down_after * _SENTINEL_FACTOR)


def _taken_for_down(checkup: Checkup, entry: SentinelEntry, node: Node) -> bool:
    lines = [w for w in entry.watched_replicas if checkup.at(w.address) is node]
    return bool(lines) and all("s_down" in w.flags for w in lines)


def _cut_off(view: NodeView, allowed_ms: int) -> Barred | None:
    """A link that has been down for longer than is forgiven; one that never was up counts as that."""
    since = view.info.get("master_link_down_since_seconds", "")
    if view.link_up or view.syncing or not since:
        return None
    seconds = number(since)
    if seconds < 0:
        return Barred("it never had a copy (master_link_down_since_seconds -1)")
    if seconds * 1000 <= allowed_ms:
        return None
    return Barred(f"its link is down for {seconds} s, and {allowed_ms // 1000} s are forgiven")
