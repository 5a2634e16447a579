"""``gossip``, ``election`` and ``quorum``: who notices, who takes over, and how many must agree.

Rules: cluster_legacy.c (clusterCron, clusterHandleReplicaFailover, clusterGetReplicaRank, clusterGossip) and sentinel.c
(sentinelSendPeriodicCommands, sentinelSelectReplica) of Redis 7 and Valkey 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from redkeep.planning.figures.figure import Figure, figure
from redkeep.planning.figures.shape import Member, Shape
from redkeep.planning.placing.placement import majority
from redkeep.planning.rules.words import listed

#: Milliseconds that a replica waits before it asks for votes, at least and at most, and more for each that is further.
_WAIT_MS, _RANDOM_MS, _RANK_MS = 500, 500, 1000
#: Bytes of a message's head (clusterMsg without its data) and of each node in it (clusterMsgDataGossip).
_HEAD, _ENTRY = 2256, 104
#: Seconds between a Sentinel's greetings, and between its INFO of each server.
_HELLO_S, _INFO_S = 2, 10


def gossip(shape: Shape) -> Iterator[Figure]:
    if shape.mode == "cluster":
        yield from _cluster_gossip(shape)
    elif shape.mode == "sentinel":
        yield from _sentinel_gossip(shape)
    else:
        yield figure("gossip.none")


def _cluster_gossip(shape: Shape) -> Iterator[Figure]:
    nodes = len(shape.members)
    told = min(max(nodes // 10, 3), max(nodes - 2, 0))
    size = _HEAD + told * _ENTRY
    # each second one node at random; and everybody whose last answer is older than half of the timeout
    pings = max(1.0, (nodes - 1) / (shape.detection_ms / 2000))
    yield figure("gossip.links", nodes=nodes, links=nodes * (nodes - 1))
    yield figure("gossip.size", told=told, others=max(nodes - 1, 0), bytes=size)
    yield figure(
        "gossip.rate",
        pings=f"{pings:.1f}",
        bytes=f"{pings * 2 * size / 1024:.1f}",
        all=f"{nodes * pings * 2:.0f}",
    )
    voters = len(shape.voters)
    if voters:
        yield figure(
            "gossip.detection",
            timeout=shape.detection_ms,
            needed=majority(voters),
            voters=voters,
            forgotten=2 * shape.detection_ms,
        )


def _sentinel_gossip(shape: Shape) -> Iterator[Figure]:
    watchers, servers = len(shape.voters), len(shape.members)
    ping = min(shape.detection_ms, 1000)
    yield figure(
        "gossip.sentinels", sentinels=watchers, servers=servers, hello=_HELLO_S, info=_INFO_S, ping=ping
    )
    yield figure(
        "gossip.suspicion",
        timeout=shape.detection_ms,
        quorum=shape.quorum or majority(watchers),
        sentinels=watchers,
    )


def election(shape: Shape) -> Iterator[Figure]:
    if shape.mode == "standalone":
        yield figure("election.none")
        return
    if shape.source != "seen":
        yield figure("election.unseen")
    for primary in shape.primaries:
        yield from _of_shard(shape, primary)
    for shard in shape.shards:
        if not any(m.role == "primary" for m in shard):
            yield figure("election.headless", shard=shard[0].shard + 1, nodes=listed([m.name for m in shard]))
    yield from _how_long(shape)


def _of_shard(shape: Shape, primary: Member) -> Iterator[Figure]:
    replicas = shape.replicas_of(primary)
    if not replicas:
        yield figure("election.nobody", shard=primary.shard + 1, primary=primary.name)
        return
    able = sorted((r for r in replicas if not r.barred), key=lambda r: _preference(shape, r))
    if not able:
        yield figure("election.all-barred", shard=primary.shard + 1, primary=primary.name)
    else:
        yield figure(
            f"election.{_reason(shape, able)}",
            shard=primary.shard + 1,
            primary=primary.name,
            heir=able[0].name,
        )
    for rank, replica in enumerate(able):
        yield figure(
            f"election.{shape.mode}-rank" if shape.source == "seen" else "election.candidate",
            node=replica.name,
            host=replica.host,
            rank=_rank(able, replica) if shape.mode == "cluster" else rank + 1,
            offset=replica.offset,
            behind=_behind(primary, replica),
            priority=replica.priority,
            wait=_wait(shape, able, replica),
        )
    for replica in replicas:
        if replica.barred:
            yield figure("election.barred", node=replica.name, why=replica.barred)


def _preference(shape: Shape, replica: Member) -> tuple[int, int, str]:
    """Sentinel: the lowest priority, the highest offset, the lowest run ID. Cluster: the highest offset; among equals
    the lowest node ID in newer versions, chance in older ones."""
    return (replica.priority if shape.mode == "sentinel" else 0, -(replica.offset or 0), replica.id)


def _reason(shape: Shape, able: list[Member]) -> str:
    """Why the first of them is the first."""
    if len(able) == 1:
        return "only"
    if shape.source != "seen":
        return "any"
    first, second = able[:2]
    if shape.mode == "sentinel" and first.priority != second.priority:
        return "by-priority"
    if first.offset != second.offset:
        return "by-offset"
    return "by-run-id" if shape.mode == "sentinel" else "by-node-id" if shape.elects_at_once else "by-chance"


def _rank(able: list[Member], replica: Member) -> int:
    """How many of the others are further."""
    return sum((other.offset or 0) > (replica.offset or 0) for other in able)


def _behind(primary: Member, replica: Member) -> int:
    return max(0, (primary.offset or 0) - (replica.offset or 0))


def _wait(shape: Shape, able: list[Member], replica: Member) -> str:
    if shape.elects_at_once and able[0] is replica:
        return "0"
    least = _WAIT_MS + _RANK_MS * _rank(able, replica)
    return f"{least}-{least + _RANDOM_MS}"


def _how_long(shape: Shape) -> Iterator[Figure]:
    needed = majority(len(shape.voters)) if shape.voters else 0
    if shape.mode == "cluster":
        first = 0 if shape.elects_at_once else _WAIT_MS
        yield figure(
            "election.cluster-time" if shape.source == "seen" else "election.cluster-time-planned",
            timeout=shape.detection_ms,
            first=first,
            soonest=shape.detection_ms + first,
            needed=needed,
            voters=len(shape.voters),
        )
    else:
        yield figure(
            "election.sentinel-time",
            timeout=shape.detection_ms,
            quorum=shape.quorum or needed,
            needed=needed,
            sentinels=len(shape.voters),
        )
    if shape.hook:
        yield figure(f"election.{shape.mode}-hook")


def quorum(shape: Shape) -> Iterator[Figure]:
    voters = len(shape.voters)
    if shape.mode == "standalone" or not voters:
        yield figure("quorum.none")
        return
    needed = majority(voters)
    if shape.mode == "cluster":
        yield figure("quorum.cluster", voters=voters, needed=needed, spare=voters - needed)
        enough = voters - 1 >= needed
        yield figure("quorum.one-dead" if enough else "quorum.one-dead-stops", left=voters - 1, needed=needed)
    else:
        agree = shape.quorum or needed
        yield figure(
            "quorum.sentinel",
            sentinels=voters,
            quorum=agree,
            needed=needed,
            spare=voters - max(agree, needed),
        )
    if voters % 2 == 0:
        yield figure("quorum.even", voters=voters, fewer=voters - 1, spare=voters - needed)
    held = Counter(shape.voters.values())
    for host, count in sorted(held.items()):
        left = voters - count
        key = "quorum.host-ok" if left >= needed else "quorum.host-stops"
        yield figure(key, host=host, held=count, left=left, needed=needed)
