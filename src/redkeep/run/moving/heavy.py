"""Keys that are so large that moving one holds its server up: found before anything is moved.

A script on the source looks at the keys of one slot at a time and returns the large ones only; nothing else goes over
the network. Of a slot with very many keys, the first few thousand are looked at here and the others just before they go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redkeep.errors import ReplyError
from redkeep.wire.replies import text

if TYPE_CHECKING:
    from redkeep.run.moving.ends import End

#: Bytes from which a key is looked at more closely.
LARGE = 64 * 1024
#: Keys of one slot that one script looks at; it stops the server for about a microsecond each.
AT_ONCE = 2000
#: Slots in one pipeline.
_SLOTS = 16
#: Seconds that DUMP, the way and RESTORE take for each element and each byte: a hash of a million fields took 1.4 s on
#: Redis 7.0 and two cores, strings of 10 KB 30 microseconds.
_ELEMENT, _BYTE = 1.4e-6, 3e-9

_LOOK = """
local found = {}
for _, key in ipairs(%s) do
  local size = redis.call('MEMORY', 'USAGE', key, 'SAMPLES', '1')
  if size and size >= tonumber(ARGV[1]) then
    local kind = redis.call('TYPE', key)['ok']
    local count = ({hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', stream = 'XLEN'})[kind]
    found[#found + 1] = {key, size, count and redis.call(count, key) or 1, kind}
  end
end
return found
"""
_IN_SLOT = _LOOK % "redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[2], ARGV[3])"
_NAMED = _LOOK % "KEYS"


@dataclass(frozen=True)
class Heavy:
    """A large key: bytes in memory, elements, and about how many seconds its move holds the source up."""

    key: bytes
    slot: int
    kind: str
    size: int
    elements: int

    @property
    def cost(self) -> float:
        return self.elements * _ELEMENT + self.size * _BYTE

    def __str__(self) -> str:
        shown = repr(self.key)[2:-1]
        name = shown if len(shown) <= 60 else shown[:57] + "..."
        many = f", {self.elements} elements" if self.elements > 1 else ""
        return f"{name} ({self.kind}{many}, {self.size / 2**20:.1f} MiB): about {self.cost:.1f} s"


async def survey(source: End, counts: Mapping[int, int]) -> list[Heavy]:
    """Large keys of these slots; ``counts`` are how many keys each has."""
    found: list[Heavy] = []
    slots = [slot for slot, count in counts.items() if count]
    for start in range(0, len(slots), _SLOTS):
        some = slots[start : start + _SLOTS]
        calls = [("EVAL", _IN_SLOT, 0, LARGE, slot, min(counts[slot], AT_ONCE)) for slot in some]
        answers = await source.client.pipeline(calls)
        for slot, answer in zip(some, answers, strict=True):
            found += _read(slot, answer)
    return found


async def weigh(source: End, slot: int, keys: Sequence[bytes]) -> list[Heavy]:
    """The large ones among these keys of one slot."""
    (answer,) = await source.client.pipeline([("EVAL", _NAMED, len(keys), *keys, LARGE)])
    return list(_read(slot, answer))


def _read(slot: int, answer: Any) -> Iterable[Heavy]:
    if isinstance(answer, ReplyError):
        return []  # no scripts here: batches stay small by their own time
    return [Heavy(key, slot, text(kind), int(size), int(count)) for key, size, count, kind in answer]
