"""``slots`` and ``consistent-hashing``: where keys are, and what moves when servers come or go."""

from __future__ import annotations

from collections.abc import Iterator

from redkeep.model.slots import SLOTS, key_slot
from redkeep.planning.figures.figure import Figure, figure, percent
from redkeep.planning.figures.hashing import SAMPLES, compared
from redkeep.planning.figures.shape import Member, Shape
from redkeep.planning.reshard import Shard, rebalance

#: The second and third share a hash tag, so they share a slot.
_KEYS = ("user:1000", "{user:1000}.cart", "{user:1000}.orders", "user:1001")
#: Shards that are listed one by one.
_LISTED = 12
#: Ranges of one shard that are shown.
_RANGES = 4


def slots(shape: Shape) -> Iterator[Figure]:
    leading = [m for m in shape.primaries if m.slots]
    if not leading:
        yield figure(
            "slots.none", mode=shape.mode, keys=", ".join(f"{k} = {key_slot(k.encode())}" for k in _KEYS)
        )
        return
    for member in leading[:_LISTED]:
        ranges = [str(r) for r in member.slots]
        shown = ", ".join(ranges[:_RANGES]) + (", ..." if len(ranges) > _RANGES else "")
        yield figure(
            "slots.share",
            shard=member.shard + 1,
            node=member.name,
            ranges=shown,
            count=member.slot_count,
            share=percent(member.slot_count / SLOTS),
        )
    if len(leading) > _LISTED:
        yield figure("slots.more", count=len(leading) - _LISTED)
    lost = SLOTS - sum(m.slot_count for m in leading)
    if lost > 0:
        yield figure("slots.uncovered", count=lost)
    for key in _KEYS:
        slot = key_slot(key.encode())
        owner = next((m.name for m in leading for r in m.slots if slot in r), "?")
        yield figure("slots.key", key=key, slot=slot, node=owner)
    yield _one_more(leading)


def _one_more(leading: list[Member]) -> Figure:
    """One shard more: what ``redkeep reshard --rebalance`` would move from these very slots, beside a modulo."""
    shards = [Shard(m.name, m.slots) for m in leading]
    moved = sum(m.count for m in rebalance([*shards, Shard("", ())]))
    modulo = compared(len(leading), len(leading) + 1)["modulo"].moved
    return figure(
        "slots.change",
        shards=len(leading),
        wanted=len(leading) + 1,
        slots=moved,
        share=percent(moved / SLOTS),
        modulo=percent(modulo),
    )


def hashing(shape: Shape) -> Iterator[Figure]:
    shards = max(len(shape.primaries), 1)
    if shape.mode != "cluster":
        yield figure("hashing.one", mode=shape.mode)
        shards = 3
    yield figure("hashing.sample", keys=SAMPLES)
    for wanted in (shards + 1, shards - 1):
        if not wanted:
            continue
        found = compared(shards, wanted)
        yield figure(
            "hashing.change",
            shards=shards,
            wanted=wanted,
            slots=percent(found["slots"].moved),
            ring=percent(found["ring"].moved),
            modulo=percent(found["modulo"].moved),
            least=percent(abs(wanted - shards) / max(wanted, shards)),
        )
    found = compared(shards, shards + 1)
    yield figure(
        "hashing.uneven",
        slots=percent(found["slots"].uneven),
        ring=percent(found["ring"].uneven),
        modulo=percent(found["modulo"].uneven),
    )
