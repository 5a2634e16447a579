"""A primary hands its role over to a replica, without losing a write: ``hand-over`` {from, to}, in every mode.

Writes are held until the replica has every byte, and only then does the role move. Where that does not come about in
time, writes go on where they were and the step refuses. Whatever holds writes has a time limit of its own in the
server, so that a tool which is killed leaves nothing held. A step that was cut short is done again: what is done already
is seen, and the rest follows.

How the role moves is the engine's business: CLUSTER FAILOVER, FAILOVER TO, SENTINEL FAILOVER (``sentinelhandover.py``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, RedkeepError, RefusedError, ReplyError, WireError
from redkeep.model.engine import Capability
from redkeep.model.topology import NodeView
from redkeep.planning.switchover import choose
from redkeep.run.steps.acknowledging import Acknowledging
from redkeep.run.steps.context import Context, role_of, running_engine, until
from redkeep.run.steps.sentinelhandover import (
    by_sentinels,
    cut_off,
    finish_by_sentinels,
    sentinels_agree,
    sentinels_idle,
)
from redkeep.wire import replies

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.model.topology import Observed
    from redkeep.planning.desired import DesiredNode

#: Milliseconds for which FAILOVER holds writes at most; the engine then gives up by itself.
CATCH_UP_MS = 1000
#: Seconds for a vote. The engine gives a manual failover five (CLUSTER_MF_TIMEOUT), and lets writes go on after that.
VOTE_LIMIT = 8.0
#: Seconds until everybody follows the new primary; what they lack is little.
FOLLOW_LIMIT = 60.0
#: Seconds between two looks while writes are held.
POLL = 0.001
#: Seconds in which nobody is asked for anything afterwards, while clients look for the new primary: a look at all nodes
#: in that moment held them up (measured, a Cluster of six on two cores: 35 ms without writes, 28 with this).
QUIET = 0.2


async def hand_over(context: Context, step: Step) -> None:
    """Args ``from`` and ``to`` (node names), ``one_way`` where the old primary's version need not be able to take a full
    copy from the new one. Raises ``RefusedError`` where nothing was changed, ``EngineError`` otherwise."""
    old, new = context.desired.node(str(step.args["from"])), context.desired.node(str(step.args["to"]))
    if not await _is_primary(context, new):
        await _asked_again(context, old, new, one_way=bool(step.args.get("one_way")))
        if context.desired.spec.mode == "cluster":
            await _by_vote(context, old, new)
        elif context.desired.sentinels:
            await by_sentinels(context, old, new)
        else:
            await _by_command(context, old, new)
        await asyncio.sleep(QUIET)
    elif context.desired.sentinels and await _is_primary(context, old):
        await finish_by_sentinels(context, old, new)
    if context.desired.spec.mode != "cluster":
        await until(
            lambda: sentinels_agree(context, new),
            seconds=FOLLOW_LIMIT,
            failure=lambda: _not_followed(old, new),
            poll=0.02,
        )
        await _kept(context, new)
    if context.desired.sentinels:
        await cut_off(context, old)  # who came back to it by way of a Sentinel that had not heard yet
    await _followed(context, old, new)


async def _is_primary(context: Context, node: DesiredNode) -> bool:
    return (await role_of(context, node))[:1] == [b"master"]


async def _asked_again(context: Context, old: DesiredNode, new: DesiredNode, *, one_way: bool) -> None:
    """The plan's look may be old: whether the replica can take over is judged by what all say now."""
    views = await context.fleet.views(context.desired.everyone)
    now: Observed = type(context.observed)(context.observed.hosts, views)
    choose(context.desired, now, old, to=new.name, one_way=one_way)


# Cluster -------------------------------------------------------------------------------------------------------------


async def _by_vote(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """CLUSTER FAILOVER: the primary holds writes, the replica catches up, the primaries vote."""
    await _vote_is_due(context, old, new)
    await context.fleet.call(new, "CLUSTER", "FAILOVER")

    async def elected() -> bool:
        return await _is_primary(context, new)

    await until(
        elected,
        seconds=VOTE_LIMIT,
        failure=lambda: RefusedError(
            f"{new.name} was not elected within {VOTE_LIMIT:.0f} s; {old.name} goes on as primary",
            where=f"shard {old.shard + 1}",
            next="are most primaries up and in touch with each other? redkeep status, then again",
        ),
        poll=POLL,
    )


async def _vote_is_due(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """Waits where the others would not vote yet: they vote once in two node timeouts about the same primary
    (``clusterSendFailoverAuthIfNeeded`` in cluster.c), and an election without votes holds writes for five seconds.

    Who has been primary for that long, by the age of a replica's link, or since its start, had no vote meanwhile.
    """
    if running_engine(context, old).supports(Capability.VOTES_AT_ONCE):
        return
    client = await context.fleet.client(old)
    info, config, links = await client.pipeline(
        [
            ("INFO", "replication"),
            ("CONFIG", "GET", "cluster-node-timeout"),
            ("CLIENT", "LIST", "TYPE", "replica"),
        ]
    )
    if any(isinstance(answer, ReplyError) for answer in (info, config, links)):
        return
    if set(replies.info(info).get("master_replid2", "0")) == {"0"}:
        return  # it was never promoted
    blocked = 2 * int(replies.flat_map(config)["cluster-node-timeout"]) / 1000
    ages = [replies.fields(line.replace(" ", ",")) for line in replies.text(links).splitlines()]
    oldest = max((int(a.get("age", "0")) for a in ages), default=0)
    wait = blocked - oldest + 1
    if wait > 0:
        context.note(
            f"{old.name} has been primary for a moment only; waiting {wait:.0f} s until the others vote on it again"
        )
        await asyncio.sleep(wait)


# Plain replication ---------------------------------------------------------------------------------------------------


async def _by_command(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """FAILOVER TO. The engine waits for the replica's acknowledgement, which it is asked for all the time: by itself it
    sends one a second (measured: 787 ms without, 7 ms with)."""
    host, port = new.announced
    await context.fleet.call(old, "FAILOVER", "TO", host, port, "TIMEOUT", CATCH_UP_MS)
    async with Acknowledging(context, [new]):

        async def settled() -> bool:
            return await _is_primary(context, new) or not await _in_failover(context, old)

        await until(settled, seconds=FOLLOW_LIMIT, failure=lambda: _undecided(old, new), poll=POLL)
    if not await _is_primary(context, new):
        raise RefusedError(
            f"{new.name} did not catch up within {CATCH_UP_MS} ms; {old.name} goes on as primary",
            where=f"shard {old.shard + 1}",
            next="wait until there are fewer writes, then run it again",
        )


async def _in_failover(context: Context, node: DesiredNode) -> bool:
    said = replies.info(await context.fleet.call(node, "INFO", "replication"))
    return said.get("master_failover_state", "no-failover") != "no-failover"


# Afterwards ----------------------------------------------------------------------------------------------------------


async def _kept(context: Context, new: DesiredNode) -> None:
    """Everybody else follows the new primary, and all write that down: the gate and the next start go by it."""
    await context.fleet.call(new, "CONFIG", "REWRITE")
    for node in context.desired.present:
        if node == new:
            continue
        for last in (False, True):  # Sentinels close all connections of a server whose role they change
            try:
                await _follows(context, node, new)
                break
            except WireError as error:
                context.fleet.drop(node)
                if last:
                    context.note(f"{node.name} was not told of the new primary: {error.what}")


async def _follows(context: Context, node: DesiredNode, new: DesiredNode) -> None:
    role = await role_of(context, node)
    if role[:1] != [b"slave"]:
        return  # a primary of its own: nobody decides here that its data does not count
    if (replies.text(role[1]), role[2]) != new.announced:
        await context.fleet.call(node, "REPLICAOF", *new.announced)
    await context.fleet.call(node, "CONFIG", "REWRITE")


async def _followed(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """The old primary is a replica with a link, so are the others that answer, and the Sentinels are through with it."""

    async def settled() -> bool:
        views = await context.fleet.views(context.desired.present)
        theirs = views[new.name]
        if not isinstance(theirs, NodeView) or theirs.role != "primary":
            return False
        group = [
            n for n in context.desired.present if n != new and _same_group(context, old, n, views[n.name])
        ]
        return all(
            isinstance(view := views[n.name], NodeView)
            and view.role == "replica"
            and view.link_up
            and (
                view.cluster is None
                or theirs.cluster is None
                or view.cluster.me.primary_id == theirs.cluster.my_id
            )
            and (
                view.cluster is not None
                or (view.primary and context.desired.at(view.primary.host, view.primary.port)) == new
            )
            for n in group
        ) and await sentinels_idle(context)

    await until(settled, seconds=FOLLOW_LIMIT, failure=lambda: _not_followed(old, new), poll=0.05)


def _same_group(context: Context, old: DesiredNode, node: DesiredNode, view: object) -> bool:
    """The old primary, and whoever was its replica and still answers."""
    if node == old:
        return True
    before = context.observed.nodes.get(node.name)
    if not isinstance(view, NodeView) or not isinstance(before, NodeView):
        return False
    if context.desired.spec.mode != "cluster":
        return view.role == "replica"
    its = context.observed.nodes.get(old.name)
    known = its.cluster.my_id if isinstance(its, NodeView) and its.cluster else ""
    return before.cluster is not None and before.cluster.me.primary_id == known


def _undecided(old: DesiredNode, new: DesiredNode) -> RedkeepError:
    return EngineError(
        f"{old.name} is still handing over to {new.name} after {FOLLOW_LIMIT:.0f} s",
        where=f"shard {old.shard + 1}",
        next="FAILOVER ABORT on the primary ends that; then run it again",
    )


def _not_followed(old: DesiredNode, new: DesiredNode) -> RedkeepError:
    return EngineError(
        f"{new.name} is the primary now, but not everybody follows it after {FOLLOW_LIMIT:.0f} s",
        where=f"shard {old.shard + 1}",
        next="look at redkeep status; run it again to finish",
    )


ACTIONS = {"hand-over": hand_over}
