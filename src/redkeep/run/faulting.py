"""Causes a drill's fault on its hosts, and undoes it. The hosts undo it by themselves when nobody comes back."""

from __future__ import annotations

import asyncio
import secrets as random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import CommandFailed, HostError, RefusedError
from redkeep.model.topology import HostFacts, NodeView
from redkeep.planning.drills import faults
from redkeep.planning.drills.faults import Fault, Process

if TYPE_CHECKING:
    from redkeep.model.drill import Target
    from redkeep.planning.desired import Desired, DesiredNode
    from redkeep.run.deployment import Deployment, Sight

_SSH_PORT = 22


@dataclass(frozen=True)
class Prepared:
    """A fault that is ready to be caused, on one host or at once on several."""

    deployment: Deployment
    faults: Mapping[str, Fault]
    name: str
    seconds: float
    #: hosts on which the script that causes it has ended, well or not
    over: set[str] = field(default_factory=set)

    async def cause(self) -> None:
        """Everywhere or nowhere. Raises ``RefusedError`` where a host cannot do it, ``HostError`` where it failed."""
        done = await asyncio.gather(*map(self._cause_on, self.faults), return_exceptions=True)
        failed = next((e for e in done if isinstance(e, BaseException)), None)
        if failed is not None:
            await self.undo()
            raise failed

    async def _cause_on(self, host: str) -> None:
        script = faults.armed(
            self.faults[host],
            name=self.name,
            seconds=self.seconds,
            systemd=self.deployment.systemd,
            folder=self.deployment.layout.base,
        )
        try:
            await self.deployment.fleet.hosts[host].run(script, timeout=120.0)
            self.over.add(host)
        except CommandFailed as error:
            self.over.add(host)
            said = error.output or error.what
            if faults.REFUSED in said:
                raise RefusedError(
                    said.rpartition(faults.REFUSED)[2],
                    where=host,
                    next="nothing is broken; drill this fault on hosts that can do it",
                ) from error
            raise HostError(
                f"the fault could not be caused: {said}",
                where=host,
                next="nothing stays broken; see what the host says, then drill again",
            ) from error

    async def undo(self) -> None:
        """On all of them, also where one cannot be reached: that one's timer does it.

        Cut short while it was being caused, the script may go on there, where nobody hears of us any more: then the
        timer has the last word.
        """
        done = await asyncio.gather(*map(self._undo_on, self.faults), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def _undo_on(self, host: str) -> None:
        if not self.faults[host].undo:
            return
        script = faults.undone(
            self.faults[host],
            name=self.name,
            systemd=self.deployment.systemd,
            folder=self.deployment.layout.base,
            over=host in self.over,
        )
        await self.deployment.fleet.hosts[host].run(script, timeout=60.0)


def prepare(deployment: Deployment, sight: Sight, target: Target) -> Prepared:
    """Raises ``RefusedError`` where a tool is missing on the host, or the fault makes no sense there."""
    name = f"redkeep-drill-{random.token_hex(4)}"
    found = {host: _fault(deployment, sight, target, host, name) for host in target.hosts}
    for host, fault in found.items():
        facts = sight.observed.hosts[host]
        if "nft" in fault.tools and isinstance(facts, HostFacts) and "nft" not in facts.commands:
            raise RefusedError(
                f"{target.fault} needs the command nft, which is not on this host",
                where=host,
                next="apt-get install nftables (or dnf install nftables) there",
            )
    return Prepared(deployment, found, name, target.hold)


def _fault(deployment: Deployment, sight: Sight, target: Target, host: str, name: str) -> Fault:
    desired = sight.desired
    processes = [_process(sight, node) for node in target.nodes]
    match target.fault:
        case "primary-kill" | "replica-kill" | "sentinel-kill":
            return faults.kill(processes)
        case "primary-hang":
            return faults.hang(processes[0])
        case "host-loss":
            port = deployment.spec.host(host).ssh_port or _SSH_PORT
            return faults.cut_off(processes, name=name, ssh_port=port)
        case "partition":
            others = _addresses(sight, target.apart) - _addresses(sight, target.hosts)
            return faults.partition(others, _ports(sight), name=name)
        case "full-disk" | "slow-disk":
            node = _data_node(desired, host)
            if target.fault == "slow-disk":
                units = [desired.node(n).paths.unit for n in target.nodes] if deployment.systemd else []
                return faults.slow_disk(processes, units, node.paths.data, name=name)
            if deployment.spec.is_local and not _own_disk(node.paths.data):
                raise RefusedError(
                    "the deployment's data lies on this machine's own disk, which everything else here needs too",
                    where=node.paths.data,
                    next="drill a full disk on hosts over SSH, or on a deployment whose data has a disk of its own",
                )
            return faults.full_disk(node.paths.data, name=name, user=deployment.layout.user)


def _data_node(desired: Desired, host: str) -> DesiredNode:
    node = next((n for n in desired.on(host) if not n.sentinel), None)
    if node is None:
        raise RefusedError("no data lies on this host", where=host, next="name one with a server: --target")
    return node


def _own_disk(folder: str) -> bool:
    return Path(folder).stat().st_dev != Path("/").stat().st_dev


def _process(sight: Sight, name: str) -> Process:
    view = sight.observed.nodes[name]
    assert isinstance(view, NodeView)  # a deployment that is not well was refused
    return Process(int(view.info["process_id"]), sight.desired.node(name).paths.data)


def _addresses(sight: Sight, hosts: Iterable[str]) -> set[str]:
    """Every address that these may be seen by."""
    found: set[str] = set()
    for host in hosts:
        plan, facts = sight.addresses[host], sight.observed.hosts[host]
        found |= {a for a in (plan.announce, plan.client_announce, plan.private, plan.public) if a}
        if isinstance(facts, HostFacts):
            found |= {a for a in facts.addresses if ":" not in a or not a.startswith("fe80")}
    return found


def _ports(sight: Sight) -> set[int]:
    from redkeep.model.topology import BUS_OFFSET

    ports = {n.port for n in sight.desired.nodes}
    if sight.desired.spec.mode == "cluster":
        ports |= {n.port + BUS_OFFSET for n in sight.desired.servers}
    return ports


async def drop_connections(deployment: Deployment, sight: Sight, target: Target) -> None:
    """Ours to what was broken: the next look makes new ones."""
    for name in target.nodes:
        deployment.fleet.drop(sight.desired.node(name))
    await asyncio.sleep(0)
