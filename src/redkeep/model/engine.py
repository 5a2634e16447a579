"""Which server is it, and what can it do: the only place that compares versions.

Sources are the release notes of the versions named, and what was measured on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import total_ordering
from typing import Literal

from redkeep.errors import EngineError
from redkeep.model.values import Value

Flavor = Literal["redis", "valkey"]


@total_ordering
class Version(Value):
    """Three numbers. Release candidates (``7.0-rc1`` is reported as 6.9.x) need no special care."""

    major: int
    minor: int = 0
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if not match:
            raise EngineError(f"not a server version: {text[:80]!r}", next="expected something like 7.0.15")
        return cls(int(match[1]), int(match[2]), int(match[3] or 0))

    def __lt__(self, other: Version) -> bool:
        return (self.major, self.minor, self.patch) < (other.major, other.minor, other.patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class Capability(Enum):
    """What differs between engines, by the question that the code asks."""

    ACL_SUBCOMMANDS = "ACL rules may forbid one subcommand (-config|set)"
    ACL_SELECTORS = "ACL rules may hold selectors"
    ACL_RULES_KEPT = "ACL LIST prints command rules as they were given, not rebuilt from a bitmap"
    CLIENT_SETINFO = "CLIENT SETINFO"
    ATOMIC_MIGRATION_SOURCE = "CLUSTER MIGRATESLOTS on the source"
    ATOMIC_MIGRATION_TARGET = "CLUSTER MIGRATION IMPORT on the destination"
    CLIENT_ADDRESS = "cluster-announce-client-ipv4: another address for clients than for the bus"
    HOSTNAMES = "cluster-announce-hostname"
    SENTINEL_HOSTNAMES = "sentinel resolve-hostnames"
    SENTINEL_ACL = "a Sentinel has users of its own"
    CLUSTER_SHARDS = "CLUSTER SHARDS"
    CLUSTER_LINKS = "CLUSTER LINKS"
    PUBSUB_ACL = "ACL rules may hold channel patterns (&*)"
    PROTECTED_CONFIGS = "enable-protected-configs guards dir and dbfilename"
    SHUTDOWN_FAILOVER = "shutdown-on-sigterm failover"
    MULTI_CONFIG = "CONFIG SET takes several settings, and CONFIG GET several patterns"
    BIND_SOURCE = "bind-source-addr: the outgoing address is not the first of bind"
    BIND_OPTIONAL = "bind -ADDR tolerates a missing address"
    MULTIPART_AOF = "appenddirname: the append-only file is a folder"
    PRIMARY_NAMES = "primaryauth and primaryuser are the names that CONFIG REWRITE writes"
    SENTINEL_COORDINATED = "SENTINEL FAILOVER name COORDINATED"
    SETSLOT_REPLICATED = "CLUSTER SETSLOT waits for the replicas"
    FAILOVER_COMMAND = "FAILOVER TO: a planned change without Sentinel or Cluster"
    PAUSE_WRITES = "CLIENT PAUSE WRITE: reads and administration go on"
    SANITIZE = "sanitize-dump-payload: what is loaded is checked as a stranger's"
    RELAXED_RDB = "rdb-version-check relaxed: loads later formats that hold nothing new"
    FIELD_TTL = "HPEXPIREAT: a hash's fields expire one by one"
    EXPIRETIME = "PEXPIRETIME, and SET with PXAT: expiry as a point in time"
    VOTES_AT_ONCE = "a Cluster's primaries vote again at once for a replica of the same primary"
    ELECTS_AT_ONCE = "a Cluster's best replica asks for votes without the random wait"


#: The first version that has it: (redis, valkey); None: never so far.
_SINCE: dict[Capability, tuple[Version | None, Version | None]] = {
    Capability.ACL_SUBCOMMANDS: (Version(7, 0), Version(7, 2)),
    Capability.ACL_SELECTORS: (Version(7, 0), Version(7, 2)),
    Capability.ACL_RULES_KEPT: (Version(7, 2), Version(7, 2)),
    Capability.CLIENT_SETINFO: (Version(7, 2), Version(7, 2)),
    Capability.ATOMIC_MIGRATION_SOURCE: (None, Version(9, 0)),
    Capability.ATOMIC_MIGRATION_TARGET: (Version(8, 4), None),
    Capability.CLIENT_ADDRESS: (None, Version(8, 1)),
    Capability.HOSTNAMES: (Version(7, 0), Version(7, 2)),
    Capability.SENTINEL_HOSTNAMES: (Version(6, 2), Version(7, 2)),
    Capability.SENTINEL_ACL: (Version(6, 2), Version(7, 2)),
    Capability.CLUSTER_SHARDS: (Version(7, 0), Version(7, 2)),
    Capability.CLUSTER_LINKS: (Version(7, 0), Version(7, 2)),
    Capability.PUBSUB_ACL: (Version(6, 2), Version(7, 2)),
    Capability.PROTECTED_CONFIGS: (Version(7, 0), Version(7, 2)),
    Capability.SHUTDOWN_FAILOVER: (None, Version(9, 0)),
    Capability.MULTI_CONFIG: (Version(7, 0), Version(7, 2)),
    Capability.BIND_SOURCE: (Version(7, 0), Version(7, 2)),
    Capability.BIND_OPTIONAL: (Version(6, 2), Version(7, 2)),
    Capability.MULTIPART_AOF: (Version(7, 0), Version(7, 2)),
    Capability.PRIMARY_NAMES: (None, Version(8, 0)),
    Capability.SENTINEL_COORDINATED: (None, Version(9, 0)),
    Capability.SETSLOT_REPLICATED: (None, Version(8, 0)),
    Capability.FAILOVER_COMMAND: (Version(6, 2), Version(7, 2)),
    Capability.PAUSE_WRITES: (Version(6, 2), Version(7, 2)),
    Capability.SANITIZE: (Version(6, 2), Version(7, 2)),
    Capability.RELAXED_RDB: (None, Version(8, 1)),
    Capability.FIELD_TTL: (Version(7, 4), Version(9, 0)),
    Capability.EXPIRETIME: (Version(7, 0), Version(7, 2)),
    # valkey pull requests 1305 and 1356; tried on 9.1, so older ones are taken to wait
    Capability.VOTES_AT_ONCE: (None, Version(9, 1)),
    # as the log of 9.1 says ("can initiate the election immediately"); older ones are taken to wait
    Capability.ELECTS_AT_ONCE: (None, Version(9, 1)),
}

#: Newest first: since which version, which format.
_RDB_VERSIONS: dict[Flavor, tuple[tuple[Version, int], ...]] = {
    "redis": (
        (Version(8, 2), 13),
        (Version(7, 4), 12),
        (Version(7, 2), 11),
        (Version(7, 0), 10),
        (Version(0), 9),
    ),
    "valkey": ((Version(9, 0), 80), (Version(0), 11)),
}

#: Deployed from this version on, and the oldest that still gets security fixes (endoflife tables, late 2026).
_OLDEST: dict[Flavor, Version] = {"redis": Version(6, 2), "valkey": Version(7, 2)}
_OLDEST_FROM_SOURCE = Version(6, 0)


class Engine(Value):
    """A server's flavor and version, as it tells them itself."""

    flavor: Flavor
    version: Version
    tls: bool = True

    @classmethod
    def from_info(cls, info: dict[str, str]) -> Engine:
        """From the ``server`` section of INFO. Valkey shows redis_version 7.2.4 for compatibility."""
        if info.get("server_name") == "valkey" or "valkey_version" in info:
            return cls("valkey", Version.parse(info.get("valkey_version", info.get("redis_version", ""))))
        return cls("redis", Version.parse(info.get("redis_version", "")))

    @classmethod
    def from_banner(cls, text: str) -> Engine:
        """From ``redis-server --version`` or ``valkey-server --version``: ``Redis server v=7.0.15 sha=...``."""
        match = re.search(r"(Redis|Valkey) server v=(\S+)", text)
        if not match:
            raise EngineError(f"not a Redis or Valkey server: {text.strip()[:120]!r}")
        flavor: Flavor = "valkey" if match[1] == "Valkey" else "redis"
        return cls(flavor, Version.parse(match[2]))

    def supports(self, capability: Capability) -> bool:
        since = _SINCE[capability][0 if self.flavor == "redis" else 1]
        return since is not None and self.version >= since

    def refusal(self, *, from_source: bool) -> str | None:
        """Why Redkeep does not deploy this version, or ``None``. Redis 6.0 is deployed from a tarball only."""
        oldest = _OLDEST[self.flavor]
        if from_source and self.flavor == "redis":
            oldest = _OLDEST_FROM_SOURCE
        if self.version >= oldest:
            return None
        return (
            f"{self.flavor} {self.version} is older than {oldest}: it lacks the replication, ACL and announce settings "
            f"that a safe deployment rests on, and gets no security fixes"
        )

    def warning(self) -> str | None:
        """What to know about a version that is deployed all the same."""
        if self.flavor == "redis" and self.version < Version(6, 2):
            return f"Redis {self.version} is past its end of life: no fixes since 2022; plan the upgrade to 7.0 or later"
        return None

    @property
    def rdb_version(self) -> int:
        """The format of its snapshots, which a full resynchronisation sends (rdb.h of each version).

        A server loads its own and older formats, not newer ones. Valkey 9 counts from 80, apart from Redis.
        """
        table = _RDB_VERSIONS[self.flavor]
        return next(number for since, number in table if self.version >= since)

    def loads_from(self, other: Engine) -> bool:
        """Whether it can take a full copy from the other (measured: 7.0 refuses what Valkey 9 and Redis 7.2 send)."""
        return other.rdb_version <= self.reads_rdb_of(other)

    def reads_rdb_of(self, other: Engine) -> int:
        """The newest format of the other's flavor that it reads. Both flavors share those up to 11."""
        return self.rdb_version if self.flavor == other.flavor else min(self.rdb_version, 11)

    @property
    def name(self) -> str:
        """As its makers write it."""
        return f"{self.flavor.capitalize()} {self.version}"

    @property
    def server(self) -> str:
        return f"{self.flavor}-server"

    @property
    def cli(self) -> str:
        return f"{self.flavor}-cli"

    def __str__(self) -> str:
        return f"{self.flavor} {self.version}"


def oldest_that_reads(flavor: Flavor, rdb_version: int) -> Version | None:
    """The first version of a flavor that reads this format of its own; ``None`` where it is a later one than we know."""
    known = [since for since, number in _RDB_VERSIONS[flavor] if number >= rdb_version]
    return known[-1] if known else None


#: CONFIG SET refuses these (config.c of 6.2 to 9.1: IMMUTABLE_CONFIG, or no such command in the older ones).
_IMMUTABLE = frozenset(
    {
        "aclfile", "appenddirname", "appendfilename", "cluster-config-file", "cluster-enabled", "daemonize", "databases",
        "io-threads", "io-threads-do-reads", "logfile", "pidfile", "rdma-port", "supervised", "syslog-enabled",
        "tcp-backlog", "unixsocket", "unixsocketperm", "always-show-logo", "disable-thp", "server_cpulist",
        "enable-protected-configs", "enable-debug-command", "enable-module-command", "socket-mark-id",
    }
)  # fmt: skip


def immutable_settings(engine: Engine) -> frozenset[str]:
    """The settings that only a start can change."""
    if engine.supports(Capability.MULTI_CONFIG):
        # dir is guarded there (enable-protected-configs), so a start is its only way too.
        return _IMMUTABLE | {"dir"}
    return _IMMUTABLE | {"bind", "dir", "port", "tls-port"}


#: What holds where nobody says anything, in every version that is deployed (read from Redis 6.2.14 and 7.0.15 and Valkey
#: 9.1.2). They are written down like any other setting: one that was taken out of the deployment file goes back to this,
#: although the server may have kept the former value in its own file.
DEFAULTS: dict[str, str] = {
    "acllog-max-len": "128", "active-expire-effort": "1", "activedefrag": "no", "activerehashing": "yes",
    "auto-aof-rewrite-min-size": "67108864", "auto-aof-rewrite-percentage": "100",
    "client-query-buffer-limit": "1073741824", "hz": "10", "io-threads": "1",
    "latency-monitor-threshold": "0", "lfu-decay-time": "1", "lfu-log-factor": "10", "list-compress-depth": "0",
    "loglevel": "notice", "lua-time-limit": "5000", "maxmemory-samples": "5", "min-replicas-max-lag": "10",
    "min-replicas-to-write": "0", "no-appendfsync-on-rewrite": "no", "notify-keyspace-events": "",
    "proto-max-bulk-len": "536870912", "rdbcompression": "yes", "repl-backlog-ttl": "3600",
    "repl-disable-tcp-nodelay": "no", "repl-ping-replica-period": "10", "repl-timeout": "60",
    "replica-ignore-maxmemory": "yes", "replica-priority": "100", "replica-read-only": "yes",
    "replica-serve-stale-data": "yes", "slowlog-log-slower-than": "10000", "slowlog-max-len": "128",
    "stop-writes-on-bgsave-error": "yes", "tcp-backlog": "511", "timeout": "0", "tracking-table-max-keys": "1000000",
}  # fmt: skip

#: Other names of these settings.
_ALIASES = {
    "lua-time-limit": "busy-reply-threshold",
    "min-replicas-max-lag": "min-slaves-max-lag",
    "min-replicas-to-write": "min-slaves-to-write",
    "repl-ping-replica-period": "repl-ping-slave-period",
    **{name: name.replace("replica-", "slave-", 1) for name in DEFAULTS if name.startswith("replica-")},
}


def defaults_beside(named: Iterable[str]) -> dict[str, str]:
    """The defaults of all settings that are not named, under any of their names."""
    known = set(named)
    return {k: v for k, v in DEFAULTS.items() if k not in known and _ALIASES.get(k) not in known}


class EngineWant(Value):
    """Which server a host should have, as the deployment file says it.

    ``version`` pins a package (``7.0.15``, ``7.0``, or the distribution's whole version). ``path`` is a source
    archive or tree on the operator's machine (tarball), or the server on each host (binary). ``run_tests`` runs the
    sources' own test suite after building. ``in_place`` uses the bundled server where Python installed it, also as
    root: right for a demo, wrong for a service, which should outlive a virtual environment.
    """

    flavor: Flavor
    source: Literal["bundled", "package", "tarball", "binary"]
    version: str | None = None
    path: str | None = None
    run_tests: bool = False
    in_place: bool = False

    def __str__(self) -> str:
        pinned = f" {self.version}" if self.version else ""
        return f"{self.flavor}{pinned} ({self.source})"


class Installed(Value):
    """A server on a host: absolute paths of ``server`` and, where there is one, of ``cli``; TLS as measured."""

    server: str
    cli: str | None
    engine: Engine
