"""Makes the copy of a dead server's data that a clean engine may load, and says what is not in it.

WORK/engine/dump.rdb or WORK/engine/appendonly.aof (an RDB file as preamble, and commands behind it)
WORK/scripts.jsonl      functions and Lua scripts, a JSON document a line: what, and its code; for reading, never for running
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from redkeep.errors import EvidenceError, RedkeepError, RefusedError, UsageError
from redkeep.model.events import Emit, Note, Progress
from redkeep.rescue.disk.source import Evidence, opened
from redkeep.rescue.disk.tree import CHUNK, Content, reason, text_of
from redkeep.rescue.extracting import refuse_place
from redkeep.rescue.inspection.index import index
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.redis import redis
from redkeep.rescue.redis.aofcopy import AofCopy, Copied
from redkeep.rescue.redis.picking import RedisData, chosen, loose_file, named
from redkeep.rescue.redis.rdb import DamagedRdb, Part, Rdb, is_rdb, read_rdb
from redkeep.rescue.redis.rdbcopy import created, end_of

RDB, AOF, SCRIPTS = "engine/dump.rdb", "engine/appendonly.aof", "scripts.jsonl"
_MIB = 1 << 20
_BLOCK = 4096
#: More databases than anybody has; the engine makes room for each.
_MOST_DATABASES = 1 << 14


def job(
    source: str,
    path: str,
    work: str,
    partition: str,
    mount: bool,
    with_scripts: bool,
    with_modules: bool,
    flush: int,
    emit: Emit,
) -> dict[str, Any]:
    """For the cage. ``flush``: before which flush an append-only file is cut; 0: none, -1: the one that took the most.

    Returns what is in the copy; the files are in ``work``. Raises ``UsageError`` where it is not plain which data is
    meant, ``EvidenceError`` where nothing of it can be read, ``RefusedError`` for a working directory in the evidence.
    """
    where, inner = Path(source), path
    if where.is_file() and loose_file(where):
        if path:
            raise UsageError("a file, and a path in it", where=source, next="leave the path out")
        where, inner = where.parent, where.name
    with opened(where, partition=partition, mount=mount) as evidence:
        if not loose_file(Path(source)):
            refuse_place(evidence, Path(work))
        data = named(evidence.tree, os.fsencode(inner)) if inner else _found(evidence, emit)
        try:
            return _Preparation(evidence, data, Path(work), with_scripts, with_modules, emit).run(flush)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            raise RedkeepError(
                f"cannot write: {reason(error)}", where=work, next="make room, or --work DIRECTORY elsewhere"
            ) from None


def _found(evidence: Evidence, emit: Emit) -> RedisData:
    emit(Note("looking for data of Redis"))
    found = index(evidence.tree, frozenset(), lambda n: emit(Note(f"looked at {n:,} files")))
    return chosen(evidence.tree, redis(Look(evidence.tree, found)))


class _UpToDamage:
    """A file of the evidence up to the first byte that cannot be read: as if it ended there. ``problem`` says why."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size = content.size
        self.problem = ""

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        try:
            return self._content.read(offset, length)
        except OSError as error:
            found = b""
            with contextlib.suppress(OSError):
                while len(found) < length:
                    found += self._content.read(offset + len(found), min(_BLOCK, length - len(found)))
            self.size, self.problem = offset + len(found), reason(error)
            return found

    def segments(self) -> Iterator[tuple[int, int]]:
        return self._content.segments()

    def close(self) -> None:
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Preparation:
    def __init__(
        self,
        evidence: Evidence,
        data: RedisData,
        work: Path,
        with_scripts: bool,
        with_modules: bool,
        emit: Emit,
    ) -> None:
        self._tree, self._data, self._work, self._emit = evidence.tree, data, work, emit
        self._with_scripts, self._with_modules = with_scripts, with_modules
        self._notes = list(data.notes)
        self._said = 0.0
        self._done = 0
        self._total = 1

    def run(self, flush: int) -> dict[str, Any]:
        if flush and self._data.kind == "rdb":
            raise UsageError(
                "an RDB file has no flush to cut off: what was flushed is not in it",
                where=self._data.title,
                next="name an append-only file or an older RDB file, or leave --before-flush out",
            )
        with ExitStack() as stack:
            contents = [(text_of(p), stack.enter_context(self._open(p))) for p in self._data.files]
            self._total = max(1, sum(c.size for _, c in contents))
            _require_space(self._work, self._total)
            document = {
                "kind": self._data.kind,
                "files": [{"path": path, "bytes": content.size} for path, content in contents],
                "configuration": self._data.configuration,
                "bytes": sum(c.size for _, c in contents),
            }
            if self._data.kind == "aof" and flush < 0:
                flush = self._worst_flush(contents)
            with (self._work / SCRIPTS).open("w", encoding="ascii") as scripts:
                (self._work / SCRIPTS).chmod(0o600)
                self._scripts = scripts
                document |= (
                    self._rdb(*contents[0]) if self._data.kind == "rdb" else self._aof(contents, flush)
                )
            for path, content in contents:
                if content.problem:
                    document["damaged"] = True
                    self._notes.append(
                        f"{path} cannot be read from byte {content.size:,} on ({content.problem}): what was there is lost"
                    )
            return document | {"notes": self._notes}

    def _open(self, path: bytes) -> _UpToDamage:
        try:
            return _UpToDamage(self._tree.open(path))
        except OSError as error:
            where = f"{self._tree.where}: {text_of(path)}"
            raise EvidenceError(
                f"cannot be read: {reason(error)}", where=where, next="repair a copy of the file system"
            ) from None

    def _tick(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said > 0.5:
            self._said = now
            at = min(self._done + done, self._total)
            self._emit(Progress("copying", round(at / _MIB, 1), round(self._total / _MIB, 1), "MiB"))

    def _keep_script(self, kind: str, code: bytes) -> None:
        self._scripts.write(json.dumps({"what": kind, "code": text_of(code)}) + "\n")

    def _rdb(self, path: str, content: Content) -> dict[str, Any]:
        with created(self._work / RDB) as file:
            found, dropped = self._copy_rdb(path, content, file)
        return {
            "rdb": found.as_json(),
            "aof": None,
            "own_types": sorted(found.own_types),
            "dropped": dropped,
            "databases": _databases(max(found.keys, default=0) + 1),
            "damaged": bool(found.problem) and not found.later,
            "keys_read": sum(found.keys.values()),
            "keys_stated": sum(found.stated.values()),
        }

    def _copy_rdb(self, path: str, content: Content, file: BinaryIO) -> tuple[Rdb, dict[str, Any]]:
        """As it is where nothing is wrong or left out; else piece by piece, with an end and without a checksum."""
        pieces, dropped = self._pieces(path, content)
        found = self._found
        if found.later and not found.whole:
            self._write(file, content, 0, content.size)
        elif not found.whole or any(dropped.values()):
            for begin, end in pieces:
                self._write(file, content, begin, end)
            file.write(end_of(found))
        else:
            self._write(file, content, 0, found.end)
        if found.problem and not found.later:
            stated = sum(found.stated.values())
            of = f" of the {stated:,} that it says it had" if stated else ""
            self._notes.append(
                f"{path} is damaged ({found.problem}): {sum(found.keys.values()):,} keys before that were read{of}; "
                "the rest is lost"
            )
        if dropped["module keys"]:
            self._notes.append(
                f"{dropped['module keys']:,} keys of modules ({', '.join(sorted(found.modules))}) are not in the copy: "
                "only a server with that module reads them (--server)"
            )
        return found, dropped

    def _pieces(self, path: str, content: Content) -> tuple[list[tuple[int, int]], dict[str, Any]]:
        pieces: list[tuple[int, int]] = [(0, 9)]
        dropped = {"functions": 0, "scripts": 0, "module keys": 0, "modules": 0}
        names = {
            "function": "functions",
            "script": "scripts",
            "module key": "module keys",
            "module": "modules",
        }

        def each(part: Part) -> None:
            if part.kind in ("function", "script"):
                self._keep_script(part.kind, part.name)
            code = part.kind in ("function", "script") and not self._with_scripts
            module = part.kind in ("module", "module key") and not self._with_modules
            if code or module:
                dropped[names[part.kind]] += 1
            elif pieces[-1][1] == part.begin:
                pieces[-1] = (pieces[-1][0], part.end)
            else:
                pieces.append((part.begin, part.end))
            self._tick(part.end)

        try:
            self._found = read_rdb(content, seconds=float("inf"), look=False, each=each)
        except DamagedRdb as error:
            raise EvidenceError(
                f"not an RDB file: {error}", where=f"{self._tree.where}: {path}", next="name another file"
            ) from None
        return pieces, dropped

    def _write(self, file: BinaryIO, content: Content, begin: int, end: int) -> None:
        while begin < end:
            data = content.read(begin, min(CHUNK, end - begin))
            if not data:
                raise EvidenceError(
                    "it became shorter while it was read", where=self._tree.where, next="rescue from a copy"
                )
            file.write(data)
            begin += len(data)

    def _aof(self, contents: Sequence[tuple[str, Content]], flush: int) -> dict[str, Any]:
        base, begin = None, 0
        dropped: dict[str, Any] = {}
        with created(self._work / AOF) as file:
            if is_rdb(contents[0][1].read(0, 9)):
                base, dropped = self._copy_rdb(*contents[0], file)
                begin = base.end if base.whole else contents[0][1].size
            copied = self._commands(contents, begin, flush, base, file.write, self._keep_script)
        if flush and not copied.cut:
            raise UsageError(
                f"there is no flush {flush} in it"
                if copied.flushes
                else "there is no FLUSHALL or FLUSHDB in it",
                where=self._data.title,
                next="leave --before-flush out",
            )
        self._tell(copied)
        return {
            "rdb": base.as_json() if base else None,
            "aof": copied.as_json() | {"cut_before_flush": flush or None},
            "own_types": sorted(base.own_types) if base else [],
            "dropped": dropped,
            "databases": _databases(max(copied.databases, max(base.keys, default=0) + 1 if base else 1)),
            "damaged": bool((base and base.problem) or copied.lost),
            "keys_read": None,
            "keys_stated": None,
        }

    def _commands(
        self,
        contents: Sequence[tuple[str, Content]],
        begin: int,
        flush: int,
        base: Rdb | None,
        put: Callable[[bytes], object],
        keep_script: Callable[[str, bytes], object],
    ) -> Copied:
        copy = AofCopy(
            put,
            keep_script,
            with_scripts=self._with_scripts,
            cut_before=flush,
            before=base.keys if base else {},
            tick=self._tick,
        )
        self._done = 0
        for path, content in contents:
            try:
                copy.copy(content, begin, path)
            except OSError as error:
                raise EvidenceError(
                    f"cannot be read: {reason(error)}", where=path, next="repair a copy of the file system"
                ) from None
            begin = 0
            self._done += content.size
        return copy.found

    def _worst_flush(self, contents: Sequence[tuple[str, Content]]) -> int:
        """The number of the flush that took the most keys; 1 where there is none, which is told later."""
        base, begin = None, 0
        if is_rdb(contents[0][1].read(0, 9)):
            base = read_rdb(contents[0][1], seconds=float("inf"), look=False)
            begin = base.end if base.whole else contents[0][1].size
        found = self._commands(contents, begin, 0, base, lambda data: None, lambda kind, code: None)
        return max(found.flushes, key=lambda f: (f.keys, -f.number)).number if found.flushes else 1

    def _tell(self, copied: Copied) -> None:
        note = self._notes.append
        if copied.lost:
            pieces = ", ".join(f"{p['file']} {p['from']}-{p['to']}" for p in copied.lost[:5])
            note(
                f"{len(copied.lost)} damaged pieces, {copied.lost_bytes:,} bytes, are not in the copy ({pieces}); "
                "what was changed there is lost"
            )
            if any(p["database_unsure"] for p in copied.lost):
                note("a damaged piece held a SELECT: what follows it may be in another database than it was")
        if copied.cut_tail:
            note(
                f"it ends in the middle of a command: the last {copied.cut_tail:,} bytes are not in the copy"
            )
        if copied.transactions_cut:
            note(f"{copied.transactions_cut} transactions without an end are not in the copy")
        if copied.flushes and not copied.cut:
            told = "; ".join(_flush_text(f.as_json()) for f in copied.flushes[:5])
            note(f"it was flushed: {told}. --before-flush cuts at the one that took the most")
        if copied.cut:
            note(f"cut before the flush: {copied.after_flush:,} commands from there on are not in the copy")
        odd = {
            k: v
            for k, v in copied.left_out.items()
            if k not in ("eval", "evalsha", "script", "function", "fcall")
        }
        if odd:
            told = ", ".join(
                f"{re.sub(r'[^a-z0-9_.|-]', '?', k).upper()} {v:,}" for k, v in list(odd.items())[:8]
            )
            note(f"commands that do not belong there, or to modules, are not in the copy: {told}")
        if copied.scripts and not self._with_scripts:
            note(
                f"{copied.scripts:,} scripts and functions were not run; what they wrote is lost where the file holds only "
                "them (--with-functions runs them)"
            )


def _flush_text(f: dict[str, Any]) -> str:
    at = f" at {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(f['at']))} UTC" if f["at"] else ""
    return f"number {f['number']}, {f['name']}{at}, about {f['keys']:,} keys"


def _databases(count: int) -> int:
    if count > _MOST_DATABASES:
        raise EvidenceError(
            f"it names database {count - 1}, which is no database that anybody has",
            where="the data",
            next="a damaged file: an older copy may be better",
        )
    return max(16, count)


def _require_space(work: Path, size: int) -> None:
    """The copy, and what the engine saves of it; compressed, as it was."""
    found = os.statvfs(work)
    free = found.f_bavail * found.f_frsize
    needed = size * 2 + (16 << 20)
    if needed > free:
        raise RefusedError(
            f"it needs about {needed // _MIB + 1} MiB, and {free // _MIB} MiB are free",
            where=str(work),
            next="name a directory on a larger disk: --work DIR",
        )
