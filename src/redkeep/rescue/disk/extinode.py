"""Inodes of ext2, ext3 and ext4 as they lie on the disk, for those that libfsext gives up on.

It takes no inode whose attributes fill their room exactly, or which has a flag that it does not know, such as that of
``chattr +T`` (seen with 20260821), and a file that is left out without a word is worse than none. Formats:
https://docs.kernel.org/filesystems/ext4/ ("Index Nodes", "The Contents of inode.i_block", "Extended Attributes").
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from redkeep.rescue.disk.blocks import Blocks
from redkeep.rescue.disk.inodes import Piece

_INLINE_DATA, _EXTENTS = 0x1000_0000, 0x80000
_ENCODED = {
    0x800: "encrypted, by the file system (fscrypt)",
    0x200: "compressed, by the file system (e2compr)",
}
_ATTRIBUTES = b"\x00\x00\x02\xea"
_NODE = 0xF30A
#: The longest extent that was written; what is longer is preallocated and never written.
_LONGEST = 32768
_MOST_LEVELS = 5
#: Blocks that say where others are: more is a forgery, or beyond what we can hold.
_MOST_TABLES = 1 << 16


class RawInode:
    """The fields by the names that libfsext gives them. Raises ``OSError`` for what is none."""

    def __init__(self, raw: bytes, blocks: Blocks, block: int) -> None:
        self._raw, self._blocks, self._block = raw, blocks, block
        low, high = struct.unpack_from("<I", raw, 4)[0], struct.unpack_from("<I", raw, 108)[0]
        self.file_mode, uid = struct.unpack_from("<HH", raw, 0)
        gid, self.number_of_links = struct.unpack_from("<HH", raw, 24)
        self.owner_identifier = uid | int.from_bytes(raw[120:122], "little") << 16
        self.group_identifier = gid | int.from_bytes(raw[122:124], "little") << 16
        self.size = low | (high << 32 if self.file_mode & 0o170000 == 0o100000 else 0)
        self._modified = struct.unpack_from("<i", raw, 16)[0]
        if not self.file_mode or not self.number_of_links:
            raise OSError(errno.EIO, "an inode that is not in use")

    def get_modification_time_as_integer(self) -> int:
        extra = int.from_bytes(self._raw[136:140], "little") if len(self._raw) >= 140 else 0
        return (int(self._modified) + ((extra & 3) << 32)) * 1_000_000_000

    @property
    def flags(self) -> int:
        return int.from_bytes(self._raw[32:36], "little")

    @property
    def within(self) -> bytes | None:
        """What lies within the inode, where that is how it is kept: 60 bytes, and the rest in an attribute of it."""
        return self._raw[40:100] + self._system_data() if self.flags & _INLINE_DATA else None

    def _system_data(self) -> bytes:
        """The attribute ``system.data``, among those behind the inode's own fields."""
        begin = 128 + int.from_bytes(self._raw[128:130], "little")
        if self._raw[begin : begin + 4] != _ATTRIBUTES:
            return b""
        begin += 4  # values are counted from the first entry on
        at = begin
        while at + 16 <= len(self._raw):
            length, index, value, block, size = struct.unpack_from("<BBHII", self._raw, at)
            if not (length or index):
                break
            if index == 7 and self._raw[at + 16 : at + 16 + length] == b"data" and not block:
                return self._raw[begin + value : begin + value + size]
            at += 16 + (length + 3 & ~3)
        return b""

    @property
    def target(self) -> bytes | None:
        """Of a link, where it stands in place of the addresses of blocks."""
        return self._raw[40 : 40 + self.size] if self.size < 60 and not self.flags & _EXTENTS else None

    def pieces(self) -> list[Piece]:
        for flag, how in _ENCODED.items():
            if self.flags & flag:
                raise OSError(errno.EOPNOTSUPP, f"it is {how}")
        if self.within is not None:
            return []
        self._tables = 0
        if self.flags & _EXTENTS:
            return sorted(self._extents(self._raw[40:100], _MOST_LEVELS))
        return list(self._joined())

    def _below(self, block: int) -> bytes:
        self._tables += 1
        if self._tables > _MOST_TABLES:
            raise OSError(errno.EFBIG, "a file in too many pieces")
        return self._blocks.read(block * self._block, self._block)

    def _extents(self, node: bytes, level: int) -> Iterator[Piece]:
        """A tree whose levels must go down, whatever the disk says."""
        magic, count, _, depth = struct.unpack_from("<HHHH", node, 0)
        if magic != _NODE or depth > level:
            raise OSError(errno.EIO, "a damaged tree of extents")
        for at in range(12, min(12 + 12 * count, len(node) - 11), 12):
            if depth:
                low, high = struct.unpack_from("<IH", node, at + 4)
                yield from self._extents(self._below(low | high << 32), depth - 1)
                continue
            first, length, high, low = struct.unpack_from("<IHHI", node, at)
            if length <= _LONGEST:
                yield first * self._block, (low | high << 32) * self._block, length * self._block

    def _joined(self) -> Iterator[Piece]:
        """Blocks side by side are one piece."""
        found: Piece = (0, 0, 0)
        for number, block in self._mapped():
            at, disk = number * self._block, block * self._block
            if at >= self.size:
                break
            if (found[0] + found[2], found[1] + found[2]) == (at, disk):
                found = (found[0], found[1], found[2] + self._block)
                continue
            if found[2]:
                yield found
            found = (at, disk, self._block)
        if found[2]:
            yield found

    def _mapped(self) -> Iterator[tuple[int, int]]:
        """Twelve blocks, then a table of them, a table of tables, and one of those: numbers in the file and on the disk."""
        pointers = struct.unpack_from("<15I", self._raw, 40)
        yield from ((i, block) for i, block in enumerate(pointers[:12]) if block)
        first, each = 12, self._block // 4
        for level, block in enumerate(pointers[12:], start=1):
            yield from self._table(block, level, first)
            first += each**level

    def _table(self, block: int, level: int, first: int) -> Iterator[tuple[int, int]]:
        if not block:  # a hole
            return
        if not level:
            yield first, block
            return
        each = self._block // 4
        for i, one in enumerate(struct.unpack(f"<{each}I", self._below(block))):
            yield from self._table(one, level - 1, first + i * each ** (level - 1))
