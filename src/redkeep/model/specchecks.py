"""What only several keys of the deployment file together can get wrong, as far as the file alone shows it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING

from redkeep.model.specfile import Path, Problem

if TYPE_CHECKING:
    from redkeep.model.hostspec import HostSpec
    from redkeep.model.spec import Spec


def conflicts(spec: Spec) -> Iterator[Problem]:
    """What runs already is as it is, and not as Redkeep would make it."""
    if spec.adopted and spec.hosts:
        yield from _hosts(spec)
        return
    yield from _engine(spec)
    yield from _counts(spec)
    if spec.hosts:
        yield from _hosts(spec)
        yield from _ports(spec)
    yield from _access(spec)
    if "save" in spec.settings and not spec.rdb:
        yield Problem(
            ("settings", "save"),
            f"save contradicts persistence: {spec.persistence}",
            "write persistence: rdb",
        )


def _engine(spec: Spec) -> Iterator[Problem]:
    engine = spec.engine
    if engine.source == "bundled" and engine.flavor != "valkey":
        yield Problem(
            ("engine", "flavor"), "the bundled server is Valkey", "write flavor: valkey, or source: package"
        )
    if engine.source in ("tarball", "binary") and not engine.path:
        yield Problem(
            ("engine",),
            f"source: {engine.source} needs a path",
            "add path: where it is, relative to this file",
        )
    if engine.source == "binary" and engine.path and not (engine.path.startswith("/") or _local(spec)):
        yield Problem(
            ("engine", "path"),
            f"not the absolute path of a server on the hosts: {engine.path}",
            "write it as it stands there, such as /usr/local/bin/redis-server",
        )
    if engine.source in ("bundled", "package") and engine.path:
        yield Problem(
            ("engine", "path"),
            f"source: {engine.source} has no path",
            "remove it, or write source: tarball or binary",
        )


def _local(spec: Spec) -> bool:
    return bool(spec.hosts) and spec.is_local


def _counts(spec: Spec) -> Iterator[Problem]:
    hosts = len(spec.hosts)
    if not hosts:
        yield Problem(
            ("hosts",), "no hosts", "list at least one host, or write hosts: [local] for this machine"
        )
        return
    if spec.mode == "cluster" and spec.shards < 3:
        hint = "write at least 3, or mode: sentinel for one primary"
        yield Problem(("shards",), f"a cluster needs 3 shards to elect with a majority: {spec.shards}", hint)
    if spec.mode != "cluster" and spec.shards > 1:
        yield Problem(
            ("shards",),
            f"more than one shard needs mode: cluster: {spec.shards}",
            "remove it, or change mode",
        )
    if spec.mode == "sentinel" and spec.replicas < 1:
        yield Problem(
            ("replicas",), "Sentinels have nothing to promote without a replica", "write at least 1"
        )
    if spec.mode == "sentinel" and spec.sentinels < 1:
        yield Problem(("sentinels",), "mode: sentinel needs Sentinels", "write 3, or mode: standalone")
    if spec.is_local:
        return
    if spec.replicas >= hosts:
        what = f"too few hosts: a primary and its replicas need {spec.replicas + 1} of their own, and {_there(hosts)}"
        yield Problem(("hosts",), what, f"add hosts, or write replicas: {hosts - 1}")
    if spec.sentinels > hosts:
        what = f"too few hosts: {spec.sentinels} Sentinels need as many hosts, and {_there(hosts)}"
        yield Problem(("hosts",), what, f"add hosts, or write sentinels: {hosts}")


def _there(hosts: int) -> str:
    return "there is 1" if hosts == 1 else f"there are {hosts}"


def _hosts(spec: Spec) -> Iterator[Problem]:
    if len(spec.hosts) > 1:
        for index, host in enumerate(spec.hosts):
            if host.is_local:
                yield Problem(
                    ("hosts", index),
                    "local stands beside other hosts",
                    "deploy on local alone, or on hosts by SSH",
                )
    for key in ("name", "ssh", "private", "public"):
        yield from _duplicates(spec, key)
    for index, host in enumerate(spec.hosts):
        if spec.clients == "public" and not host.public:
            what = f"clients: public needs a public address, and {host.name} has none"
            yield Problem(
                ("hosts", index),
                what,
                "add public: the address at which clients reach it, or write clients: private",
            )
        for key, value in (("private", host.private), ("public", host.public)):
            if value and not host.is_local and (value.startswith("127.") or value == "::1"):
                what = f"no other host reaches {host.name} at {value}"
                yield Problem(("hosts", index, key), what, "write an address of its network card")


def _machine(host: HostSpec) -> str:
    """Another login is no other machine. A name may stand for anything in ``~/.ssh/config``, and counts as it is."""
    try:
        return f"{ipaddress.ip_address(host.ssh_host)} {host.ssh_port or 22}"
    except ValueError:
        return host.ssh


def _duplicates(spec: Spec, key: str) -> Iterator[Problem]:
    first: dict[tuple[str, str], int] = {}
    for index, host in enumerate(spec.hosts):
        value = getattr(host, key)
        if not value:
            continue
        written = value
        value = _machine(host) if key == "ssh" else value
        # equal private addresses are two machines where the networks are two
        scope = host.network_name if key == "private" and (host.network or host.zone) else ""
        earlier = first.setdefault((scope, value), index)
        if earlier != index:
            hint = (
                "give each host its own"
                if key != "ssh"
                else "one host carries several nodes by itself; list it once"
            )
            yield Problem(("hosts", index, key), f"{written} is already {key} of hosts[{earlier}]", hint)


def _ports(spec: Spec) -> Iterator[Problem]:
    """Two servers of one host on one port. Nodes are spread evenly, so a host carries its share of them."""
    nodes = ceil(spec.nodes_total / len(spec.hosts))
    ranges: list[tuple[str, Path, range]] = [("port", ("port",), range(spec.port, spec.port + nodes))]
    if spec.mode == "cluster":
        bus = spec.port + 10_000
        ranges.append(("the cluster bus (port + 10000)", ("port",), range(bus, bus + nodes)))
    if spec.mode == "sentinel":
        each = ceil(spec.sentinels / len(spec.hosts))
        ranges.append(
            ("sentinel_port", ("sentinel_port",), range(spec.sentinel_port, spec.sentinel_port + each))
        )
    for (one, _, first), (other, path, second) in combinations(ranges, 2):
        if shared := range(max(first.start, second.start), min(first.stop, second.stop)):
            what = f"two servers on port {shared.start}: {one} takes {_span(first)}, {other} takes {_span(second)}"
            yield Problem(path, what, "write ports that lie further apart")
    for name, path, taken in ranges:
        if taken.stop > 65_536:
            yield Problem(path, f"{name} takes {_span(taken)}, and ports end at 65535", "write a lower port")


def _span(ports: range) -> str:
    return f"{ports.start}" if len(ports) == 1 else f"{ports.start}-{ports.stop - 1}"


def _has_everyone(entries: Iterable[str], version: int) -> bool:
    """Whether ranges are together all addresses there are."""
    networks = [n for e in entries if (n := ipaddress.ip_network(e)).version == version]
    return any(n.prefixlen == 0 for n in ipaddress.collapse_addresses(networks))  # type: ignore[type-var]


def _access(spec: Spec) -> Iterator[Problem]:
    if spec.auth != "none":
        return
    if spec.clients == "public":
        yield Problem(
            ("auth",),
            "auth: none is refused with clients: public",
            "write auth: password, or clients: private",
        )
    if not spec.allow_from or any(_has_everyone(spec.allow_from, version) for version in (4, 6)):
        what = "auth: none lets everyone in who is not limited by allow_from"
        yield Problem(
            ("auth",), what, "write auth: password, or allow_from: with the applications' addresses"
        )
