"""One walk over the whole disk, which sorts out what the families of the report look at more closely."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from redkeep.rescue.disk.tree import Skipped, Stat, Tree, walk

#: So many of each kind are kept; the count goes on.
MOST = 2_000
#: Kernel interfaces, and what is only ever there while a system runs.
_NOT_ENTERED = {b"/proc", b"/sys", b"/dev/pts", b"/dev/mqueue"}
_OF_LIBRARIES = (b"/node_modules/", b"/vendor/", b"/site-packages/", b"/dist-packages/")
#: Where programs keep their own test data and documentation.
_OF_PACKAGES = (b"/usr/share/", b"/usr/lib/", b"/usr/src/", b"/snap/", b"/var/lib/docker/overlay2/")
#: Of CentOS's nginx, where people put their sites.
_WEB_ROOT = b"/usr/share/nginx/html/"

_SETTINGS = re.compile(
    rb"(?:\.env(?:\.\w+)?|(?:application|bootstrap)[\w.-]*\.(?:ya?ml|properties)|wp-config\.php|config\.inc\.php|"
    rb"\.env\.php|env\.php|config_(?:global|ucenter)\.php|configuration\.php|settings\.php|LocalSettings\.php|database\.php|"
    rb"parameters\.ya?ml|ecosystem\.config\.js(?:on)?|(?:local_)?settings\.py)$"
)


@dataclass
class Index:
    """Paths of interest. ``count`` of files, ``size`` in bytes as files say it."""

    files: int = 0
    directories: int = 0
    size: int = 0
    jars: list[tuple[bytes, Stat]] = field(default_factory=list)
    rdb: list[tuple[bytes, Stat]] = field(default_factory=list)
    aof: list[tuple[bytes, Stat]] = field(default_factory=list)
    manifests: list[tuple[bytes, Stat]] = field(default_factory=list)
    redis_conf: list[tuple[bytes, Stat]] = field(default_factory=list)
    nginx_conf: list[tuple[bytes, Stat]] = field(default_factory=list)
    settings: list[tuple[bytes, Stat]] = field(default_factory=list)
    packages: list[tuple[bytes, Stat]] = field(default_factory=list)
    databases: list[tuple[bytes, Stat]] = field(default_factory=list)
    suid: list[tuple[bytes, Stat]] = field(default_factory=list)
    hidden: list[tuple[bytes, Stat]] = field(default_factory=list)
    named: dict[bytes, list[tuple[bytes, Stat]]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def index(tree: Tree, bad_names: frozenset[bytes], tick: Callable[[int], None]) -> Index:
    """``bad_names``: names of files that the intrusion report wants to know of; ``tick`` hears how many were seen."""
    found = Index()

    def skip(what: Skipped) -> None:
        if len(found.skipped) < MOST:
            found.skipped.append(what)

    for path, entry in walk(tree, b"/", skipped=skip, enter=lambda p, e: p not in _NOT_ENTERED):
        name = path[path.rindex(b"/") + 1 :]
        if name in bad_names:
            _keep(found.named.setdefault(name, []), path, entry)
        if entry.kind == "directory":
            found.directories += 1
            continue
        if entry.kind != "file":
            continue
        found.files += 1
        found.size += entry.size
        if found.files % 20_000 == 0:
            tick(found.files)
        if entry.mode & 0o6000 and entry.mode & 0o111:
            _keep(found.suid, path, entry)
        _sort(found, path, name, entry)
    return found


def _sort(found: Index, path: bytes, name: bytes, entry: Stat) -> None:
    packaged = path.startswith(_OF_PACKAGES) and not path.startswith(_WEB_ROOT)
    if name.endswith((b".jar", b".war")) and not packaged:
        _keep(found.jars, path, entry)
    elif name.endswith(b".rdb"):
        _keep(found.rdb, path, entry)
    elif name.endswith(b".aof"):
        _keep(found.aof, path, entry)
    elif name.endswith(b".aof.manifest"):
        _keep(found.manifests, path, entry)
    elif name == b"nginx.conf" and not packaged:
        _keep(found.nginx_conf, path, entry)
    elif name == b"ibdata1" or name == b"user.frm" or name == b"mysql.ibd":
        _keep(found.databases, path, entry)
    elif name == b"package.json" and b"/node_modules/" not in path and not packaged:
        _keep(found.packages, path, entry)
    elif (
        (b"redis" in name or b"valkey" in name or name.removesuffix(b".conf").isdigit())
        and name.endswith(b".conf")
        and not packaged
    ):
        _keep(found.redis_conf, path, entry)
    elif not packaged and _SETTINGS.fullmatch(name) and not any(part in path for part in _OF_LIBRARIES):
        _keep(found.settings, path, entry)
    if path.startswith((b"/tmp/", b"/var/tmp/", b"/dev/shm/")) and entry.mode & 0o111 and entry.size:
        _keep(found.hidden, path, entry)


def _keep(into: list[tuple[bytes, Stat]], path: bytes, entry: Stat) -> None:
    if len(into) < MOST:
        into.append((path, entry))
