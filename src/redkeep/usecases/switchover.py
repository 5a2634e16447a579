"""A planned change of primary, without losing a write.

A request is relative ("shard 2: somebody else"), so what it comes to is written down before anything is done, in
``.redkeep/NAME/switchover.json``: these primaries hand over to these replicas. Run again after a cut, it goes on to that,
whatever it was asked for about the same shards. Once done the note is gone, and the next request is a new one. A request
that names its node (``switchover local:7000``: away from there; ``--to local:7003``: to there) can be repeated: where that
holds already there is nothing to do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError, UsageError
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.model.plan import Plan
from redkeep.planning.switchover import (
    Move,
    check_known,
    choose,
    displaced,
    hand_over_step,
    leads,
    primary_of,
)
from redkeep.run.converge import Look, Outcome, converge
from redkeep.run.deployment import Deployment, Sight, hosts_of
from redkeep.run.lock import locked
from redkeep.run.opening import opened
from redkeep.run.prober import Prober, slot_of
from redkeep.run.sessions import key_question
from redkeep.run.steps import ACTIONS, Context
from redkeep.run.targets import read_targets, write_targets

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import Desired, DesiredNode


@dataclass(frozen=True)
class Request:
    """``what``: a shard's number, a node, or a host (all primaries there); empty where there is one shard."""

    what: str = ""
    to: str | None = None
    restore: bool = False
    probe: bool = False


@dataclass(frozen=True)
class Moved:
    """``window_ms``, ``acknowledged`` and ``lost`` only where a probe wrote meanwhile. ``seconds`` until all is settled."""

    shard: int
    primary: str
    replica: str
    seconds: float
    window_ms: float | None = None
    acknowledged: int | None = None
    lost: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "shard": self.shard + 1,
            "from": self.primary,
            "to": self.replica,
            "seconds": round(self.seconds, 3),
            "window_ms": None if self.window_ms is None else round(self.window_ms, 1),
            "acknowledged": self.acknowledged,
            "lost": self.lost,
        }


@dataclass(frozen=True)
class Switched:
    """What changed. ``at``: where things stood already, if nothing had to be done."""

    moves: tuple[Moved, ...]
    at: str = ""

    @property
    def ok(self) -> bool:
        return not any(m.lost for m in self.moves)

    def as_json(self) -> dict[str, Any]:
        """One move's keys at the top as well; with several or none they are null there."""
        keys = ("shard", "from", "to", "window_ms", "acknowledged", "lost")
        first = self.moves[0].as_json() if len(self.moves) == 1 else dict.fromkeys(keys)
        return {
            **{k: first[k] for k in keys},
            "changed": bool(self.moves),
            "moves": [m.as_json() for m in self.moves],
        }


async def switchover(
    spec: Spec, file: Path, request: Request, *, approve: Approve, emit: Emit, base: str | None = None
) -> Switched:
    """Raises ``UsageError`` for what there is not, ``RefusedError`` where it would not be safe, or nobody agreed."""
    async with opened(spec, file, keep=True, accept_key=key_question(approve), base=base) as deployment:
        sight = await deployment.look(engine=True)
        _require_running(deployment, sight)
        moves, unfinished = _targets(deployment, sight, request, emit)
        if not moves:
            return Switched((), _where_things_stand(sight, request))
        if not unfinished or {m.shard for m in moves} - {m.shard for m in unfinished}:
            await _agreed(moves, approve)
        async with locked(hosts_of(deployment), purpose="switchover"):
            return await _carry_out(deployment, request, moves, unfinished, approve, emit)


def _require_running(deployment: Deployment, sight: Sight) -> None:
    if deployment.vault.contents() is None or not any(
        leads(sight.observed, n) for n in sight.desired.servers
    ):
        deployment.require_all(sight)
        raise RefusedError(
            "no primary of this deployment answers",
            where=str(deployment.file),
            next="see redkeep status; what is not there yet, redkeep apply makes",
        )


# What is wanted ------------------------------------------------------------------------------------------------------


def _targets(
    deployment: Deployment, sight: Sight, request: Request, emit: Emit
) -> tuple[tuple[Move, ...], tuple[Move, ...]]:
    """What to do, and which of it an earlier run began. What somebody asks for by ``--to`` overrules that."""
    unfinished = tuple(m for m in read_targets(deployment.vault) if _exist(sight.desired, m))
    if request.to is not None:
        node = _node(sight.desired, request.to)
        unfinished = tuple(m for m in unfinished if m.shard != node.shard or m.replica == node.name)
    for move in unfinished:
        emit(Note(f"an earlier switchover was cut off; going on: {move}"))
    busy = {m.shard for m in unfinished}
    try:
        wanted = _wanted(sight, request, busy)
    except RefusedError:
        if not unfinished:
            raise
        wanted = ()
    except UsageError:
        if not unfinished or request.what or request.to:
            raise
        wanted = ()  # without a word: the unfinished one
    return (*unfinished, *(m for m in wanted if m.shard not in busy)), unfinished


def _wanted(sight: Sight, request: Request, busy: set[int]) -> tuple[Move, ...]:
    desired, observed = sight.desired, sight.observed
    if request.restore:
        return displaced(desired, observed)
    if request.to is not None:
        node = _node(desired, request.to)
        if request.what and node.shard not in _named(sight, request.what):
            raise UsageError(
                f"{request.to} is of shard {node.shard + 1}, not of {request.what}",
                where="redkeep switchover --to",
                next="redkeep status shows who follows whom",
            )
        if leads(observed, node):
            return ()
        primary = _primary(sight, node.shard)
        return (Move(node.shard, primary.name, choose(desired, observed, primary, to=node.name).name),)
    elsewhere = request.what in desired.hosts
    return tuple(
        Move(p.shard, p.name, choose(desired, observed, p, elsewhere=elsewhere).name)
        for p in _sources(sight, request.what)
        if p.shard not in busy
    )


def _sources(sight: Sight, what: str) -> list[DesiredNode]:
    """The primaries that ``what`` stands for; none for a node that is no primary, which is what is wanted."""
    desired = sight.desired
    if what in desired.hosts or what in {n.name for n in desired.servers}:
        named = [n for n in desired.servers if what in (n.name, n.host)]
        check_known(desired, sight.observed, named)
        return [n for n in named if leads(sight.observed, n)]
    return [_primary(sight, shard) for shard in sorted(_named(sight, what))]


def _named(sight: Sight, what: str) -> set[int]:
    """The shards that ``what`` is about."""
    servers = sight.desired.servers
    shards = {n.shard for n in servers}
    if found := {n.shard for n in servers if what in (n.name, n.host)}:
        return found
    number = re.fullmatch(r"(?:shard[ -]?)?(\d+)", what)
    if number and int(number[1]) - 1 in shards:
        return {int(number[1]) - 1}
    if not what and len(shards) == 1:
        return shards
    raise UsageError(
        f"no such shard, node or host: {what}" if what else "which shard?",
        where="redkeep switchover",
        next=f"name a shard (1 to {len(shards)}), a node or a host; redkeep status shows them",
    )


def _primary(sight: Sight, shard: int) -> DesiredNode:
    primary = primary_of(sight.desired, sight.observed, shard)
    if primary is None:
        raise RefusedError(
            "there is not one primary that answers, so nobody can hand over without loss",
            where=f"shard {shard + 1}",
            next="see redkeep status; a dead primary is replaced by the engine's own failover",
        )
    return primary


def _node(desired: Desired, name: str) -> DesiredNode:
    for node in desired.servers:
        if node.name == name:
            return node
    raise UsageError(
        f"no such node: {name}", where="redkeep switchover --to", next="redkeep status shows them"
    )


def _where_things_stand(sight: Sight, request: Request) -> str:
    if request.restore:
        return "every primary that can be is where the placement wants it"
    if request.to is not None:
        return f"{request.to} is the primary already"
    return f"there is no primary on {request.what}"


async def _agreed(moves: Sequence[Move], approve: Approve) -> None:
    text = "; ".join(map(str, moves))
    detail = "writes to it stand still for a moment, and none is lost; clients look for the new primary"
    if not await approve(Approval("ordinary", f"{text}?", detail)):
        raise RefusedError("nothing was done: it was not approved", next="redkeep switchover asks again")


def _exist(desired: Desired, move: Move) -> bool:
    names = {n.name for n in desired.servers}
    return move.primary in names and move.replica in names


# Doing it ------------------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """Moves that are left, those that were begun by somebody else, and what was measured."""

    left: list[Move]
    unfinished: tuple[Move, ...]
    moved: list[Moved] = field(default_factory=list)

    def plan(self, sight: Sight, outcome: Outcome) -> Plan:
        """A move is over when its replica leads. One that was cut off is gone through to its end once in any case."""
        done = {d.step.args["to"] for d in outcome.done if d.status == "done"}
        self.left = [
            m
            for m in self.left
            if not (
                leads(sight.observed, sight.desired.node(m.replica))
                and (m not in self.unfinished or m.replica in done)
            )
        ]
        why = "asked for"
        return Plan.of(hand_over_step(sight.desired, m.primary, m.replica, why) for m in self.left)


async def _carry_out(
    deployment: Deployment,
    request: Request,
    moves: tuple[Move, ...],
    begun: tuple[Move, ...],
    approve: Approve,
    emit: Emit,
) -> Switched:
    work, outcome = _Work(list(moves), begun), Outcome()
    sight: Sight

    async def look(after: str) -> Look[Context]:
        nonlocal sight
        sight = await deployment.look(hosts=False)
        plan = work.plan(sight, outcome)
        write_targets(deployment.vault, work.left)
        return Look(plan, Context(deployment.fleet, sight.desired, sight.observed, approve, emit))

    async def hand_over(context: Context, step: Step) -> None:
        move = next(m for m in work.left if m.replica == step.args["to"])
        work.moved.append(await _measured(deployment, sight, move, context, step, probe=request.probe))

    try:
        await converge(
            await look(""),
            look,
            emit=emit,
            journal=deployment.journal("switchover"),
            outcome=outcome,
            actions={**ACTIONS, "hand-over": hand_over},
        )
    except RefusedError:
        write_targets(deployment.vault, ())  # nothing was changed: the next request is a new one
        raise
    return Switched(tuple(work.moved), "" if work.moved else "it was done meanwhile")


async def _measured(
    deployment: Deployment, sight: Sight, move: Move, context: Context, step: Step, *, probe: bool
) -> Moved:
    begun = time.monotonic()
    if not probe:
        await ACTIONS["hand-over"](context, step)
        return Moved(move.shard, move.primary, move.replica, time.monotonic() - begun)
    node = sight.desired.node(move.primary)
    prober = Prober(deployment, sight, move.shard, slot_of(sight, node))
    try:
        await prober.start()
        begun = time.monotonic()
        await ACTIONS["hand-over"](context, step)
        seconds = time.monotonic() - begun
    finally:
        await prober.stop()
    found = await prober.verdict()
    return Moved(
        move.shard, move.primary, move.replica, seconds, prober.window_ms(), found.acknowledged, found.lost
    )
