"""Which libraries the applications spoke to Redis with, by the names of the jars in their jars and of their packages."""

from __future__ import annotations

import json
import re
import zipfile
from typing import Any, cast

from redkeep.rescue.inspection.applications import ArchiveFile
from redkeep.rescue.inspection.looking import Look

_LIBRARY = re.compile(
    r"(?:^|/)(spring-boot|spring-data-redis|jedis|lettuce-core|lettuce|redisson)-(\d[\w.]{0,30})\.jar$"
)
_NODE = {"redis": "node-redis", "ioredis": "ioredis"}
_MOST_ENTRIES = 100_000


def libraries(look: Look, document: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Versions by library, by application. Libraries are named by their artifacts."""
    found: dict[str, dict[str, str]] = {}
    for application in document["applications"]:
        path = application["path"].encode("utf-8", "surrogateescape")
        if application["kind"] == "jar":
            libs = _of_jar(look, path)
        elif application["kind"] == "node":
            libs = _of_node(look, path + b"/package.json")
        else:
            libs = {}
        if libs:
            found[application["path"]] = libs
    return found


def _of_jar(look: Look, path: bytes) -> dict[str, str]:
    try:
        with look.tree.open(path) as content, zipfile.ZipFile(cast("Any", ArchiveFile(content))) as archive:
            entries = archive.namelist()[:_MOST_ENTRIES]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError):
        return {}
    return {m[1]: m[2] for name in entries if (m := _LIBRARY.search(name))}


def _of_node(look: Look, path: bytes) -> dict[str, str]:
    try:
        document = json.loads(look.text(path, 1 << 20))
        wanted = document.get("dependencies", {})
        return {
            _NODE[name]: re.sub(r"[^\w.~^*-]", "", str(version))[:30]
            for name, version in wanted.items()
            if name in _NODE
        }
    except (ValueError, AttributeError, RecursionError):
        return {}
