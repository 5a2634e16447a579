"""Settings of servers and Sentinels, as values and as the text of their files.

A server is started as ``SERVER data/node.conf --include conf/managed.conf``: the managed file is ours and read
last, node.conf is the server's own (MEASURED on Redis 7.0 and Valkey 9.1: this survives CONFIG REWRITE and
failovers). A Sentinel owns its file: it is seeded once and changed by SENTINEL commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from redkeep.model.engine import Capability, Engine, defaults_beside
from redkeep.model.sizes import parse_size
from redkeep.model.values import Value
from redkeep.planning.hostfiles.quoting import quote

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.hostfiles.layout import Layout, NodePaths

#: Snapshots after 1 change in an hour, 100 in five minutes, 10,000 in one: the engines' own default since 7.0.
SAVE_POINTS = "3600 1 300 100 60 10000"

#: Cloud networks forget idle connections after some minutes; the engines' default of 300 s is too late for some.
TCP_KEEPALIVE = 60

#: Bytes kept for replicas that were away for a moment: the default of 1 MiB lasts seconds.
BACKLOG = 64 * 1024**2

#: While a Cluster is being created, and only then: nodes rejoin after clamp(node timeout, 500, 5000) ms, and
#: with the shortest the whole creation takes half a second instead of seven (measured on Redis 7.0 and Valkey 9.1).
#: What a replica loads straight from its primary it has at once; Valkey 9 looks at a file it wrote only every second.
HASTE = {"cluster-node-timeout": "500", "repl-diskless-sync-delay": "0", "repl-diskless-load": "on-empty-db"}
#: In a large fleet the timeout grows with it: all nodes ping all others twice in that time, and would drown in it.
HASTE_PER_NODE = 30

#: Never shown in a plan, a journal or an error.
SECRET_SETTINGS = frozenset({"masterauth", "primaryauth", "requirepass", "tls-key-file-pass"})


class Wire(Value):
    """How one node is reached: what it binds, and what it tells others and clients."""

    port: int
    bind: tuple[str, ...]
    announce: str
    client_announce: str = ""
    tls: bool = False


def server_settings(
    spec: Spec, wire: Wire, engine: Engine, layout: Layout, paths: NodePaths, *, replication_password: str
) -> dict[str, str]:
    """All settings that we keep on a server, with the values that CONFIG GET shows for them.

    Defaults of the engine are among them: else a setting that was taken out of the file would stay in force.
    """
    settings = {
        **_network(wire, layout),
        "protected-mode": "no" if spec.auth == "none" else "yes",
        "dir": paths.data,
        "aclfile": paths.acl,
        # The gate reads there whether the last shutdown was an orderly one.
        "logfile": f"{paths.data}/server.log",
        "tcp-keepalive": str(TCP_KEEPALIVE),
        "masteruser": "replication",
        "masterauth": replication_password,
        "replica-announce-ip": wire.announce,
        "replica-announce-port": str(wire.port),
        # A switchover puts one replica first for a moment; what a cut left of that is set back.
        "replica-priority": "100",
        "repl-backlog-size": str(BACKLOG),
        "repl-diskless-sync": "yes",
        # Waiting lets several replicas share one snapshot; with one there is nobody to wait for.
        "repl-diskless-sync-delay": "1" if spec.replicas > 1 else "0",
        # An empty replica has nothing to lose, so its copy needs no file in between.
        "repl-diskless-load": "on-empty-db",
        "maxmemory": str(spec.maxmemory or 0),
        "maxmemory-policy": spec.eviction,
        "save": SAVE_POINTS if spec.rdb else "",
        "appendonly": "yes" if spec.aof else "no",
        "appendfsync": spec.appendfsync,
    }
    if wire.tls:
        settings["tls-replication"] = "yes"
    if spec.mode == "cluster":
        settings |= _cluster(spec, wire, engine)
    return {**defaults_beside(spec.settings), **settings, **spec.settings}


def haste(settings: Mapping[str, str], nodes: int = 0) -> dict[str, str]:
    """What is set otherwise while the Cluster is created, and set back afterwards."""
    found = {k: v for k, v in HASTE.items() if settings.get(k, v) != v}
    name = "cluster-node-timeout"
    if name in found:
        found[name] = str(max(int(found[name]), HASTE_PER_NODE * nodes))
        if int(found[name]) >= int(settings[name]):
            del found[name]
    return found


def _network(wire: Wire, layout: Layout) -> dict[str, str]:
    settings = {"bind": " ".join(wire.bind), "port": str(wire.port)}
    if wire.tls:
        settings |= {
            "port": "0",
            "tls-port": str(wire.port),
            "tls-cert-file": layout.certificate,
            "tls-key-file": layout.key,
            "tls-ca-cert-file": layout.ca,
            # Clients prove themselves by password; the bus asks for certificates whatever stands here.
            "tls-auth-clients": "no",
        }
    return settings


def _cluster(spec: Spec, wire: Wire, engine: Engine) -> dict[str, str]:
    settings = {
        "cluster-enabled": "yes",
        "cluster-config-file": "nodes.conf",
        "cluster-node-timeout": str(spec.timing.detection_ms),
        # One lost shard must not stop the others.
        "cluster-require-full-coverage": "no",
        "cluster-announce-ip": wire.announce,
    }
    if wire.tls:
        settings["tls-cluster"] = "yes"
    if engine.supports(Capability.SHUTDOWN_FAILOVER):
        # For a stop that the hook did not precede; after it there is nobody left to hand over to.
        settings["shutdown-on-sigterm"] = "failover"
    if wire.client_announce and engine.supports(Capability.CLIENT_ADDRESS):
        kind = "ipv6" if ":" in wire.client_announce else "ipv4"
        settings[f"cluster-announce-client-{kind}"] = wire.client_announce
    return settings


def server_file(settings: Mapping[str, str]) -> str:
    """managed.conf: what is listed several times over several lines (``save``) begins empty, so that it replaces."""
    lines = [
        "# Written by Redkeep and read last: what stands here wins at every start. Change the deployment file instead."
    ]
    for key, value in settings.items():
        if key == "save":
            lines.append('save ""')
            points = value.split()
            lines += [f"save {a} {b}" for a, b in zip(points[::2], points[1::2], strict=True)]
        elif key == "bind":
            lines.append(f"bind {value}")
        else:
            lines.append(f"{key} {quote(value)}")
    return "\n".join(lines) + "\n"


def sentinel_file(
    spec: Spec,
    wire: Wire,
    layout: Layout,
    paths: NodePaths,
    *,
    primary: tuple[str, int],
    server_password: str,
    peer_password: str,
    engine: Engine,
) -> str:
    """The seed of a Sentinel's own file. ``primary`` is the announced address of the primary to watch."""
    host, port = primary
    lines = [
        *(f"{k} {v if k == 'bind' else quote(v)}" for k, v in _network(wire, layout).items()),
        *(["tls-replication yes"] if wire.tls else []),
        f"protected-mode {'no' if spec.auth == 'none' else 'yes'}",
        f"dir {quote(paths.data)}",
        *([f"aclfile {quote(paths.acl)}"] if engine.supports(Capability.SENTINEL_ACL) else []),
        'logfile ""',
        f"sentinel announce-ip {wire.announce}",
        f"sentinel announce-port {wire.port}",
        f"sentinel monitor {spec.name} {host} {port} {spec.quorum}",
        *(f"sentinel {k} {spec.name} {v}" for k, v in sentinel_settings(spec).items() if k != "quorum"),
        f"sentinel auth-user {spec.name} sentinel",
        f"sentinel auth-pass {spec.name} {quote(server_password)}",
        *(
            ["sentinel sentinel-user sentinel", f"sentinel sentinel-pass {quote(peer_password)}"]
            if engine.supports(Capability.SENTINEL_ACL)
            else []
        ),
    ]
    return "\n".join(lines) + "\n"


def sentinel_settings(spec: Spec) -> dict[str, str]:
    """What every Sentinel is told about the primary, as SENTINEL SET takes it and SENTINEL MASTER shows it."""
    return {
        "quorum": str(spec.quorum),
        "down-after-milliseconds": str(spec.timing.detection_ms),
        # A Sentinel that lost a vote tries again after twice this: the default means six minutes without a primary.
        "failover-timeout": str(spec.timing.failover_timeout_ms),
        "parallel-syncs": "1",
    }


def same_value(key: str, wanted: str, running: str) -> bool:
    """Whether a running setting is what we want, however the server spells it (``2gb`` and its bytes, ``""``)."""
    if wanted == running:
        return True
    if key == "bind":
        return wanted.split() == running.split()
    if key == "notify-keyspace-events":
        return _events(wanted) == _events(running)
    if key == "client-output-buffer-limit":
        shown = _buffer_limits(running)
        return all(shown.get(kind) == limits for kind, limits in _buffer_limits(wanted).items())
    sizes = re.compile(r"\d+(\.\d+)?\s*[kmg]i?b?", re.IGNORECASE)
    if sizes.fullmatch(wanted) or sizes.fullmatch(running):
        try:
            return parse_size(wanted) == parse_size(running)
        except ValueError:
            return False
    return wanted.lower().split() == running.lower().split()


def _events(flags: str) -> set[str]:
    """The server shows the letters in its own order, and all of them as A."""
    return set(flags.replace("A", "g$lshzxetd"))


def _buffer_limits(value: str) -> dict[str, tuple[int | str, ...]]:
    """``replica 256mb 64mb 60``: by class, in bytes. Classes that are not named keep theirs."""
    words = value.lower().split()
    found: dict[str, tuple[int | str, ...]] = {}
    for kind, hard, soft, seconds in zip(words[::4], words[1::4], words[2::4], words[3::4], strict=False):
        found["replica" if kind == "slave" else kind] = (_bytes(hard), _bytes(soft), seconds)
    return found


def _bytes(text: str) -> int | str:
    try:
        return parse_size(text)
    except ValueError:
        return text
