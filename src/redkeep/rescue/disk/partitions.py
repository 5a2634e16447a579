"""Partition tables, and what is in a partition by its magic numbers. Reads a few sectors, trusts no number in them.

MBR with logical partitions, and GPT (UEFI 2.10, section 5.3). Magic numbers as libblkid and file(1) know them.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from redkeep.rescue.disk.blocks import Blocks

_EXTENDED = {0x05, 0x0F, 0x85}
_MOST = 256


@dataclass(frozen=True, slots=True)
class Part:
    """``number`` as Linux counts it (``vda3``), ``begin`` and ``size`` in bytes; ``missing`` lie beyond the disk's end."""

    number: int
    begin: int
    size: int
    table: str
    label: str = ""
    missing: int = 0


def parts(disk: Blocks) -> list[Part]:
    """The partitions inside the disk; none where it has no table. A part that leaves the disk is cut at its end."""
    for sector in (512, 4096):
        found = list(_gpt(disk, sector))
        if found:
            return found
    return list(_mbr(disk))


def _gpt(disk: Blocks, sector: int) -> Iterator[Part]:
    head = _read(disk, sector, 512)
    if head[:8] != b"EFI PART":
        return
    (entries,) = struct.unpack_from("<Q", head, 72)
    count, each = struct.unpack_from("<II", head, 80)
    if not 128 <= each <= 4096:
        return
    for i in range(min(count, _MOST)):
        entry = _read(disk, entries * sector + i * each, 128)
        if entry[:16].strip(b"\0"):
            first, last = struct.unpack_from("<QQ", entry, 32)
            label = entry[56:128].decode("utf-16-le", "replace").split("\0")[0]
            yield from _within(disk, i + 1, first * sector, (last + 1 - first) * sector, "gpt", label)


def _mbr(disk: Blocks) -> Iterator[Part]:
    head = _read(disk, 0, 512)
    if head[510:] != b"\x55\xaa":
        return
    logical = 5
    for i, (status, kind, first, count) in enumerate(_entries(head)):
        if status not in (0, 0x80):  # the boot sector of a file system, not a table
            return
        if kind in _EXTENDED:
            for begin, size in _logical(disk, first):
                yield from _within(disk, logical, begin * 512, size * 512, "mbr")
                logical += 1
        elif kind and count:
            yield from _within(disk, i + 1, first * 512, count * 512, "mbr")


def _entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    found = []
    for at in range(446, 510, 16):
        first, count = struct.unpack_from("<II", sector, at + 8)
        found.append((sector[at], sector[at + 4], first, count))
    return found


def _logical(disk: Blocks, extended: int) -> Iterator[tuple[int, int]]:
    """The chain of extended boot records, which may be forged into a circle."""
    at, seen = extended, set[int]()
    while at not in seen and len(seen) < _MOST:
        seen.add(at)
        head = _read(disk, at * 512, 512)
        if head[510:] != b"\x55\xaa":
            return
        (_, kind, first, count), (_, next_kind, next_first, _), *_ = _entries(head)
        if kind and count:
            yield at + first, count
        if next_kind not in _EXTENDED:
            return
        at = extended + next_first


def _within(disk: Blocks, number: int, begin: int, size: int, table: str, label: str = "") -> Iterator[Part]:
    if 0 < begin < disk.size and size > 0:
        there = min(size, disk.size - begin)
        yield Part(number, begin, there, table, label, size - there)


def _read(disk: Blocks, offset: int, length: int) -> bytes:
    """Zeros where the disk has nothing."""
    if offset < 0 or offset >= disk.size:
        return bytes(length)
    try:
        return disk.read(offset, min(length, disk.size - offset)).ljust(length, b"\0")
    except OSError:
        return bytes(length)


@dataclass(frozen=True, slots=True)
class Inside:
    """``kind``: ``ext4``, ``xfs``, ``lvm``, ``swap``, ``ntfs``, ...; empty where nothing is recognized."""

    kind: str
    label: str = ""
    uuid: str = ""


#: Offset, magic, kind. Order matters: what wraps others comes first.
_MAGIC = (
    (0, b"LUKS\xba\xbe", "luks"),
    (4096, b"\xfc\x4e\x2b\xa9", "raid"),
    (4086, b"SWAPSPACE2", "swap"),
    (4086, b"SWAP-SPACE", "swap"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (65600, b"_BHRfS_M", "btrfs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (0, b"hsqs", "squashfs"),
    (82, b"FAT32   ", "fat"),
    (54, b"FAT1", "fat"),
    (32769, b"CD001", "iso9660"),
)


def inside(part: Blocks) -> Inside:
    """What a partition or a whole disk holds."""
    for at, magic, kind in _MAGIC:
        if _read(part, at, len(magic)) == magic:
            return Inside(kind)
    if any(_read(part, at, 8) == b"LABELONE" for at in range(0, 2048, 512)):
        return Inside("lvm")
    head = _read(part, 0, 512)
    if head[:4] == b"XFSB":
        return Inside("xfs", _text(head[108:120]), str(uuid.UUID(bytes=head[32:48])))
    head = _read(part, 1024, 1024)
    if head[56:58] == b"\x53\xef":
        return Inside(_ext(head), _text(head[120:136]), str(uuid.UUID(bytes=head[104:120])))
    return Inside("")


def _ext(head: bytes) -> str:
    compatible, incompatible = struct.unpack_from("<II", head, 92)
    if incompatible & 0x40:  # extents
        return "ext4"
    return "ext3" if compatible & 0x4 else "ext2"  # with or without a journal


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "backslashreplace")
