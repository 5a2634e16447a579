"""The look at a deployment that its file describes: nodes through their hosts, and visits from where clients are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redkeep.errors import UsageError, WireError
from redkeep.model.checkup import Checkup, HostView, Node, Visit
from redkeep.model.topology import BUS_OFFSET, Address, Unreachable
from redkeep.planning.evidence.trust import Policy
from redkeep.planning.placing.probes import HERE, wanted_probes
from redkeep.run.hostlook import with_processes
from redkeep.run.probe import probe
from redkeep.run.survey import with_vantages, with_visits
from redkeep.run.visits import TIMEOUT, Seen, Visitor, Way, look
from redkeep.wire.client import Login, Opener, direct

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.deployment import Deployment, Sight
    from redkeep.run.outposts import Outposts


async def survey(deployment: Deployment, *, allow_clear_text: bool, posts: Outposts) -> Checkup:
    """Raises ``UsageError`` before the first apply: there is nothing to look at yet."""
    if deployment.vault.contents() is None:
        raise UsageError(
            "nothing was deployed from this file yet", where=str(deployment.file), next="redkeep apply"
        )
    sight = await deployment.look()
    spec = deployment.spec
    seen = await asyncio.gather(*(_look(deployment, sight, n) for n in sight.desired.nodes))
    nodes = tuple(
        Node(n.name, _handed_out(n), n.host, s.view, s.details, wanted=n.settings)
        for n, s in zip(sight.desired.nodes, seen, strict=True)
    )
    hosts = {h.name: HostView(sight.observed.hosts[h.name], h.zone or "") for h in spec.hosts}
    vantage, way = _vantage(deployment, sight)
    visitor = _visitor(deployment, {n.address for n in nodes}, way, allow_clear_text)
    checkup = Checkup(str(deployment.file), datetime.now(UTC), nodes, hosts=hosts, spec=spec, vantage=vantage)
    reachable = {n: h for n, h in deployment.fleet.hosts.items() if n not in deployment.fleet.failed}
    others = posts.visitors(replace(visitor, way=direct))
    visited, elsewhere, paths, looked = await asyncio.gather(
        with_visits(checkup, visitor),
        with_vantages(checkup, _asked(posts, others, replace(visitor, way=direct))),
        _paths(deployment, sight),
        with_processes(checkup, reachable),
    )
    return replace(
        visited, elsewhere=elsewhere.elsewhere, paths=paths, nodes=looked.nodes, left_out=posts.left_out
    )


def _asked(posts: Outposts, others: Mapping[str, Visitor], here: Visitor) -> dict[str, Visitor]:
    """In the order in which they were named."""
    return {name: others.get(name, here) for name in posts.names}


async def _look(deployment: Deployment, sight: Sight, node: DesiredNode) -> Seen:
    """The view that the deployment's own look has, with the doctor's details."""
    view = sight.observed.nodes[node.name]
    if isinstance(view, Unreachable):
        return Seen(view)
    try:
        return await look(await deployment.fleet.client(node))
    except WireError as error:
        return Seen(Unreachable(error.what))


def _handed_out(node: DesiredNode) -> Address:
    return Address(node.wire.client_announce or node.wire.announce or node.host, node.port)


def _visitor(deployment: Deployment, named: set[Address], way: Way, allow_clear_text: bool) -> Visitor:
    """The application's login is enough to ask for a run ID, and no more is shown on the way."""
    password = deployment.secrets.app
    policy = Policy(frozenset(a.host for a in named), allow_clear_text=allow_clear_text)
    tls = deployment.fleet.tls
    return Visitor(
        policy,
        {None: Login("default", password)} if password else {},
        frozenset(named),
        tls=tls is not None,
        context=tls,
        own_ca=True,
        way=way,
    )


def _vantage(deployment: Deployment, sight: Sight) -> tuple[str, Way]:
    """Where clients are: here, or inside the hosts' network, where one host visits the others."""
    spec, fleet = deployment.spec, deployment.fleet
    names = [name for name in fleet.hosts if name not in fleet.failed]
    if spec.is_local or spec.clients == "public" or not names:
        return HERE, direct

    def way(ip: str, port: int) -> Opener:
        owners = {h.host for h in sight.addresses.hosts.values() if ip in (h.private, h.public, h.announce)}
        host = fleet.hosts[next((n for n in names if n not in owners), names[0])]
        return lambda: host.connect(ip, port, timeout=TIMEOUT)

    return "the hosts", way


async def _paths(deployment: Deployment, sight: Sight) -> dict[tuple[str, str], Visit]:
    """The bus, tried from host to host."""
    if deployment.spec.mode != "cluster":
        return {}
    wanted = wanted_probes(deployment.spec, deployment.placement, sight.addresses)
    reachable = deployment.fleet.hosts.keys() - deployment.fleet.failed.keys()
    bus = [w for w in wanted if w.purpose == "bus" and w.source in reachable]
    probes = await probe(deployment.fleet.hosts, bus) if bus else []
    return {(p.source, f"{p.target}:{p.port - BUS_OFFSET}"): Visit(p.outcome, p.detail) for p in probes}
