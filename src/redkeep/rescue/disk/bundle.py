"""A bundle: what was taken from a victim's disk, as plain files that nothing can run, and a manifest.

BUNDLE/bundle.json      what it was taken from
BUNDLE/files/...        the files, below their paths there; mode 0600, no links, no devices
BUNDLE/manifest.jsonl   a line for each path, in order: size, mode, owner, time, hash, what it belongs to
BUNDLE/progress.jsonl   while it is made: what is complete already
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redkeep.errors import RefusedError
from redkeep.rescue.disk.tree import parts_of, text_of

FORMAT = "redkeep rescue bundle"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Item:
    """One path of a manifest. ``hash`` as ``digest`` makes it, ``target`` of a link, ``problem`` where it is not here."""

    path: bytes
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    hash: str = ""
    target: str = ""
    problem: str = ""
    belongs: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"path": text_of(self.path)}
        if document["path"].encode() != self.path:
            document["path_base64"] = base64.b64encode(self.path).decode()
        document |= {"kind": self.kind, "size": self.size, "mode": f"{self.mode:04o}"}
        document |= {"uid": self.uid, "gid": self.gid, "mtime": self.mtime}
        for key in ("hash", "target", "problem"):
            if value := getattr(self, key):
                document[key] = value
        return document | {"belongs": list(self.belongs)}


def item_from(document: Mapping[str, Any]) -> Item:
    """Raises ``KeyError`` and ``ValueError`` for what is none."""
    raw = document.get("path_base64")
    return Item(
        base64.b64decode(raw) if raw else str(document["path"]).encode(),
        str(document["kind"]),
        int(document["size"]),
        int(document["mode"], 8),
        int(document["uid"]),
        int(document["gid"]),
        int(document["mtime"]),
        str(document.get("hash", "")),
        str(document.get("target", "")),
        str(document.get("problem", "")),
        tuple(document.get("belongs", ())),
    )


class Bundle:
    """``identity`` says of which evidence it is one; a bundle of another is never added to."""

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory = directory
        self.files = directory / "files"
        self._identity = {"format": FORMAT, "version": VERSION, **identity}

    def begin(self) -> dict[bytes, Item]:
        """Makes it where it is not there; returns what is complete in it already. Raises ``RefusedError``."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = self.directory / "bundle.json"
        if not mark.exists():
            if any(p.name != "bundle.json.new" for p in self.directory.iterdir()):
                raise RefusedError(
                    "the bundle's directory is not empty, and no bundle",
                    where=str(self.directory),
                    next="name a new directory, or an empty one",
                )
            _replace(mark, json.dumps(self._identity, indent=1) + "\n")
        if _document(mark) != self._identity:
            raise RefusedError(
                "a bundle of another disk, or of another version of this one",
                where=str(self.directory),
                next="name a new directory",
            )
        self.files.mkdir(mode=0o700, exist_ok=True)
        done = {item.path: item for item in _items(self.directory / "manifest.jsonl")}
        return done | {item.path: item for item in _items(self.directory / "progress.jsonl")}

    def progress(self) -> Journal:
        return Journal(self.directory / "progress.jsonl")

    def finish(self, items: Mapping[bytes, Item]) -> Path:
        """Writes the manifest; what was progress is not needed any more."""
        manifest = self.directory / "manifest.jsonl"
        lines = [json.dumps(items[path].as_json()) for path in sorted(items)]
        _replace(manifest, "".join(line + "\n" for line in lines))
        (self.directory / "progress.jsonl").unlink(missing_ok=True)
        return manifest


class Journal:
    """Lines of what is complete. A kill loses the last few, whose files are then made again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="ascii", buffering=1 << 16)
        self._file.write("\n")  # ends a line that a kill cut

    def add(self, item: Item) -> None:
        self._file.write(json.dumps(item.as_json()) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Writer:
    """Makes files below a directory by names, never through a link. Keeps the last directory open: files come together."""

    def __init__(self, top: Path) -> None:
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: tuple[bytes, int] = (b"", os.dup(self._top))

    def create(self, path: bytes) -> int:
        """An empty file there, replacing one that was cut short; its descriptor, for writing and reading."""
        directory, _, name = path.rpartition(b"/")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self.directory(directory))

    def reopen(self, path: bytes) -> int:
        directory, _, name = path.rpartition(b"/")
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory(directory))

    def directory(self, path: bytes) -> int:
        """Its descriptor, for the next call only; made where it is not there."""
        if self._open[0] == path:
            return self._open[1]
        at = os.dup(self._top)
        try:
            for name in parts_of(path):
                try:
                    below = _directory_at(name, at)
                except FileNotFoundError:
                    os.mkdir(name, 0o700, dir_fd=at)
                    below = _directory_at(name, at)
                os.close(at)
                at = below
        except BaseException:
            os.close(at)
            raise
        os.close(self._open[1])
        self._open = (path, at)
        return at

    def close(self) -> None:
        os.close(self._open[1])
        os.close(self._top)


def _directory_at(name: bytes, at: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)


def _items(path: Path) -> Iterator[Item]:
    """The lines that are whole."""
    try:
        file = path.open(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                yield item_from(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
