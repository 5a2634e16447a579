"""A bundle read as the disk that it was taken from: links, modes, owners and times are those of its manifest.

``extract`` writes no links, since they would lead into this host; without them ``sites-enabled`` of an nginx is empty.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

from redkeep.errors import EvidenceError
from redkeep.rescue.disk.bundle import FORMAT, Item, item_from
from redkeep.rescue.disk.directory import DirectoryTree
from redkeep.rescue.disk.imagetree import ImageTree
from redkeep.rescue.disk.inodes import Children
from redkeep.rescue.disk.tree import Content, Stat, kind_of, parts_of

#: What a bundle's directory may hold. A victim's root that pretends to be one has other things beside.
_NAMES = {"bundle.json", "bundle.json.new", "manifest.jsonl", "manifest.jsonl.new", "progress.jsonl", "files"}
_LONGEST_MARK = 1 << 20
_MODES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


def is_bundle(where: Path) -> bool:
    """Whether the directory was made by ``extract``, and holds nothing else. Links are not followed."""
    try:
        names = {entry.name for entry in os.scandir(where)}
        if not {"bundle.json", "files"} <= names <= _NAMES:
            return False
        if not stat.S_ISDIR((where / "files").lstat().st_mode):
            return False
        mark = (where / "bundle.json").lstat()
        if not stat.S_ISREG(mark.st_mode) or mark.st_size > _LONGEST_MARK:
            return False
        document = json.loads((where / "bundle.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


class BundleTree(ImageTree):
    """Raises ``EvidenceError`` where the bundle was never finished."""

    def __init__(self, where: Path) -> None:
        self._files = DirectoryTree(where / "files", where=str(where))
        try:
            super().__init__(str(where), [_System(where, self._files)])
        except BaseException:
            self._files.close()
            raise

    def close(self) -> None:
        self._files.close()


class _System:
    """The manifest as inodes: one for each path, numbered as they come."""

    root = 0

    def __init__(self, where: Path, files: DirectoryTree) -> None:
        self._files = files
        self._paths: list[bytes] = [b""]
        self._stats: list[Stat] = [_stat(0, stat.S_IFDIR | 0o755)]
        self._below: dict[int, Children] = {0: {}}
        self._targets: dict[int, bytes] = {}
        try:
            with (where / "manifest.jsonl").open(encoding="ascii") as lines:
                for line in lines:
                    self._add(item_from(json.loads(line)))
        except FileNotFoundError:
            raise EvidenceError(
                "the bundle was never finished", where=str(where), next="run redkeep rescue extract once more"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvidenceError(
                f"its manifest cannot be read: {type(error).__name__}",
                where=str(where / "manifest.jsonl"),
                next="run redkeep rescue extract once more",
            ) from None

    def _add(self, item: Item) -> None:
        parts = parts_of(item.path)
        if not parts or b".." in parts or item.problem or item.kind not in _MODES:
            return
        above = self._directory(parts[:-1])
        if above is None or parts[-1] in self._below[above]:
            return
        number = self._new(above, parts[-1], item)
        if item.kind == "directory":
            self._below[number] = {}
        elif item.kind == "symlink":
            self._targets[number] = os.fsencode(item.target)

    def _directory(self, parts: list[bytes]) -> int | None:
        """Its number; made where the manifest names only what is below it. ``None`` where it is no directory."""
        at = 0
        for name in parts:
            found = self._below[at].get(name)
            if found is None:
                number = self._new(at, name, Item(b"", "directory", 0, 0o755, 0, 0, 0))
                self._below[number] = {}
            else:
                number = found[0]
            if number not in self._below:
                return None
            at = number
        return at

    def _new(self, above: int, name: bytes, item: Item) -> int:
        number = len(self._paths)
        self._paths.append(self._paths[above] + b"/" + name)
        found = _stat(number, _MODES[item.kind] | item.mode & 0o7777, item)
        self._stats.append(found)
        self._below[above][name] = (number, found)
        return number

    def stat(self, inode: int) -> Stat:
        return self._stats[inode]

    def children(self, inode: int) -> Children:
        if inode not in self._below:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fsdecode(self._paths[inode]))
        return self._below[inode]

    def target(self, inode: int) -> bytes:
        return self._targets[inode]

    def open(self, inode: int) -> Content:
        """What lies in the bundle; where it was changed since, that is what is read."""
        return self._files.open(self._paths[inode])

    def flags(self, inode: int) -> frozenset[str] | None:
        return None


def _stat(number: int, mode: int, item: Item | None = None) -> Stat:
    size, uid, gid, mtime = (item.size, item.uid, item.gid, item.mtime) if item else (0, 0, 0, 0)
    return Stat(kind_of(mode), mode & 0o7777, uid, gid, size, mtime, 1, (0, number))
