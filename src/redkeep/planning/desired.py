"""A deployment as it shall be: every host and node with its files and settings, as values to compare with what is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redkeep.model.engine import Engine, EngineWant
    from redkeep.model.files import RemoteFile
    from redkeep.model.spec import Spec
    from redkeep.planning.hostfiles.config import Wire
    from redkeep.planning.hostfiles.layout import Layout, NodePaths


@dataclass(frozen=True)
class DesiredNode:
    """One server or Sentinel.

    ``files`` are ours and always as here; ``seed`` is the server's own file, written once, before its first start.
    """

    name: str
    host: str
    port: int
    sentinel: bool
    shard: int
    initial_role: str
    paths: NodePaths
    wire: Wire
    engine: Engine
    settings: Mapping[str, str]
    files: tuple[RemoteFile, ...]
    seed: RemoteFile
    acl: tuple[str, ...]
    command: tuple[str, ...]
    #: SHA-256 of the password that a Sentinel sends to servers and to other Sentinels
    peer_password: str = ""

    @property
    def announced(self) -> tuple[str, int]:
        """Host and port that the node hands out."""
        return self.wire.announce, self.port


@dataclass(frozen=True)
class DesiredHost:
    """One machine: its folders, its engine (``None``: not installed yet) and the files that its nodes share."""

    name: str
    layout: Layout
    want: EngineWant
    engine: Engine | None
    systemd: bool
    files: tuple[RemoteFile, ...]
    certificate: str  # SHA-256 of the certificate (DER) that servers should present; empty without TLS

    def units(self, nodes: tuple[DesiredNode, ...]) -> tuple[str, ...]:
        return tuple(n.paths.unit for n in nodes if n.host == self.name)


@dataclass(frozen=True)
class Desired:
    """All of it. Node names are unique; order is that of the placement.

    While nodes leave or shards join, ``settled`` is the deployment as it will be when that is done: its hosts' files
    name nobody any more who is gone. Files may be as in either of the two.
    """

    spec: Spec
    hosts: Mapping[str, DesiredHost]
    nodes: tuple[DesiredNode, ...]
    #: node -> the run ID of the process that somebody wants restarted
    renew: Mapping[str, str] = field(default_factory=dict)
    #: nodes that are still there, and shall not be
    leaving: tuple[DesiredNode, ...] = ()
    #: shards that get their share of the slots
    joining: frozenset[int] = frozenset()
    settled: Desired | None = None

    @property
    def servers(self) -> tuple[DesiredNode, ...]:
        return tuple(n for n in self.nodes if not n.sentinel)

    @property
    def sentinels(self) -> tuple[DesiredNode, ...]:
        return tuple(n for n in self.nodes if n.sentinel)

    @property
    def everyone(self) -> tuple[DesiredNode, ...]:
        """Also those that leave."""
        return (*self.nodes, *self.leaving)

    @property
    def present(self) -> tuple[DesiredNode, ...]:
        """All servers, also those that leave."""
        return tuple(n for n in self.everyone if not n.sentinel)

    def node(self, name: str) -> DesiredNode:
        return next(n for n in self.everyone if n.name == name)

    def on(self, host: str) -> tuple[DesiredNode, ...]:
        return tuple(n for n in self.nodes if n.host == host)

    def at(self, host: str, port: int) -> DesiredNode | None:
        """The node that hands out this address (or its address for clients), one that leaves among them."""
        return next(
            (
                n
                for n in self.everyone
                if n.port == port and host in (n.wire.announce, n.wire.client_announce)
            ),
            None,
        )
