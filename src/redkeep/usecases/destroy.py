"""Takes a deployment down: services, units, firewall; the data is kept aside unless told otherwise.

Every part looks at what is there and does the rest, so that an interrupted one is finished by running it again.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.model.topology import HostFacts, NodeView, Unreachable
from redkeep.planning.identity import identities
from redkeep.run.deployment import Deployment, Sight, hosts_of, twins
from redkeep.run.lock import locked
from redkeep.run.opening import opened
from redkeep.run.steps.processes import stop_supervised

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.spec import Spec
    from redkeep.planning.hostfiles.layout import Layout, NodePaths


@dataclass(frozen=True)
class Destroyed:
    """``kept``: host -> the folder that its data was moved to, or an empty text where it was deleted.

    ``unreached``: host -> why nothing could be done there. What it carries starts again with it; destroying again then
    finishes. ``earlier``: host -> folders of this deployment that changes of size or an earlier destroy set aside; they
    hold data, and stay whatever is asked.
    """

    kept: dict[str, str]
    unreached: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "destroyed": sorted(self.kept),
            "kept": self.kept,
            "unreached": self.unreached,
            "earlier": self.earlier,
        }


async def destroy(
    spec: Spec,
    file: Path,
    *,
    approve: Approve,
    emit: Emit,
    delete_data: bool = False,
    base: str | None = None,
) -> Destroyed:
    """Hosts that cannot be reached are left out, and named. Raises ``RefusedError`` for hosts that another deployment of
    that name uses, and ``HostUnreachable`` where no host can be reached."""
    async with opened(spec, file, keep=False, base=base) as deployment:
        sight = await deployment.look()
        unreached = {n: f.reason for n, f in sight.observed.hosts.items() if isinstance(f, Unreachable)}
        if len(unreached) == len(spec.hosts):
            deployment.require_all(sight)
        again = {second for _, second in twins(sight)}
        here = [host for host in _ours(deployment, sight) if host not in again]
        if not here:
            emit(
                Note(
                    "nothing of this deployment is on its hosts"
                    + (" that can be reached" if unreached else "")
                )
            )
            return Destroyed({}, unreached)
        what = "deleted for good" if delete_data else "kept aside on each host"
        question = f"take down {spec.name} on {', '.join(here)}? its data is {what}"
        if unreached:
            question += f"; not reached, and left as it is: {', '.join(unreached)}"
        if not await approve(Approval("ordinary", question, "applications lose their connections at once")):
            raise RefusedError(
                "nothing was done: it was not approved", where=str(file), next="redkeep destroy asks again"
            )
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        aside = "" if delete_data else f"{deployment.layout.base}.destroyed-{stamp}"
        async with locked([(h, b) for h, b in hosts_of(deployment) if h.name in here], purpose="destroy"):
            earlier = await _set_aside(deployment, here)
            await _stop_handing_over(deployment, sight, here)
            await asyncio.gather(
                *(
                    _take_down(deployment, deployment.fleet.hosts[name], facts, aside)
                    for name, facts in sight.observed.hosts.items()
                    if name in here and isinstance(facts, HostFacts)
                )
            )
        deployment.journal("destroy").note(f"taken down on {', '.join(here)}; data {what}")
        return Destroyed(dict.fromkeys(here, aside), unreached, earlier)


def _ours(deployment: Deployment, sight: Sight) -> list[str]:
    found = identities(sight.observed.hosts)
    contents = deployment.vault.contents()
    for host, identity in found.items():
        if contents is None or identity.id != contents.deployment_id:
            raise RefusedError(
                f"{deployment.spec.name} on this host is not the deployment that this folder's secrets belong to",
                where=f"{host}: {deployment.layout.base} ({identity.id})",
                next="run it beside the file that it was made from, or read its secrets back: redkeep recover",
            )
    running = [
        h for h, f in sight.observed.hosts.items() if isinstance(f, HostFacts) and (f.services or h in found)
    ]
    return [h for h in running if h in found or _has_units(sight, h)]


def _has_units(sight: Sight, host: str) -> bool:
    facts = sight.observed.hosts[host]
    return isinstance(facts, HostFacts) and any(
        state in ("active", "activating") for state in facts.services.values()
    )


async def _stop_handing_over(deployment: Deployment, sight: Sight, here: list[str]) -> None:
    """All stop together, so nobody is left to take over: no server is to look for a successor, and wait for it."""
    mark = f"touch {shlex.quote(deployment.layout.taken_down)}"
    await asyncio.gather(*(deployment.fleet.hosts[name].run(mark, check=False) for name in here))
    name = "shutdown-on-sigterm"
    await asyncio.gather(
        *(
            deployment.fleet.call(node, "CONFIG", "SET", name, "default")
            for node in sight.desired.servers
            if node.settings.get(name) and isinstance(sight.observed.nodes.get(node.name), NodeView)
        ),
        return_exceptions=True,
    )


async def _set_aside(deployment: Deployment, here: list[str]) -> dict[str, list[str]]:
    base = shlex.quote(deployment.layout.base)
    look = f"ls -d {base}.removed-* {base}.destroyed-* 2>/dev/null; true"
    found = await asyncio.gather(*(deployment.fleet.hosts[name].run(look) for name in here))
    return {
        name: folders for name, done in zip(here, found, strict=True) if (folders := done.stdout.splitlines())
    }


async def _take_down(deployment: Deployment, host: Host, facts: HostFacts, aside: str) -> None:
    layout = deployment.layout
    nodes = _nodes(deployment, host.name, facts)
    if deployment.systemd:
        await host.run(
            _units_down(layout, [n.unit for n in nodes], [n.unit_file for n in nodes]), timeout=180.0
        )
    else:
        # together: a primary that stops waits for its replicas, and they are on their way out as well
        await asyncio.gather(*(host.run(stop_supervised(node.data), timeout=60.0) for node in nodes))
    base = shlex.quote(layout.base)
    # what tells whose it is goes last, so that a deletion that was cut off is known, and finished, by the next one
    delete = f"find {base} -mindepth 1 -maxdepth 1 ! -name identity ! -name lock -exec rm -rf {{}} + && rm -rf {base}"
    await host.run(f"mv -T {base} {shlex.quote(aside)}" if aside else delete, timeout=600.0)


def _nodes(deployment: Deployment, host: str, facts: HostFacts) -> list[NodePaths]:
    """Those of the file, and whatever else was ever set up there: nothing runs on without its folder."""
    wanted = {(n.port, n.kind == "sentinel") for n in deployment.placement.on(host)}
    for folder in facts.set_up:
        kind, _, port = folder.rpartition("-")
        if port.isdigit():
            wanted.add((int(port), kind == "sentinel"))
    return [deployment.layout.node(port, sentinel=sentinel) for port, sentinel in sorted(wanted)]


def _units_down(layout: Layout, units: list[str], files: list[str]) -> str:
    every = shlex.join([*units, layout.firewall_unit])
    paths = shlex.join([*files, f"/etc/systemd/system/{layout.firewall_unit}", layout.logrotate])
    shared = shlex.join([layout.sysctl, layout.tmpfiles])
    return (
        f"systemctl disable -q --now {every} 2>/dev/null; rm -f {paths}; systemctl daemon-reload; "
        # the kernel settings serve every deployment of this host
        f"ls /etc/systemd/system/redkeep-*.service >/dev/null 2>&1 || rm -f {shared}"
    )
