"""How good an arrangement of servers on hosts is, and how to come to a good one.

The order of wishes, the most important first: the copies of a shard on distinct hosts; no host with so many primaries
that the others cannot vote without it; no host with more than one node above its share; the copies in distinct zones;
no zone with too many primaries; even load; primaries spread out; the replicas of one host's primaries spread out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redkeep.model.spec import Spec

#: How far each wish is from being met.
Cost = tuple[int, ...]

#: The part of a cost that is worth moving a node for: up to even load.
_MATTERS = 6
#: Moves and exchanges that are considered, at most; reached only by large fleets for which no arrangement is good.
_BUDGET = 1_000


@dataclass
class Seat:
    """A server and its place; hosts are numbers, in the order of the file. A ``name`` means that it exists and stays."""

    shard: int
    primary: bool
    host: int = -1
    name: str = ""


def spare(voters: int) -> int:
    """How many of so many voters may be lost together: those that remain are still a majority."""
    return max(0, voters - 1) // 2


class Board:
    """Counts, kept up to date with every move.

    Each part of a cost is the growth of a sum (pairs of copies on one host, primaries above the limit, pairs of nodes
    on one host, ...). So the total does not depend on the order of moves, and what lowers it cannot go round in circles.
    """

    def __init__(self, spec: Spec, seats: list[Seat]) -> None:
        self.seats = seats
        self._hosts = len(spec.hosts)
        names = sorted({host.zone for host in spec.hosts if host.zone})
        self._zones = [names.index(host.zone) if host.zone else -1 - i for i, host in enumerate(spec.hosts)]
        self._cap = -(-len(seats) // self._hosts) + 1
        self._spare = spare(spec.shards) if spec.mode == "cluster" else spec.shards
        # one of two zones holds too many primaries whatever one does
        self._zone_spare = self._spare if len(set(self._zones)) > 2 else spec.shards
        self._zone_share = -(-(1 + spec.replicas) // len(set(self._zones)))
        self._load = [0] * self._hosts
        self._primaries = [0] * self._hosts
        self._zone_primaries: Counter[int] = Counter()
        self._copies: dict[int, Counter[int]] = defaultdict(Counter)
        self._zone_copies: dict[int, Counter[int]] = defaultdict(Counter)

    def arrange(self) -> None:
        """Gives every seat a host."""
        leader: dict[int, int] = {}
        partners: Counter[tuple[int, int]] = Counter()
        for seat in self.seats:
            if not seat.name:
                start = leader.get(seat.shard, 0)
                seat.host = min(
                    range(self._hosts),
                    key=lambda h: (self._cost(seat, h), partners[start, h], (h - start) % self._hosts),
                )
            self._count(seat, 1)
            if seat.primary:
                leader.setdefault(seat.shard, seat.host)
            else:
                partners[leader.get(seat.shard, -1), seat.host] += 1
        self._improve()

    def _cost(self, seat: Seat, host: int) -> Cost:
        zone, primary = self._zones[host], seat.primary
        return (
            self._copies[seat.shard][host],
            int(primary and self._primaries[host] >= self._spare),
            int(self._load[host] >= self._cap),
            self._zone_copies[seat.shard][zone],
            int(primary and self._zone_primaries[zone] >= self._zone_spare),
            self._load[host],
            self._primaries[host] if primary else 0,
            self._zone_primaries[zone] if primary else 0,
        )

    def _count(self, seat: Seat, step: int) -> None:
        host, zone = seat.host, self._zones[seat.host]
        self._load[host] += step
        self._copies[seat.shard][host] += step
        self._zone_copies[seat.shard][zone] += step
        if seat.primary:
            self._primaries[host] += step
            self._zone_primaries[zone] += step

    def _improve(self) -> None:
        """Moves and exchanges what stands badly, until that helps no more."""
        budget = _BUDGET
        movable = [seat for seat in self.seats if not seat.name]
        better = True
        while better and budget > 0:
            better = False
            for seat in movable:
                if budget > 0 and self._stands_badly(seat):
                    budget -= self._hosts + len(movable)
                    better |= self._move(seat) or self._exchange(seat, movable)

    def _stands_badly(self, seat: Seat) -> bool:
        self._count(seat, -1)
        same_host, host_votes, full, same_zone, zone_votes, load, *_ = self._cost(seat, seat.host)
        self._count(seat, 1)
        crowded = load > min(self._load)
        return bool(same_host or host_votes or full or same_zone >= self._zone_share or zone_votes or crowded)

    def _move(self, seat: Seat) -> bool:
        """To the best host for it alone."""
        before = seat.host
        self._count(seat, -1)
        here = self._cost(seat, before)[:_MATTERS]
        cost, best = min((self._cost(seat, host)[:_MATTERS], host) for host in range(self._hosts))
        if cost < here:
            seat.host = best
        self._count(seat, 1)
        return seat.host != before

    def _exchange(self, seat: Seat, others: list[Seat]) -> bool:
        """With the one among the others where both together are best off."""
        least: Cost = (0,) * _MATTERS
        partner: Seat | None = None
        here = seat.host
        self._count(seat, -1)
        for other in others:
            if (there := other.host) != here:
                self._count(other, -1)
                now, then = self._together(seat, here, other, there), self._together(seat, there, other, here)
                self._count(other, 1)
                gain = tuple(b - a for a, b in zip(now, then, strict=True))
                if gain < least:
                    least, partner = gain, other
        if partner:
            self._count(partner, -1)
            seat.host, partner.host = partner.host, here
            self._count(partner, 1)
        self._count(seat, 1)
        return partner is not None

    def _together(self, one: Seat, first: int, other: Seat, second: int) -> Cost:
        """The cost of both at these hosts, where neither is counted yet."""
        before, one.host = one.host, first
        cost = self._cost(one, first)
        self._count(one, 1)
        both = tuple(a + b for a, b in zip(cost, self._cost(other, second), strict=True))
        self._count(one, -1)
        one.host = before
        return both[:_MATTERS]
