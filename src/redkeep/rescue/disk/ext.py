"""ext2, ext3 and ext4, read by libfsext; what it does not give (names that are not UTF-8, flags) is read here.

The journal is not replayed: a server that crashed shows what had reached its place. Formats:
https://docs.kernel.org/filesystems/ext4/ ("Directory Entries", "Index Nodes", "Block Group Descriptors").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache

from redkeep.rescue.disk.blocks import BlockFile, Blocks, library
from redkeep.rescue.disk.directory import named_flags
from redkeep.rescue.disk.inodes import (
    Children,
    ExtentContent,
    InlineContent,
    data_of,
    listed,
    pieces_of,
    stat_of,
)
from redkeep.rescue.disk.tree import Content, Stat

_IMMUTABLE, _APPEND = 0x10, 0x20
_64BIT, _META_GROUPS = 0x80, 0x10
_RECOVER = 0x4


class Ext:
    root = 2

    def __init__(self, blocks: Blocks, device: int) -> None:
        """``device`` tells this file system's inodes from others'. Raises ``OSError`` where it is none."""
        self._blocks, self._device = blocks, device
        self._volume = library("pyfsext").volume()
        self._volume.open_file_object(BlockFile(blocks))
        head = blocks.read(1024, 1024)
        self._block = 1024 << min(6, int.from_bytes(head[24:28], "little"))
        self._first = int.from_bytes(head[20:24], "little")
        self._per_group = max(1, int.from_bytes(head[40:44], "little"))
        self._inode = int.from_bytes(head[88:90], "little") or 128
        self._features = int.from_bytes(head[96:100], "little")
        self._descriptor = int.from_bytes(head[254:256], "little") if self._features & _64BIT else 32
        self.unclean = bool(self._features & _RECOVER)
        self._entry = lru_cache(maxsize=4096)(self._volume.get_file_entry_by_inode)
        self._listed = lru_cache(maxsize=8)(self._children)

    def stat(self, inode: int) -> Stat:
        return stat_of(self._entry(inode), inode, self._device)

    def children(self, inode: int) -> Children:
        return self._listed(inode)

    def _children(self, inode: int) -> Children:
        entry = self._entry(inode)
        return listed(entry, self._device, lambda: self._raw(pieces_of(entry)), self.stat)

    def _raw(self, pieces: list[tuple[int, int, int]]) -> Iterator[tuple[bytes, int]]:
        """Directory blocks are lists of entries, those of an index disguised as empty ones."""
        for _, data in data_of(self._blocks, pieces):
            for block in range(0, len(data), self._block):
                at, end = block, min(block + self._block, len(data))
                while at + 8 <= end:
                    inode, length, size = struct.unpack_from("<IHB", data, at)
                    if length < 8 or at + length > end:
                        break
                    if inode and size and 8 + size <= length:
                        yield data[at + 8 : at + 8 + size], inode
                    at += length

    def target(self, inode: int) -> bytes:
        entry = self._entry(inode)
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
        pieces = pieces_of(entry)
        if size and not pieces and size <= self._block:  # within the inode
            try:
                return InlineContent(entry.read_buffer_at_offset(size, 0) or b"", size)
            except OSError:
                pass
        return ExtentContent(self._blocks, size, pieces)

    def flags(self, inode: int) -> frozenset[str] | None:
        raw = self._raw_inode(inode)
        if raw is None:
            return None
        (bits,) = struct.unpack_from("<I", raw, 32)
        return named_flags(bits & _IMMUTABLE, bits & _APPEND)

    def _raw_inode(self, inode: int) -> bytes | None:
        """None where the group descriptors lie elsewhere (meta_bg)."""
        if self._features & _META_GROUPS:
            return None
        group, index = divmod(inode - 1, self._per_group)
        at = (self._first + 1) * self._block + group * self._descriptor
        try:
            descriptor = self._blocks.read(at, self._descriptor)
            table = int.from_bytes(descriptor[8:12], "little")
            if self._descriptor >= 64:
                table |= int.from_bytes(descriptor[0x28:0x2C], "little") << 32
            return self._blocks.read(table * self._block + index * self._inode, 128)
        except OSError:
            return None
