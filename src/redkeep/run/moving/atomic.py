"""A move by the engine itself: CLUSTER MIGRATESLOTS, told to the source (Valkey 9.0 and later), or CLUSTER MIGRATION IMPORT,
told to the destination (Redis 8.4 and later).

The source forks, sends the slots' keys and then what changes meanwhile, and stands still only while the owner changes.
That pause is a fixed cost of each migration, so all ranges of a move go together (valkey.io, "Atomic slot migration";
redis.io, CLUSTER MIGRATION).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from redkeep.errors import EngineError, ReplyError
from redkeep.model.engine import Capability
from redkeep.model.slots import to_ranges
from redkeep.model.topology import NodeView
from redkeep.run.moving.ends import End, end, until_ok
from redkeep.wire.replies import flat_map, text

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context

_POLL = 0.01
#: Seconds for other migrations to the same target.
_TURN = 600.0
#: Seconds until the source agrees, once the target owns the slots.
_AGREE = 60.0
#: One of them knows, of a node's migrations, those that ended among them.
_ASKED = (("CLUSTER", "GETSLOTMIGRATIONS"), ("CLUSTER", "MIGRATION", "STATUS", "ALL"))
_DONE = {"success", "completed"}
_ENDED = _DONE | {"failed", "cancelled", "canceled"}


@dataclass(frozen=True)
class Job:
    """One migration, as a node that takes part in it tells it. ``way``: as that node sees it."""

    id: str
    way: Literal["in", "out"]
    state: str
    why: str

    @property
    def ended(self) -> bool:
        return self.state in _ENDED


async def atomically(
    context: Context, source: DesiredNode, target: DesiredNode, slots: Sequence[int], stop: asyncio.Event
) -> None:
    """Until the target owns the slots. ``stop`` withdraws the migration, unless it has ended by then.

    Raises ``EngineError`` with the engine's reason where it fails; the slots are then where they were.
    """
    async with end(context.fleet, source) as a, end(context.fleet, target) as b:
        await until_ok(b)
        keys = sum((await a.counts(slots)).values())
        ranges = [edge for r in to_ranges(slots) for edge in (r.first, r.last)]
        if _is_told_to_the_target(context, target):
            told, way = b, "in"
            begin: tuple[str | int, ...] = ("CLUSTER", "MIGRATION", "IMPORT", *ranges)
        else:
            told, way = a, "out"
            begin = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *ranges, "NODE", b.id)
        known = {job.id for job in await jobs(told)}
        begun = await _begin(told, begin)
        withdrawn = False
        # Valkey does not say which one it began; a source has one at a time
        while (job := await _found(told, way, begun, known)) is None or not job.ended:
            if stop.is_set() and job is not None and not withdrawn:
                withdrawn = True
                await _withdraw(told, job)
            await asyncio.sleep(_POLL)
        if job.state in _DONE:
            await until_idle(a, seconds=_AGREE)
            context.traffic.moved_keys += keys
            context.traffic.moved(len(slots), context.emit)
        elif not withdrawn:
            raise EngineError(
                f"{source.name} could not hand its slots over: {job.why or job.state}",
                where=f"{source.name} to {target.name}, {' '.join(_ASKED[way == 'in'])} on {told.name}",
                next="run it again; with --max-pause 10ms it moves key by key instead",
            )


def _is_told_to_the_target(context: Context, target: DesiredNode) -> bool:
    view = context.observed.nodes.get(target.name)
    return isinstance(view, NodeView) and view.engine.supports(Capability.ATOMIC_MIGRATION_TARGET)


async def _begin(told: End, command: Sequence[str | int]) -> str:
    """What it answers: Redis the migration's ID, Valkey OK. Raises ``ReplyError`` where the engine does not do it.

    Redis takes in one migration at a time ("another ASM task is already in progress"): the next waits for its turn.
    """
    deadline = asyncio.get_running_loop().time() + _TURN
    while True:
        try:
            return text(await told.client.call(*command))
        except ReplyError as error:
            if "already in progress" not in error.what or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_POLL)


async def _withdraw(told: End, job: Job) -> None:
    by_source: tuple[str, ...] = ("CLUSTER", "CANCELSLOTMIGRATIONS")
    by_target = ("CLUSTER", "MIGRATION", "CANCEL", "ID", job.id)
    await told.client.pipeline([by_source if job.way == "out" else by_target])


async def until_idle(source: End, *, seconds: float) -> None:
    """Waits for migrations that somebody else started, or that a killed run left to the engine: they go on by themselves."""
    deadline = asyncio.get_running_loop().time() + seconds
    while any(job.way == "out" and not job.ended for job in await jobs(source)):
        if asyncio.get_running_loop().time() > deadline:
            raise EngineError(
                "another slot migration is still running there",
                where=f"{source.name}: CLUSTER GETSLOTMIGRATIONS, or CLUSTER MIGRATION STATUS ALL",
                next="wait for its end, or end it with CLUSTER CANCELSLOTMIGRATIONS or CLUSTER MIGRATION CANCEL ALL; "
                "then run it again",
            )
        await asyncio.sleep(_POLL)


async def jobs(at: End) -> list[Job]:
    """What the node sends away and takes in, running and ended; none where it knows no such command."""
    found: list[Job] = []
    for answer in await at.client.pipeline(_ASKED):
        if not isinstance(answer, ReplyError):
            assert isinstance(answer, list)
            found += [_job(flat_map(entry)) for entry in answer]
    return found


def _job(said: dict[str, str]) -> Job:
    """Valkey says name, EXPORT or IMPORT, state, message; Redis id, migrate or import, state, last_error."""
    away = said.get("operation", "").upper() in ("EXPORT", "MIGRATE")
    return Job(
        said.get("id") or said.get("name", ""),
        "out" if away else "in",
        said.get("state", ""),
        said.get("last_error") or said.get("message", ""),
    )


async def _found(told: End, way: str, begun: str, known: set[str]) -> Job | None:
    """The migration that was begun, by its ID, or as the one that was not known before."""
    every = [job for job in await jobs(told) if job.way == way]
    named = [job for job in every if job.id == begun]
    return next(iter(named or (job for job in every if job.id not in known)), None)
