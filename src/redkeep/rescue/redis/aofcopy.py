"""Copies append-only files without what is damaged in them, what runs code, and what follows an intruder's flush.

What is kept is copied byte for byte. Only commands that change data are: a file that somebody forged may hold CONFIG,
MODULE, REPLICAOF or DEBUG, and a server runs whatever it reads there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redkeep.rescue.disk.tree import CHUNK, Content, text_of
from redkeep.rescue.redis.aof import CUT, Aof, commands

#: Commands that write, of Redis 2 to 8 and Valkey 7.2 to 9, as they stand in append-only files (COMMAND LIST FILTERBY
#: ACLCAT write), and PFCOUNT, which renews what a counter remembers. What blocks is written there as what does not; a
#: Cluster's slots come in by RESTORE-ASKING.
_WRITE_NAMES = """
    append bitfield bitop copy decr decrby decrbyex del delex delifeq expire expireat flushall flushdb geoadd georadius
    georadiusbymember geosearchstore getdel getex getset hdel hexpire hexpireat hgetdel hgetex hincrby hincrbyfloat hmset
    hpersist hpexpire hpexpireat hset hsetex hsetnx incr incrby incrbyfloat linsert lmove lmpop lpop lpush lpushx lrem lset
    ltrim move mset msetex msetnx persist pexpire pexpireat pfadd pfcount pfmerge psetex rename renamenx restore
    restore-asking rpop rpoplpush
    rpush rpushx sadd sdiffstore set setbit setex setnx setrange sinterstore smove sort spop srem sunionstore swapdb unlink
    xack xackdel xadd xautoclaim xclaim xdel xdelex xgroup xreadgroup xsetid xtrim zadd zdiffstore zincrby zinterstore zmpop
    zpopmax zpopmin zrangestore zrem zremrangebylex zremrangebyrank zremrangebyscore zunionstore
"""
_WRITES = frozenset(_WRITE_NAMES.split())
_FLUSHES = frozenset({"flushall", "flushdb"})
_SCRIPTS = frozenset({"eval", "evalsha", "script", "function", "fcall"})
#: Leave nothing behind that we would miss.
_HARMLESS = frozenset({"publish", "spublish", "ping", "replconf"})
#: How a command begins that something whole may follow.
_BEGIN = re.compile(rb"(?:^|\r\n)(\*[1-9]\d{0,6}\r\n\$\d{1,9}\r\n)")
_MOST = 1000
_FARTHEST = 1 << 30


@dataclass(frozen=True)
class Flush:
    """``number`` counts all flushes of the data from 1 on; ``commands`` those before it; ``keys`` about how many it took."""

    number: int
    name: str
    file: str
    offset: int
    commands: int
    keys: int
    at: int = 0

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass
class Copied:
    """What came of it, over all files of one set. ``lost``: pieces that are damaged, with where and why."""

    commands: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)
    lost_bytes: int = 0
    cut_tail: int = 0
    flushes: list[Flush] = field(default_factory=list)
    after_flush: int = 0
    transactions_cut: int = 0
    databases: int = 0
    scripts: int = 0
    cut: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "commands": self.commands,
            "left_out": self.left_out,
            "damaged": self.lost,
            "damaged_bytes": self.lost_bytes,
            "cut_tail_bytes": self.cut_tail,
            "flushes": [f.as_json() for f in self.flushes],
            "commands_after_the_cut": self.after_flush,
            "transactions_cut": self.transactions_cut,
            "scripts_and_functions": self.scripts,
        }


class _Estimate:
    """About how many keys there are, database by database: commands that write make their first argument."""

    def __init__(self, before: dict[int, int]) -> None:
        self._before = dict(before)
        self._keys: dict[int, set[int]] = {}
        self._room = 3_000_000

    def flush(self, name: str, database: int) -> int:
        gone = [database] if name == "flushdb" else [*{*self._keys, *self._before}]
        return sum(self._before.pop(d, 0) + len(self._keys.pop(d, ())) for d in gone)

    def wrote(self, database: int, name: str, words: list[bytes]) -> None:
        if len(words) < 2:
            return
        keys = self._keys.setdefault(database, set())
        if name in ("del", "unlink"):
            keys.difference_update(map(hash, words[1:]))
        elif len(keys) < self._room:
            keys.add(hash(words[1]))


class AofCopy:
    """``put`` writes to the copy; ``keep_script`` is told the code of scripts and functions, which are left out unless
    ``with_scripts``. ``cut_before``: the number of the flush before which the copy ends; 0: none."""

    def __init__(
        self,
        put: Callable[[bytes], object],
        keep_script: Callable[[str, bytes], object],
        *,
        with_scripts: bool = False,
        cut_before: int = 0,
        before: dict[int, int] | None = None,
        tick: Callable[[int], object] = lambda done: None,
    ) -> None:
        self.found = Copied()
        self._put, self._keep_script, self._tick = put, keep_script, tick
        self._with_scripts, self._cut_before = with_scripts, cut_before
        self._estimate = _Estimate(before or {})
        self._database = 0

    def copy(self, content: Content, begin: int, name: str) -> None:
        """One file, from a place in it on. Raises ``OSError`` where it cannot be read."""
        self._content, self._name = content, name
        self._run: list[tuple[int, int]] = []  # what is kept and not written yet: one piece after the other
        self._in_transaction: list[tuple[int, int]] | None = None
        at = begin
        while True:
            state = Aof()
            for offset, end, words in commands(content, at, state):
                self._one(offset, end, words, state)
                at = end
                if self.found.commands % 4096 == 0:
                    self._tick(end)
            if not state.problem:
                break
            onward = _next_command(content, at)
            self._drop_transaction()
            if onward is None:
                if state.problem.startswith(CUT):
                    self.found.cut_tail += content.size - at
                else:
                    self._damaged(at, content.size)
                break
            self._damaged(at, onward)
            at = onward
        self._drop_transaction()
        self._write()

    def _one(self, offset: int, end: int, words: list[bytes], state: Aof) -> None:
        found = self.found
        name = text_of(words[0][:32]).lower()
        found.commands += 1
        if name in _FLUSHES:
            self._flush(name, offset, state)
        if found.cut:
            found.after_flush += 1
        elif name == "multi":
            self._drop_transaction()
            self._in_transaction = [(offset, end)]
        elif name == "exec":
            self._end_transaction(offset, end)
        elif name == "select" and len(words) > 1 and words[1].isdigit() and len(words[1]) < 9:
            self._database = int(words[1])
            found.databases = max(found.databases, self._database + 1)
            self._keep(offset, end)
        elif name in _WRITES:
            self._estimate.wrote(self._database, name, words)
            self._keep(offset, end)
        elif name in _SCRIPTS:
            self._script(name, words, offset, end)
        elif name not in _HARMLESS:
            self._leave_out(name)

    def _script(self, name: str, words: list[bytes], offset: int, end: int) -> None:
        self.found.scripts += 1
        code = words[-1] if name in ("script", "function") else words[1] if len(words) > 1 else b""
        if name in ("eval", "script", "function"):
            self._keep_script(name, code)
        if self._with_scripts:
            self._keep(offset, end)
        else:
            self._leave_out(name)

    def _leave_out(self, name: str) -> None:
        counts = self.found.left_out
        if name in counts or len(counts) < 100:
            counts[name] = counts.get(name, 0) + 1

    def _flush(self, name: str, offset: int, state: Aof) -> None:
        flushes = self.found.flushes
        number = len(flushes) + 1
        if number == self._cut_before:
            self.found.cut = True
            self._drop_transaction()
        keys = (
            0 if self.found.cut and number != self._cut_before else self._estimate.flush(name, self._database)
        )
        if number <= _MOST:
            before = self.found.commands - 1
            flushes.append(Flush(number, name.upper(), self._name, offset, before, keys, state.stamp))

    def _keep(self, begin: int, end: int) -> None:
        pieces = self._run if self._in_transaction is None else self._in_transaction
        if pieces and pieces[-1][1] == begin:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((begin, end))
            if pieces is self._run and len(pieces) > 1000:
                self._write()

    def _end_transaction(self, offset: int, end: int) -> None:
        held, self._in_transaction = self._in_transaction, None
        if held is not None:  # an EXEC alone is what damage left
            for piece in [*held, (offset, end)]:
                self._keep(*piece)

    def _drop_transaction(self) -> None:
        """It has no end: as a server would, nothing of it is done."""
        if self._in_transaction is not None:
            self.found.transactions_cut += 1
            self._in_transaction = None

    def _damaged(self, begin: int, end: int) -> None:
        self.found.lost_bytes += end - begin
        if len(self.found.lost) < _MOST:
            piece = self._content.read(begin, min(end - begin, 1 << 16)).lower()
            self.found.lost.append(
                {"file": self._name, "from": begin, "to": end, "database_unsure": b"select" in piece}
            )

    def _write(self) -> None:
        for begin, end in self._run:
            while begin < end:
                data = self._content.read(begin, min(CHUNK, end - begin))
                if not data:
                    raise OSError("it became shorter while it was read")
                self._put(data)
                begin += len(data)
        self._run.clear()


def _next_command(content: Content, after: int) -> int | None:
    """Where the next whole command that we know begins behind a place that is damaged."""
    at = after + 1
    while at < min(content.size, after + _FARTHEST):
        piece = content.read(at, CHUNK)
        for match in _BEGIN.finditer(piece):
            begin = at + match.start(1)
            if match.start() == 0 and not match[0].startswith(b"\r\n"):
                continue  # only the begin of what we read
            if _is_command(content, begin):
                return begin
        if len(piece) < CHUNK:
            return None
        at += len(piece) - 64
    return None


def _is_command(content: Content, begin: int) -> bool:
    first = next(commands(content, begin, Aof()), None)
    if first is None:
        return False
    _, end, words = first
    name = text_of(words[0][:32]).lower()
    known = name in _WRITES or name in ("select", "multi", "exec")
    return known and (end == content.size or content.read(end, 1) in (b"*", b"#"))
