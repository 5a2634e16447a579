"""Bytes of a disk by offset: a device or a raw image, a qcow2 image, a part of one of these. Opened for reading only."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from redkeep.errors import EvidenceError, RedkeepError, RefusedError, UsageError
from redkeep.rescue.disk.qcow import MAGIC, opened_qcow


class Blocks(Protocol):
    """``size`` in bytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes. ``OSError`` (EIO) where the disk ends before, or cannot be read."""


class RawBlocks:
    """A device, or a file that holds a disk as it is."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        found = os.pread(self._fd, length, offset)
        while len(found) < length:
            more = os.pread(self._fd, length - len(found), offset + len(found))
            if not more:
                raise OSError(errno.EIO, f"the disk ends at {self.size}, before {offset + length}")
            found += more
        return found


class Slice:
    """A part of a disk, such as a partition."""

    def __init__(self, below: Blocks, begin: int, size: int) -> None:
        self._below, self._begin = below, begin
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size:
            raise OSError(errno.EIO, f"outside of a part of {self.size} bytes")
        return self._below.read(self._begin + offset, length)


class ReadBlocks:
    """A volume that a library reads for us: ``read_at(length, offset)``."""

    def __init__(self, read_at: Callable[[int, int], bytes], size: int) -> None:
        self._read_at = read_at
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        found = b""
        while len(found) < length:
            more = self._read_at(length - len(found), offset + len(found))
            if not more:
                raise OSError(errno.EIO, f"the volume ends before {offset + length}")
            found += more
        return found


class BlockFile(io.RawIOBase):
    """Blocks as the libraries want them: a file with a position."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self._blocks = blocks
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._blocks.size - self._at)
        found = self._blocks.read(self._at, left if size < 0 else min(size, left))
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._blocks.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def get_size(self) -> int:
        return self._blocks.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def open_blocks(path: Path, stack: ExitStack) -> tuple[Blocks, str]:
    """The disk in a device or image, and its format's name. Raises ``UsageError``, ``RefusedError``, ``EvidenceError``."""
    descriptor = _open(path)
    stack.callback(os.close, descriptor)
    raw = RawBlocks(descriptor)
    if raw.size < 4096:
        raise UsageError(
            f"not a disk: {raw.size} bytes",
            where=str(path),
            next="name a disk image, a device or a directory",
        )
    try:
        head = raw.read(0, 4096)
    except OSError as error:
        raise EvidenceError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            next="take a copy with ddrescue, and rescue from that",
        ) from None
    refuse_wrappings(head, raw, path)
    if head[:4] == MAGIC:
        return opened_qcow(raw, path), "qcow2"
    return raw, "raw"


def _open(path: Path) -> int:
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise UsageError(
                "neither a directory, a block device nor a disk image",
                where=str(path),
                next="name one of these",
            )
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), next="lsblk -f lists this host's disks") from None
    except PermissionError:
        raise UsageError(
            "no permission to read it", where=str(path), next="disks are root's: sudo redkeep rescue ..."
        ) from None
    except OSError as error:
        raise EvidenceError(
            f"cannot be opened: {error.strerror}", where=str(path), next="is the disk attached, and alive?"
        ) from None


#: Beginnings of what wraps a disk, and how to unwrap it.
_WRAPPED = (
    (b"KDMV", "a VMDK image", "qemu-img convert -O raw IMAGE disk.raw, and rescue from disk.raw"),
    (b"vhdxfile", "a VHDX image", "qemu-img convert -O raw IMAGE disk.raw, and rescue from disk.raw"),
    (b"conectix", "a VHD image", "qemu-img convert -f vpc -O raw IMAGE disk.raw, and rescue from disk.raw"),
    (b"<<< ", "a VDI image", "qemu-img convert -O raw IMAGE disk.raw, and rescue from disk.raw"),
    (b"Withou", "a Parallels image", "qemu-img convert -O raw IMAGE disk.raw, and rescue from disk.raw"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file", "unpack it first: 7z x IMAGE"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unpack it first: lz4 -d IMAGE"),
    (b"\x1f\x8b", "a gzip file", "unpack it first: gunzip -k IMAGE"),
    (b"\xfd7zXZ", "an xz file", "unpack it first: xz -dk IMAGE"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first: zstd -d IMAGE"),
    (b"PK\x03\x04", "a zip file", "unpack it first: unzip IMAGE"),
    (b"BZh", "a bzip2 file", "unpack it first: bunzip2 -k IMAGE"),
)


def refuse_wrappings(head: bytes, raw: Blocks, path: Path) -> None:
    for magic, what, hint in _WRAPPED:
        if head.startswith(magic):
            raise RefusedError(f"{what}, not a disk itself", where=str(path), next=hint)
    if head[257:262] == b"ustar":
        hint = (
            "as root: mkdir -m 700 victim; tar -xf ARCHIVE --numeric-owner -C victim, and name the directory"
        )
        raise RefusedError("a tar file, not a disk itself", where=str(path), next=hint)
    if raw.read(raw.size - 512, 8) == b"conectix":  # a fixed VHD is a raw disk with a footer
        raise RefusedError("a VHD image, not a disk itself", where=str(path), next=_WRAPPED[2][2])


def library(name: str) -> Any:
    """One of libyal's readers, or an error that says how to install them."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise RedkeepError(
            "the readers for disks and images are not installed",
            where=f"Python module {name}",
            next="pip install 'redkeep[rescue]', or mount the disk read-only and name the directory",
        ) from None


def first_line(error: OSError) -> str:
    """The cause in a library's error, which is a chain ``function: what. function: what. ...`` with the cause second."""
    if error.strerror:
        return error.strerror
    own = re.search(r"OSError\(\d+, '([^']*)'\)", str(error))  # of ours, handed on by the library
    if own:
        return own[1]
    told = str(error).split(". ")
    return (told[1] if len(told) > 1 else told[0]).rpartition(": ")[2].strip(". ") or str(error)
