"""The machines that the user named with their logins: which nodes are on each, and what it shows of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.errors import HostError
from redkeep.hosts.facts import Look, look
from redkeep.model.checkup import Checkup, HostView, LeftOut
from redkeep.model.topology import HostFacts, Unreachable
from redkeep.planning.evidence.trust import is_loopback
from redkeep.planning.rules.words import listed
from redkeep.run.hostlook import with_processes
from redkeep.run.visits import resolved

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.hostspec import HostSpec
    from redkeep.model.spec import Spec


async def with_machines(checkup: Checkup, machines: Mapping[str, Host], spec: Spec | None) -> Checkup:
    """Adds them: each is that of the nodes which have an address of it. What was of no use is added to ``left_out``.

    ``spec``: a file that tells more addresses of its hosts, and their zones. Nothing is done as root that the login may
    see by itself.
    """
    todo = {n: h for n, h in machines.items() if not h.is_local}
    if not todo:
        return checkup
    looked = dict(zip(todo, await asyncio.gather(*map(_facts, todo.values())), strict=True))
    described = {h.name: h for h in spec.hosts} if spec else {}
    known = {
        n: _addresses(n, todo[n], f, described.get(n)) for n, f in looked.items() if isinstance(f, HostFacts)
    }
    owners = await _owners({node.host for node in checkup.nodes} - checkup.hosts.keys(), known)
    clear = {address: names[0] for address, names in owners.items() if len(names) == 1}
    zones = {name: host.zone or "" for name, host in described.items()}
    hosts = {
        **checkup.hosts,
        **{
            address: HostView(looked[name], zones.get(name, ""), login=name)
            for address, name in clear.items()
        },
    }
    left_out = (*checkup.left_out, *_of_no_use(looked, owners))
    seen = replace(checkup, hosts=hosts, left_out=left_out)
    return await with_processes(seen, {a: todo[name] for a, name in clear.items()}, root=False)


async def _facts(host: Host) -> HostFacts | Unreachable:
    try:
        return await look(host, Look("/", owners=False), root=False)
    except HostError as error:
        return Unreachable(error.what)


def _addresses(name: str, host: Host, facts: HostFacts, described: HostSpec | None) -> set[str]:
    """Those of its interfaces, and the one that its session leads to: a NAT's stands on no interface."""
    from redkeep.hosts.ssh import SshHost

    peer = host.peer if isinstance(host, SshHost) else ""
    told = {described.private, described.public, described.ssh_host} if described else set()
    return {*facts.addresses, name, *([] if is_loopback(peer) else [peer]), *(a for a in told if a)}


async def _owners(hosts: Iterable[str], known: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """The nodes' hosts -> the machines that have this address, or one that this name stands for."""
    every = list(hosts)
    owners: dict[str, list[str]] = defaultdict(list)
    for host, addresses in zip(every, await asyncio.gather(*map(resolved, every)), strict=True):
        for name, own in known.items():
            if own & {host, *addresses}:
                owners[host].append(name)
    return owners


def _of_no_use(
    looked: Mapping[str, HostFacts | Unreachable], owners: Mapping[str, list[str]]
) -> Iterable[LeftOut]:
    used = {name for names in owners.values() for name in names}
    for name, facts in looked.items():
        if isinstance(facts, Unreachable):
            yield LeftOut(name, "host", facts.reason, f"look what is in its way: ssh {name}")
        elif name not in used:
            words = f"no node has an address of it ({listed(facts.addresses)})"
            yield LeftOut(name, "host", words, "name the login of a host that nodes run on")
    for address, names in owners.items():
        if len(names) > 1:
            words = f"{address} is an address of {listed(names)}"
            yield from (LeftOut(name, "host", words, "name one of them only") for name in names)
