"""What the readers of file systems have in common: inodes by number, and files by their extents on the disk."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from redkeep.rescue.disk.blocks import Blocks
from redkeep.rescue.disk.tree import CHUNK, Content, Stat, kind_of, sane

#: An extent that holds nothing: a hole, or preallocated and never written.
_SPARSE = 1
#: A file in more pieces than this is a forgery, or beyond what we can hold.
_MOST_EXTENTS = 4_000_000

_MOST_ENTRIES = 5_000_000

#: By name: the inode's number, and the inode.
Children = dict[bytes, tuple[int, Stat]]

#: Where data is: offset in the file, offset on the disk, length; in bytes.
Piece = tuple[int, int, int]


class FileSystem(Protocol):
    """One file system, by inode numbers. Methods raise ``OSError`` for what is damaged."""

    root: int

    def stat(self, inode: int) -> Stat: ...

    def children(self, inode: int) -> Children:
        """What a directory holds, itself and its parent left out."""

    def target(self, inode: int) -> bytes: ...

    def open(self, inode: int) -> Content: ...

    def flags(self, inode: int) -> frozenset[str] | None: ...


class ExtentContent:
    """A file by its extents: data is read from the disk straight away, and holes are not read at all."""

    def __init__(self, blocks: Blocks, size: int, pieces: Sequence[Piece]) -> None:
        self._blocks = blocks
        self.size = size
        self._pieces = pieces

    def segments(self) -> Iterator[tuple[int, int]]:
        for at, _, length in self._pieces:
            if at < self.size:
                yield at, min(length, self.size - at)

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        if len(self._pieces) == 1:  # most files, and quick
            at, disk, long = self._pieces[0]
            if at <= offset and offset + length <= at + long:
                return self._blocks.read(disk + offset - at, length)
        found = bytearray(length)
        for at, disk, long in self._pieces:
            begin, end = max(at, offset), min(at + long, offset + length)
            if begin < end:
                found[begin - offset : end - offset] = self._blocks.read(disk + begin - at, end - begin)
        return bytes(found)

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InlineContent(ExtentContent):
    """A small file that lies within its inode."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(_Memory(data), size, [(0, 0, len(data))] if data else [])


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def pieces_of(entry: Any) -> list[Piece]:
    """The pieces of one of libyal's file entries, holes left out."""
    count = entry.number_of_extents
    if count > _MOST_EXTENTS:
        raise OSError(errno.EFBIG, f"a file in {count} pieces")
    found: list[Piece] = []
    at = 0
    for i in range(count):
        disk, length, flags = entry.get_extent(i)
        if not flags & _SPARSE:
            found.append((at, disk, length))
        at += length
    return found


def stat_of(entry: Any, inode: int, device: int) -> Stat:
    """One of libyal's file entries; the device number is ours, for identities."""
    mode = entry.file_mode
    nanoseconds = entry.get_modification_time_as_integer()
    return Stat(
        kind_of(mode),
        mode & 0o7777,
        entry.owner_identifier,
        entry.group_identifier,
        entry.size if mode & 0o170000 == 0o100000 else 0,
        (nanoseconds or 0) // 1_000_000_000,
        entry.number_of_links,
        (device, inode),
    )


def listed(
    entry: Any, device: int, raw: Callable[[], Iterator[tuple[bytes, int]]], stat: Callable[[int], Stat]
) -> Children:
    """What a directory holds. Where the library cannot give a name (one that is not UTF-8), ``raw`` does."""
    found: Children = {}
    count = entry.number_of_sub_file_entries
    if count > _MOST_ENTRIES:
        raise OSError(errno.EFBIG, f"a directory with {count} entries")
    for i in range(count):
        try:
            one = entry.get_sub_file_entry(i)
            if one.name is None:
                raise ValueError("an entry without a name")
            name, inode = one.name.encode(), one.inode_number
            if sane(name):
                found[name] = (inode, stat_of(one, inode, device))
        except (OSError, ValueError):  # such a name, or an inode that is damaged
            return with_stats(raw(), stat)
    return found


def with_stats(entries: Iterator[tuple[bytes, int]], stat: Callable[[int], Stat]) -> Children:
    """By names and numbers of inodes. One whose inode cannot be read is ``unknown``, never left out."""
    found: Children = {}
    for name, inode in entries:
        if not sane(name):
            continue
        if len(found) >= _MOST_ENTRIES:
            raise OSError(errno.EFBIG, f"a directory with more than {_MOST_ENTRIES} entries")
        try:
            found[name] = (inode, stat(inode))
        except (OSError, ValueError):  # this one is damaged, and named as that; the others may be not
            found[name] = (inode, Stat("unknown", 0, 0, 0, 0, 0, 1, (-1, inode)))
    return found


def data_of(blocks: Blocks, pieces: Sequence[Piece]) -> Iterator[tuple[int, bytes]]:
    """The data of a directory, by chunks with their offsets."""
    for at, disk, length in pieces:
        for begin in range(0, length, CHUNK):
            yield at + begin, blocks.read(disk + begin, min(CHUNK, length - begin))
