"""Open sessions with all hosts of a deployment, and connections to all of its nodes through them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import HostError, RedkeepError, WireError
from redkeep.hosts import facts
from redkeep.model.topology import HostFacts, NodeView, Unreachable
from redkeep.planning.hostfiles.layout import ROOT_BASE, SERVICE_USER, Layout
from redkeep.wire.client import Client, Login
from redkeep.wire.observe import observe, unreachable

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import DesiredNode
    from redkeep.planning.placing.placement import PlacedNode
    from redkeep.run.sessions import Sessions

#: Seconds a server may take to answer before it counts as unreachable.
NODE_TIMEOUT = 5.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def layout_for(spec: Spec, *, base: str | None, systemd: bool) -> Layout:
    """Paths on every host of a deployment. ``base`` is another folder than the usual one (the demo's).

    Without systemd, servers run as whoever we are: there is nobody to change users safely at every restart.
    """
    user = SERVICE_USER if systemd else ""
    if base:
        return Layout(base, spec.name, user)
    if spec.is_local and os.geteuid() != 0:
        return Layout(str(Path.home() / ".local/share/redkeep" / spec.name), spec.name, user)
    return Layout(f"{ROOT_BASE}/{spec.name}", spec.name, user)


@dataclass
class Fleet:
    """Sessions that are open. ``failed`` holds the hosts that could not be reached, with the reason; ``silent`` those
    that gave no facts at the last look."""

    spec: Spec
    layout: Layout
    systemd: bool
    hosts: dict[str, Host] = field(default_factory=dict)
    failed: dict[str, RedkeepError] = field(default_factory=dict)
    silent: dict[str, RedkeepError] = field(default_factory=dict)
    login: Login | None = None
    tls: ssl.SSLContext | None = None
    _clients: dict[str, Client] = field(default_factory=dict)
    _dialed: dict[str, Connection] = field(default_factory=dict)

    def join(self, sessions: Sessions) -> None:
        """Further hosts. Those that could not be reached are kept as that."""
        self.hosts |= sessions.hosts
        self.failed |= sessions.failed

    async def facts(self, wanted: Mapping[str, facts.Look]) -> dict[str, HostFacts | Unreachable]:
        """One look at every host, at the same time."""

        async def one(name: str) -> HostFacts | Unreachable:
            if name in self.failed:
                return Unreachable(self.failed[name].what)
            try:
                return await facts.look(self.hosts[name], wanted[name])
            except HostError as error:
                self.silent[name] = error
                return Unreachable(error.what)

        self.silent = dict(self.failed)
        names = list(wanted)
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    async def views(self, nodes: Iterable[DesiredNode]) -> dict[str, NodeView | Unreachable]:
        """Every node's own view, asked at the same time."""
        wanted = list(nodes)
        return dict(zip((n.name for n in wanted), await asyncio.gather(*map(self.view, wanted)), strict=True))

    async def view(self, node: DesiredNode) -> NodeView | Unreachable:
        try:
            return await observe(await self.client(node))
        except WireError as error:
            self.drop(node)
            return unreachable(error)

    async def dial(self, nodes: Iterable[PlacedNode]) -> None:
        """Opens connections before it is known what to say there: with facts asked meanwhile, a round trip less."""

        async def one(node: PlacedNode) -> None:
            if node.name in self._clients or node.host in self.failed:
                return
            with contextlib.suppress(OSError, HostError):
                self._dialed[node.name] = await self.hosts[node.host].connect(
                    "127.0.0.1", node.port, timeout=NODE_TIMEOUT
                )

        await asyncio.gather(*map(one, nodes))

    def hang_up(self) -> None:
        """Closes what was dialed and not used."""
        while self._dialed:
            self._dialed.popitem()[1][1].close()

    async def client(self, node: DesiredNode, *, timeout: float = NODE_TIMEOUT) -> Client:
        """The connection to a node, logged in as administration; it starts on the node's own host.

        Raises ``NodeUnreachable`` or ``ReplyError``.
        """
        known = self._clients.get(node.name)
        if known is not None and not known.closed:
            return known
        self._clients[node.name] = client = await self.another(node, timeout=timeout)
        return client

    async def another(self, node: DesiredNode, *, timeout: float = NODE_TIMEOUT) -> Client:
        """A connection of its own, for whoever must not wait for others or hold them up; the caller closes it."""
        if node.host in self.failed:
            raise WireError(self.failed[node.host].what, where=node.host)
        host = self.hosts[node.host]

        async def opener() -> Connection:
            dialed = self._dialed.pop(node.name, None)
            return dialed or await host.connect("127.0.0.1", node.port, timeout=timeout)

        return await Client.open(
            opener,
            where=node.name,
            login=self.login,
            tls=self.tls,
            timeout=timeout,
        )

    def drop(self, node: DesiredNode) -> None:
        """Forgets a connection, so that the next call makes a new one."""
        if client := self._clients.pop(node.name, None):
            client.close()

    async def call(self, node: DesiredNode, *command: str | int | bytes) -> object:
        return await (await self.client(node)).call(*command)

    async def close(self) -> None:
        self.hang_up()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        await asyncio.gather(*(h.close() for h in self.hosts.values()), return_exceptions=True)
