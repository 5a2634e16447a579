"""A deployment file for each Redis that was on the disk: its shape and limits as they were, its access closed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from redkeep.errors import SpecError, UsageError
from redkeep.model.sizes import format_size, parse_size
from redkeep.model.spec import Eviction, load
from redkeep.usecases.init import host_lines, one_line, scalar

_NAME = re.compile(r"[a-z][a-z0-9-]{0,24}", re.ASCII)
_MOST = 20
#: What a deployment file takes as memory: less or more was no limit that anybody meant.
_FEWEST_BYTES, _MOST_BYTES = 1 << 20, 1 << 50
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class Deployment:
    """``file`` is its name in the plan's directory. ``changes`` and ``notes`` are for people; ``data`` are the files
    that its servers would have loaded, ``options`` those of ``rescue redis`` that they call for."""

    file: str
    mode: str
    port: int
    sources: list[str]
    text: str = ""
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "mode": self.mode,
            "port": self.port,
            "sources": self.sources,
            "data": self.data,
            "changes": self.changes,
            "notes": self.notes,
        }


@dataclass
class _Group:
    """Configurations that were one deployment."""

    mode: str
    facts: list[dict[str, Any]]
    shards: int = 1
    replicas: int = 0
    sentinels: int = 0
    name: str = ""
    timeout: int = 0
    notes: list[str] = field(default_factory=list)


def deployments(found: dict[str, Any], hosts: Sequence[dict[str, str]]) -> list[Deployment]:
    """``hosts`` as ``init.parse_host`` gives them; without any, names to fill in. ``UsageError`` where they do not do."""
    groups = sorted(_groups(found), key=lambda group: -_weight(group))[:_MOST]
    hostname = str(found["inspect"]["system"].get("hostname", "")).lower()
    made = []
    for number, group in enumerate(groups):
        first = group.facts[0] if group.facts else {"values": {}, "path": "", "files": [], "named": {}}
        port = _port(first)
        base = group.name or hostname
        name = base if _NAME.fullmatch(base) else "rescued"
        one = Deployment(
            "redkeep.yaml" if not number else f"redkeep-{number + 1}.yaml",
            group.mode,
            port,
            [fact["path"] for fact in group.facts],
        )
        one.text = _text(group, first, one, name if not number else f"{name}-{number + 1}", hosts)
        _describe(group, one)
        one.data = [path for fact in group.facts if (path := _loaded(fact))]
        files = [f for fact in group.facts for f in fact["files"]]
        one.options += ["--before-flush"] if any(f.get("flushes") for f in files) else []
        one.options += ["--without-intruders"] if any(f.get("suspects") for f in files) else []
        _validate(one)
        made.append(one)
    return made


def _weight(group: _Group) -> int:
    return sum(int(f["bytes"]) for fact in group.facts for f in fact["files"]) + (group.mode != "standalone")


def _groups(found: dict[str, Any]) -> Iterator[_Group]:
    facts = list(found["redis"])
    clustered = [fact for fact in facts if _last(fact, "cluster-enabled") == "yes"]
    if clustered:
        yield _cluster(clustered)
    rest = [fact for fact in facts if fact not in clustered]
    for watched in found["sentinels"]:
        mine = [f for f in rest if watched["port"] in (str(_port(f)), _primary(f)[1])]
        rest = [fact for fact in rest if fact not in mine]
        yield _watched(watched, mine)
    replicas = [fact for fact in rest if _primary(fact)[0]]
    for fact in rest:
        if fact in replicas and _here(fact, rest):
            continue
        followers = [f for f in replicas if f is not fact and _here(f, [fact])]
        group = _Group("standalone", [fact, *followers], replicas=len(followers))
        if fact in replicas:
            group.replicas = 1
            group.notes.append(
                f"this server was a replica of {one_line(' '.join(_primary(fact)))}: "
                "if that primary lives, its data is newer, "
                "and it was as exposed as this one"
            )
        yield group


def _cluster(facts: list[dict[str, Any]]) -> _Group:
    nodes = max((fact.get("nodes", {}) for fact in facts), key=lambda n: n.get("primaries", 0))
    primaries, replicas = nodes.get("primaries", 0), nodes.get("replicas", 0)
    group = _Group("cluster", facts, shards=max(3, min(primaries, 1000)), replicas=1)
    if primaries:
        group.replicas = min(replicas // primaries, 20)
        group.notes.append(f"its nodes.conf names {primaries} primaries and {replicas} replicas")
    else:
        group.notes.append("its nodes.conf is not there: 3 primaries with a replica each are a guess")
    group.timeout = (
        int(_last(facts[0], "cluster-node-timeout") or 0) if _digits(facts[0], "cluster-node-timeout") else 0
    )
    group.notes.append(
        "one disk of a Cluster holds a part of the keys: rescue the disks of all its primaries"
    )
    return group


def _watched(watched: dict[str, Any], facts: list[dict[str, Any]]) -> _Group:
    group = _Group(
        "sentinel",
        facts,
        replicas=max(1, min(watched["replicas"], 20)),
        sentinels=max(3, min(watched["sentinels"], 15)),
        name=watched["name"],
        timeout=watched["down_after"],
    )
    group.notes.append(
        f"a Sentinel watched {one_line(watched['name']) or 'a primary'}: {watched['replicas']} replicas, "
        f"{watched['sentinels']} Sentinels, quorum {watched['quorum']}"
    )
    if watched["sentinels"] < 3:
        group.notes.append("fewer than three Sentinels cannot agree when a host is lost: three are planned")
    return group


def _last(fact: dict[str, Any], key: str) -> str:
    values = fact["values"].get(key) or [""]
    return str(values[-1])


def _digits(fact: dict[str, Any], key: str) -> bool:
    return bool(re.fullmatch(r"\d{1,9}", _last(fact, key)))


def _port(fact: dict[str, Any]) -> int:
    for key in ("port", "tls-port"):
        if _digits(fact, key) and int(_last(fact, key)):
            return int(_last(fact, key))
    return 6379


def _primary(fact: dict[str, Any]) -> tuple[str, str]:
    """Whom it followed: address and port; empty for a primary."""
    words = (_last(fact, "replicaof") or _last(fact, "slaveof")).split()
    return (words[0], words[1]) if len(words) == 2 and words != ["no", "one"] else ("", "")


def _here(fact: dict[str, Any], facts: list[dict[str, Any]]) -> bool:
    """Whether the primary that it followed is one of these."""
    host, port = _primary(fact)
    return host in _LOOPBACK and any(str(_port(other)) == port for other in facts if other is not fact)


def _text(
    group: _Group, fact: dict[str, Any], one: Deployment, name: str, hosts: Sequence[dict[str, str]]
) -> str:
    local = [host.get("ssh") for host in hosts] == ["local"]
    lines = [
        "# The Redis that was on the rescued disk, with its doors closed. From: "
        + one_line(", ".join(one.sources) or "a Sentinel's configuration"),
        "# What changed, and what applications must change: REBUILD.md. redkeep plan says what apply will do.",
        "",
        f"name: {scalar(name)}",
        f"mode: {group.mode}",
    ]
    if not local:
        lines.append(f"engine: {{flavor: {fact.get('flavor', 'redis')}, source: package}}")
    if group.mode == "cluster":
        lines.append(f"shards: {group.shards}")
    if group.replicas or group.mode != "standalone":
        lines.append(f"replicas: {group.replicas}")
    if group.mode == "sentinel":
        lines.append(f"sentinels: {group.sentinels}")
    lines += [*_limits(fact), *_port_line(one.port)]
    if group.mode != "standalone" and 200 <= group.timeout <= 600_000:
        lines.append(f"failover: {group.timeout:<18} # milliseconds, as it was")
    lines += _SAFE
    lines += _settings(fact, group.mode)
    if hosts:
        return "\n".join([*lines, host_lines(tuple(hosts)), ""])
    wanted = max(group.replicas + 1, group.sentinels, 3 if group.mode == "cluster" else 1)
    lines.append(
        "# Fill in the NEW hosts: user@address. private: and public: addresses where they are not found out by themselves."
    )
    rows = [{"name": f"h{n}", "ssh": f"root@fill-in-{n}.invalid"} for n in range(1, wanted + 1)]
    return "\n".join([*lines, host_lines(tuple(rows)), ""])


_SAFE = (
    "",
    "# Every connection needs a password, which redkeep makes; nothing listens further than clients: says.",
    "auth: password",
    "clients: private              # public: where applications come over the internet; then with TLS and allow_from",
    "# allow_from: [10.0.0.7]      # the applications' addresses: nobody else gets through",
    "tls: auto",
    "",
)


def _limits(fact: dict[str, Any]) -> Iterator[str]:
    memory = _memory(fact)
    yield (
        f"maxmemory: {format_size(memory)}"
        if memory
        else "# maxmemory: 2GiB           # it had none: set one"
    )
    eviction = _last(fact, "maxmemory-policy")
    yield (
        f"eviction: {eviction}"
        if eviction in get_args(Eviction)
        else "# eviction: noeviction       # as it was: the default"
    )
    yield f"persistence: {_persistence(fact)}"
    if _last(fact, "appendfsync") in ("always", "no"):
        yield f"appendfsync: {scalar(_last(fact, 'appendfsync'))}"


def _memory(fact: dict[str, Any]) -> int:
    try:
        size = parse_size(_last(fact, "maxmemory"))
    except ValueError:
        return 0
    return size if _FEWEST_BYTES <= size <= _MOST_BYTES else 0


def _persistence(fact: dict[str, Any]) -> str:
    """Without a ``save`` line a server saves at its defaults (redis.conf of every version)."""
    saves = fact["values"].get("save")
    rdb = saves is None or any(value.strip(' "') for value in saves)
    parts = (["rdb"] if rdb else []) + (["aof"] if _last(fact, "appendonly") == "yes" else [])
    return "+".join(parts) or "none"


def _port_line(port: int) -> Iterator[str]:
    if port == 6379:
        return
    if 1024 <= port <= 55535:
        yield f"port: {port}"
    else:
        yield f"# port: {port} cannot be had here; applications find it on 6379"


def _settings(fact: dict[str, Any], mode: str) -> Iterator[str]:
    """Further settings, as they were. Those that a Cluster does not have are left out."""
    from redkeep.rescue.rebuild.redisfacts import CARRIED

    lines = []
    saves = [pair for value in fact["values"].get("save", []) for pair in value.split()]
    if saves and len(saves) % 2 == 0 and all(re.fullmatch(r"\d{1,9}", word) for word in saves):
        lines.append(f"  save: {scalar(' '.join(saves))}")
    for key in sorted(CARRIED):
        value = _last(fact, key)
        if value and not (mode == "cluster" and key == "databases"):
            lines.append(f"  {key}: {value if re.fullmatch(r'[0-9]{1,15}', value) else scalar(value)}")
    if lines:
        yield from ["settings:", *lines, ""]


def _describe(group: _Group, one: Deployment) -> None:
    one.notes += group.notes
    changes = one.changes
    for fact in group.facts:
        named, where = fact["named"], one_line(fact["path"])
        if fact["open"]:
            changes.append(
                f"{where} was open ({one_line(fact['open'])}): every connection now needs a password"
            )
        if "bind" in fact["values"] or "protected-mode" in fact["values"]:
            changes.append(
                f"{where}: bind and protected-mode are not carried over; the new servers listen where clients: says"
            )
        if named.get("requirepass") or named.get("masterauth"):
            changes.append(
                f"{where}: its passwords are not carried over: they were exposed. The applications get a new one"
            )
        if named.get("user") or named.get("aclfile"):
            changes.append(
                f"{where}: its own users are not carried over: applications are the user default, which sends the password "
                "alone, and has no CONFIG, MODULE or DEBUG"
            )
        if fact["renamed"]:
            changes.append(
                f"{where}: rename-command of {', '.join(fact['renamed'][:20])} "
                "is not carried over: rights take its place. An "
                "application that calls one by its new name must call it by its own again"
            )
        if named.get("loadmodule"):
            changes.append(
                f"{where}: {named['loadmodule']} modules are not "
                "loaded: a module is a program, and an intruder's way in. Keys "
                "of their types cannot be read without them"
            )
        if named.get("unixsocket"):
            changes.append(
                f"{where}: it had a Unix socket; applications that used it need the address and port"
            )
        if _persistence(fact) == "none":
            one.notes.append(
                "nothing of it was written to disk: persistence: rdb, where it is more than a cache"
            )
        if not _memory(fact):
            one.notes.append("it had no maxmemory, so the kernel decided who died: set one")
    one.notes += _versions(group)


def _loaded(fact: dict[str, Any]) -> str:
    """What a server of that configuration starts from; empty where nothing of it is there."""
    order = (
        ["aof manifest", "aof", "rdb"]
        if _last(fact, "appendonly") == "yes"
        else ["rdb", "aof manifest", "aof"]
    )
    for kind in order:
        for file in fact["files"]:
            if file["kind"] == kind:
                return str(file["path"])
    return ""


def _versions(group: _Group) -> Iterator[str]:
    """What its data files say that ``rescue redis`` must be told, or that bites."""
    every = [f for fact in group.facts for f in fact["files"]]
    if any(f.get("flushes") for f in every):
        yield "its append-only file holds a FLUSHALL, as a worm's does: --before-flush cuts it off"
    if any(_last(fact, "appendonly") == "yes" for fact in group.facts) and not any(
        "aof" in f["kind"] for f in every
    ):
        yield (
            "it had appendonly yes and only an RDB is there: a server "
            "started on that would be empty, so let redkeep rescue redis load it"
        )
    files = [f for fact in group.facts for f in fact["files"] if f.get("rdb_version")]
    if files:
        newest = max(files, key=lambda f: int(f["rdb_version"]))
        by = one_line(str(newest.get("written_by") or "a version that it does not name"))
        yield (
            f"its data is RDB version {newest['rdb_version']}, written "
            f"by {by}: redkeep rescue redis says which engine reads it, "
            "and engine: must be one of those"
        )


def _validate(one: Deployment) -> None:
    try:
        load(one.text, one.file)
    except SpecError as error:  # only what --host says can do that
        raise UsageError(
            f"{one.file}, mode {one.mode}: {error.what}", where="--host", next=error.next.split("\n")[0]
        ) from None
