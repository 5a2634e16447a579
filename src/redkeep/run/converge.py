"""The one loop: observe, plan, approve, execute the next stage, observe again, until the plan is empty."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from redkeep.errors import StuckError
from redkeep.model.events import Emit, StageStarted, Status, StepDone, StepStarted
from redkeep.model.plan import Plan, Stage, Step

if TYPE_CHECKING:
    from redkeep.run.journal import Journal

#: These go one at a time, each looked at before the next.
ONE_BY_ONE = frozenset({"restart", "in-turn", "hand-over", "reset"})
#: How many steps of a stage run at the same time: enough for a large fleet, not enough to swamp the operator's machine.
AT_ONCE = 64
#: A step that was done so often, with other stages in between that undo it, will not be done for good the next time.
_OFTEN = 2

C = TypeVar("C")


@dataclass(frozen=True)
class Look(Generic[C]):
    """One observation with the plan that follows from it, and what its steps need: the context that actions are given."""

    plan: Plan
    context: C


@dataclass(frozen=True)
class Done:
    step: Step
    status: Status
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {**self.step.as_json(), "status": self.status, "seconds": round(self.seconds, 3)}


@dataclass
class Outcome:
    """What ran, in order, and the last look (whose plan is empty)."""

    done: list[Done] = field(default_factory=list)
    last: Look[Any] | None = None


async def converge(
    first: Look[C],
    look: Callable[[str], Awaitable[Look[C]]],
    *,
    emit: Emit,
    journal: Journal,
    outcome: Outcome,
    actions: Mapping[str, Callable[[C, Step], Awaitable[None]]],
) -> None:
    """Runs stage after stage. ``look`` is given the name of the stage that just ran.

    Raises ``StuckError`` when a stage's steps come out again right after they were done, or a third time with others in
    between, and whatever a step raises; ``outcome`` holds what had been done until then.
    """
    current, before, times = first, frozenset[str](), Counter[str]()
    while current.plan:
        stage = current.plan.stages[0]
        if stage.name in ONE_BY_ONE:
            stage = Stage(stage.name, stage.steps[:1])
        ids = frozenset(s.id for s in stage.steps)
        if ids <= before or all(times[i] >= _OFTEN for i in ids):
            step = stage.steps[0]
            raise StuckError(
                f"{step.action} was done and is still to be done: {step.why}",
                where=step.node or step.host,
                next="see redkeep log for what it did; something on that host undoes or ignores it",
            )
        await _run(stage, current.context, actions, emit=emit, journal=journal, outcome=outcome)
        before = ids
        times.update(ids)
        current = await look(stage.name)
    outcome.last = current


async def _run(
    stage: Stage,
    context: C,
    actions: Mapping[str, Callable[[C, Step], Awaitable[None]]],
    *,
    emit: Emit,
    journal: Journal,
    outcome: Outcome,
) -> None:
    emit(StageStarted(stage.name, stage.steps))
    room = asyncio.Semaphore(AT_ONCE)

    async def one(step: Step) -> None:
        async with room:
            emit(StepStarted(step))
            journal.started(step)
            begun = time.monotonic()
            try:
                await actions[step.action](context, step)
            except BaseException as error:
                _ended(step, "failed", time.monotonic() - begun, error)
                raise
            _ended(step, "done", time.monotonic() - begun, None)

    def _ended(step: Step, status: Status, seconds: float, error: BaseException | None) -> None:
        outcome.done.append(Done(step, status, seconds))
        journal.ended(step, status, seconds, error)
        emit(StepDone(step, seconds, status))

    # All steps of a stage are seen through even when one fails: each is whole, and the next look sees them.
    results = await asyncio.gather(*(one(s) for s in stage.steps), return_exceptions=True)
    failures = [r for r in results if isinstance(r, BaseException)]
    if failures:
        raise failures[0]
