"""Which files of a victim's disk are one server's data, and which of several servers' data is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from redkeep.errors import EvidenceError, UsageError
from redkeep.rescue.disk.tree import Tree, is_directory, is_file, names, read_text, reason, text_of
from redkeep.rescue.redis.rdb import is_rdb

#: A line of a manifest (Redis 7.0, aof.c): ``file appendonly.aof.1.base.rdb seq 1 type b``. Names have no ``/``.
_LINE = re.compile(r"file (?P<name>\"(?:[^\"\\]|\\.)*\"|\S+) seq (?P<seq>\d+) type (?P<type>[bhi])\b.*")
_PART = re.compile(rb"(?P<stem>.+)\.(?P<seq>\d+)\.(?P<type>base\.rdb|base\.aof|incr\.aof)")
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class RedisData:
    """One server's data: ``files`` in the order in which they are read. ``wish``: what its configuration says of it."""

    kind: Literal["rdb", "aof"]
    files: tuple[bytes, ...]
    where: bytes
    configuration: str = ""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return text_of(self.where)


@dataclass
class _Found:
    all: dict[bytes, RedisData] = field(default_factory=dict)

    def add(self, data: RedisData) -> None:
        self.all.setdefault(data.where, data)


def loose_file(where: Path) -> bool:
    """Whether the source is no disk but a file of Redis itself, as people have them from a backup."""
    try:
        with where.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return is_rdb(head) or head[:1] == b"*" or where.name.endswith(".aof.manifest")


def named(tree: Tree, path: bytes) -> RedisData:
    """The data at a path of the disk: an RDB or append-only file, a manifest, or the directory with them."""
    path = b"/" + path.strip(b"/")
    where = f"{tree.where}: {text_of(path)}"
    try:
        kind = tree.stat(path).kind
    except OSError as error:
        raise UsageError(
            f"no such path there: {reason(error)}",
            where=where,
            next="redkeep rescue inspect shows what there is",
        ) from None
    if kind == "directory":
        return _one(list(_of_directory(tree, path)), where)
    if path.endswith(b".manifest"):
        return _of_manifest(tree, path)
    try:
        with tree.open(path) as content:
            head, size = content.read(0, 9), content.size
    except OSError as error:
        raise EvidenceError(
            f"cannot be read: {reason(error)}", where=where, next="repair a copy of the file system"
        ) from None
    if not size:
        raise EvidenceError(
            "the file is empty", where=where, next="is there another, or an older copy of it?"
        )
    if head[:1] in (b"*", b"#") or (is_rdb(head) and path.endswith(b".aof")):
        return RedisData("aof", (path,), path, notes=_part_note(tree, path))
    if is_rdb(head):
        return RedisData("rdb", (path,), path)
    raise EvidenceError(
        "neither an RDB nor an append-only file of Redis or Valkey",
        where=where,
        next="redkeep rescue inspect shows what there is; a compressed backup must be unpacked first",
    )


def _part_note(tree: Tree, path: bytes) -> tuple[str, ...]:
    """One part of several was named."""
    if not _PART.fullmatch(path.rpartition(b"/")[2]):
        return ()
    return (
        "this is one part of a data set of several files; its manifest, or its directory, names all of them",
    )


def chosen(tree: Tree, redis: dict[str, Any]) -> RedisData:
    """The data of the one server that was there; ``redis`` is what an inspection found. Raises ``UsageError``."""
    found = _Found()
    notes: dict[bytes, str] = {}
    for config in redis["configurations"]:
        for data in _of_configuration(tree, config):
            found.add(data)
    configured = list(found.all.values())
    for file in redis["files"]:
        path = file["path"].encode("utf-8", "surrogateescape")
        if file["strange_place"] or not is_file(tree, path):
            continue
        if any(path in d.files or path.startswith(_folder(d)) for d in found.all.values()):
            continue
        try:
            for data in _of_directory(tree, path.rpartition(b"/")[0] or b"/"):
                found.add(data)
        except EvidenceError as error:
            notes[path] = error.what
    return _one(configured or list(found.all.values()), tree.where)


def _folder(data: RedisData) -> bytes:
    """What lies beside the data of a configured server is older data of the same."""
    return data.where.rpartition(b"/")[0] + b"/"


def _one(found: list[RedisData], where: str) -> RedisData:
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            "no data of Redis or Valkey there",
            where=where,
            next="redkeep rescue inspect shows what there is; any file may be named: rescue redis SOURCE /PATH",
        )
    told = ", ".join(d.title for d in found[:8]) + (" ..." if len(found) > 8 else "")
    raise UsageError(
        f"data of {len(found)} servers, or of several times", where=where, next=f"name one: {told}"
    )


def _of_configuration(tree: Tree, config: dict[str, Any]) -> Iterator[RedisData]:
    """What this server would have read at its start; with ``appendonly yes`` that is never the RDB file."""
    directory = _encoded(config["dir"])
    if not directory.startswith(b"/"):
        directory = b"/" + _encoded(config["path"]).rpartition(b"/")[0].lstrip(b"/")
    directory = directory.rstrip(b"/")
    rdb = directory + b"/" + _encoded(config["dbfilename"])
    single = directory + b"/" + _encoded(config["appendfilename"])
    several = directory + b"/" + _encoded(config["appenddirname"])
    has_rdb = is_file(tree, rdb)
    logs = list(_manifests(tree, several)) or ([_single(tree, single)] if is_file(tree, single) else [])
    if not logs and is_directory(tree, several):
        logs = list(_without_manifest(tree, several))
    if config["appendonly"] == "yes" and logs:
        beside = (
            (
                f"there is also {text_of(rdb)}, which this server did not read at its start; name it to take that",
            )
            if has_rdb
            else ()
        )
        for data in logs:
            yield RedisData("aof", data.files, data.where, config["path"], (*data.notes, *beside))
    elif has_rdb:
        notes = []
        if config["appendonly"] == "yes":
            notes.append(
                f"{config['path']} says appendonly yes, and there is no append-only file: a server with that setting "
                "starts empty and does not read this RDB file. Start it with appendonly no, then CONFIG SET appendonly yes"
            )
        elif logs:
            notes.append(
                f"there is also {logs[0].title}, which appendonly no leaves unread; name it to take that"
            )
        yield RedisData("rdb", (rdb,), rdb, config["path"], tuple(notes))
    elif logs:
        yield from logs


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _single(tree: Tree, path: bytes) -> RedisData:
    return RedisData("aof", (path,), path)


def _of_directory(tree: Tree, directory: bytes) -> Iterator[RedisData]:
    directory = directory.rstrip(b"/")
    logs = [*_manifests(tree, directory), *_manifests(tree, directory + b"/appendonlydir")]
    if not logs:
        logs = list(_without_manifest(tree, directory))
    parts = {path for data in logs for path in data.files}
    for name in names(tree, directory):
        path = directory + b"/" + name
        if path in parts or _PART.fullmatch(name) or not name.endswith((b".aof", b".rdb")):
            continue
        if is_file(tree, path) and tree.stat(path).size:
            logs.append(named(tree, path))
    yield from logs


def _manifests(tree: Tree, directory: bytes) -> Iterator[RedisData]:
    for name in names(tree, directory):
        if name.endswith(b".manifest") and is_file(tree, directory + b"/" + name):
            yield _of_manifest(tree, directory + b"/" + name)


def _of_manifest(tree: Tree, path: bytes) -> RedisData:
    directory = path.rpartition(b"/")[0]
    base: list[bytes] = []
    more: list[tuple[int, bytes]] = []
    notes = []
    try:
        text = read_text(tree, path, 1 << 20)
    except OSError as error:
        text, notes = "", [f"the manifest cannot be read: {reason(error)}"]
    for line in text.splitlines()[:_MOST_PARTS]:
        match = _LINE.fullmatch(line.strip())
        if match is None:
            notes.append(f"a line of the manifest that is none: {line[:80]}")
            continue
        name = _encoded(match["name"].strip('"'))
        if b"/" in name or name in (b"", b".", b".."):
            notes.append(f"a name in the manifest that leads elsewhere: {line[:80]}")
        elif match["type"] == "b":
            base.append(directory + b"/" + name)
        elif match["type"] == "i":
            more.append((int(match["seq"]), directory + b"/" + name))
    files = [*base[:1], *(name for _, name in sorted(more))]
    missing = [f for f in files if not is_file(tree, f)]
    notes += [f"{text_of(f)} is in the manifest and not on the disk: what was in it is lost" for f in missing]
    files = [f for f in files if f not in missing]
    if not files:
        rest = list(_without_manifest(tree, directory))
        if rest:
            return RedisData("aof", rest[0].files, path, notes=(*notes, *rest[0].notes))
        raise EvidenceError(
            "a manifest without a file that is there",
            where=f"{tree.where}: {text_of(path)}",
            next="name the RDB file, if there is one",
        )
    return RedisData("aof", tuple(files), path, notes=tuple(notes))


def _without_manifest(tree: Tree, directory: bytes) -> Iterator[RedisData]:
    """Parts whose manifest is gone: the newest base, and the increments since."""
    parts = []
    for name in names(tree, directory):
        if match := _PART.fullmatch(name):
            parts.append((int(match["seq"]), match["type"] == b"incr.aof", directory + b"/" + name))
    if not parts:
        return
    bases = sorted(p for p in parts if not p[1])
    increments = sorted(p for p in parts if p[1])
    files = [*(p[2] for p in bases[-1:]), *(p[2] for p in increments)]
    note = "the manifest is missing or of no use; the files were put in the order of their numbers"
    yield RedisData("aof", tuple(files), directory, notes=(note,))
