"""A Cluster's steps: slots, introductions, replicas, and the forgetting of ghosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redkeep.errors import EngineError, RedkeepError, ReplyError
from redkeep.model.slots import SlotRange
from redkeep.model.topology import ClusterView, NodeView
from redkeep.planning.cluster import FULL_MESH, in_creation, introductions
from redkeep.planning.hostfiles.config import haste
from redkeep.run.steps.context import Context, role_of, until
from redkeep.wire import replies

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredNode

#: Seconds until all nodes must know each other, and until a replica must have its copy.
MEET_LIMIT = 120.0
SYNC_LIMIT = 3600.0
#: Well below the 60 s for which a forgotten node is barred.
FORGET_LIMIT = 40.0


async def assign_slots(context: Context, step: Step) -> None:
    """Slots and a config epoch of its own. The epoch can be set only while a node knows nobody."""
    client = await context.fleet.client(context.desired.node(step.node))
    slots = [s for r in str(step.args["slots"]).split() for s in SlotRange.parse(r)]
    # In this order: a node that judges its state between the two, still without slots, would wait that much longer.
    added, _ = await client.pipeline(
        [("CLUSTER", "ADDSLOTS", *slots), ("CLUSTER", "SET-CONFIG-EPOCH", int(step.args["epoch"]))]
    )
    if isinstance(added, ReplyError):
        raise added


async def meet(context: Context, step: Step) -> None:
    """Introduces the nodes that do not know each other yet, and waits until all know all.

    While nothing is served yet with short timeouts, which the step after it takes back; a running Cluster keeps its own.
    """
    nodes = _members(context)
    hasty = in_creation(context.desired, context.observed)
    clients = await asyncio.gather(*(context.fleet.client(n) for n in nodes))
    by_node: dict[int, list[tuple[Any, ...]]] = {i: [] for i in range(len(nodes))}
    for a, b in introductions(len(nodes)):
        if not _acquainted(context, nodes[a], nodes[b]):
            by_node[a].append(("CLUSTER", "MEET", nodes[b].wire.announce, nodes[b].port))
    highest = max((v.current_epoch for v in _views(context)), default=0)

    async def introduce(index: int) -> None:
        # Primaries have theirs from their slots' step; the error of those that know somebody is expected.
        epoch = ("CLUSTER", "SET-CONFIG-EPOCH", max(len(nodes), highest) + index + 1)
        short = haste(nodes[index].settings, len(nodes)) if hasty else {}
        quick = [("CONFIG", "SET", key, value) for key, value in short.items()]
        answers = await clients[index].pipeline([epoch, *quick, *by_node[index]])
        for answer in answers[1:]:
            if isinstance(answer, ReplyError):
                raise answer

    await asyncio.gather(*map(introduce, range(len(nodes))))
    ids = set(await asyncio.gather(*(_id_of(context, n) for n in nodes)))

    async def all_known() -> bool:
        # How many each knows is one short answer; who they are is as many lines as there are nodes.
        counts = await _from_all(context, nodes, "INFO")
        if any(int(replies.info(c).get("cluster_known_nodes", 0)) < len(ids) for c in counts):
            return False
        return all(ids <= _known(reply) for reply in await _from_all(context, nodes, "NODES"))

    await until(
        all_known,
        seconds=MEET_LIMIT,
        failure=lambda: _strangers(context),
        poll=0.02 if len(nodes) <= FULL_MESH else 0.25,
    )


def _members(context: Context) -> list[DesiredNode]:
    """All that shall be, and those that leave and still answer: the new ones copy from them."""
    answering = (n for n in context.desired.leaving if not n.sentinel and _view_of(context, n))
    return [*context.desired.servers, *answering]


def _view_of(context: Context, node: DesiredNode) -> ClusterView | None:
    view = context.observed.nodes.get(node.name)
    return view.cluster if isinstance(view, NodeView) else None


def _views(context: Context) -> list[ClusterView]:
    return [v for n in context.desired.present if (v := _view_of(context, n))]


def _acquainted(context: Context, one: DesiredNode, other: DesiredNode) -> bool:
    here, there = _view_of(context, one), _view_of(context, other)
    line = here.by_id(there.my_id) if here and there else None
    return line is not None and "handshake" not in line.flags


async def _from_all(context: Context, nodes: Sequence[DesiredNode], what: str) -> list[Any]:
    """CLUSTER so and so, of these servers. All answers are awaited even when one fails: a connection serves one at a
    time."""
    calls = (context.fleet.call(n, "CLUSTER", what) for n in nodes)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _known(reply: Any) -> set[str]:
    nodes = map(replies.cluster_node, filter(None, replies.text(reply).splitlines()))
    return {n.id for n in nodes if "handshake" not in n.flags}


def _strangers(context: Context) -> RedkeepError:
    buses = ", ".join(str(p + 10000) for p in sorted({n.port for n in context.desired.servers}))
    return EngineError(
        f"the nodes do not get to know each other within {MEET_LIMIT:.0f} s",
        where=f"cluster bus, TCP port {buses} of every host",
        next="open the bus port between all hosts in the security group, then apply again",
    )


async def replicate(context: Context, step: Step) -> None:
    """Makes a node the replica of a primary and waits for its copy."""
    node, primary = context.desired.node(step.node), context.desired.node(str(step.args["primary"]))
    if context.desired.spec.mode == "cluster":
        await context.fleet.call(node, "CLUSTER", "REPLICATE", await _id_of(context, primary))
    else:
        await context.fleet.call(node, "REPLICAOF", *primary.announced)
        await context.fleet.call(node, "CONFIG", "REWRITE")

    async def linked() -> bool:
        role = await role_of(context, node)
        return role[:1] == [b"slave"] and role[3:4] == [b"connected"]

    await until(linked, seconds=SYNC_LIMIT, failure=lambda: _not_linked(node, primary))


async def _id_of(context: Context, node: DesiredNode) -> str:
    """Its node ID, as the last look saw it, or asked."""
    view = context.observed.nodes.get(node.name)
    if isinstance(view, NodeView) and view.cluster:
        return view.cluster.my_id
    return replies.text(await context.fleet.call(node, "CLUSTER", "MYID"))


def _not_linked(node: DesiredNode, primary: DesiredNode) -> RedkeepError:
    return EngineError(
        f"{node.name} has no copy of {primary.name} yet",
        where=f"{node.host} to {primary.announced[0]}:{primary.port}",
        next="can that address be reached from there? then apply again",
    )


async def forget(context: Context, step: Step) -> None:
    """All nodes forget at once: the engine bars a node for 60 s only, and gossip would bring it back after that.

    A replica does not forget its own primary ("Can't forget my master!"): it may be a moment behind the others.
    """
    pending = list(context.desired.servers)

    async def forgotten() -> bool:
        answers = await asyncio.gather(
            *(context.fleet.call(n, "CLUSTER", "FORGET", str(step.args["id"])) for n in pending),
            return_exceptions=True,
        )
        for node, answer in zip(tuple(pending), answers, strict=True):
            if not isinstance(answer, BaseException) or _unknown(answer):
                pending.remove(node)
            elif not (isinstance(answer, ReplyError) and "forget my " in answer.what):
                raise answer
        return not pending

    def failure() -> RedkeepError:
        names = ", ".join(n.name for n in pending)
        return EngineError(
            "a node that left is still somebody's primary",
            where=names,
            next="see redkeep status, then apply again",
        )

    await until(forgotten, seconds=FORGET_LIMIT, failure=failure)


def _unknown(answer: BaseException) -> bool:
    return isinstance(answer, ReplyError) and "Unknown node" in answer.what


ACTIONS = {"assign-slots": assign_slots, "meet": meet, "replicate": replicate, "forget": forget}
