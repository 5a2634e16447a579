"""Judges, before anything is changed, what was measured on the hosts and between them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING

from redkeep.model.finding import Finding, Severity
from redkeep.model.topology import HostFacts, Listener, Unreachable
from redkeep.model.values import Value
from redkeep.planning.hostfiles.units import KERNEL_WANTED, SOMAXCONN
from redkeep.planning.placing.probes import HERE, Probe, ProbeWanted, blocked_paths, wanted_probes

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.placing.addresses import AddressPlan
    from redkeep.planning.placing.placement import PlacedNode, Placement

__all__ = ["HERE", "Probe", "ProbeWanted", "memory", "preflight", "wanted_probes"]

_MIB, _GIB = 1024**2, 1024**3

#: Of a host's memory; the rest is for the copies that a fork makes, for buffers, and for the system.
MEMORY_SHARE = 0.75
#: Room for the server software, logs, and small data.
LEAST_DISK = 256 * _MIB
#: Seconds. Sentinels turn to TILT and leases misjudge when clocks jump by more; logs stop being comparable.
_CLOCK_SKEW = 0.5
#: The bundled server is built against this one.
_LEAST_GLIBC = (2, 28)


def preflight(
    spec: Spec,
    placement: Placement,
    plan: AddressPlan,
    probes: Collection[Probe],
    facts: Mapping[str, HostFacts | Unreachable],
    *,
    running: Collection[str] = (),
    bundled_architecture: str = "x86_64",
) -> list[Finding]:
    """Everything that speaks against going on. ``running``: our nodes that run already, whose ports are rightly taken."""
    known = {host: its for host, its in facts.items() if isinstance(its, HostFacts) and host in plan.hosts}
    found: list[Finding] = [*blocked_paths(spec, plan, probes), *_clocks(known)]
    for host, its in known.items():
        nodes = placement.on(host)
        found += chain(
            _ports(spec, nodes, plan[host].bind, its, running),
            _outgoing(spec, host, nodes, its),
            _memory(spec, host, nodes, its),
            _disk(spec, host, nodes, its, running),
            _kernel(host, its),
            _bundled(spec, host, its, bundled_architecture),
        )
    return found


def memory(
    spec: Spec, placement: Placement, facts: Mapping[str, HostFacts | Unreachable], hosts: Collection[str]
) -> list[Finding]:
    """Of hosts whose servers run, and are to take more memory than they have."""
    known = {host: its for host, its in facts.items() if isinstance(its, HostFacts) and host in hosts}
    return [f for host, its in known.items() for f in _memory(spec, host, placement.on(host), its)]


def _ports(
    spec: Spec,
    nodes: tuple[PlacedNode, ...],
    bind: tuple[str, ...],
    facts: HostFacts,
    running: Collection[str],
) -> Iterator[Finding]:
    """Somebody else listens where a node of ours is to listen."""
    for node in nodes:
        if node.name in running:
            continue
        for port in _listening(spec, node):
            taken = next(
                (one for one in facts.listeners if one.port == port and _in_the_way(one, bind)), None
            )
            if taken:
                yield _taken(node, port, taken)


def _in_the_way(listener: Listener, bind: tuple[str, ...]) -> bool:
    return listener.address in ("", "*", "0.0.0.0", "::", *bind)


def _taken(node: PlacedNode, port: int, listener: Listener) -> Finding:
    redis = any(word in listener.process for word in ("redis", "valkey", "sentinel"))
    pid = f", pid {listener.pid}" if listener.pid else ""
    key = "sentinel_port" if node.kind == "sentinel" else "port"
    return Finding(
        rule="preflight-other-redis" if redis else "preflight-port-taken",
        severity="error",
        subject=f"{node.host}:{port}",
        evidence=f"port {port} is taken: {listener.process or 'a program that could not be told'}{pid} "
        f"listens on {listener.address}",
        why="another Redis or Valkey is there, which is not this deployment's and is not touched"
        if redis
        else f"{node.name} is to listen there{'' if port == node.port else ' for the Cluster bus'}",
        fix=f"write another {key}: in the deployment file, or stop that program if nobody needs it",
    )


def _outgoing(spec: Spec, host: str, nodes: tuple[PlacedNode, ...], facts: HostFacts) -> Iterator[Finding]:
    """Ports to listen on among those that the kernel gives to outgoing connections (ip-sysctl in its documentation)."""
    bounds = facts.kernel.get("net.ipv4.ip_local_port_range", "").split()
    if len(bounds) != 2:
        return
    first, last = map(int, bounds)
    reserved = facts.kernel.get("net.ipv4.ip_local_reserved_ports", "")
    kept = {port for part in reserved.split(",") if part for port in _from_to(part)}
    wanted = {port: node for node in nodes for port in _listening(spec, node)}
    shared = sorted(port for port in wanted if first <= port <= last and port not in kept)
    if not shared:
        return
    bus = "" if shared[0] == wanted[shared[0]].port else f", the Cluster bus of {wanted[shared[0]].name},"
    every = ",".join(filter(None, [reserved, *map(str, shared)]))
    yield Finding(
        rule="preflight-outgoing-ports",
        severity="warning",
        subject=host,
        evidence=f"port {shared[0]}{bus} is one of those that outgoing connections get there ({first} to {last})"
        + (f"; so are {len(shared) - 1} more" if shared[1:] else ""),
        why="a connection that has got it keeps the server from starting, for as long as it lasts",
        fix=f"keep them free there: sysctl -w net.ipv4.ip_local_reserved_ports={every}, the same line in /etc/sysctl.d, "
        "or write another port: in the deployment file",
    )


def _listening(spec: Spec, node: PlacedNode) -> tuple[int, ...]:
    return (node.port, node.bus_port) if spec.mode == "cluster" else (node.port,)


def _from_to(part: str) -> range:
    """``33500-33505``, or one port."""
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def _memory(spec: Spec, host: str, nodes: tuple[PlacedNode, ...], facts: HostFacts) -> Iterator[Finding]:
    servers = sum(node.kind == "server" for node in nodes)
    wanted = servers * (spec.maxmemory or 0)
    if wanted <= facts.memory * MEMORY_SHARE:
        return
    severity: Severity = "error" if wanted > facts.memory else "warning"
    fitting = int(facts.memory * MEMORY_SHARE / servers) // _MIB
    yield Finding(
        rule="preflight-memory",
        severity=severity,
        subject=host,
        evidence=f"{servers} x maxmemory {_size(spec.maxmemory or 0)} = {_size(wanted)}, and it has {_size(facts.memory)}",
        why="snapshots and full synchronisations fork, and every page written meanwhile is copied; buffers come on top. "
        "Where memory ends, the kernel kills the server",
        fix=f"write maxmemory: {fitting}MiB or less, or take hosts with more memory",
    )


def _disk(
    spec: Spec, host: str, nodes: tuple[PlacedNode, ...], facts: HostFacts, running: Collection[str]
) -> Iterator[Finding]:
    """A snapshot is written beside the old one; an append-only file grows until it is rewritten beside itself."""
    copies = 3 if spec.aof else 2 if spec.rdb else 0
    servers = [node for node in nodes if node.kind == "server"]
    there = sum(node.name in running for node in servers) if copies else 0
    data = spec.maxmemory or 0
    needed = LEAST_DISK + (copies * len(servers) - there) * data
    least = LEAST_DISK + (len(servers) - there) * data * (copies > 0)
    if facts.disk_free >= needed:
        return
    yield Finding(
        rule="preflight-disk",
        severity="error" if facts.disk_free < least else "warning",
        subject=host,
        evidence=f"{_size(facts.disk_free)} are free, and {_size(needed)} are needed when memory is full",
        why=f"persistence: {spec.persistence} keeps up to {copies} times a node's memory on disk; on a full disk "
        "a server refuses writes"
        if copies
        else "server software and logs need room",
        fix="free some space, take a larger disk, or write a smaller maxmemory",
    )


class Skew(Value):
    """The two hosts whose clocks are farthest apart, by how many seconds, and how sure that is."""

    fast: str
    slow: str
    apart: float
    unsure: float

    def __str__(self) -> str:
        return (
            f"its clock is {self.apart:.1f} s ahead of that of {self.slow} (give or take {self.unsure:.1f} s)"
        )


def clock_skew(known: Mapping[str, HostFacts]) -> Skew | None:
    """Where it is more than servers bear, for sure."""
    if len(known) < 2:
        return None
    slow = min(known, key=lambda host: known[host].clock)
    fast = max(known, key=lambda host: known[host].clock)
    apart = known[fast].clock - known[slow].clock
    unsure = known[fast].clock_uncertainty + known[slow].clock_uncertainty
    return Skew(fast, slow, apart, unsure) if apart - unsure > _CLOCK_SKEW else None


def _clocks(known: Mapping[str, HostFacts]) -> Iterator[Finding]:
    skew = clock_skew(known)
    if skew is None:
        return
    yield Finding(
        rule="preflight-clock",
        severity="warning",
        subject=skew.fast,
        evidence=str(skew),
        why="keys expire at another time on another host, and logs of the same event cannot be put in order",
        fix="run chrony or systemd-timesyncd on every host, and see timedatectl",
    )


def _kernel(host: str, facts: HostFacts) -> Iterator[Finding]:
    """Only what ``apply`` does not set itself: without root, without systemd, and in containers."""
    reasons = {
        "vm.overcommit_memory": "a fork fails when half of the memory is in use, so no snapshot and no full synchronisation",
        "net.core.somaxconn": "many clients that connect at once, as after a failover, are turned away",
        "transparent_hugepage": "every write during a snapshot copies 2 MiB: pauses, and memory that runs out",
    }
    for name, value, wanted in kernel_deviations(facts):
        if facts.root and facts.systemd and f"{name}:read-only" not in facts.kernel:
            continue
        yield Finding(
            rule="preflight-kernel",
            severity="warning",
            subject=host,
            evidence=f"{name} is {value}, and cannot be set from here",
            why=reasons[name],
            fix=f"have it set to {wanted} on the machine itself",
        )


def kernel_deviations(facts: HostFacts) -> Iterator[tuple[str, str, str]]:
    """Settings that are not as servers need them: name, value, what it should be. Those that were not read are left out."""
    for name, fine in KERNEL_WANTED.items():
        value = facts.kernel.get(name)
        if value is not None and value not in fine:
            yield name, value, fine[0]
    backlog = facts.kernel.get("net.core.somaxconn", "")
    if backlog.isdigit() and int(backlog) < SOMAXCONN:
        yield "net.core.somaxconn", backlog, str(SOMAXCONN)


def _bundled(spec: Spec, host: str, facts: HostFacts, architecture: str) -> Iterator[Finding]:
    """The server that comes with Redkeep is one binary: for one architecture, and for a C library not too old."""
    if spec.engine.source != "bundled":
        return
    fix = "write engine: {source: package} (or tarball) to run what is made for that system"
    if facts.architecture != architecture:
        evidence = f"{host} is {facts.architecture}, and the bundled server here is for {architecture}"
        why = "a binary for one architecture does not start on another"
        yield Finding("preflight-architecture", "error", host, evidence, why, fix)
    version = re.fullmatch(r"glibc (\d+)\.(\d+).*", facts.libc)
    if not version or (int(version[1]), int(version[2])) < _LEAST_GLIBC:
        evidence = f"the C library of {host} is {facts.libc or 'not known'}"
        yield Finding(
            "preflight-libc", "error", host, evidence, "the bundled server needs glibc 2.28 or later", fix
        )


def _size(number: int) -> str:
    """For people: one digit after the point."""
    return f"{number / _GIB:.1f} GiB" if number >= _GIB else f"{number / _MIB:.0f} MiB"
