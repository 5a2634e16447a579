"""The ``settings`` of the deployment file: further server settings, and those that are Redkeep's own to write."""

from __future__ import annotations

import re
from typing import Any

from redkeep.model.specfile import Problem
from redkeep.model.specproblems import Bad, Conflicts

#: Settings that Redkeep writes, and the key of the deployment file that governs each; empty: none, it follows from the plan.
OWNED: dict[str, str] = {
    "port": "port",
    "bind": "",
    "bind-source-addr": "",
    "protected-mode": "",
    "unixsocket": "",
    "unixsocketperm": "",
    "requirepass": "auth",
    "masterauth": "passwords",
    "masteruser": "",
    "primaryauth": "passwords",
    "primaryuser": "",
    "user": "",
    "aclfile": "",
    "rename-command": "",
    "dir": "",
    "dbfilename": "",
    "rdbfilename": "",
    "appendfilename": "",
    "appenddirname": "",
    "appendonly": "persistence",
    "appendfsync": "appendfsync",
    "maxmemory": "maxmemory",
    "maxmemory-policy": "eviction",
    "replicaof": "replicas",
    "slaveof": "replicas",
    "daemonize": "",
    "supervised": "",
    "pidfile": "",
    "logfile": "",
    "syslog-enabled": "",
    "include": "",
    "loadmodule": "",
    "enable-debug-command": "",
    "enable-module-command": "",
    "enable-protected-configs": "",
}
#: The same for whole families.
OWNED_PREFIXES: dict[str, str] = {
    "cluster-": "mode, failover and clients",
    "tls-": "tls",
    "replica-announce": "clients",
    "slave-announce": "clients",
    "sentinel": "sentinels and failover",
}

#: Two names of one setting; the servers that we deploy know both. We go by the new one, as else the same setting would be
#: wanted twice, with our value and with the file's.
OLD_NAMES = {
    "slave-priority": "replica-priority",
    "slave-read-only": "replica-read-only",
    "slave-serve-stale-data": "replica-serve-stale-data",
    "slave-lazy-flush": "replica-lazy-flush",
    "slave-ignore-maxmemory": "replica-ignore-maxmemory",
    "min-slaves-to-write": "min-replicas-to-write",
    "min-slaves-max-lag": "min-replicas-max-lag",
}

_KEY = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)


def owner(setting: str) -> str | None:
    """The key that governs a setting, or an empty text where it follows from the plan; ``None``: it is free to set."""
    if setting in OWNED:
        return OWNED[setting]
    return next((key for prefix, key in OWNED_PREFIXES.items() if setting.startswith(prefix)), None)


def checked(value: Any) -> dict[str, str]:
    """Validates the mapping; numbers become text."""
    if not isinstance(value, dict):
        raise Bad("not a mapping (key: value)", "write settings as key: value, such as hz: 20")
    problems = [found for name, text in value.items() if (found := _problem(str(name), text))]
    for old, new in OLD_NAMES.items():
        if old in value and new in value:
            problems.append(Problem((old,), f"{old} is an old name of {new}, which is there too", "keep one"))
    if problems:
        raise Conflicts(problems)
    return {OLD_NAMES.get(str(name), str(name)): str(text) for name, text in value.items()}


def _problem(name: str, value: Any) -> Problem | None:
    if not _KEY.fullmatch(name):
        return Problem(
            (name,),
            f"not the name of a server setting: {name[:80]}",
            "write it as in redis.conf, in lower case",
        )
    key = owner(name)
    if key is not None:
        hint = f"use the key {key} instead" if key else "remove it: it follows from the rest of the file"
        return Problem((name,), f"{name} is written by Redkeep", hint)
    if name == "save" and len(str(value).split()) % 2:
        return Problem((name,), f"not pairs of seconds and changes: {value}", "write it like 3600 1 300 100")
    if isinstance(value, bool):
        return Problem((name,), f"not a server's value: {str(value).lower()}", "write yes or no")
    if not isinstance(value, str | int) or any(ord(c) < 32 for c in str(value)):
        return Problem(
            (name,), "not a word or a number on one line", "write the value as it stands in redis.conf"
        )
    return None
