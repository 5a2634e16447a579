"""Redis and Valkey: how they were configured, and their data wherever it lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from redkeep.rescue.disk.tree import is_file, names, reason, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.settings import shown
from redkeep.rescue.redis.aof import read_aof
from redkeep.rescue.redis.rdb import DamagedRdb, is_rdb, read_rdb

_CONFIGS = (
    b"/etc/redis.conf",
    b"/etc/redis/redis.conf",
    b"/etc/redis/6379.conf",
    b"/etc/valkey/valkey.conf",
    b"/usr/local/redis/redis.conf",
    b"/usr/local/etc/redis.conf",
    b"/www/server/redis/redis.conf",
)
#: Where files of Redis are an intruder's doing: crontab, SSH keys, start scripts, web roots.
_STRANGE = re.compile(
    rb"^/(?:var/spool/cron|etc/cron|etc/init\.d|etc/profile\.d|root/\.ssh|home/[^/]+/\.ssh)"
)
_SHOWN = tuple(
    "bind port protected-mode requirepass masterauth user aclfile dir dbfilename appendonly appendfilename "  # noqa: SIM905
    "appenddirname save maxmemory maxmemory-policy replicaof slaveof masteruser cluster-enabled rename-command tls-port "
    "daemonize enable-protected-configs enable-module-command loadmodule".split()
)
_MOST_FILES = 500
#: Of a configuration with what it includes; a real one has 2,000 lines.
_DEEPEST, _MOST_INCLUDES, _MOST_LINES, _LONGEST = 16, 100, 20_000, 1 << 20
_MOST_CONFIGURATIONS = 200


def redis(look: Look) -> dict[str, Any]:
    configs = _configurations(look)
    files: dict[bytes, dict[str, Any]] = {}
    for config in configs:
        for path in _data_of(look, config):
            _add(look, files, path, config["path"])
    for path, _ in (*look.index.rdb, *look.index.aof, *look.index.manifests):
        _add(look, files, path, "")
    for path in _strange_places(look):
        _add(look, files, path, "")
    for config in configs:
        look.want(
            "redis",
            *(path.encode("utf-8", "surrogateescape") for path in (config["path"], *config["includes"])),
        )
    return {"configurations": configs, "files": list(files.values())}


def _configurations(look: Look) -> list[dict[str, Any]]:
    paths = [p for p in _CONFIGS if is_file(look.tree, p)]
    paths += [p for p, _ in look.index.redis_conf if p not in paths and b"sentinel" not in p]
    found = []
    included: set[str] = set()
    once = list(dict.fromkeys(look.tree.real(p) for p in paths))
    if len(once) > _MOST_CONFIGURATIONS:
        look.unseen.append(f"{len(once) - _MOST_CONFIGURATIONS} more configurations of Redis")
    for path in once[:_MOST_CONFIGURATIONS]:
        settings, files = settings_of(look, path)
        if settings.keys() & {"port", "dir", "bind", "save", "appendonly", "dbfilename"}:
            found.append(_configuration(look, path, settings) | {"includes": [text_of(f) for f in files]})
            included.update(found[-1]["includes"])
    return [config for config in found if config["path"] not in included]


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """redis.conf: a name and its words."""
    for line in text.splitlines():
        name, value, *_ = [*line.split(maxsplit=1), "", ""]
        if name and not name.startswith("#"):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            yield name.lower(), value


def settings_of(look: Look, path: bytes) -> tuple[dict[str, list[str]], list[bytes]]:
    """A configuration with what it includes in its place, and with the users of its ACL file; and which files these are.

    A name that comes again keeps all its lines.
    """
    found: dict[str, list[str]] = {}
    files: list[bytes] = []
    _include(look, path, found, files, (path,), [_MOST_LINES])
    for name in found.get("aclfile", [])[-1:]:
        for one in _matching(look, path, name):
            files.append(one)
            users = [value for key, value in _lines(look.text(one, _LONGEST)) if key == "user"]
            found.setdefault("user", []).extend(users)
    return found, files


def _include(
    look: Look,
    path: bytes,
    found: dict[str, list[str]],
    files: list[bytes],
    within: tuple[bytes, ...],
    left: list[int],
) -> None:
    for name, value in _lines(look.text(path, _LONGEST)):
        left[0] -= 1
        if left[0] < 0:
            return
        found.setdefault(name, []).append(value)
        if name != "include":
            continue
        for one in _matching(look, within[0], value):
            if one in within or len(within) > _DEEPEST or len(files) >= _MOST_INCLUDES or left[0] < 0:
                continue
            files.append(one)
            _include(look, one, found, files, (*within, one), left)


def _matching(look: Look, main: bytes, pattern: str) -> list[bytes]:
    """Files that are named, with wildcards in the last name since Redis 7. What is relative is so to where the server was
    started: nobody knows, so beside the configuration, and then the root."""
    raw = pattern.encode("utf-8", "surrogateescape")
    places = [b""] if raw.startswith(b"/") else [main.rpartition(b"/")[0] + b"/", b"/"]
    for place in places:
        directory, _, last = (place + raw).rpartition(b"/")
        if any(mark in last for mark in b"*?["):
            named = [
                n
                for n in names(look.tree, directory)
                if fnmatchcase(n.decode("latin-1"), last.decode("latin-1"))
            ]
        else:
            named = [last]
        found = [directory + b"/" + name for name in named if is_file(look.tree, directory + b"/" + name)]
        if found:
            return [look.tree.real(one) for one in found]
    return []


def _configuration(look: Look, path: bytes, settings: dict[str, list[str]]) -> dict[str, Any]:
    last = {key: values[-1] for key, values in settings.items()}
    documents = []
    for key in _SHOWN:
        for value in settings.get(key, []):
            if key == "user":
                value = re.sub(r"(?<!\S)([><#!])(\S+)", lambda m: f"{m[1]}({len(m[2])} characters)", value)
            documents.append(shown(key, value, reveal=look.reveal))
    return {
        "path": text_of(path),
        "port": last.get("port", "6379"),
        "dir": last.get("dir", "./"),
        "dbfilename": last.get("dbfilename", "dump.rdb"),
        "appendonly": last.get("appendonly", "no"),
        "appendfilename": last.get("appendfilename", "appendonly.aof"),
        "appenddirname": last.get("appenddirname", "appendonlydir"),
        "open": is_open(settings),
        "settings": documents,
    }


def is_open(settings: dict[str, list[str]]) -> str:
    """Why anybody could get in; empty where not. Without ``bind`` a server listens everywhere."""
    last = {key: values[-1] for key, values in settings.items()}
    addresses = [a.lstrip("-") for a in last.get("bind", "*").split()]
    reachable = [a for a in addresses if not a.startswith("127.") and a not in ("::1", "localhost")]
    default = [u.split() for u in settings.get("user", []) if u.split()[:1] == ["default"]]
    password = not {"nopass"} & set(default[-1]) if default else last.get("requirepass", "")
    if not reachable or last.get("port") == "0":
        return ""
    if not password and last.get("protected-mode", "yes") == "no":
        return f"no password, protected-mode no, listening on {', '.join(reachable)}"
    if not password and "bind" in settings and set(reachable) & {"0.0.0.0", "*", "::"}:
        return f"no password, listening on {', '.join(reachable)}"
    weak = last.get("requirepass", "")
    if weak and len(weak) < 10:
        return f"a password of {len(weak)} characters, listening on {', '.join(reachable)}"
    return ""


def _data_of(look: Look, config: dict[str, Any]) -> list[bytes]:
    directory = config["dir"].encode("utf-8", "surrogateescape")
    if not directory.startswith(b"/"):
        directory = b"/" + config["path"].encode("utf-8", "surrogateescape").rpartition(b"/")[0].lstrip(b"/")
    wanted = [config["dbfilename"], config["appendfilename"]]
    found = [directory + b"/" + n.encode("utf-8", "surrogateescape") for n in wanted]
    parts = directory + b"/" + config["appenddirname"].encode("utf-8", "surrogateescape")
    found += [parts + b"/" + n for n in names(look.tree, parts)]
    return [path for path in found if is_file(look.tree, path)]


def _strange_places(look: Look) -> list[bytes]:
    """Files in cron's and ssh's directories that begin as an RDB does."""
    directories = [
        b"/var/spool/cron",
        b"/var/spool/cron/crontabs",
        b"/etc/cron.d",
        b"/root/.ssh",
        b"/etc",
        b"/etc/init.d",
    ]
    directories += [b"/home/" + n + b"/.ssh" for n in names(look.tree, b"/home")]
    directories += [b"/tmp", b"/var/tmp"]
    found = []
    for directory in directories:
        for path in look.files(directory):
            try:
                with look.tree.open(path) as content:
                    if is_rdb(content.read(0, 9)):
                        found.append(path)
            except OSError:
                continue
    return found


def _add(look: Look, files: dict[bytes, dict[str, Any]], path: bytes, config: str) -> None:
    try:
        real = look.tree.real(path)
    except OSError:
        return
    if real in files:
        files[real]["configuration"] = files[real]["configuration"] or config
        return
    if len(files) >= _MOST_FILES:
        look.unseen.append(f"{text_of(path)}: more than {_MOST_FILES} files of Redis")
        return
    document = _file(look, real)
    if document is not None:
        files[real] = document | {"configuration": config, "strange_place": bool(_STRANGE.match(real))}
        look.want("redis", real)


def _file(look: Look, path: bytes) -> dict[str, Any] | None:
    try:
        with look.tree.open(path) as content:
            entry = look.tree.stat(path)
            document = {"path": text_of(path), "bytes": content.size, "modified": entry.mtime}
            name = path.rpartition(b"/")[2]
            if name.endswith(b".manifest"):
                text = text_of(content.read(0, 1 << 16))
                return document | {"kind": "aof manifest", "keys": None, "lines": text.splitlines()[:100]}
            if is_rdb(content.read(0, 9)) and not name.endswith(b".aof"):
                rdb = read_rdb(content)
                return document | {"kind": "rdb", "suspects": _suspects(rdb.suspects)} | rdb.as_json()
            if name.endswith(b".aof") or content.read(0, 1) == b"*":
                aof = read_aof(content)
                return document | {"kind": "aof", "suspects": _suspects(aof.suspects)} | aof.as_json()
            return document | {"kind": "unknown", "keys": None} if name.endswith(b".rdb") else None
    except (OSError, DamagedRdb, OverflowError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        look.unseen.append(f"{text_of(path)}: {why}")
        return None


def _suspects(found: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"key": key, "value": line} for key, line in found[:20]]
