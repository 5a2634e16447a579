"""Will it fail over when a host or a zone is lost, and how soon?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import NodeView
from redkeep.planning.rules.places import machine, zone
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.sentinels import groups, majority, sentinel_set
from redkeep.planning.rules.words import listed, number, set_and_keep_on

#: Milliseconds: longer is slow; shorter is a hair trigger for Sentinel and for Cluster. And what is set instead.
SLOW_MS, SENTINEL_HAIR_MS, CLUSTER_HAIR_MS = 10_000, 1_000, 500
_GOOD_MS = 5_000


@rule("colocated-replica", "error")
def colocated_replica(checkup: Checkup) -> Iterator[Found]:
    for what, where in (("host", machine), ("zone", zone)):
        grouped: dict[str, list[tuple[Node, list[Node]]]] = defaultdict(list)
        for primary, _ in checkup.primaries:
            replicas = [node for node, _ in checkup.replicas_of(primary)]
            shard = [primary, *replicas]
            same = {where(checkup, node) for node in shard}
            # one host is in one zone, and told of already
            told = what == "zone" and len({machine(checkup, node) for node in shard}) == 1
            if replicas and len(same) == 1 and "" not in same and not told:
                grouped[same.pop()].append((primary, replicas))
        for place, shards in grouped.items():
            parts = [f"{primary} and its replica {listed(replicas)}" for primary, replicas in shards]
            yield Found(
                listed(primary for primary, _ in shards),
                f"on {what} {place}: {'; '.join(parts[:6])}"
                + (f" and {len(parts) - 6} more" if parts[6:] else ""),
                f"The replica helps when the process crashes, not when the {what} is lost. Then all copies are gone "
                "together, and nobody takes over.",
                _apart(checkup, what, shards[0][0]),
                severity="error" if what == "host" else "warning",
            )


def _apart(checkup: Checkup, what: str, primary: Node) -> str:
    if checkup.spec is not None:
        return f"add a host{' in another zone' if what == 'zone' else ''} to the deployment file, then redkeep apply"
    view = primary.seen
    if view and view.cluster:
        return (
            f"let a replica in another {what} follow it, before this one is taken away: on that one CLUSTER REPLICATE "
            f"{view.cluster.my_id}"
        )
    host, port = primary.address.host, primary.address.port
    return f"start a replica in another {what} (REPLICAOF {host} {port}, CONFIG REWRITE), and retire this one"


def _voters(checkup: Checkup) -> list[Node]:
    """The primaries that vote in a Cluster whose primaries have replicas at all."""
    voting = [n for n, v in checkup.primaries if v.cluster and v.cluster.me.slots]
    return voting if any(any(checkup.replicas_of(node)) for node in voting) else []


@rule("host-majority", "warning", needs=("cluster",))
def host_majority(checkup: Checkup) -> Iterator[Found]:
    yield from _majority_in(checkup, "host", machine)


@rule("zone-majority", "warning", needs=("cluster",))
def zone_majority(checkup: Checkup) -> Iterator[Found]:
    yield from _majority_in(checkup, "zone", zone)


def _majority_in(checkup: Checkup, what: str, where: Callable[[Checkup, Node], str]) -> Iterator[Found]:
    voters = _voters(checkup)
    placed = {node.name: where(checkup, node) for node in voters}
    for place, count in Counter(placed.values()).items():
        left = len(voters) - count
        if not place or left >= majority(len(voters)):
            continue
        there = [node for node in voters if placed[node.name] == place]
        yield Found(
            f"{what} {place}",
            f"{count} of {len(voters)} primaries are there: {listed(there)}; without them {left} are left, and "
            f"{majority(len(voters))} must agree (CLUSTER NODES)",
            f"In a Cluster the primaries vote. When this {what} is lost, the replicas elsewhere are there, and none may be "
            "promoted.",
            _move_away(checkup, what, where, there, place),
        )


def _move_away(
    checkup: Checkup, what: str, where: Callable[[Checkup, Node], str], there: list[Node], place: str
) -> str:
    for primary in there:
        for replica, _ in checkup.replicas_of(primary):
            if where(checkup, replica) not in ("", place):
                address = replica.address
                return (
                    f"promote replicas elsewhere, one at a time, until no {what} has half of the primaries: "
                    f"redis-cli -h {address.host} -p {address.port} CLUSTER FAILOVER"
                )
    return f"have primaries in three {what}s: add one with a replica of each, and promote it there (CLUSTER FAILOVER)"


@rule("failover-slow", "warning", needs=("config", "cluster", "sentinel"))
def failover_slow(checkup: Checkup) -> Iterator[Found]:
    yield from _timed(
        checkup,
        lambda ms, cluster: ms > SLOW_MS,
        "During that time nobody can write. A client that wrote all the time saw no write for 17.9 s with Cluster's "
        "default, and for 30.6 s with Sentinel's.",
    )


@rule("failover-hair-trigger", "warning", needs=("config", "cluster", "sentinel", "latency"))
def failover_hair_trigger(checkup: Checkup) -> Iterator[Found]:
    yield from _timed(
        checkup,
        lambda ms, cluster: ms < (CLUSTER_HAIR_MS if cluster else SENTINEL_HAIR_MS),
        "A fork, a slow command or a hiccup of the network looks like death. Each needless failover loses writes that "
        "were not copied yet, and starts the full copies that may cause the next one.",
    )
    yield from _stalled(checkup)


def _timed(
    checkup: Checkup,
    wrong: Callable[[int, bool], bool],
    why: str,
) -> Iterator[Found]:
    """Cluster nodes and Sentinels whose time until a silent primary is given up is wrong, by that time."""
    nodes: dict[int, list[Node]] = defaultdict(list)
    for node, view in checkup.servers:
        ms = number(node.setting("cluster-node-timeout"))
        if view.cluster and ms and wrong(ms, True):
            nodes[ms].append(node)
    for ms, members in nodes.items():
        yield Found(
            listed(members),
            f"cluster-node-timeout {ms} (CONFIG GET)",
            why,
            set_and_keep_on(checkup, members, "cluster-node-timeout", str(_GOOD_MS)),
        )
    for group in groups(checkup):
        watching: dict[int, list[Node]] = defaultdict(list)
        for node, entry in group.entries:
            ms = number(entry.settings.get("down-after-milliseconds"))
            if ms and wrong(ms, False):
                watching[ms].append(node)
        for ms, members in watching.items():
            options = ("down-after-milliseconds", str(_GOOD_MS), "failover-timeout", str(3 * _GOOD_MS))
            yield Found(
                group.name,
                f"down-after-milliseconds {ms} at {listed(members)} (SENTINEL MASTER)",
                why,
                sentinel_set(checkup, members, group.name, *options),
            )


def _stalled(checkup: Checkup) -> Iterator[Found]:
    """Servers that have stood still for longer than it takes until they are given up."""
    watched = {
        e.address: (g.name, number(e.settings.get("down-after-milliseconds")), [n for n, _ in g.entries])
        for g in groups(checkup)
        for _, e in g.entries
    }
    by_primary = {n.name: w for address, w in watched.items() if (n := checkup.at(address))}
    for node, view in checkup.servers:
        longest, what = _longest_stall(node, view)
        why = (
            "It has stood still for longer than it takes until others give it up. The next time is a failover of a "
            "healthy server, with the loss of what was not copied yet."
        )
        timeout = number(node.setting("cluster-node-timeout"))
        wanted = str(max(_GOOD_MS, 3 * longest))
        if view.cluster and timeout and longest > timeout:
            yield Found(
                node.name,
                f"it stood still for {longest} ms ({what}), and cluster-node-timeout is {timeout} (CONFIG GET)",
                why,
                f"on every node: {set_and_keep_on(checkup, [node], 'cluster-node-timeout', wanted)}",
            )
        primary = checkup.primary_of(node) or node
        if not view.cluster and primary.name in by_primary:
            name, down_after, sentinels = by_primary[primary.name]
            if 0 < down_after < longest:
                yield Found(
                    node.name,
                    f"it stood still for {longest} ms ({what}), and down-after-milliseconds is {down_after} "
                    f"(SENTINEL MASTER {name})",
                    why,
                    sentinel_set(checkup, sentinels, name, "down-after-milliseconds", wanted),
                )


def _longest_stall(node: Node, view: NodeView) -> tuple[int, str]:
    """In milliseconds, and where that was read."""
    found = [(number(view.info.get("latest_fork_usec")) // 1000, "latest_fork_usec of INFO stats")]
    found += [(ms, f"{event} in LATENCY LATEST") for event, ms in node.details.stalls.items()]
    return max(found)


@rule("full-coverage", "info", needs=("config", "cluster"))
def full_coverage(checkup: Checkup) -> Iterator[Found]:
    nodes = [
        n for n, v in checkup.servers if v.cluster and n.setting("cluster-require-full-coverage") == "yes"
    ]
    if nodes and len([n for n, v in checkup.primaries if v.cluster and v.cluster.me.slots]) > 1:
        yield Found(
            listed(nodes),
            "cluster-require-full-coverage yes (CONFIG GET)",
            "As soon as one slot has no primary, every node refuses every command. The other shards could go on serving "
            "their keys; it is right only where an application must see all of its data or none.",
            set_and_keep_on(checkup, nodes, "cluster-require-full-coverage", "no"),
        )
