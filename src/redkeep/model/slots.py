"""Hash slots: which slot a key has, and sets of slots as ranges.

The rule is the Cluster specification's: CRC16 (XMODEM) of the key, or of its hash tag, modulo 16384.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

SLOTS = 16384


def key_slot(key: bytes) -> int:
    """The slot of a key. Only the first ``{...}`` that is not empty counts as its hash tag."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def hash_tag(slot: int | None, salt: str = "") -> str:
    """A hash tag that begins with the salt and whose keys all fall into this slot; any, where there are no slots."""
    number = 0
    while slot is not None and key_slot(f"{salt}{number}".encode()) != slot:
        number += 1
    return f"{salt}{number}"


@dataclass(frozen=True, order=True)
class SlotRange:
    """Slots ``first`` to ``last``, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> SlotRange:
        """``7`` or ``0-5460``; ``ValueError`` for what is none, so that nobody walks through a thousand million slots."""
        first, _, last = text.partition("-")
        found = cls(int(first), int(last or first))
        if not 0 <= found.first <= found.last < SLOTS:
            raise ValueError(f"not hash slots: {text[:80]!r}")
        return found

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __contains__(self, slot: int) -> bool:
        return self.first <= slot <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def to_ranges(slots: Iterable[int]) -> tuple[SlotRange, ...]:
    """The fewest ranges that hold exactly these slots, in order."""
    found: list[SlotRange] = []
    for slot in sorted(set(slots)):
        if found and found[-1].last == slot - 1:
            found[-1] = SlotRange(found[-1].first, slot)
        else:
            found.append(SlotRange(slot, slot))
    return tuple(found)


def even_shares(shards: int) -> tuple[SlotRange, ...]:
    """All slots in ``shards`` neighbouring ranges whose sizes differ by one at most."""
    edges = [round(i * SLOTS / shards) for i in range(shards + 1)]
    return tuple(SlotRange(a, b - 1) for a, b in pairwise(edges))


def parse_ranges(text: str) -> tuple[SlotRange, ...]:
    """``0-100,205`` (or apart by blanks) as the fewest ranges; ``ValueError`` for what is none."""
    return to_ranges(slot for part in text.replace(",", " ").split() for slot in SlotRange.parse(part))


def ranges_text(slots: Iterable[int]) -> str:
    """``0-100,205``: what ``parse_ranges`` reads."""
    return ",".join(map(str, to_ranges(slots)))


def in_ranges(ranges: Iterable[SlotRange]) -> list[int]:
    """Every slot of these ranges, in their order."""
    return [slot for found in ranges for slot in found]
