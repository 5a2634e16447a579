"""What the hosts of a checkup show of its servers' processes and files, and this machine's own facts; read-only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from redkeep.errors import HostError
from redkeep.hosts.facts import Look, listeners, look
from redkeep.hosts.local import LocalHost
from redkeep.hosts.processes import ServerProcess, processes
from redkeep.model.checkup import Checkup, HostView, Node, ProcessFacts
from redkeep.model.topology import HostFacts, Listener, NodeView, Unreachable
from redkeep.planning.rules.words import number

if TYPE_CHECKING:
    from redkeep.hosts.base import Host


async def this_machine() -> HostFacts | Unreachable:
    """The facts of this machine, as the doctor wants them."""
    try:
        return await look(LocalHost("local"), Look("/", owners=False))
    except HostError as error:
        return Unreachable(error.what)


async def with_this_machine(
    checkup: Checkup, facts: Awaitable[HostFacts | Unreachable] | None = None
) -> Checkup:
    """Without a deployment file: the facts of this machine, under every name that it has among the nodes' hosts.

    ``facts``: those that were asked for already.
    """
    names = {host for host in {node.host for node in checkup.nodes} if is_here(host)}
    if not names:
        return checkup
    view = HostView(await (facts or this_machine()), here=True)
    hosts = {**checkup.hosts, **dict.fromkeys(names, view)}
    return await with_processes(replace(checkup, hosts=hosts), dict.fromkeys(names, LocalHost("local")))


async def with_processes(checkup: Checkup, hosts: Mapping[str, Host], *, root: bool = True) -> Checkup:
    """Adds what each host shows of the processes of its nodes. Hosts that do not answer show nothing.

    ``root=False``: first as the login itself, and as root (sudo without a password) only for what that may not read.
    """
    found: dict[str, ProcessFacts] = {}

    async def one(name: str, host: Host) -> None:
        view = checkup.hosts.get(name)
        nodes = [(n, v) for n, v in checkup.seen if n.host == name]
        with contextlib.suppress(HostError):
            known = view.seen.listeners if view and view.seen else ()
            found.update(await _processes(host, _wanted(nodes, known), root=root))
            # in a container, or not for us to read
            hidden = [(n, v) for n, v in nodes if n.name not in found or found[n.name].settings is None]
            if hidden and not (root and any(one.pid for one in known)):
                found.update(await _processes(host, _wanted(hidden, await listeners(host)), root=True))

    await asyncio.gather(*(one(n, h) for n, h in hosts.items()))
    nodes = tuple(replace(n, process=found[n.name]) if n.name in found else n for n in checkup.nodes)
    return replace(checkup, nodes=nodes)


async def _processes(
    host: Host, wanted: Mapping[str, ServerProcess], *, root: bool
) -> dict[str, ProcessFacts]:
    """By the node's name."""
    by_pid = await processes(host, list(wanted.values()), root=root) if wanted else {}
    return {name: by_pid[p.pid] for name, p in wanted.items() if p.pid in by_pid}


def _wanted(nodes: Iterable[tuple[Node, NodeView]], known: Sequence[Listener]) -> dict[str, ServerProcess]:
    owners = {one.port: one.pid for one in known if one.pid and one.process.startswith(("redis", "valkey"))}
    return {n.name: _process(n, v, pid) for n, v in nodes if (pid := _pid(owners, n, v))}


def _process(node: Node, view: NodeView, pid: int) -> ServerProcess:
    file = view.info.get("config_file", "")
    # where Redkeep made it, its own settings stand in a file beside the server's
    managed = (
        str(PurePosixPath(file).parent.parent / "conf/managed.conf")
        if file.endswith("/data/node.conf")
        else ""
    )
    executable, folder = view.info.get("executable", ""), node.setting("dir") or ""
    return ServerProcess(pid, file, (managed,) if managed else (), executable, folder)


def _pid(owners: Mapping[int, int], node: Node, view: NodeView) -> int:
    """Who listens there, where the host tells; a server in a container knows only its number in there."""
    port = view.info.get("tcp_port", "0")
    said = view.info.get("process_id", "")
    listening = owners.get(node.address.port) or owners.get(number(port))
    return listening or max(0, number(said))


def is_here(address: str) -> bool:
    """Whether an interface of this machine has this IP address: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            return True
    except OSError:
        return False
