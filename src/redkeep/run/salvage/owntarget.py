"""A deployment of Redkeep's own as the target: by its file, through the sessions with its hosts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import UsageError, WireError
from redkeep.model.topology import ClusterNode, NodeView
from redkeep.run.deployment import Deployment
from redkeep.run.opening import opened
from redkeep.run.salvage.target import Destination, Node, node_at, of_cluster

if TYPE_CHECKING:
    from redkeep.hosts.hostkeys import Accept
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import DesiredNode

_TIMEOUT = 60.0


@contextlib.asynccontextmanager
async def of_file(spec: Spec, file: Path, accept: Accept) -> AsyncIterator[Destination]:
    """Raises ``UsageError`` where nothing of it runs yet, and what opening a deployment raises."""
    async with opened(spec, file, keep=False, accept_key=accept) as deployment:
        found = await _destination(deployment, str(file))
        try:
            yield found
        finally:
            found.close()


async def _destination(deployment: Deployment, title: str) -> Destination:
    sight = await deployment.look()
    deployment.require_all(sight)
    views = sight.observed.nodes
    nodes = {n.name: n for n in sight.desired.everyone if isinstance(views.get(n.name), NodeView)}
    primaries = [n for name, n in nodes.items() if _role(views.get(name)) == "primary"]
    if not primaries:
        raise UsageError(
            "no primary of this deployment runs", where=title, next="redkeep apply, then this again"
        )
    first = await _node(deployment, primaries[0])
    if deployment.spec.mode != "cluster":
        return Destination(title, [first])
    by_id = {_id(views.get(name)): n for name, n in nodes.items()}

    async def reach(node: ClusterNode) -> Node:
        if node.id not in by_id:
            raise WireError(
                "a node of the Cluster is not of this deployment",
                where=str(node.address),
                next="redkeep check",
            )
        return await _node(deployment, by_id[node.id])

    return await of_cluster(title, first, reach)


def _role(view: object) -> str:
    return view.role if isinstance(view, NodeView) else ""


def _id(view: object) -> str:
    return view.cluster.my_id if isinstance(view, NodeView) and view.cluster else ""


async def _node(deployment: Deployment, node: DesiredNode) -> Node:
    return await node_at(await deployment.fleet.another(node, timeout=_TIMEOUT), node.name)
