"""Three ways to spread keys over servers, computed on sample keys: hash slots, a modulo, and a consistent-hash ring."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from redkeep.model.slots import even_shares, key_slot
from redkeep.planning.reshard import Shard, rebalance

#: Keys that are really hashed. Their names are of the kind that applications use.
SAMPLES = 20_000
#: Points that each server has on the ring: what libketama and most clients take.
POINTS = 160


@dataclass(frozen=True)
class Spread:
    """``moved``: the share of the sample keys that another server has after the change; ``uneven``: how much more than
    the average the fullest server has before it. Fractions of 1."""

    moved: float
    uneven: float


def compared(shards: int, wanted: int) -> dict[str, Spread]:
    """``slots``, ``modulo`` and ``ring``: from so many servers to so many others, at least one each."""
    before, after = ([f"server-{i}" for i in range(n)] for n in (shards, wanted))
    ways: dict[str, Callable[[Sequence[str]], list[str]]] = {"modulo": _modulo, "ring": _ring}
    found = {"slots": _spread(*_slots(before, after))}
    return found | {way: _spread(place(before), place(after)) for way, place in ways.items()}


def _spread(before: list[str], after: list[str]) -> Spread:
    moved = sum(a != b for a, b in zip(before, after, strict=True)) / len(before)
    held = Counter(before)
    return Spread(moved, max(held.values()) * len(held) / len(before) - 1)


@lru_cache(maxsize=1)
def keys() -> tuple[bytes, ...]:
    return tuple(f"user:{i}:profile".encode() for i in range(SAMPLES))


def _slots(before: Sequence[str], after: Sequence[str]) -> tuple[list[str], list[str]]:
    """As ``redkeep reshard --rebalance`` moves them: no more than it must."""
    if len(after) < len(before):
        new, old = _slots(after, before)
        return old, new
    owner = [name for name, share in zip(before, even_shares(len(before)), strict=True) for _ in share]
    shards = [Shard(n, (s,)) for n, s in zip(before, even_shares(len(before)), strict=True)]
    shards += [Shard(n, ()) for n in after[len(before) :]]
    later = list(owner)
    for move in rebalance(shards):
        for slots in move.slots:
            later[slots.first : slots.last + 1] = [move.target] * slots.size
    return [owner[key_slot(k)] for k in keys()], [later[key_slot(k)] for k in keys()]


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())


def _modulo(servers: Sequence[str]) -> list[str]:
    return [servers[_hash(k) % len(servers)] for k in keys()]


def _ring(servers: Sequence[str]) -> list[str]:
    """Each key belongs to the next point; points of one server stay where they are whoever comes or goes."""
    points = sorted((_hash(f"{s}-{i}".encode()), s) for s in servers for i in range(POINTS))
    places = [p for p, _ in points]
    return [points[bisect_right(places, _hash(k)) % len(points)][1] for k in keys()]
