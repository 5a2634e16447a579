"""What a victim's configurations of Redis and Sentinel say of the deployment: shape, limits, persistence. No secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from redkeep.rescue.disk.tree import is_file, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.redis import settings_of

_SENTINELS = (
    b"/etc/sentinel.conf",
    b"/etc/redis-sentinel.conf",
    b"/etc/redis/sentinel.conf",
    b"/etc/valkey/sentinel.conf",
    b"/usr/local/redis/sentinel.conf",
    b"/usr/local/etc/sentinel.conf",
)
#: Settings that a new server may have as they were; what they do is no concern of safety.
CARRIED = frozenset(
    "databases maxclients timeout tcp-keepalive hz dynamic-hz lazyfree-lazy-eviction lazyfree-lazy-expire "  # noqa: SIM905
    "lazyfree-lazy-server-del slowlog-log-slower-than slowlog-max-len latency-monitor-threshold notify-keyspace-events "
    "hash-max-ziplist-entries hash-max-ziplist-value hash-max-listpack-entries hash-max-listpack-value "
    "list-max-ziplist-size list-max-listpack-size list-compress-depth set-max-intset-entries zset-max-ziplist-entries "
    "zset-max-ziplist-value zset-max-listpack-entries zset-max-listpack-value hll-sparse-max-bytes "
    "stream-node-max-bytes stream-node-max-entries activerehashing maxmemory-samples lfu-log-factor lfu-decay-time".split()
)
#: Settings whose values matter, besides those.
_READ = frozenset(
    "port tls-port bind protected-mode maxmemory maxmemory-policy appendonly appendfsync save replicaof slaveof "  # noqa: SIM905
    "cluster-enabled cluster-node-timeout io-threads".split()
)
#: Names worth a word although their values are not carried over.
_NAMED = frozenset(
    "requirepass masterauth masteruser primaryauth user aclfile rename-command loadmodule enable-debug-command "  # noqa: SIM905
    "enable-module-command enable-protected-configs unixsocket slave-read-only replica-read-only".split()
)
_PLAIN_VALUE = re.compile(r"[\w .:/%+-]{0,200}", re.ASCII)


def redis_facts(look: Look, document: dict[str, Any]) -> list[dict[str, Any]]:
    """One for each configuration that ``inspect`` found: values that are plain words, and names of the rest."""
    found = []
    for config in document["redis"]["configurations"]:
        path = config["path"].encode("utf-8", "surrogateescape")
        settings, _ = settings_of(look, path)
        wanted = CARRIED | _READ
        fact: dict[str, Any] = {
            "path": config["path"],
            "flavor": "valkey" if b"valkey" in path else "redis",
            "open": config["open"],
            "values": {
                k: [v for v in values[:32] if _PLAIN_VALUE.fullmatch(v)]
                for k, values in settings.items()
                if k in wanted
            },
            "named": {k: len(v) for k, v in settings.items() if k in _NAMED},
            "renamed": sorted(
                {v.split()[0].upper() for v in settings.get("rename-command", []) if _renamed(v)}
            ),
            "files": [f for f in document["redis"]["files"] if f["configuration"] == config["path"]],
        }
        if fact["values"].get("cluster-enabled") == ["yes"]:
            fact["nodes"] = _nodes(
                look, config["dir"], settings.get("cluster-config-file", ["nodes.conf"])[-1]
            )
        found.append(fact)
    return found


def _renamed(line: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z]{2,30}\s.*", line, re.DOTALL))


def _nodes(look: Look, directory: str, name: str) -> dict[str, int]:
    """How many primaries with slots, and replicas, a cluster's own file names; zeros where it is not there."""
    path = name if name.startswith("/") else f"{directory.rstrip('/')}/{name}"
    primaries = replicas = 0
    for line in look.text(path.encode("utf-8", "surrogateescape")).splitlines()[:4000]:
        fields = line.split()
        if len(fields) < 8 or "noaddr" in fields[2]:
            continue
        primaries += "master" in fields[2] and len(fields) > 8
        replicas += "slave" in fields[2]
    return {"primaries": primaries, "replicas": replicas}


def sentinel_files(look: Look) -> list[bytes]:
    paths = [path for path in _SENTINELS if is_file(look.tree, path)]
    paths += [path for path, _ in look.index.redis_conf if b"sentinel" in path]
    found: list[bytes] = []
    for path in paths:
        try:
            real = look.tree.real(path)
        except OSError:
            continue
        if real not in found:
            found.append(real)
    return found


def sentinel_facts(look: Look) -> list[dict[str, Any]]:
    """One for each primary that a Sentinel of this disk watched."""
    found: list[dict[str, Any]] = []
    for path in sentinel_files(look):
        lines = [
            line.split() for line in look.text(path).splitlines() if line.strip().startswith("sentinel ")
        ]
        for words in lines:
            if len(words) == 6 and words[1] == "monitor" and len(found) < 100:
                found.append(_watched(text_of(path), words, lines))
    return found


def _watched(path: str, monitor: list[str], lines: Iterable[list[str]]) -> dict[str, Any]:
    name = monitor[2]
    mine = [words[1] for words in lines if len(words) > 3 and words[2] == name]
    down = [w[3] for w in lines if w[1] == "down-after-milliseconds" and len(w) == 4 and w[2] == name]
    return {
        "path": path,
        "name": name if re.fullmatch(r"[\w.-]{1,60}", name, re.ASCII) else "",
        "port": monitor[4] if re.fullmatch(r"\d{1,5}", monitor[4]) else "",
        "quorum": int(monitor[5]) if re.fullmatch(r"\d{1,3}", monitor[5]) else 0,
        "replicas": sum(w in ("known-replica", "known-slave") for w in mine),
        "sentinels": 1 + sum(w == "known-sentinel" for w in mine),
        "down_after": int(down[-1]) if down and re.fullmatch(r"\d{3,7}", down[-1]) else 0,
    }
