"""What every reader of a victim's files gives: a read-only tree by paths in bytes, resolved inside its own root.

Paths are absolute (``b"/etc/passwd"``), names are any bytes without ``/`` and NUL. A symbolic link that leads to an
absolute path, above the root, or in circles stays inside the root or is an ``OSError``. Methods raise ``OSError`` for one
file (``FileNotFoundError``, ``NotADirectoryError``, ``ELOOP``, ``EIO`` for damage); the rest of the tree may still be read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, Self

Kind = Literal["file", "directory", "symlink", "device", "fifo", "socket", "unknown"]

#: As Linux: more links in one path are a circle (path_resolution(7)).
MAX_LINKS = 40
#: Deeper directories are named in the report and not entered.
MAX_DEPTH = 128
#: Files of configuration are smaller; what is bigger is not read as one.
MAX_TEXT = 4 << 20
CHUNK = 1 << 20

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Stat:
    """One inode. ``size`` in bytes, ``mtime`` in seconds since 1970, ``identity`` the same for the same inode only."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    identity: tuple[int, int]


def kind_of(mode: int) -> Kind:
    return _KINDS.get(stat.S_IFMT(mode), "unknown")


class Content(Protocol):
    """An open regular file. ``size`` is what it was when opened; a file that changes under way ends early."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes, fewer only at the end. Holes read as zeros."""

    def segments(self) -> Iterator[tuple[int, int]]:
        """Offset and length of what holds data, in order; the rest are holes."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tree(Protocol):
    """``where`` names the source for people."""

    where: str

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Stat]]:
        """What a directory holds, itself and its parent left out; what an image holds and cannot be read is ``unknown``."""

    def stat(self, path: bytes, *, follow: bool = True) -> Stat: ...

    def target(self, path: bytes) -> bytes:
        """Where a symbolic link leads, as it is written there."""

    def open(self, path: bytes) -> Content:
        """A regular file; a directory, device, FIFO or socket is an ``OSError`` and is never opened."""

    def real(self, path: bytes) -> bytes:
        """The path without symbolic links."""

    def flags(self, path: bytes) -> frozenset[str] | None:
        """Of ``immutable`` and ``append-only``; None where that cannot be read."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a walk did not enter or could not read, and why."""

    path: bytes
    why: str


def walk(
    tree: Tree,
    top: bytes,
    *,
    skipped: Callable[[Skipped], None],
    enter: Callable[[bytes, Stat], bool] = lambda path, entry: True,
    depth: int = MAX_DEPTH,
) -> Iterator[tuple[bytes, Stat]]:
    """Everything below ``top``, links not followed. A directory that is its own ancestor, or met twice, is entered once."""
    seen: set[tuple[int, int]] = set()
    waiting = [(top.rstrip(b"/"), 0)]
    while waiting:
        directory, level = waiting.pop()
        below: list[tuple[bytes, int]] = []
        try:
            for name, entry in tree.entries(directory or b"/"):
                path = directory + b"/" + name
                yield path, entry
                if entry.kind == "unknown":
                    skipped(Skipped(path, "its inode cannot be read"))
                if entry.kind != "directory" or not enter(path, entry):
                    continue
                if entry.identity in seen:
                    skipped(Skipped(path, "a directory that was met before"))
                elif level >= depth:
                    skipped(Skipped(path, f"more than {depth} directories deep"))
                else:
                    seen.add(entry.identity)
                    below.append((path, level + 1))
        except OSError as error:
            skipped(Skipped(directory, reason(error)))
        waiting += reversed(below)


def read_all(tree: Tree, path: bytes, limit: int = MAX_TEXT) -> bytes:
    """A small file as a whole. ``OSError`` (EFBIG) where it is bigger than ``limit``."""
    with tree.open(path) as content:
        if content.size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fsdecode(path))
        return content.read(0, limit)


def read_text(tree: Tree, path: bytes, limit: int = MAX_TEXT) -> str:
    """A small file as text. Bytes that are not UTF-8 become ``\\xNN``; a mark of byte order is left out."""
    return text_of(read_all(tree, path, limit)).removeprefix("\ufeff")


def text_of(raw: bytes) -> str:
    """Bytes as people and JSON can have them: what is not UTF-8 is written ``\\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def names(tree: Tree, path: bytes) -> list[bytes]:
    """The names in a directory, sorted; none where there is no such directory."""
    try:
        return sorted(name for name, _ in tree.entries(path))
    except OSError:
        return []


def is_file(tree: Tree, path: bytes) -> bool:
    return _kind(tree, path) == "file"


def is_directory(tree: Tree, path: bytes) -> bool:
    return _kind(tree, path) == "directory"


def _kind(tree: Tree, path: bytes) -> Kind | None:
    try:
        return tree.stat(path).kind
    except OSError:
        return None


def reason(error: OSError) -> str:
    """An error without the path of whoever reads."""
    return error.strerror or str(error) or type(error).__name__


def parts_of(path: bytes) -> list[bytes]:
    """The names of a path; ``ValueError`` is never raised, an embedded NUL is an ``OSError``."""
    if b"\0" in path:
        raise OSError(errno.EINVAL, "a NUL in a path")
    return [part for part in path.split(b"/") if part and part != b"."]


def joined(parts: list[bytes]) -> bytes:
    return b"/" + b"/".join(parts)


def sane(name: bytes) -> bool:
    """Whether a damaged or forged directory may have this as a name."""
    return bool(name) and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def with_size(entry: Stat, size: int) -> Stat:
    return replace(entry, size=size)
