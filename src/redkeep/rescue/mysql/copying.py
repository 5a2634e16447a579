"""Copies a MySQL or MariaDB data directory out of the evidence: what holds data, and nothing that configures a server.

Links are followed inside the evidence only, and what is copied is a plain file. Files that lead a server elsewhere
(``.isl``, ``.sym``), its logs, keys and settings stay where they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redkeep.errors import EvidenceError, RefusedError, UsageError
from redkeep.model.events import Emit, Note
from redkeep.rescue.disk.bundle import Writer
from redkeep.rescue.disk.source import Evidence
from redkeep.rescue.disk.tree import CHUNK, Content, Skipped, Stat, Tree, is_file, reason, text_of
from redkeep.rescue.extracting import Pace
from redkeep.rescue.inspection.index import Index, index
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.mysql import data_directory, databases, holds_data

_TOP = re.compile(
    rb"ibdata\w*|ib_logfile\d+|ibtmp\d+|undo[\w.]*|aria_log[\w.]*|[\w.-]+\.ib[du]|tc\.log|ddl_recovery[\w.-]*\.log"
)
_TABLE = re.compile(
    rb".+\.(frm|ibd|MYD|MYI|MAD|MAI|CSV|CSM|ARZ|ARM|ARN|MRG|TRG|TRN|par|sdi|cfg)|db\.opt", re.DOTALL
)
#: Directories of the server's own that are none of tables; the redo log of MySQL 8.0.30 and later is one.
_OWN = {b"#innodb_redo": re.compile(rb"#ib_redo\d+(_tmp)?")}
_NOT_ENTERED = {b"lost+found", b"#innodb_temp", b"#rocksdb", b".snapshot"}
_LEADS_AWAY = (b".isl", b".sym")
MOST_FILES = 200_000
_MIB = 1 << 20
_BLOCK = 4096


@dataclass(frozen=True)
class Piece:
    """A file to be copied: ``path`` in the evidence, ``name`` below the data directory. ``data`` in bytes, without holes."""

    path: bytes
    name: bytes
    size: int
    data: int
    mtime: int


@dataclass
class DataCopy:
    """What belongs to a data directory. ``about`` as ``rescue inspect`` tells it; ``left``: what was not taken, and why."""

    path: bytes
    about: dict[str, Any]
    pieces: list[Piece] = field(default_factory=list)
    left: list[Skipped] = field(default_factory=list)
    #: bytes of a file that could not be read, and are zeros in the copy
    unread: dict[bytes, int] = field(default_factory=dict)
    _made: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(p.data for p in self.pieces)

    def copy(self, tree: Tree, into: Path, owner: int, emit: Emit) -> None:
        """Makes ``into`` what the evidence holds: at first all of it, later only what a server changed since."""
        _remove_others(into, {p.name for p in self.pieces})
        todo = [p for p in self.pieces if _state(into, p.name) != self._made.get(p.name, ())]
        writer = Writer(into)
        pace = Pace("copying" if not self._made else "copying anew", sum(p.data for p in todo), emit)
        try:
            for piece in todo:
                self.unread.pop(piece.path, None)
                for count in _copied(tree, piece, writer, owner, self.unread):
                    pace.add(count)
            pace.end()
        finally:
            writer.close()
        for directory in (into, *(p for p in into.iterdir() if p.is_dir() and not p.is_symlink())):
            os.chown(directory, owner, owner if os.geteuid() == 0 else -1, follow_symlinks=False)
        self._made = {p.name: _state(into, p.name) for p in self.pieces}


def _copied(tree: Tree, piece: Piece, writer: Writer, owner: int, unread: dict[bytes, int]) -> Iterator[int]:
    """Tells how far it is. What cannot be read stays zeros, which no server takes for its pages."""
    with tree.open(piece.path) as content:
        out = writer.create(b"/" + piece.name)
        try:
            os.ftruncate(out, content.size)
            for offset, length in content.segments():
                at = offset
                while at < offset + length:
                    data, lost = _read(content, at, min(CHUNK, offset + length - at))
                    if lost:
                        unread[piece.path] = unread.get(piece.path, 0) + lost
                    written = 0
                    while written < len(data):
                        written += os.pwrite(out, data[written:], at + written)
                    at += len(data)
                    yield len(data)
            if os.geteuid() == 0:
                os.fchown(out, owner, owner)
        finally:
            os.close(out)


def _read(content: Content, at: int, length: int) -> tuple[bytes, int]:
    """What is there, with zeros for blocks that cannot be read; and how many bytes those are."""
    try:
        data = content.read(at, length)
        if len(data) == length:
            return data, 0
    except OSError:
        pass
    found, lost = bytearray(length), 0
    for begin in range(0, length, _BLOCK):
        size = min(_BLOCK, length - begin)
        try:
            block = content.read(at + begin, size)
        except OSError:
            block = b""
        found[begin : begin + len(block)] = block
        lost += size - len(block)
    return bytes(found), lost


def _state(into: Path, name: bytes) -> tuple[int, int]:
    try:
        found = os.lstat(os.path.join(os.fsencode(into), name))  # noqa: PTH118  bytes
    except FileNotFoundError:
        return (-1, -1)
    return (found.st_size, found.st_mtime_ns)


def _remove_others(into: Path, names: set[bytes]) -> None:
    """What a server made beside the evidence's files."""
    top = os.fsencode(into)
    for directory, below, files in os.walk(top):
        for name in (*files, *(b for b in below if os.path.islink(os.path.join(directory, b)))):  # noqa: PTH114, PTH118
            path = os.path.join(directory, name)  # noqa: PTH118
            if os.path.relpath(path, top) not in names:
                os.unlink(path)  # noqa: PTH108


def find(evidence: Evidence, wanted: str, emit: Emit) -> DataCopy:
    """The data directory that was named, or the only one there is. Raises ``UsageError`` and ``EvidenceError``."""
    tree = evidence.tree
    if wanted:
        path = b"/" + os.fsencode(wanted).strip(b"/")
        path = b"" if path == b"/" else path
        if not _holds(tree, path):
            raise UsageError(
                f"no data directory of MySQL or MariaDB at {text_of(path) or '/'}",
                where=str(evidence.where),
                next="it holds ibdata1 and a directory mysql; redkeep rescue inspect shows where one is",
            )
        found = DataCopy(path, data_directory(Look(tree, Index()), path))
    elif _holds(tree, b""):
        found = DataCopy(b"", data_directory(Look(tree, Index()), b""))
    else:
        found = _only(evidence, emit)
    _gather(tree, found)
    return found


def _holds(tree: Tree, path: bytes) -> bool:
    sure = (b"/ibdata1", b"/mysql.ibd", b"/mysql/user.frm", b"/mysql/global_priv.frm", b"/mysql/db.frm")
    return holds_data(tree, path) and any(is_file(tree, path + name) for name in sure)


def _only(evidence: Evidence, emit: Emit) -> DataCopy:
    emit(Note("looking for data directories"))
    look = Look(evidence.tree, index(evidence.tree, frozenset(), lambda n: None))
    found = databases(look)
    if not found:
        raise UsageError(
            "no data directory of MySQL or MariaDB",
            where=str(evidence.where),
            next="name it with --datadir /PATH/IN/THERE, if there is one",
        )
    paths = [path for path, family in look.wanted if family == "databases"][: len(found)]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} data directories: " + ", ".join(f"{d['path']} ({d['state']})" for d in found[:10]),
            where=str(evidence.where),
            next="name one with --datadir",
        )
    return DataCopy(paths[0], found[0])


def _gather(tree: Tree, found: DataCopy) -> None:
    for name, entry in _sorted(tree, found.path or b"/"):
        path = found.path + b"/" + name
        resolved = _resolved(tree, path, entry, found)
        if resolved is None:
            continue
        if resolved.kind == "file":
            if _TOP.fullmatch(name):
                _add(tree, found, path, name, resolved)
        elif resolved.kind == "directory" and name not in _NOT_ENTERED:
            pattern = _OWN.get(name, _TABLE)
            try:
                inside = _sorted(tree, path)
            except OSError as error:
                found.left.append(Skipped(path, reason(error)))
                continue
            for inner, inner_entry in inside:
                _one(tree, found, path, name, inner, inner_entry, pattern)
    if len(found.pieces) > MOST_FILES:
        raise EvidenceError(
            f"more than {MOST_FILES:,} files", where=text_of(found.path), next="name another with --datadir"
        )


def _one(
    tree: Tree,
    found: DataCopy,
    path: bytes,
    schema: bytes,
    name: bytes,
    entry: Stat,
    wanted: re.Pattern[bytes],
) -> None:
    full = path + b"/" + name
    if name.endswith(_LEADS_AWAY):
        found.left.append(Skipped(full, "a file that leads a server to another directory is not followed"))
    elif wanted.fullmatch(name):
        resolved = _resolved(tree, full, entry, found)
        if resolved is not None and resolved.kind == "file":
            _add(tree, found, full, schema + b"/" + name, resolved)
        elif resolved is not None:
            found.left.append(Skipped(full, f"not a file but a {resolved.kind}"))


def _sorted(tree: Tree, path: bytes) -> list[tuple[bytes, Stat]]:
    return sorted(tree.entries(path), key=lambda item: item[0])


def _resolved(tree: Tree, path: bytes, entry: Stat, found: DataCopy) -> Stat | None:
    if entry.kind != "symlink":
        return entry
    try:
        return tree.stat(path)
    except OSError:
        found.left.append(Skipped(path, "a link that leads to nothing in the evidence"))
        return None


def _add(tree: Tree, found: DataCopy, path: bytes, name: bytes, entry: Stat) -> None:
    try:
        with tree.open(path) as content:
            data = sum(length for _, length in content.segments())
    except OSError as error:
        found.left.append(Skipped(path, reason(error)))
        return
    found.pieces.append(Piece(path, name, entry.size, data, entry.mtime))


def require_space(found: DataCopy, where: Path, free: int) -> None:
    """``free`` in bytes. A dump is text: numbers and escapes make it larger than tables, indexes make it smaller."""
    needed = found.bytes * 2 + 256 * _MIB
    if needed > free:
        raise RefusedError(
            f"copy and dump need about {needed // _MIB} MiB, and {free // _MIB} MiB are free",
            where=str(where),
            next="name a directory on a larger disk with --out",
        )
