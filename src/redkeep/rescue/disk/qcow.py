"""qcow2 images, versions 2 and 3, with compressed clusters (deflate) too; nothing of the host is opened for them.

The format is qemu's ``docs/interop/qcow2.txt``. libqcow is not used: it gives some compressed clusters as zeros, without
an error (seen with 20260703 on what ``qemu-img convert -c`` writes).
"""

from __future__ import annotations

import errno
import struct
import sys
import zlib
from array import array
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import EvidenceError, RefusedError

if TYPE_CHECKING:
    from redkeep.rescue.disk.blocks import Blocks

MAGIC = b"QFI\xfb"
_CONVERT = "qemu-img convert -O raw IMAGE disk.raw, and rescue from disk.raw"
#: Incompatible features that reading does not care about: counts of references that were not written, or are wrong.
_HARMLESS = 0b11
_FEATURES = {2: "data in a file of its own", 3: "compression by zstd", 4: "extended L2 entries"}
#: As qemu: more is no image (QCOW_MAX_L1_SIZE).
_MOST_L1 = (32 << 20) // 8
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED, _ZERO = 1 << 62, 1
#: Bytes of tables, and of clusters that were unpacked, that are kept.
_KEPT = 32 << 20


def opened_qcow(below: Blocks, path: Path) -> Blocks:
    """Raises ``RefusedError`` for what is not read here, ``EvidenceError`` for what is damaged."""
    try:
        _refuse(below, path)
        return Qcow(below)
    except OSError as error:
        raise EvidenceError(
            f"a qcow2 image that cannot be read: {error.strerror}",
            where=str(path),
            next="is it complete? qemu-img check IMAGE says more; " + _CONVERT,
        ) from None


def _refuse(below: Blocks, path: Path) -> None:
    head = below.read(0, 112)
    version, name_at, name_size = struct.unpack_from(">IQI", head, 4)
    (encryption,) = struct.unpack_from(">I", head, 32)
    if version not in (2, 3):
        raise RefusedError(f"a qcow image of version {version}", where=str(path), next=_CONVERT)
    if name_at:  # names a file of this host, and was written by who knows whom
        name = below.read(name_at, min(name_size, 1023)).decode("utf-8", "backslashreplace")
        raise RefusedError(
            "a qcow2 image that needs another one below it",
            where=f"{path}, backing file {name}",
            next=f"where you trust it: {_CONVERT}",
        )
    if encryption:
        raise RefusedError("an encrypted qcow2 image", where=str(path), next=f"with its secret: {_CONVERT}")
    features = struct.unpack_from(">Q", head, 72)[0] & ~_HARMLESS if version == 3 else 0
    if features:
        told = ", ".join(_FEATURES.get(bit, f"feature {bit}") for bit in range(64) if features >> bit & 1)
        raise RefusedError(f"a qcow2 image with {told}", where=str(path), next=_CONVERT)


class Qcow:
    """The disk in it. What it does not hold reads as zeros."""

    def __init__(self, below: Blocks) -> None:
        self._below = below
        head = below.read(0, 104)
        (bits,) = struct.unpack_from(">I", head, 20)
        (self.size,) = struct.unpack_from(">Q", head, 24)
        entries, at = struct.unpack_from(">IQ", head, 36)
        if not 9 <= bits <= 21:
            raise OSError(errno.EIO, f"clusters of 2^{bits} bytes")
        self._bits, self._cluster = bits, 1 << bits
        self._per_table = self._cluster // 8
        wanted = -(-self.size // (self._cluster * self._per_table))
        if wanted > entries or wanted > _MOST_L1:
            raise OSError(
                errno.EIO, f"its table is too small for the {self.size} bytes that it says it holds"
            )
        self._tables = _numbers(below.read(at, wanted * 8))
        kept = max(4, _KEPT >> bits)
        self._table = lru_cache(maxsize=kept)(self._read_table)
        self._unpacked = lru_cache(maxsize=kept)(self._unpack)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size:
            raise OSError(errno.EIO, f"outside of a disk of {self.size} bytes")
        pieces: list[bytes] = []
        run_at = run = 0  # what lies one after the other is read at once
        end = offset + length
        while offset < end:
            number, inside = divmod(offset, self._cluster)
            count = min(self._cluster - inside, end - offset)
            entry = self._entry(number)
            at = entry & _OFFSET
            plain = not entry & _COMPRESSED and not entry & _ZERO and at != 0
            if run and not (plain and run_at + run == at + inside):
                pieces.append(self._below.read(run_at, run))
                run = 0
            if plain:
                run_at, run = (run_at, run + count) if run else (at + inside, count)
            elif entry & _COMPRESSED:
                pieces.append(self._unpacked(entry)[inside : inside + count])
            else:
                pieces.append(bytes(count))
            offset += count
        if run:
            pieces.append(self._below.read(run_at, run))
        return b"".join(pieces)

    def _entry(self, number: int) -> int:
        table, index = divmod(number, self._per_table)
        at = self._tables[table] & _OFFSET
        return self._table(at)[index] if at else 0

    def _read_table(self, at: int) -> array[int]:
        return _numbers(self._below.read(at, self._cluster))

    def _unpack(self, entry: int) -> bytes:
        """``entry``: where it begins, and above that how many sectors it goes on behind the one that it begins in."""
        split = 62 - (self._bits - 8)
        at = entry & ((1 << split) - 1)
        sectors = (entry & ~(3 << 62)) >> split
        length = min(
            (sectors + 1) * 512 - at % 512, self._below.size - at
        )  # a file may end before its last sector does
        try:
            found = zlib.decompressobj(-15).decompress(self._below.read(at, max(0, length)), self._cluster)
        except zlib.error as error:
            raise OSError(errno.EIO, f"a compressed cluster that is damaged: {error}") from None
        if len(found) != self._cluster:
            raise OSError(errno.EIO, "a compressed cluster that is damaged: it ends early")
        return found


def _numbers(data: bytes) -> array[int]:
    """Of 64 bits, most significant byte first."""
    found = array("Q", data)
    if sys.byteorder == "little":
        found.byteswap()
    return found
