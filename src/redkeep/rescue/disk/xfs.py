"""XFS, versions 4 and 5. libfsxfs reads directories and inodes; extents, names that are not UTF-8, links and flags are
read here.

The log is not replayed; whether it holds something is read in ``xfslog.py``. Formats: "XFS Algorithms & Data Structures",
chapters "On-disk Inode", "Directories" and "Symbolic Links" (https://kernel.org/pub/linux/utils/fs/xfs/docs/).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from redkeep.rescue.disk.blocks import BlockFile, Blocks, library
from redkeep.rescue.disk.directory import named_flags
from redkeep.rescue.disk.inodes import (
    Children,
    ExtentContent,
    InlineContent,
    Piece,
    data_of,
    listed,
    stat_of,
    with_stats,
)
from redkeep.rescue.disk.tree import Content, Stat
from redkeep.rescue.disk.xfslog import is_clean

_LOCAL, _EXTENTS, _TREE = 1, 2, 3
_MOST_LEVELS = 9
_IMMUTABLE, _APPEND = 0x08, 0x10
#: Directory data ends here; behind it are its indexes.
_DIRECTORY_DATA = 1 << 35


class RawInode:
    """The fields by the names that libfsxfs gives them, for inodes that it gives up on: it takes no file in so many pieces
    that their tree has three levels (seen with 20260901). Raises ``OSError`` for what is none."""

    def __init__(self, raw: bytes, inode: int) -> None:
        version = raw[4]
        self.file_mode = int.from_bytes(raw[2:4], "big")
        self.owner_identifier, self.group_identifier = struct.unpack_from(">II", raw, 8)
        self.number_of_links = int.from_bytes(raw[6:8] if version == 1 else raw[16:20], "big")
        self.size = int.from_bytes(raw[56:64], "big")
        self._modified = raw[40:48]
        self._big_time = version == 3 and bool(raw[127] & 0x08)
        if raw[:2] != b"IN" or not self.file_mode or not self.number_of_links:
            raise OSError(errno.EIO, "an inode that is not in use")
        if version == 3 and int.from_bytes(raw[152:160], "big") != inode:
            raise OSError(errno.EIO, "an inode that says it is another")

    def get_modification_time_as_integer(self) -> int:
        if self._big_time:
            return int.from_bytes(self._modified, "big") - (1 << 31) * 1_000_000_000
        return int.from_bytes(self._modified[:4], "big", signed=True) * 1_000_000_000


class Xfs:
    def __init__(self, blocks: Blocks, device: int) -> None:
        """``device`` tells this file system's inodes from others'. Raises ``OSError`` where it is none."""
        self._blocks, self._device = blocks, device
        self._volume = library("pyfsxfs").volume()
        self._volume.open_file_object(BlockFile(blocks))
        head = blocks.read(0, 512)
        (self._block,) = struct.unpack_from(">I", head, 4)
        (self.root,) = struct.unpack_from(">Q", head, 56)
        (self._group_blocks,) = struct.unpack_from(">I", head, 84)
        version, _, self._inode = struct.unpack_from(">HHH", head, 100)
        self._version = version & 0xF
        self._per_block_log, self._group_log = head[123], head[124]
        self._directory_block = self._block << min(head[192], 6)
        features, incompatible = (
            struct.unpack_from(">I", head, 200)[0],
            struct.unpack_from(">I", head, 216)[0],
        )
        self._types = bool(incompatible & 1) if self._version == 5 else bool(features & 0x200)
        self._long_counts = self._version == 5 and bool(incompatible & 0x20)
        (log,), (log_blocks,) = struct.unpack_from(">Q", head, 48), struct.unpack_from(">I", head, 96)
        self.unclean = not is_clean(blocks, self._byte(log) if log else 0, log_blocks * self._block)
        self._entry = lru_cache(maxsize=4096)(self._entry_of)
        self._listed = lru_cache(maxsize=8)(self._children)

    def _entry_of(self, inode: int) -> Any:
        """libfsxfs's, or our own."""
        try:
            return self._volume.get_file_entry_by_inode(inode)
        except OSError:
            return RawInode(self._raw_inode(inode), inode)

    def stat(self, inode: int) -> Stat:
        return stat_of(self._entry(inode), inode, self._device)

    def children(self, inode: int) -> Children:
        return self._listed(inode)

    def _children(self, inode: int) -> Children:
        entry = self._entry(inode)
        if isinstance(entry, RawInode):
            return with_stats(self._raw(inode), self.stat)
        return listed(entry, self._device, lambda: self._raw(inode), self.stat)

    def _raw(self, inode: int) -> Iterator[tuple[bytes, int]]:
        raw = self._raw_inode(inode)
        if raw[5] == _LOCAL:
            return self._short(self._local(raw))
        return self._long(inode)

    def _short(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """A directory within its inode: count, count of long numbers, parent, entries."""
        count, wide = data[0] or data[1], 8 if data[1] else 4
        at = 2 + wide
        for _ in range(count):
            if at + 3 > len(data):
                return
            size = data[at]
            number = at + 3 + size + (1 if self._types else 0)
            yield data[at + 3 : at + 3 + size], int.from_bytes(data[number : number + wide], "big")
            at = number + wide

    def _long(self, inode: int) -> Iterator[tuple[bytes, int]]:
        pieces = [p for p in self._pieces(self._raw_inode(inode)) if p[0] < _DIRECTORY_DATA]
        size, waiting = self._directory_block, b""
        for _, data in data_of(self._blocks, pieces):
            waiting += data
            while len(waiting) >= size:
                yield from self._entries(waiting[:size])
                waiting = waiting[size:]

    def _entries(self, block: bytes) -> Iterator[tuple[bytes, int]]:
        magic, end = block[:4], len(block)
        if magic not in (b"XD2B", b"XD2D", b"XDB3", b"XDD3"):
            return
        at = 16 if magic[3:] in (b"B", b"D") else 64
        if magic in (b"XD2B", b"XDB3"):  # the only block: its index is at the end
            end -= 8 + 8 * min(int.from_bytes(block[-8:-4], "big"), end // 8)
        while at + 12 <= end:
            if block[at : at + 2] == b"\xff\xff":
                length = int.from_bytes(block[at + 2 : at + 4], "big")
            else:
                number, size = struct.unpack_from(">QB", block, at)
                yield block[at + 9 : at + 9 + size], number
                length = (9 + size + (1 if self._types else 0) + 2 + 7) & ~7
            if length < 8:
                return
            at += length

    def target(self, inode: int) -> bytes:
        """At most 1024 bytes, in the inode or in a block of its own, which has a header in version 5."""
        raw = self._raw_inode(inode)
        size = min(int.from_bytes(raw[56:64], "big"), 1024)
        if raw[5] == _LOCAL:
            return self._local(raw)[:size]
        found = b""
        for _, data in data_of(self._blocks, self._pieces(raw)):
            for block in range(0, len(data), self._block):
                one = data[block : block + self._block]
                found += one[56:] if one[:4] == b"XSLM" else one
        return found[:size]

    def open(self, inode: int) -> Content:
        raw = self._raw_inode(inode)
        size = int.from_bytes(raw[56:64], "big")
        if raw[5] == _LOCAL:
            return InlineContent(self._local(raw)[:size], size)
        return ExtentContent(self._blocks, size, self._pieces(raw))

    def _pieces(self, raw: bytes) -> list[Piece]:
        """Where a file's data is. libfsxfs gives block numbers here that still have their allocation group in them."""
        if raw[5] == _EXTENTS:
            count = int.from_bytes(raw[24:32] if self._long_counts else raw[76:80], "big")
            fork = self._local(raw)
            return self._records(fork, min(count, len(fork) // 16))
        if raw[5] == _TREE:
            return sorted(self._tree(self._local(raw), 4, root=True, level=_MOST_LEVELS))
        return []

    def _records(self, data: bytes, count: int, begin: int = 0) -> list[Piece]:
        found = []
        for at in range(begin, min(begin + 16 * count, len(data) - 15), 16):
            high, low = struct.unpack_from(">QQ", data, at)
            if high >> 63:  # preallocated, never written
                continue
            first = ((high & 0x1FF) << 43) | (low >> 21)
            offset = (high & ~(1 << 63)) >> 9
            found.append((offset * self._block, self._byte(first), (low & 0x1FFFFF) * self._block))
        return found

    def _tree(self, node: bytes, begin: int, *, root: bool, level: int) -> Iterator[Piece]:
        """A B+tree of extents; levels must go down, whatever the disk says."""
        at = 0 if root else 4
        height, count = struct.unpack_from(">HH", node, at)
        if height == 0 and not root:
            yield from self._records(node, count, begin)
            return
        if height >= level:
            raise OSError(errno.EIO, "a damaged tree of extents")
        most = (len(node) - begin) // 16
        for i in range(min(count, most)):
            (pointer,) = struct.unpack_from(">Q", node, begin + most * 8 + i * 8)
            below = self._blocks.read(self._byte(pointer), self._block)
            if below[:4] not in (b"BMAP", b"BMA3"):
                raise OSError(errno.EIO, "a damaged tree of extents")
            yield from self._tree(below, 72 if below[:4] == b"BMA3" else 24, root=False, level=height)

    def _byte(self, block: int) -> int:
        """Blocks are numbered by allocation group."""
        group, rest = block >> self._group_log, block & ((1 << self._group_log) - 1)
        return int((group * self._group_blocks + rest) * self._block)

    def flags(self, inode: int) -> frozenset[str] | None:
        try:
            (bits,) = struct.unpack_from(">H", self._raw_inode(inode), 90)
        except OSError:
            return None
        return named_flags(bits & _IMMUTABLE, bits & _APPEND)

    def _raw_inode(self, inode: int) -> bytes:
        in_group = self._group_log + self._per_block_log
        group, rest = inode >> in_group, inode & ((1 << in_group) - 1)
        block, index = rest >> self._per_block_log, rest & ((1 << self._per_block_log) - 1)
        at = (group * self._group_blocks + block) * self._block + index * self._inode
        return self._blocks.read(at, self._inode)

    def _local(self, raw: bytes) -> bytes:
        """The data fork within the inode: behind the core, up to the attributes."""
        begin = 176 if raw[4] >= 3 else 100
        fork = raw[82]
        return raw[begin : begin + fork * 8] if fork else raw[begin:]
