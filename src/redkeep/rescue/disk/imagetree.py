"""A victim's file systems as one tree: paths are resolved here, so that nothing of this host can be met on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from redkeep.rescue.disk.inodes import FileSystem
from redkeep.rescue.disk.tree import MAX_LINKS, Content, Stat, joined, parts_of

#: Names still to come, of which links can make ever more.
MAX_WAITING = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """An inode, and its file system by number."""

    system: int
    inode: int
    stat: Stat


class ImageTree:
    """``systems[0]`` is the root; ``mounts`` says which others are mounted where, by their canonical paths."""

    def __init__(
        self, where: str, systems: Sequence[FileSystem], mounts: Mapping[bytes, int] | None = None
    ) -> None:
        self.where = where
        self._systems = systems
        self._known: dict[bytes, Place] = {}
        self._over: dict[tuple[int, int], Place] = {}
        self._top = self._root_of(0)
        for path, index in sorted((mounts or {}).items()):
            try:
                place = self._walked(path, follow=True)[0]
            except OSError:  # nowhere to mount it: named among the partitions all the same
                continue
            self._over[(place.system, place.inode)] = self._root_of(index)

    def _root_of(self, system: int) -> Place:
        root = self._systems[system].root
        return Place(system, root, self._systems[system].stat(root))

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Stat]]:
        found = self._place(path)
        children = self._systems[found.system].children(found.inode)
        for name in sorted(children):
            yield name, self._mounted(found.system, *children[name]).stat

    def stat(self, path: bytes, *, follow: bool = True) -> Stat:
        return self._place(path, follow=follow).stat

    def target(self, path: bytes) -> bytes:
        found = self._place(path, follow=False)
        if found.stat.kind != "symlink":
            raise OSError(errno.EINVAL, "not a symbolic link", os.fsdecode(path))
        return self._systems[found.system].target(found.inode)

    def open(self, path: bytes) -> Content:
        found = self._place(path)
        if found.stat.kind != "file":
            raise OSError(errno.EINVAL, f"not a file but a {found.stat.kind}", os.fsdecode(path))
        return self._systems[found.system].open(found.inode)

    def real(self, path: bytes) -> bytes:
        return joined(self._walked(path, follow=True)[1])

    def flags(self, path: bytes) -> frozenset[str] | None:
        try:
            found = self._place(path, follow=False)
        except OSError:
            return None
        return self._systems[found.system].flags(found.inode)

    def _place(self, path: bytes, *, follow: bool = True) -> Place:
        """Directories that were found once are remembered: an image does not change."""
        above, _, name = path.rpartition(b"/")
        if not name or name in (b".", b".."):
            return self._walked(path, follow=follow)[0]
        directory = self._known.get(above)
        if directory is None:
            directory = self._walked(above, follow=True)[0]
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[above] = directory
        found = self._below(directory, name, path)
        if found.stat.kind == "symlink" and follow:
            return self._walked(path, follow=True)[0]
        return found

    def _walked(self, path: bytes, *, follow: bool) -> tuple[Place, list[bytes]]:
        way = [self._top]
        names: list[bytes] = []
        waiting = parts_of(path)[::-1]
        links = 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                if names:
                    names.pop()
                    way.pop()
                continue
            found = self._below(way[-1], name, path)
            if found.stat.kind == "symlink" and (follow or waiting):
                links += 1
                target = self._systems[found.system].target(found.inode)
                if links > MAX_LINKS or len(waiting) > MAX_WAITING or not target:
                    raise OSError(errno.ELOOP, "too many links", os.fsdecode(path))
                if target.startswith(b"/"):
                    del way[1:], names[:]
                waiting += parts_of(target)[::-1]
                continue
            way.append(found)
            names.append(name)
        return way[-1], names

    def _below(self, place: Place, name: bytes, path: bytes) -> Place:
        if place.stat.kind != "directory":
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fsdecode(path))
        found = self._systems[place.system].children(place.inode).get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", os.fsdecode(path))
        return self._mounted(place.system, *found)

    def _mounted(self, system: int, inode: int, stat: Stat) -> Place:
        if self._over and (over := self._over.get((system, inode))) is not None:
            return over
        return Place(system, inode, stat)
