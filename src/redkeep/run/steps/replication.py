"""Sentinels are told what to watch; they keep it in their own file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redkeep.errors import ReplyError
from redkeep.model.topology import NodeView
from redkeep.planning.hostfiles.config import sentinel_settings

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context


async def monitor(context: Context, step: Step) -> None:
    """A Sentinel that watches nothing yet: the primary, how to log in there, and the timing."""
    await _watch(context, context.desired.node(step.node), context.desired.node(str(step.args["primary"])))


async def _watch(context: Context, node: DesiredNode, primary: DesiredNode) -> None:
    spec = context.desired.spec
    host, port = primary.announced
    client = await context.fleet.client(node)
    wanted = sentinel_settings(spec)
    answers = await client.pipeline(
        [
            ("SENTINEL", "MONITOR", spec.name, host, port, wanted.pop("quorum")),
            ("SENTINEL", "SET", spec.name, "auth-user", "sentinel"),
            ("SENTINEL", "SET", spec.name, "auth-pass", context.passwords["sentinel"]),
            *(("SENTINEL", "SET", spec.name, key, value) for key, value in wanted.items()),
        ]
    )
    for answer in answers[1:]:
        if isinstance(answer, ReplyError):
            raise answer


async def watch_again(context: Context, step: Step) -> None:
    """All Sentinels watch the primary at another address.

    All forget it before any of them is told anew: a name begins at epoch 0, and whoever still had a higher one would
    bring the old address back with its next greeting (``sentinelProcessHelloMessage`` in sentinel.c, Redis 7.0).
    """
    name, primary = context.desired.spec.name, context.desired.node(str(step.args["primary"]))
    nodes = [n for n in context.desired.everyone if n.sentinel]
    nodes = [n for n in nodes if isinstance(context.observed.nodes.get(n.name), NodeView)]

    async def remove(node: DesiredNode) -> None:
        try:
            await context.fleet.call(node, "SENTINEL", "REMOVE", name)
        except ReplyError as error:
            if "No such master" not in error.what:
                raise

    await asyncio.gather(*map(remove, nodes))
    await asyncio.gather(*(_watch(context, node, primary) for node in nodes))


async def announce(context: Context, step: Step) -> None:
    """A Sentinel tells the others another address; they know it by its run ID, and take that over."""
    node = context.desired.node(step.node)
    await context.fleet.call(node, "SENTINEL", "CONFIG", "SET", "announce-ip", node.wire.announce)


async def set_sentinel(context: Context, step: Step) -> None:
    spec = context.desired.spec
    client = await context.fleet.client(context.desired.node(step.node))
    wanted = sentinel_settings(spec)
    for key in str(step.args["settings"]).split():
        await client.call("SENTINEL", "SET", spec.name, key, wanted[key])


async def set_sentinel_password(context: Context, step: Step) -> None:
    """What a Sentinel sends to servers, then what it sends to its like: the second shows that the first was done.

    Its connections to servers stay, those to other Sentinels are made anew.
    """
    client = await context.fleet.client(context.desired.node(step.node))
    password = context.passwords["sentinel"]
    await client.call("SENTINEL", "SET", context.desired.spec.name, "auth-pass", password)
    await client.call("SENTINEL", "CONFIG", "SET", "sentinel-pass", password)
    await client.call("SENTINEL", "FLUSHCONFIG")


ACTIONS = {
    "monitor": monitor,
    "set-sentinel": set_sentinel,
    "watch-again": watch_again,
    "announce": announce,
    "set-sentinel-password": set_sentinel_password,
}
