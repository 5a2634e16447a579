"""A directory of this host as a victim's root: where its disk is mounted, or a bundle.

Every path is resolved by the kernel inside that root (openat2(2): ``RESOLVE_IN_ROOT``, no magic links; Linux 5.6), and
by hand, one name after the other and never through a link, where that is missing. A file is first taken hold of without
opening it (``O_PATH``), and opened only when it is known to be a regular file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from redkeep.rescue.disk.tree import MAX_LINKS, Stat, joined, kind_of, parts_of

_OPENAT2 = 437  # the same on every architecture since 5.6
_IN_ROOT = 0x10
_NO_MAGICLINKS = 0x02
_O_PATH = getattr(os, "O_PATH", 0)
_O_NOATIME = getattr(os, "O_NOATIME", 0)
_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE, _APPEND = 0x10, 0x20
#: Kernel interfaces that may be mounted below a root (statfs(2)): nothing of a disk is in them.
_PSEUDO = {b"proc", b"sysfs", b"devtmpfs", b"cgroup2", b"securityfs", b"debugfs", b"tracefs"}


class FileContent:
    """A regular file of this host, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, max(0, min(length, self.size - offset)), offset)

    def segments(self) -> Iterator[tuple[int, int]]:
        at = 0
        while at < self.size:
            try:
                begin = os.lseek(self._fd, at, os.SEEK_DATA)
                end = os.lseek(self._fd, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # a file system that knows no holes
                    yield at, self.size - at
                return
            begin, end = min(begin, self.size), min(end, self.size)
            if end > begin:
                yield begin, end - begin
            if end <= at:
                return
            at = end

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DirectoryTree:
    """Raises ``OSError`` where ``root`` is not a directory that can be read."""

    def __init__(self, root: Path, *, by_hand: bool | None = None, where: str = "") -> None:
        self.where = where or str(root)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._by_hand = not _has_openat2(self._root) if by_hand is None else by_hand
        self._pseudo = _pseudo_devices()

    def close(self) -> None:
        os.close(self._root)

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Stat]]:
        held = self._hold(path)
        try:
            if not stat.S_ISDIR(os.fstat(held).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fsdecode(path))
            opened = _reopen(held, os.O_DIRECTORY)
        finally:
            os.close(held)
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:  # gone since
                        continue
                    if found.st_dev not in self._pseudo:
                        yield os.fsencode(entry.name), _stat(found)
        finally:
            os.close(opened)

    def stat(self, path: bytes, *, follow: bool = True) -> Stat:
        held = self._hold(path, follow=follow)
        try:
            return _stat(os.fstat(held))
        finally:
            os.close(held)

    def target(self, path: bytes) -> bytes:
        held = self._hold(path, follow=False)
        try:
            return os.readlink(b"", dir_fd=held)
        finally:
            os.close(held)

    def open(self, path: bytes) -> FileContent:
        return FileContent(self._open(path))

    def real(self, path: bytes) -> bytes:
        held, names = self._by_names(path, follow=True)
        os.close(held)
        return joined(names)

    def flags(self, path: bytes) -> frozenset[str] | None:
        import fcntl

        try:
            opened = self._open(path, directory=True)
        except OSError:
            return None
        try:
            (bits,) = struct.unpack("I", fcntl.ioctl(opened, _FS_IOC_GETFLAGS, b"\0" * 8)[:4])
        except OSError:
            return None
        finally:
            os.close(opened)
        return named_flags(bits & _IMMUTABLE, bits & _APPEND)

    def _open(self, path: bytes, *, directory: bool = False) -> int:
        held = self._hold(path)
        try:
            found = os.fstat(held)
            if directory and stat.S_ISDIR(found.st_mode) and found.st_dev not in self._pseudo:
                return _reopen(held, os.O_DIRECTORY)
            if found.st_dev in self._pseudo or not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, f"not a file but a {kind_of(found.st_mode)}", os.fsdecode(path))
            return _reopen(held, 0)
        finally:
            os.close(held)

    def _hold(self, path: bytes, *, follow: bool = True) -> int:
        """A descriptor that names the file and opens nothing."""
        if self._by_hand:
            return self._by_names(path, follow=follow)[0]
        parts_of(path)
        flags = _O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        return _openat2(self._root, path, flags, _IN_ROOT | _NO_MAGICLINKS)

    def _by_names(self, path: bytes, *, follow: bool) -> tuple[int, list[bytes]]:
        """Holds each directory on the way, so that ``..`` goes to where we came from, whatever was moved meanwhile."""
        held = [os.dup(self._root)]
        names: list[bytes] = []
        waiting = parts_of(path)[::-1]
        links = 0
        try:
            while waiting:
                name = waiting.pop()
                if name == b"..":
                    if names:
                        names.pop()
                        os.close(held.pop())
                    continue
                one = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1])
                if not stat.S_ISLNK(os.fstat(one).st_mode) or not (follow or waiting):
                    held.append(one)
                    names.append(name)
                    continue
                to = os.readlink(b"", dir_fd=one)
                device = os.fstat(one).st_dev
                os.close(one)
                links += 1
                if links > MAX_LINKS or device in self._pseudo:
                    raise OSError(errno.ELOOP, "too many links", os.fsdecode(path))
                if to.startswith(b"/"):
                    names.clear()
                    while len(held) > 1:
                        os.close(held.pop())
                waiting += parts_of(to)[::-1]
            return held.pop(), names
        finally:
            for descriptor in held:
                os.close(descriptor)


def named_flags(immutable: int, append: int) -> frozenset[str]:
    found = {"immutable"} if immutable else set()
    return frozenset(found | ({"append-only"} if append else set()))


def _reopen(held: int, flags: int) -> int:
    """What is held, opened for reading; times of access stay as they are where we may ask for that."""
    path = f"/proc/self/fd/{held}"
    wanted = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | flags
    try:
        return os.open(path, wanted | _O_NOATIME)
    except PermissionError:  # not the owner
        return os.open(path, wanted)


def _stat(found: os.stat_result) -> Stat:
    return Stat(
        kind_of(found.st_mode),
        found.st_mode & 0o7777,
        found.st_uid,
        found.st_gid,
        found.st_size,
        int(found.st_mtime),
        found.st_nlink,
        (found.st_dev, found.st_ino),
    )


def _openat2(root: int, path: bytes, flags: int, resolve: int) -> int:
    how = struct.pack("QQQ", flags, 0, resolve)
    while True:
        descriptor: int = _libc().syscall(_OPENAT2, root, path or b"/", how, len(how))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: something was moved while the kernel resolved
            raise OSError(number, os.strerror(number), os.fsdecode(path))


def _has_openat2(root: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        os.close(_openat2(root, b"/", _O_PATH | os.O_CLOEXEC, _IN_ROOT))
    except OSError:
        return False
    return True


_LIBC: ctypes.CDLL | None = None


def _libc() -> ctypes.CDLL:
    global _LIBC
    if _LIBC is None:
        _LIBC = ctypes.CDLL(None, use_errno=True)
    return _LIBC


def _pseudo_devices() -> frozenset[int]:
    """The device numbers of this host's kernel interfaces, wherever they are mounted."""
    found = set()
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        before, _, after = line.partition(b" - ")
        if after.split()[:1] and after.split()[0] in _PSEUDO:
            major, _, minor = before.split()[2].partition(b":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
