"""What can be changed while a server runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, ReplyError, WireError
from redkeep.model.engine import Capability
from redkeep.model.topology import NodeView
from redkeep.planning.cluster import FULL_MESH
from redkeep.planning.hostfiles.acl import acl_changes
from redkeep.planning.hostfiles.config import haste
from redkeep.run.steps.context import POLL, Context
from redkeep.wire.replies import cluster_view, text

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredNode

#: Seconds that the end of a creation waits for the Cluster to settle.
SETTLE_LIMIT = 10.0


async def set_settings(context: Context, step: Step) -> None:
    """CONFIG SET, one setting a command: no engine before 7.0 takes several."""
    node = context.desired.node(step.node)
    client = await context.fleet.client(node)
    names = str(step.args["settings"]).split()
    if _hasty(context, node, names):
        await _settled(context, node)
    answers = await client.pipeline([("CONFIG", "SET", name, node.settings[name]) for name in names])
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, ReplyError):
            raise EngineError(
                f"the server refuses the setting {name}: {answer.what}",
                where=node.name,
                next="change or remove it in the deployment file",
            )


def _hasty(context: Context, node: DesiredNode, names: list[str]) -> bool:
    """Whether the node still has the short timeout of its Cluster's creation, which is about to be taken back."""
    name = "cluster-node-timeout"
    short = haste(node.settings, len(context.desired.servers)).get(name)
    view = context.observed.nodes.get(node.name)
    return name in names and isinstance(view, NodeView) and view.config.get(name) == short


async def _settled(context: Context, node: DesiredNode) -> None:
    """Waits until the node says ok and knows everybody's role.

    Before that, the longer timeout would hold both back: a primary joins after one node timeout, and what changed is
    told to everybody within half of one. A Cluster that is not well for other reasons is not waited for.
    """
    client = await context.fleet.client(node)
    deadline = asyncio.get_running_loop().time() + SETTLE_LIMIT
    while asyncio.get_running_loop().time() < deadline:
        try:
            view = cluster_view(*await client.pipeline([("CLUSTER", "NODES"), ("CLUSTER", "INFO")]))
            if view.state_ok and all(n.slots or n.primary_id for n in view.nodes):
                return
            if (
                view.me.slots
                and not view.state_ok
                and not node.engine.supports(Capability.SETSLOT_REPLICATED)
            ):
                # Changes nothing, and lets the node judge its state now and not at its next tick of 100 ms.
                await client.call("CLUSTER", "SETSLOT", view.me.slots[0].first, "STABLE")
        except (WireError, ValueError):
            return
        await asyncio.sleep(POLL if len(view.nodes) > FULL_MESH else POLL / 4)


async def set_users(context: Context, step: Step) -> None:
    """The users that differ, one by one. ACL LOAD would close the connections of all but the default user (up to
    Redis 7.0, measured), replication links among them; the file is read at the next start."""
    node = context.desired.node(step.node)
    client = await context.fleet.client(node)
    changes = acl_changes(node.acl, map(text, await client.call("ACL", "LIST")))
    commands = [("ACL", "SETUSER", *line.split()) for line in changes.set]
    commands += [("ACL", "DELUSER", name) for name in changes.delete]
    for command, answer in zip(commands, await client.pipeline(commands), strict=True):
        if isinstance(answer, ReplyError):
            raise EngineError(
                f"the server refuses the user {command[2]}: {answer.what}",
                where=node.name,
                next="see redkeep log",
            )


async def reload_tls(context: Context, step: Step) -> None:
    """Setting a file name again, even the same, makes a server read certificate and key anew (6.0 and later)."""
    node = context.desired.node(step.node)
    await context.fleet.call(node, "CONFIG", "SET", "tls-cert-file", node.settings["tls-cert-file"])
    context.fleet.drop(node)


ACTIONS = {"set": set_settings, "set-users": set_users, "reload-tls": reload_tls}
