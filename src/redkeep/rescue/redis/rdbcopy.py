"""Copies of RDB files, as the engine shall load them: begun anew, ended well, and without a piece that it could not read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from redkeep.errors import RedkeepError
from redkeep.model.events import Emit
from redkeep.rescue.disk.directory import FileContent
from redkeep.rescue.disk.tree import CHUNK, Content, text_of
from redkeep.rescue.redis.rdb import Part, Rdb, read_rdb


def created(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def end_of(found: Rdb) -> bytes:
    """Without a checksum, which a server takes for one that was switched off."""
    return b"\xff" + (bytes(8) if found.version >= 5 else b"")


def without_part(work: str, file: str, offset: int, emit: Emit) -> dict[str, Any]:
    """For the cage: makes the copy again without the piece that an engine could not read. Empty where there is none.

    ``offset``: where in the copy the engine stopped.
    """
    path = Path(work) / file
    with FileContent(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as content:
        return _without(content, path, offset)


def _without(content: FileContent, path: Path, offset: int) -> dict[str, Any]:
    kept: list[tuple[int, int]] = [(0, 9)]
    dropped: list[Part] = []

    def each(part: Part) -> None:
        if part.kind == "key" and part.begin < offset <= part.end:
            dropped.append(part)
        elif kept[-1][1] == part.begin:
            kept[-1] = (kept[-1][0], part.end)
        else:
            kept.append((part.begin, part.end))

    found = read_rdb(content, seconds=float("inf"), look=False, each=each)
    if not dropped:
        return {}
    new = path.with_name(path.name + ".new")
    with created(new) as file:
        for begin, end in kept:
            _copy_range(content, file, begin, end)
        file.write(end_of(found))
        _copy_range(content, file, found.end, content.size)
    new.replace(path)
    return {"database": dropped[0].database, "key": text_of(dropped[0].name)}


def _copy_range(content: Content, file: BinaryIO, begin: int, end: int) -> None:
    while begin < end:
        data = content.read(begin, min(CHUNK, end - begin))
        if not data:
            raise RedkeepError("the copy changed while it was read", where="the copy", next="run it again")
        file.write(data)
        begin += len(data)
