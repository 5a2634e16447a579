"""The doctor on servers that Redkeep did not make: asked from one host's network, and their hosts looked at by SSH."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from redkeep.hosts.base import Host
from redkeep.hosts.facts import Look, look
from redkeep.hosts.hostkeys import HostKeys
from redkeep.hosts.ssh import SshHost
from redkeep.model.checkup import HostView
from redkeep.model.finding import Finding
from redkeep.model.topology import Address
from redkeep.planning.evidence.trust import Policy
from redkeep.planning.rules import judge
from redkeep.run.hostlook import with_processes
from redkeep.run.survey import explore
from redkeep.run.visits import Visitor
from redkeep.wire.client import Login

from . import Lab


def examined(
    lab: Lab, names: Sequence[str], port: int, password: str, *, where: str, keys: Path
) -> list[Finding]:
    """What it finds on the servers at this port of these hosts, in the network of ``where``."""
    done = lab.call(lambda: asyncio.run(_examined(lab, names, port, password, keys)), where)
    return list(done)


async def _examined(lab: Lab, names: Sequence[str], port: int, password: str, keys: Path) -> list[Finding]:
    seeds = [Address(lab[n].private, port) for n in names]
    policy = Policy(frozenset(s.host for s in seeds))
    visitor = Visitor(policy, {None: Login("default", password)}, frozenset(seeds))
    checkup = await explore("the lab", seeds, visitor)
    known = HostKeys(keys, user=lab.ssh.known_hosts)
    hosts: dict[str, Host] = {
        lab[n].private: SshHost(n, f"root@{lab[n].private}", known, config=[lab.ssh.config]) for n in names
    }
    try:
        views = {name: HostView(await look(host, Look("/"))) for name, host in hosts.items()}
        seen = await with_processes(replace(checkup, hosts=views), hosts)
    finally:
        await asyncio.gather(*(h.close() for h in hosts.values()))
    return list(judge(seen).report.findings)
