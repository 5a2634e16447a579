"""Applications: jars with jars inside, and directories with .env, PHP and Node settings."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any, cast

from redkeep.rescue.disk.tree import Content, read_text, reason, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.settings import read_settings, telling

#: Against zip bombs: of entries, of what is unpacked of one jar, of one entry, of jars inside jars.
_MOST_ENTRIES = 100_000
_MOST_UNPACKED = 256 << 20
_MOST_TEXT = 1 << 20
_MOST_NESTED = 64 << 20
_MOST_DEPTH = 2
_MOST_JARS = 200

_CONFIG = re.compile(
    r"(?:^|/)(?:application|bootstrap)(?:-(?P<profile>[\w.-]+?))?\.(?:ya?ml|properties)$|(?:^|/)META-INF/MANIFEST\.MF$"
)


def applications(look: Look) -> list[dict[str, Any]]:
    found = [a for path, _ in look.index.jars[:_MOST_JARS] if (a := _jar(look, path))]
    if len(look.index.jars) > _MOST_JARS:
        look.unseen.append(f"{len(look.index.jars) - _MOST_JARS} more jars")
    directories: dict[bytes, list[bytes]] = {}
    for path, _ in (*look.index.settings, *look.index.packages):
        paths = directories.setdefault(path.rpartition(b"/")[0], [])
        paths.append(path)
        if path.endswith(b"/package.json"):
            paths += [one for one in _of_node(look, path.rpartition(b"/")[0]) if one not in paths]
    found += [_directory(look, where, paths) for where, paths in directories.items()]
    return found


def _jar(look: Look, path: bytes) -> dict[str, Any] | None:
    """A jar with settings or a manifest that starts something; libraries are left out."""
    parts: list[dict[str, Any]] = []
    state = {"left": _MOST_UNPACKED, "main": "", "title": ""}
    problem = ""
    try:
        with look.tree.open(path) as content:
            _archive(cast("io.IOBase", ArchiveFile(content)), "", parts, state, look.reveal, 0)
    except OSError as error:
        problem = reason(error)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        ValueError,
        NotImplementedError,
        EOFError,
        RuntimeError,
    ) as error:
        problem = f"{type(error).__name__}: {error}"
    except _Bomb as error:
        problem = str(error)
    if not parts and not state["main"] and not problem:
        return None
    if problem:
        look.unseen.append(f"{text_of(path)}: {problem}")
    look.want("applications", path)
    return {
        "path": text_of(path),
        "kind": "jar",
        "main": state["main"],
        "title": state["title"],
        "settings": parts,
        "problem": problem,
    }


_NODE_CONFIG = re.compile(rb"config\.(?:[cm]?js|json|ts)")
_NODE_CONFIGS = re.compile(rb"[\w.-]+\.(?:[cm]?js|json|ts|ya?ml)")
_MOST_CONFIGS = 20


def _of_node(look: Look, where: bytes) -> list[bytes]:
    """Settings of a Node application beside its package.json: config.js, and a directory config."""
    found = [path for path in look.files(where) if _NODE_CONFIG.fullmatch(path.rpartition(b"/")[2])]
    inside = where + b"/config"
    found += [path for path in look.files(inside) if _NODE_CONFIGS.fullmatch(path.rpartition(b"/")[2])]
    return found[:_MOST_CONFIGS]


class _Bomb(Exception):
    pass


def _archive(
    file: io.IOBase, inside: str, parts: list[dict[str, Any]], state: dict[str, Any], reveal: bool, depth: int
) -> None:
    with zipfile.ZipFile(cast("Any", file)) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise _Bomb(f"{len(entries)} entries: more than any application")
        for entry in entries:
            match = _CONFIG.search(entry.filename)
            if match:
                text = _unpacked(archive, entry, _MOST_TEXT, state).decode("utf-8", "backslashreplace")
                _part(entry.filename, inside, match["profile"] or "", text, parts, state, reveal)
            elif entry.filename.endswith((".jar", ".war")) and depth < _MOST_DEPTH and _is_own(entry):
                nested = _unpacked(archive, entry, _MOST_NESTED, state)
                try:
                    below = io.BytesIO(nested)
                    _archive(below, f"{inside}{entry.filename}!/", parts, state, reveal, depth + 1)
                except (zipfile.BadZipFile, ValueError, NotImplementedError):
                    continue


def _is_own(entry: zipfile.ZipInfo) -> bool:
    """Not a library that everybody has: those have no settings of this application, and are many."""
    name = entry.filename.rpartition("/")[2]
    return entry.file_size <= _MOST_NESTED and not re.match(
        r"(?:spring|jackson|tomcat|hibernate|netty|log4j|logback|slf4j|guava|mybatis|mysql|commons|jakarta|byte-buddy|"
        r"lettuce|jedis|hikari|reactor|snakeyaml|druid|poi|aspectj|kotlin|okhttp|fastjson|hutool|bcp)",
        name,
    )


def _part(
    name: str,
    inside: str,
    profile: str,
    text: str,
    parts: list[dict[str, Any]],
    state: dict[str, Any],
    reveal: bool,
) -> None:
    if name.endswith("MANIFEST.MF"):
        if not inside:
            fields = dict(re.findall(r"^([\w-]+): (.+?)\r?$", text, re.MULTILINE))
            state["main"] = fields.get("Start-Class") or fields.get("Main-Class", "")
            state["title"] = fields.get("Implementation-Title", "")
        return
    settings = telling(read_settings(name, text), reveal=reveal)
    parts.append({"file": inside + name, "profile": profile, "values": settings})


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int, state: dict[str, Any]) -> bytes:
    """What the entry holds, whatever it says of its size; ``_Bomb`` where it is too much."""
    limit = min(most, state["left"])
    with archive.open(entry) as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise _Bomb(f"{entry.filename} unpacks to more than {limit >> 20} MiB: not unpacked")
    state["left"] -= len(found)
    return found


class ArchiveFile(io.RawIOBase):
    """Content as ``zipfile`` wants it."""

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content, self._at = content, 0

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._content.size - self._at)
        found = self._content.read(self._at, left if size < 0 else min(size, left))
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max(0, offset + (0, self._at, self._content.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _directory(look: Look, where: bytes, paths: list[bytes]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    kind = "settings"
    title = ""
    for path in sorted(paths):
        name = text_of(path.rpartition(b"/")[2])
        try:
            text = read_text(look.tree, path, _MOST_TEXT)
        except OSError as error:
            look.unseen.append(f"{text_of(path)}: {reason(error)}")
            continue
        settings = read_settings(name, text)
        if name == "package.json":
            kind, title = "node", settings.get("name", "")
            continue
        kind = "php" if name.endswith(".php") else kind
        match = _CONFIG.search(name)
        profile = (match["profile"] or "") if match else ""
        parts.append(
            {"file": text_of(path), "profile": profile, "values": telling(settings, reveal=look.reveal)}
        )
    top = where if kind in ("node", "php") or b".env" in b"".join(paths) else b""
    look.want("applications", *_of_application(top, paths))
    return {
        "path": text_of(where),
        "kind": kind,
        "main": "",
        "title": title,
        "settings": parts,
        "problem": "",
    }


def _of_application(top: bytes, paths: list[bytes]) -> Iterator[bytes]:
    """The whole directory, unless it is one that everybody's things are in."""
    if top.count(b"/") >= 2 and top not in (b"/usr/local", b"/var/lib", b"/var/www"):
        yield top
    else:
        yield from paths
