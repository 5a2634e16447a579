"""Which losses a deployment survives, and which arrangements are refused because of it.

A loss is judged as if all of it went at once, and before anybody repairs anything: replicas that the engine would move
to an orphaned shard later do not count, and neither does what a lost host has on its disk.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from redkeep.planning.placing.placement import PlacedNode, Placement, majority

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.model.topology import Role

#: With more hosts than this, pairs of them are told in one line for each outcome.
_PAIRS_UP_TO = 12


@dataclass(frozen=True)
class Survival:
    """What is left after a loss: whether every shard accepts writes again by itself, and whether no data is lost."""

    loss: str
    writes: bool
    data: bool
    why: str

    def as_json(self) -> dict[str, Any]:
        return {"loss": self.loss, "writes": self.writes, "data": self.data, "why": self.why}


def survives(
    spec: Spec, placement: Placement, roles: Mapping[str, Role] | None = None
) -> tuple[Survival, ...]:
    """For the loss of every host, of every zone where zones are given, and of every two hosts.

    ``roles`` are the observed ones; a node that is not among them is down and helps nobody. Without them, the
    deployment is judged as it will be once it is set up.
    """
    fleet = _Fleet(spec, placement, roles)
    hosts = [host.name for host in spec.hosts]
    found = [fleet.after(f"host {host}", (host,)) for host in hosts]
    for zone in sorted({host.zone for host in spec.hosts if host.zone}):
        found.append(
            fleet.after(f"zone {zone}", tuple(host.name for host in spec.hosts if host.zone == zone))
        )
    pairs = [fleet.after(f"hosts {one} + {two}", (one, two)) for one, two in combinations(hosts, 2)]
    return (*found, *(pairs if len(hosts) <= _PAIRS_UP_TO else _grouped(pairs)))


def after_loss(
    spec: Spec, placement: Placement, hosts: tuple[str, ...], roles: Mapping[str, Role] | None = None
) -> Survival:
    """For the loss of these hosts together."""
    return _Fleet(spec, placement, roles).after(f"host{'s' * (len(hosts) > 1)} {' + '.join(hosts)}", hosts)


def _grouped(pairs: list[Survival]) -> list[Survival]:
    """One entry for each outcome, the worst last, with the first pair of its kind as an example."""
    groups: dict[tuple[bool, bool], list[Survival]] = defaultdict(list)
    for pair in pairs:
        groups[pair.writes, pair.data].append(pair)
    found = []
    for (writes, data), members in sorted(groups.items(), reverse=True):
        which = (
            "any two hosts"
            if len(members) == len(pairs)
            else f"two hosts, {len(members)} of {len(pairs)} pairs"
        )
        found.append(Survival(which, writes, data, f"for example {members[0].loss}: {members[0].why}"))
    return found


@dataclass(frozen=True)
class _ShardLoss:
    """What one shard still has: whether its primary, and which replicas. ``homes``: the hosts of all its nodes."""

    number: int
    homes: tuple[str, ...]
    led: bool
    replicas: tuple[str, ...]


class _Fleet:
    """The nodes by shard and host, with the roles that count."""

    def __init__(self, spec: Spec, placement: Placement, roles: Mapping[str, Role] | None) -> None:
        self.mode = spec.mode
        self.role: dict[str, Role] = {
            n.name: roles[n.name] if roles is not None else n.initial_role
            for n in placement.nodes
            if roles is None or n.name in roles
        }
        self.shards = [(shard[0].shard or 0, shard) for shard in placement.shards]
        self.voters = len(placement.sentinels if spec.mode == "sentinel" else self.shards)
        self.sentinels = [n for n in placement.sentinels if n.name in self.role]
        self.used = {n.host for n in placement.nodes}
        self.touched: dict[str, set[int]] = defaultdict(set)
        for number, shard in self.shards:
            for node in shard:
                self.touched[node.host].add(number)
        self.whole = {number: self._left(number, shard, frozenset()) for number, shard in self.shards}

    def after(self, loss: str, hosts: tuple[str, ...]) -> Survival:
        if not self.used.intersection(hosts) and all(s.led for s in self.whole.values()):
            return Survival(loss, True, True, "nothing of this deployment runs there")
        gone = frozenset(hosts)
        touched = set().union(*(self.touched[host] for host in hosts))
        left = [self._left(n, shard, gone) if n in touched else self.whole[n] for n, shard in self.shards]
        orphans = [s for s in left if not s.led and not s.replicas]
        waiting = [s for s in left if not s.led and s.replicas]
        back = f"until {' or '.join(hosts)} is back"
        if orphans:
            why = f"no copy of {self._names(orphans)} is left until {' or '.join(orphans[0].homes)} is back"
            return Survival(loss, False, False, why)
        if not waiting:
            votes = (
                "" if self._votes(left, gone) else f"; too few Sentinels are left to promote a replica {back}"
            )
            return Survival(loss, True, True, f"{self._every()} keeps its primary{votes}")
        return self._failover(loss, waiting, self._votes(left, gone), self._voters_left(left, gone), back)

    def _failover(self, loss: str, waiting: list[_ShardLoss], enough: bool, left: int, back: str) -> Survival:
        """Copies are left of every shard; can they take over?"""
        if self.mode == "standalone":
            heir = waiting[0].replicas[0]
            why = f"standalone promotes no replica by itself; {heir} has the data, writes wait {back}"
            return Survival(loss, False, True, why)
        which = self._names(waiting) if self.mode == "cluster" else "the primary"
        votes = f"{left} of {self.voters} {'Sentinels' if self.mode == 'sentinel' else 'primaries'} are left"
        if not enough:
            why = f"{which} cannot fail over: {votes}, {majority(self.voters)} must agree; no writes {back}"
            return Survival(loss, False, True, why)
        heirs = f" to {' or '.join(waiting[0].replicas[:2])}" if len(waiting) == 1 else ""
        return Survival(loss, True, True, f"failover of {which}{heirs}: {votes} to vote")

    def _left(self, number: int, shard: tuple[PlacedNode, ...], gone: frozenset[str]) -> _ShardLoss:
        alive = [n.name for n in shard if n.host not in gone and n.name in self.role]
        replicas = tuple(name for name in alive if self.role[name] == "replica")
        homes = tuple(dict.fromkeys(n.host for n in shard))
        return _ShardLoss(number, homes, len(alive) > len(replicas), replicas)

    def _voters_left(self, left: list[_ShardLoss], gone: frozenset[str]) -> int:
        if self.mode == "sentinel":
            return sum(n.host not in gone for n in self.sentinels)
        return sum(shard.led for shard in left)

    def _votes(self, left: list[_ShardLoss], gone: frozenset[str]) -> bool:
        """Enough voters are left for a failover, where there is such a thing."""
        return self.mode == "standalone" or self._voters_left(left, gone) >= majority(self.voters)

    def _names(self, shards: list[_ShardLoss]) -> str:
        if self.mode != "cluster":
            return "the data"
        numbers = ", ".join(str(s.number + 1) for s in shards[:4]) + (", ..." if len(shards) > 4 else "")
        return f"shard {numbers}" if len(shards) == 1 else f"shards {numbers}"

    def _every(self) -> str:
        return "every shard" if self.mode == "cluster" else "the deployment"


def refusal(spec: Spec, placement: Placement) -> str | None:
    """Three lines on why this is not deployed: an ordinary loss would stop it. ``None``: nothing speaks against it.

    Nothing is refused on this machine alone, which is for development, nor where the file accepts the risk.
    """
    if spec.accept_risk or spec.is_local:
        return None
    checks = {"cluster": _refused_cluster, "sentinel": _refused_sentinel, "standalone": _refused_sharing}
    found = checks[spec.mode](placement) or _refused_sharing(placement)
    if not found:
        return None
    what, where, mend = found
    return f"{what}\n{where}\n{mend}, or write accept_risk: true if losing it is acceptable"


_Lines = tuple[str, str, str]


def _refused_cluster(placement: Placement) -> _Lines | None:
    hosts = sorted({n.host for n in placement.servers})
    if len(hosts) < 3:
        what = f"a Cluster on {_count(len(hosts), 'host')}: when one is lost, too few primaries may be left to vote"
        return what, f"hosts: {', '.join(hosts)}", "add hosts until there are three"
    shards = placement.shards
    if all(len(shard) == 1 for shard in shards):
        return None  # without replicas there is nothing to vote for
    held = Counter(n.host for shard in shards for n in shard if n.initial_role == "primary")
    host, most = max(held.items(), key=lambda item: (item[1], item[0]))
    total, left = len(shards), len(shards) - most
    if left >= majority(total):
        return None
    what = f"without {host} the Cluster cannot vote: {left} of {total} primaries are left, {majority(total)} must agree"
    return (
        what,
        f"host {host}: {_count(most, 'primary', 'primaries')}",
        "add a host, or write an odd number of shards",
    )


def _refused_sentinel(placement: Placement) -> _Lines | None:
    sentinels = placement.sentinels
    held = Counter(n.host for n in sentinels)
    where = f"Sentinels on: {', '.join(sorted(held))}"
    if len(sentinels) < 3:
        what = f"{_count(len(sentinels), 'Sentinel')}: when a host is lost, no majority may be left to promote a replica"
        return what, where, "write sentinels: 3, and at least three hosts"
    if len(held) < 3 or len(sentinels) - max(held.values()) < majority(len(sentinels)):
        what = f"{len(sentinels)} Sentinels on {_count(len(held), 'host')}: when one is lost, too few may be left to agree"
        return what, where, "add hosts, so that each Sentinel has its own"
    return None


def _refused_sharing(placement: Placement) -> _Lines | None:
    for shard in placement.shards:
        hosts = {n.host for n in shard}
        if len(shard) > 1 and len(hosts) == 1:
            what = f"a primary and all its replicas are on one host: {', '.join(n.name for n in shard)}"
            return (
                what,
                f"host {shard[0].host}",
                "add a host, and let a replica on it take the place of one of these",
            )
    return None


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
