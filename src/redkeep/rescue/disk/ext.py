"""ext2, ext3 and ext4, read by libfsext; what it does not give (names that are not UTF-8, flags, content within the inode,
and inodes that it gives up on) is read here.

The journal is not replayed: a server that crashed shows what had reached its place. Formats:
https://docs.kernel.org/filesystems/ext4/ ("Directory Entries", "Index Nodes", "Block Group Descriptors", "Inline Data").
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from redkeep.rescue.disk.blocks import BlockFile, Blocks, library
from redkeep.rescue.disk.directory import named_flags
from redkeep.rescue.disk.extinode import RawInode
from redkeep.rescue.disk.inodes import (
    Children,
    ExtentContent,
    InlineContent,
    Piece,
    data_of,
    listed,
    pieces_of,
    stat_of,
    with_stats,
)
from redkeep.rescue.disk.tree import Content, Stat

_IMMUTABLE, _APPEND = 0x10, 0x20
_64BIT, _META_GROUPS = 0x80, 0x10
_RECOVER, _INLINE = 0x4, 0x8000
#: What libfsext does not take, by the superblock's number and bit.
_UNKNOWN = {
    (92, 9): "sparse_super2",
    (92, 10): "fast_commit",
    (92, 11): "stable_inodes",
    (96, 0): "compression",
    (96, 3): "journal_dev",
    (96, 12): "dirdata",
    (96, 14): "large_dir",
}
FEATURES = "it has features that are not known here"


class Ext:
    root = 2

    def __init__(self, blocks: Blocks, device: int) -> None:
        """``device`` tells this file system's inodes from others'. Raises ``OSError`` where it is none."""
        self._blocks, self._device = blocks, device
        self._volume = library("pyfsext").volume()
        head = blocks.read(1024, 1024)
        try:
            self._volume.open_file_object(BlockFile(blocks))
        except OSError as error:
            if "features flags" not in str(error):
                raise
            raise OSError(errno.EOPNOTSUPP, f"{FEATURES}: {_features(head)}") from None
        self._block = 1024 << min(6, int.from_bytes(head[24:28], "little"))
        self._first = int.from_bytes(head[20:24], "little")
        self._per_group = max(1, int.from_bytes(head[40:44], "little"))
        self._inode = int.from_bytes(head[88:90], "little") or 128
        self._features = int.from_bytes(head[96:100], "little")
        self._descriptor = int.from_bytes(head[254:256], "little") if self._features & _64BIT else 32
        self.unclean = bool(self._features & _RECOVER)
        self._inodes = int.from_bytes(head[0:4], "little")
        self._entry = lru_cache(maxsize=4096)(self._entry_of)
        self._listed = lru_cache(maxsize=8)(self._children)

    def _entry_of(self, inode: int) -> Any:
        """libfsext's, or our own where it gives up on the inode's attributes or flags, most of which say nothing to us."""
        try:
            return self._volume.get_file_entry_by_inode(inode)
        except OSError as error:
            told = str(error)
            raw = self._raw_inode(inode) if "attributes" in told or "inode flags" in told else None
            if raw is None:
                raise
            return RawInode(raw, self._blocks, self._block)

    def stat(self, inode: int) -> Stat:
        return stat_of(self._entry(inode), inode, self._device)

    def children(self, inode: int) -> Children:
        return self._listed(inode)

    def _children(self, inode: int) -> Children:
        entry = self._entry(inode)
        if isinstance(entry, RawInode):
            return with_stats(self._raw(inode, entry), self.stat)
        return listed(entry, self._device, lambda: self._raw(inode, entry), self.stat)

    def _raw(self, inode: int, entry: Any) -> Iterator[tuple[bytes, int]]:
        within = self._within(inode)
        if (
            within is not None
        ):  # its parent's number, entries in what is left of 60 bytes, and more in the attribute
            yield from self._entries(within, 4, 60)
            yield from self._entries(within, 60, len(within))
            return
        for _, data in data_of(self._blocks, _pieces(entry)):
            for block in range(0, len(data), self._block):
                yield from self._entries(data, block, min(block + self._block, len(data)))

    @staticmethod
    def _entries(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int]]:
        """Directory blocks are lists of entries, those of an index disguised as empty ones."""
        while at + 8 <= end:
            inode, length, size = struct.unpack_from("<IHB", data, at)
            if length < 8 or at + length > end:
                return
            if inode and size and 8 + size <= length:
                yield data[at + 8 : at + 8 + size], inode
            at += length

    def target(self, inode: int) -> bytes:
        within = self._within(inode)
        if within is not None:
            return within.split(b"\0")[0]
        entry = self._entry(inode)
        if isinstance(entry, RawInode):
            return self.open(inode).read(0, 4096) if entry.target is None else entry.target
        try:
            return str(entry.symbolic_link_target or "").encode()
        except (OSError, ValueError):
            return self.open(inode).read(0, 4096) or self._inline_target(inode)

    def _inline_target(self, inode: int) -> bytes:
        raw = self._raw_inode(inode) or b""
        return raw[40:100].split(b"\0")[0]

    def open(self, inode: int) -> Content:
        entry = self._entry(inode)
        size = int(entry.size)
        within = self._within(inode)
        if within is not None:
            return InlineContent(within[:size], size)
        return ExtentContent(self._blocks, size, _pieces(entry))

    def _within(self, inode: int) -> bytes | None:
        """What lies within the inode, where that is how it is kept: 60 bytes, and the rest in an attribute of it.

        libfsext knows the 60 bytes only, and gives the rest as something else.
        """
        if not self._features & _INLINE:
            return None
        raw = self._raw_inode(inode)
        if raw is None:
            raise OSError(errno.EOPNOTSUPP, "files within inodes, and group descriptors that lie elsewhere")
        return RawInode(raw, self._blocks, self._block).within

    def flags(self, inode: int) -> frozenset[str] | None:
        raw = self._raw_inode(inode)
        if raw is None:
            return None
        (bits,) = struct.unpack_from("<I", raw, 32)
        return named_flags(bits & _IMMUTABLE, bits & _APPEND)

    def _raw_inode(self, inode: int) -> bytes | None:
        """None where the group descriptors lie elsewhere (meta_bg)."""
        if self._features & _META_GROUPS or not 0 < inode <= self._inodes:
            return None
        group, index = divmod(inode - 1, self._per_group)
        at = (self._first + 1) * self._block + group * self._descriptor
        try:
            descriptor = self._blocks.read(at, self._descriptor)
            table = int.from_bytes(descriptor[8:12], "little")
            if self._descriptor >= 64:
                table |= int.from_bytes(descriptor[0x28:0x2C], "little") << 32
            return self._blocks.read(table * self._block + index * self._inode, self._inode)
        except OSError:
            return None


def _pieces(entry: Any) -> list[Piece]:
    return entry.pieces() if isinstance(entry, RawInode) else pieces_of(entry)


def _features(head: bytes) -> str:
    found = [
        name for (at, bit), name in _UNKNOWN.items() if int.from_bytes(head[at : at + 4], "little") >> bit & 1
    ]
    return ", ".join(found) or f"{head[92:104].hex()}"
