"""What was observed: hosts as they are, servers as each of them sees itself and the others.

Views are kept apart. Two nodes that disagree are two views, never one merged truth, and what could not be
asked is ``Unreachable`` with its reason, never absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Literal

from redkeep.model.engine import Engine
from redkeep.model.slots import SlotRange
from redkeep.model.values import Value

Role = Literal["primary", "replica", "sentinel"]

_FAILING = frozenset({"fail", "fail?"})

#: Of a number of 64 bits, at most.
_DIGITS = 20

#: A node's Cluster bus listens this far above its port.
BUS_OFFSET = 10_000


class Address(Value):
    """An IP address (or host name) and a port, as handed to somebody."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unreachable(Value):
    """A host or a server that could not be asked, and why.

    ``refused``: the port answered that nobody listens there, so the process is known to be down.
    """

    reason: str
    refused: bool = False


class ClusterNode(Value):
    """One line of somebody's CLUSTER NODES."""

    id: str
    address: Address
    bus_port: int
    flags: frozenset[str]
    primary_id: str
    config_epoch: int
    link_up: bool
    slots: tuple[SlotRange, ...]
    #: slot -> node ID that it goes to or comes from; only in a node's own line
    migrating: Mapping[int, str] = field(default_factory=dict)
    importing: Mapping[int, str] = field(default_factory=dict)
    hostname: str = ""

    @property
    def is_primary(self) -> bool:
        return "master" in self.flags

    @property
    def slot_count(self) -> int:
        return sum(r.size for r in self.slots)


class ClusterView(Value):
    """A cluster as one of its nodes sees it."""

    my_id: str
    state_ok: bool
    slots_assigned: int
    current_epoch: int
    nodes: tuple[ClusterNode, ...]

    @cached_property
    def me(self) -> ClusterNode:
        return next(n for n in self.nodes if n.id == self.my_id)

    @cached_property
    def _by_id(self) -> Mapping[str, ClusterNode]:
        return {n.id: n for n in reversed(self.nodes)}

    @cached_property
    def down(self) -> frozenset[str]:
        """The IDs of those that it marks as failing."""
        return frozenset(n.id for n in self.nodes if n.flags & _FAILING)

    def by_id(self, node_id: str) -> ClusterNode | None:
        return self._by_id.get(node_id)


class ReplicaLine(Value):
    """A replica as its primary lists it in INFO: address, state (``online``), acknowledged offset, lag in seconds."""

    address: Address
    state: str
    offset: int
    lag: int


class Watched(Value):
    """A replica or another Sentinel as a Sentinel lists it; ``fields`` are all that it shows."""

    address: Address
    run_id: str
    flags: frozenset[str]
    fields: Mapping[str, str]


class SentinelEntry(Value):
    """One primary as a Sentinel sees it."""

    name: str
    address: Address
    flags: frozenset[str]
    quorum: int
    config_epoch: int
    replicas: tuple[Address, ...]
    sentinels: tuple[Address, ...]
    settings: Mapping[str, str]  # down-after-milliseconds, failover-timeout, parallel-syncs, ... as shown
    watched_replicas: tuple[Watched, ...] = ()
    watched_sentinels: tuple[Watched, ...] = ()


class NodeView(Value):
    """A server as it sees itself.

    ``info`` is INFO as flat text values; ``config`` is CONFIG GET (empty where that was refused); ``acl`` the
    lines of ACL LIST, in which passwords are SHA-256 digests.
    """

    role: Role
    engine: Engine
    run_id: str
    info: Mapping[str, str]
    config: Mapping[str, str]
    offset: int = 0
    primary: Address | None = None
    link_up: bool = True
    syncing: bool = False
    replicas: tuple[ReplicaLine, ...] = ()
    cluster: ClusterView | None = None
    monitored: tuple[SentinelEntry, ...] = ()
    #: of a Sentinel: the address that it tells the others; empty where it has none of its own, or does not say
    announce: str = ""
    acl: tuple[str, ...] = ()
    keys: int = 0
    certificate: str = ""  # SHA-256 of the certificate (DER) it presented to us; empty without TLS
    peer_password: str = ""  # SHA-256 of a Sentinel's sentinel-pass; empty where it shows none

    @property
    def cluster_hidden(self) -> bool:
        """It is of a Cluster, and this account may not ask of which."""
        return self.cluster is None and self.info.get("cluster_enabled") == "1"

    @property
    def memory(self) -> int:
        """Bytes that the data takes; 0 where it says no number."""
        said = self.info.get("used_memory", "")
        return int(said) if said.isascii() and said.isdigit() and len(said) < _DIGITS else 0


class Listener(Value):
    """A TCP port in use on a host, and the process that holds it where it could be told."""

    address: str
    port: int
    process: str = ""
    pid: int = 0


class HostFacts(Value):
    """One machine, read in a single look without changing it. Sizes in bytes, times in seconds."""

    system: str  # the ID of os-release: debian, ubuntu, rocky, ...
    system_version: str  # its VERSION_ID
    family: str  # apt | dnf | other
    architecture: str  # x86_64, aarch64
    libc: str  # glibc 2.36 | musl | ""
    systemd: bool  # it runs there, and we may use it
    root: bool
    memory: int
    disk_free: int  # below the base folder
    clock: float  # seconds that the host's clock is ahead of ours
    clock_uncertainty: float  # half of the time that reading it took
    addresses: tuple[str, ...]  # of its interfaces, loopback and container bridges left out
    outgoing: str  # the source address of its default route
    kernel: Mapping[str, str]  # vm.overcommit_memory, ...; "NAME:read-only" where we may not change it
    listeners: tuple[Listener, ...]
    commands: frozenset[str]  # which of the tools that we may need are there
    digests: Mapping[str, str]  # absolute path -> SHA-256, of the files that we write
    present: frozenset[str]  # paths that exist, of those that the servers write
    services: Mapping[
        str, str
    ]  # our units (without systemd: node folders) -> active | inactive | activating | failed
    enabled: frozenset[str]  # our units that start at boot
    identity: str = ""  # the deployment that the base folder belongs to
    set_up: frozenset[str] = (
        frozenset()
    )  # node folders below the base (6379, sentinel-26379) that have been started
    foreign: tuple[str, ...] = ()  # what lies in the data folders of nodes that never were
    boot_id: str = ""


class Observed(Value):
    """Everything that one look found. Keys are the names of the deployment file's hosts, and node names."""

    hosts: Mapping[str, HostFacts | Unreachable]
    nodes: Mapping[str, NodeView | Unreachable]
