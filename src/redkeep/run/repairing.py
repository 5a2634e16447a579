"""Carries repairs out: the only writes of the doctor, each over the protocol, to the node that was looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from redkeep.errors import EngineError, RefusedError, ReplyError, WireError
from redkeep.hosts.base import Host
from redkeep.hosts.local import LocalHost
from redkeep.model.checkup import Node
from redkeep.model.events import Emit, Note
from redkeep.model.plan import Step
from redkeep.model.topology import NodeView
from redkeep.planning.repairs import Case, Command, MachineRepair, Repair, Secret
from redkeep.run.visits import Visitor
from redkeep.wire.client import Client
from redkeep.wire.observe import observe
from redkeep.wire.replies import text

#: Seconds that an effect may take, and between two looks for it.
SETTLE_LIMIT, POLL = 45.0, 0.25

_REWRITE: Command = ("CONFIG", "REWRITE")


@dataclass(frozen=True)
class Surgery:
    """What was seen, how nodes are asked, and the repair that each step stands for."""

    case: Case
    visitor: Visitor
    repairs: Mapping[str, Repair | MachineRepair]
    emit: Emit
    limit: float = SETTLE_LIMIT
    #: sessions with the machines whose logins the user gave, by name
    machines: Mapping[str, Host] = field(default_factory=dict)


async def repair(context: Surgery, step: Step) -> None:
    """Raises ``EngineError`` where a guard does not hold, the server refuses, or the effect does not come."""
    wanted = context.repairs[step.id]
    assert isinstance(wanted, Repair)
    node = context.case.nodes[wanted.node]
    if wanted.sensitive and not context.case.may_see(node):
        raise RefusedError(
            "this node may not be shown a password", where=node.name, next="name it as a target"
        )
    async with _at(context, node) as client:
        for command, answer in wanted.guards:
            if text(await client.call(*_words(context, command))) != answer:
                raise EngineError(
                    f"{_shown(command)} does not say {answer} any more: somebody is at work there",
                    where=node.name,
                    next="wait until it ends, then check again",
                )
        try:
            await _say(context, node, client, wanted.commands)
        except EngineError:
            with contextlib.suppress(EngineError, WireError):
                await _say(context, node, client, wanted.undo)
            raise
    if wanted.settled is not None:
        settled, silent = await _settles(context, wanted)
        if not settled:
            await _take_back(context, node, wanted, silent)


async def _say(context: Surgery, node: Node, client: Client, commands: Sequence[Command]) -> None:
    """All in one write: a server that was told the first half is told the second, whatever becomes of us."""
    answers = await client.pipeline([_words(context, command) for command in commands])
    for command, answer in zip(commands, answers, strict=True):
        if not isinstance(answer, ReplyError) or _is_done(command, answer):
            continue
        refusal = _without_secrets(context, command, answer.what)
        if command == _REWRITE:
            context.emit(
                Note(
                    f"warning  {node.name}: set, but not kept in its file: {refusal}; write it there by hand"
                )
            )
            continue
        raise EngineError(
            f"the server refuses {_shown(command)}: {refusal}", where=node.name, next="mend it by hand"
        )


def _is_done(command: Command, answer: ReplyError) -> bool:
    """Nobody is left to be forgotten, or no such name is watched: that is what was wanted."""
    said = answer.what.lower()
    return (command[1] == "FORGET" and "unknown node" in said) or (
        command[1] == "REMOVE" and "no such master" in said
    )


def _words(context: Surgery, command: Command) -> list[str]:
    return [context.case.resolve(w) if isinstance(w, Secret) else w for w in command]


def _shown(command: Command) -> str:
    return " ".join(map(str, command))


def _without_secrets(context: Surgery, command: Command, said: str) -> str:
    """A server repeats the arguments of a command that it does not know."""
    for word in command:
        if isinstance(word, Secret) and (value := context.case.resolve(word)):
            said = said.replace(value, str(word))
    return said


@contextlib.asynccontextmanager
async def _at(context: Surgery, node: Node) -> AsyncIterator[Client]:
    """A connection to the node, logged in as when it was looked at; whoever else answers there is left alone."""
    seen = context.case.checkup.visit(node)
    vouched = seen is not None and seen.login == "ok"
    async with context.visitor.at(node.address, vouched) as met:
        if met.client is None:
            raise WireError(met.visit.detail or "no connection", where=node.name, next="check again")
        known = node.seen.run_id if node.seen else ""
        if met.visit.run_id and met.visit.run_id != known:
            raise WireError("another server answers there now", where=node.name, next="check again")
        yield met.client


async def _settles(context: Surgery, wanted: Repair) -> tuple[bool, tuple[str, ...]]:
    """Whether the effect came in time, and who did not answer in the end: he has not seen it yet."""
    assert wanted.settled is not None
    deadline = asyncio.get_running_loop().time() + context.limit
    while True:
        names = wanted.settled.asks
        views = await asyncio.gather(*(_view(context, context.case.nodes[n]) for n in names))
        if wanted.settled.holds({n: v for n, v in zip(names, views, strict=True) if v is not None}):
            return True, ()
        if asyncio.get_running_loop().time() > deadline:
            return False, tuple(n for n, v in zip(names, views, strict=True) if v is None)
        await asyncio.sleep(POLL)


async def _view(context: Surgery, node: Node) -> NodeView | None:
    try:
        async with _at(context, node) as client:
            return await observe(client)
    except WireError:
        return None


async def _take_back(context: Surgery, node: Node, wanted: Repair, silent: Sequence[str]) -> None:
    """Says the old state again where there is one, and raises ``EngineError`` in any case."""
    if wanted.undo:
        async with _at(context, node) as client:
            await _say(context, node, client, wanted.undo)
    state = "it was set back" if wanted.undo else "it was left so"
    hint = "is that address reachable from the other nodes? mend it by hand"
    if silent:
        hint = f"{', '.join(silent)} does not answer: start it or let this machine through, then the same command again"
    raise EngineError(
        f"no effect within {context.limit:.0f} s ({wanted.rule}: {wanted.why}); {state}",
        where=node.name,
        next=hint,
    )


async def repair_machine(context: Surgery, step: Step) -> None:
    """Raises ``HostError`` where a command fails."""
    wanted = context.repairs[step.id]
    assert isinstance(wanted, MachineRepair)
    host = context.machines[wanted.login] if wanted.login else LocalHost("local")
    await host.run(wanted.script)


ACTIONS = {"repair": repair, "repair-machine": repair_machine}
