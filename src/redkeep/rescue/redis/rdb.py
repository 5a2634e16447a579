"""Reads RDB files without a server: version, origin, and how many keys; values are skipped, not built.

The format is that of ``rdb.h`` and ``rdb.c`` of Redis 2.4 to 8 and Valkey 7.2 to 9. Types of 22 and above mean different
things in both; those that a later version than these invents end the count, which then says that it is not whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from redkeep.rescue.disk.tree import Content, text_of
from redkeep.rescue.redis.rdbreader import DamagedRdb, RdbReader

__all__ = ["DamagedRdb", "Part", "Rdb", "is_rdb", "payload_in", "read_rdb"]

#: Values up to this size are looked at for what does not belong into a database.
_LOOKED_AT = 64 << 10
_MOST_SUSPECTS = 50
_MOST_MODULES = 50
_LONGEST_SCRIPT = 16 << 20
#: How Redis numbers modules: nine characters of six bits, and ten bits of version (module.c).
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#: Since Redis 7.4 there are types that Valkey does not know, under numbers that it gives to its own.
_LAST_COMMON_TYPE = 21

#: The latest formats of which every type is known here.
_KNOWN_VERSIONS = {"redis": 13, "valkey": 80}

PartKind = Literal["key", "module key", "function", "module", "script", "database", "other"]


class Part(NamedTuple):
    """A piece of the file, in bytes from its begin. ``name``: the key, the code of a function or script, or a module's."""

    kind: PartKind
    begin: int
    end: int
    database: int
    name: bytes


@dataclass
class Rdb:
    """``keys`` by database; ``whole`` where the end was reached. ``suspects``: keys whose values look like cron lines."""

    version: int
    flavor: Literal["redis", "valkey"] = "redis"
    aux: dict[str, str] = field(default_factory=dict)
    keys: dict[int, int] = field(default_factory=dict)
    expiring: int = 0
    functions: int = 0
    whole: bool = False
    problem: str = ""
    suspects: list[tuple[str, str]] = field(default_factory=list)
    stated: dict[int, int] = field(default_factory=dict)
    end: int = 0
    modules: set[str] = field(default_factory=set)
    #: types of values that only the writer's own flavor reads, from its later versions on
    own_types: set[int] = field(default_factory=set)

    @property
    def written_by(self) -> str:
        """The version of the server; empty where it does not say."""
        return self.aux.get("valkey-ver") or self.aux.get("redis-ver") or ""

    @property
    def later(self) -> bool:
        """Of a later version than is known here: what looks like damage may be what that version invented."""
        return self.version > _KNOWN_VERSIONS[self.flavor]

    @property
    def total(self) -> int:
        """What was counted, or what the file states where the count did not get through."""
        return (
            sum(self.keys.values()) if self.whole else max(sum(self.keys.values()), sum(self.stated.values()))
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "rdb_version": self.version,
            "flavor": self.flavor,
            "written_by": self.written_by,
            "written_at": int(self.aux["ctime"]) if self.aux.get("ctime", "").isdigit() else None,
            "keys": self.total,
            "keys_by_database": {str(k): v for k, v in self.keys.items()},
            "keys_exact": self.whole,
            "expiring": self.expiring,
            "functions": self.functions,
            "modules": sorted(self.modules),
            "problem": self.problem,
        }


#: How a cron line, a script from the net or a shell to somewhere begins; and where no database writes.
_PAYLOAD = re.compile(
    rb"(?:\*/\d+|\*)\s+\S+\s+\S+\s+\S+\s+\S+\s+[^\n]{0,200}(?:curl|wget|bash|/bin/sh|python|base64|lwp-download|cd1)"
    rb"|(?:curl|wget)\b[^\n]{0,200}\|\s*(?:ba)?sh\b"
    rb"|/dev/tcp/\d"
    rb"|\bssh-(?:rsa|ed25519)\s+AAAA[^\n]{20,}",
    re.IGNORECASE,
)


def payload_in(data: bytes) -> str:
    """The line that looks like an intruder's, or nothing."""
    match = _PAYLOAD.search(data)
    return text_of(data[match.start() : match.start() + 160].lstrip().partition(b"\n")[0]) if match else ""


def is_rdb(head: bytes) -> bool:
    return _HEAD.fullmatch(head[:9]) is not None


#: Valkey has another one since its formats went ways of their own (9.0).
_HEAD = re.compile(rb"REDIS(\d{4})|VALKEY(\d{3})")


def read_rdb(
    content: Content,
    *,
    begin: int = 0,
    seconds: float = 20.0,
    look: bool = True,
    each: Callable[[Part], None] | None = None,
) -> Rdb:
    """Raises ``DamagedRdb`` where it is none; damage further on is ``problem``, with what was counted before.

    ``each`` is told every piece behind the head that is whole, in order; what it does with them is its own matter.
    """
    reader = RdbReader(content, begin)
    head = _HEAD.fullmatch(reader.take(9))
    if head is None:
        raise DamagedRdb("not an RDB file")
    found = Rdb(int(head[1] or head[2]), "redis" if head[1] else "valkey")
    until = time.monotonic() + seconds
    try:
        _Body(reader, found, look, each).run(until)
    except (DamagedRdb, OSError, OverflowError, MemoryError) as error:
        found.problem = found.problem or str(error) or type(error).__name__
    found.end = reader.at
    return found


class _Body:
    """Everything behind the version."""

    def __init__(
        self, reader: RdbReader, found: Rdb, look: bool, each: Callable[[Part], None] | None = None
    ) -> None:
        self._r, self._found, self._look, self._each = reader, found, look, each
        self._database = 0
        self._begin = reader.at  # of the part that is read
        r = reader
        strings: Callable[[], None] = r.skip_string
        self._skippers: dict[int, Callable[[], None]] = {
            **dict.fromkeys((9, 10, 11, 12, 13, 16, 17, 20), strings),
            **dict.fromkeys((1, 2, 14), lambda: self._many(1)),
            3: self._old_sorted_set,
            4: lambda: self._many(2),
            5: self._sorted_set,
            7: self._module_value,
            15: lambda: self._stream(15),
            18: self._quicklist,
            19: lambda: self._stream(19),
            21: lambda: self._stream(21),
        }
        if found.flavor == "valkey":
            self._skippers[22] = self._expiring_hash
        else:
            self._skippers |= {24: self._hash_with_ttl, 25: self._packed_hash_with_ttl}

    def run(self, until: float) -> None:
        r, found = self._r, self._found
        steps = 0
        while True:
            steps += 1
            if steps % 4096 == 0 and time.monotonic() > until:
                found.problem = "not counted to the end: it took too long"
                return
            code = r.byte()
            if code == 0xFF:
                if found.version >= 5:
                    r.take(8)
                found.whole = True
                return
            if code >= 0xF4:
                self._special(code)
                continue
            key = r.string(1024)
            if code == 0:
                self._string(key)
            elif code in self._skippers:
                self._skippers[code]()
            else:
                raise DamagedRdb(f"values of type {code}, which servers understand differently, at {r.at}")
            if code > _LAST_COMMON_TYPE:
                found.own_types.add(code)
            found.keys[self._database] = found.keys.get(self._database, 0) + 1
            self._part("module key" if code == 7 else "key", key or b"")

    def _part(self, kind: PartKind, name: bytes = b"") -> None:
        begin, self._begin = self._begin, self._r.at
        if self._each is not None:
            self._each(Part(kind, begin, self._begin, self._database, name))

    def _special(self, code: int) -> None:
        """The marks of a key (expiry, age, use) are part of it; everything else is a part of its own."""
        r = self._r
        if code in (0xFC, 0xFD):
            r.skip(8 if code == 0xFC else 4)
            self._found.expiring += 1
        elif code == 0xF9:
            r.skip(1)
        elif code == 0xF8:
            r.count()
        elif code == 0xFA:
            self._about()
        elif code == 0xFE:
            self._database = r.count()
            self._part("database")
        elif code == 0xF7:
            self._part("module", self._module().encode())
        elif code == 0xF5:
            told = r.string(_LONGEST_SCRIPT if self._each else 0)
            self._found.functions += 1
            self._part("function", told or b"")
        elif code in (0xFB, 0xF4):
            counts = [r.count() for _ in range(2 if code == 0xFB else 3)]
            if code == 0xFB:
                self._found.stated[self._database] = counts[0]
            self._part("other")
        else:
            raise DamagedRdb(f"an unknown mark {code:#x}, at {r.at}")

    def _about(self) -> None:
        r = self._r
        key = r.string(256)
        if key == b"lua":  # scripts, in files of Redis 4 to 6
            told = r.string(_LONGEST_SCRIPT if self._each else 0)
            self._part("script", told or b"")
            return
        value = r.string(256)
        if key is not None and value is not None and len(self._found.aux) < 64:
            self._found.aux[text_of(key)] = text_of(value)
        self._part("other")

    def _string(self, key: bytes | None) -> None:
        if not self._look:
            self._r.skip_string()
            return
        value = self._r.string(_LOOKED_AT)
        if value and len(value) > 12 and len(self._found.suspects) < _MOST_SUSPECTS:
            line = payload_in(value)
            if line:
                self._found.suspects.append((text_of(key or b"?"), line))

    def _many(self, each: int) -> None:
        for _ in range(self._r.count() * each):
            self._r.skip_string()

    def _old_sorted_set(self) -> None:
        for _ in range(self._r.count()):
            self._r.skip_string()
            size = self._r.byte()
            if size < 253:
                self._r.skip(size)

    def _sorted_set(self) -> None:
        for _ in range(self._r.count()):
            self._r.skip_string()
            self._r.skip(8)

    def _quicklist(self) -> None:
        for _ in range(self._r.count()):
            self._r.count()
            self._r.skip_string()

    def _expiring_hash(self) -> None:
        """Of Valkey 9: each field with the time when it ends."""
        for _ in range(self._r.count()):
            self._r.skip_string()
            self._r.skip_string()
            self._r.skip(8)

    def _hash_with_ttl(self) -> None:
        """Of Redis 7.4."""
        self._r.skip(8)
        for _ in range(self._r.count()):
            self._r.count()
            self._r.skip_string()
            self._r.skip_string()

    def _packed_hash_with_ttl(self) -> None:
        self._r.skip(8)
        self._r.skip_string()

    def _module_value(self) -> None:
        self._module()

    def _module(self) -> str:
        """Its name; the value is skipped."""
        r = self._r
        number = r.count()
        name = "".join(_LETTERS[number >> shift & 63] for shift in range(58, 9, -6))
        if len(self._found.modules) < _MOST_MODULES:
            self._found.modules.add(name)
        while code := r.count():
            if code in (1, 2):
                r.count()
            elif code in (3, 4):
                r.skip(4 if code == 3 else 8)
            elif code == 5:
                r.skip_string()
            else:
                raise DamagedRdb(f"a module's value that is none, at {r.at}")
        return name

    def _stream(self, kind: int) -> None:
        r = self._r
        for _ in range(r.count() * 2):
            r.skip_string()
        for _ in range(3 if kind == 15 else 8):
            r.count()
        for _ in range(r.count()):
            r.skip_string()
            for _ in range(2 if kind == 15 else 3):
                r.count()
            for _ in range(r.count()):
                r.skip(24)
                r.count()
            for _ in range(r.count()):
                r.skip_string()
                r.skip(8 if kind < 21 else 16)
                for _ in range(r.count()):
                    r.skip(16)
