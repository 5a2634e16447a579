"""Reads append-only files without a server: how many commands, where FLUSHALL is, whether the end is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from redkeep.rescue.disk.tree import CHUNK, Content, text_of
from redkeep.rescue.redis.rdb import Rdb, is_rdb, payload_in, read_rdb

_LOOKED_AT = 64 << 10
#: How the word on a file begins that a crash cut, and that is not damaged otherwise.
CUT = "it ends in the middle of a command"
_MOST = 50
#: Other commands make the key that is their first argument. An estimate: expiry and renames are not followed.
_REMOVES = {b"del", b"unlink"}
_FLUSHES = {b"flushall", b"flushdb"}
_NO_KEY = {b"select", b"multi", b"exec", b"function", b"script", b"publish", b"ping", b"eval", b"evalsha"}
_MOST_KEYS = 3_000_000


@dataclass
class Aof:
    """``flushes``: offset in the file and number of the command. ``problem``: where and how the file is damaged."""

    base: Rdb | None = None
    commands: int = 0
    keys: int = 0
    flushes: list[tuple[int, int, str]] = field(default_factory=list)
    suspects: list[tuple[str, str]] = field(default_factory=list)
    good_until: int = 0
    problem: str = ""
    #: seconds since 1970, as the last time stamp says (aof-timestamp-enabled); 0 without
    stamp: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "preamble": self.base.as_json() if self.base else None,
            "commands": self.commands,
            "keys": self.keys,
            "keys_exact": False,
            "flushes": [{"offset": o, "command": n, "name": name} for o, n, name in self.flushes],
            "good_until": self.good_until,
            "problem": self.problem,
        }


def read_aof(content: Content, *, seconds: float = 20.0) -> Aof:
    found = Aof()
    begin = 0
    if is_rdb(content.read(0, 9)):
        found.base = read_rdb(content, seconds=seconds)
        found.suspects += found.base.suspects
        begin = found.base.end
        if not found.base.whole:
            found.problem = found.base.problem
            return found
    keys: set[tuple[int, bytes]] = set()
    until = time.monotonic() + seconds
    database = 0
    found.good_until = begin
    before = found.base.total if found.base else 0
    for offset, end, words in commands(content, begin, found):
        found.commands += 1
        found.good_until = end
        name = words[0].lower()
        if name in _FLUSHES:
            before = 0
            keys.clear()
            if len(found.flushes) < _MOST:
                found.flushes.append((offset, found.commands, text_of(name).upper()))
        elif name == b"select" and len(words) > 1 and words[1].isdigit():
            database = int(words[1])
        elif len(words) > 1 and name in _REMOVES:
            keys.difference_update((database, key) for key in words[1:])
        elif len(words) > 1 and name not in _NO_KEY and len(keys) < _MOST_KEYS:
            keys.add((database, words[1]))
            if len(words) > 2 and len(found.suspects) < _MOST and (line := payload_in(words[2])):
                found.suspects.append((text_of(words[1]), line))
        if found.commands % 4096 == 0 and time.monotonic() > until:
            found.problem = "not read to the end: it took too long"
            break
    found.keys = before + len(keys)
    return found


def commands(content: Content, begin: int, found: Aof) -> Iterator[tuple[int, int, list[bytes]]]:
    """Offset, end and words of each command; long words are cut. Sets ``problem`` where it goes no further."""
    reader = _Lines(content, begin)
    while True:
        offset = reader.at
        line = reader.line()
        if line is None:
            return
        if line.startswith(b"#"):  # a time stamp (aof-timestamp-enabled)
            if line.startswith(b"#TS:") and line[4:].isdigit():
                found.stamp = int(line[4:])
            continue
        try:
            if not line.startswith(b"*"):
                raise ValueError
            count = int(line[1:])
            if not 0 < count <= 1 << 20:
                raise ValueError
            words = [reader.word() for _ in range(count)]
        except EOFError:
            found.problem = f"{CUT} that begins at {offset}"
            return
        except ValueError:
            found.problem = f"damaged at {offset}"
            return
        yield offset, reader.at, words


class _Lines:
    def __init__(self, content: Content, begin: int) -> None:
        self._content, self._start, self._buffer, self._position = content, begin, b"", 0

    @property
    def at(self) -> int:
        return self._start + self._position

    def _fill(self) -> bool:
        rest = self._buffer[self._position :]
        self._start += self._position
        more = self._content.read(self._start + len(rest), CHUNK)
        self._buffer, self._position = rest + more, 0
        return bool(more)

    def line(self) -> bytes | None:
        """Without its end; None at the end of the file. ``EOFError`` is never raised here: a cut line is a line."""
        while (end := self._buffer.find(b"\n", self._position)) < 0:
            if len(self._buffer) - self._position > 4096 or not self._fill():
                found = self._buffer[self._position :]
                self._position = len(self._buffer)
                return found or None
        found = self._buffer[self._position : end]
        self._position = end + 1
        return found.rstrip(b"\r")

    def word(self) -> bytes:
        head = self.line()
        if head is None:
            raise EOFError
        if not head.startswith(b"$"):
            raise ValueError
        size = int(head[1:])
        if size < 0:
            raise ValueError
        end = self.at + size + 2
        if end > self._content.size:
            raise EOFError
        if size > _LOOKED_AT and self._content.read(end - 2, 2) != b"\r\n":
            raise ValueError
        while len(self._buffer) - self._position < min(size + 2, _LOOKED_AT):
            if not self._fill():
                raise EOFError
        found = self._buffer[self._position : self._position + min(size, _LOOKED_AT)]
        if (
            size + 2 <= _LOOKED_AT
            and self._buffer[self._position + size : self._position + size + 2] != b"\r\n"
        ):
            raise ValueError
        if end - self._start <= len(self._buffer):
            self._position = end - self._start
        else:
            self._start, self._buffer, self._position = end, b"", 0
        return found
