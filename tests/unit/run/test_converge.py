"""The loop, with plans and actions of the test's own: no host, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from redkeep.errors import EngineError, StuckError
from redkeep.model.events import Event, StageStarted, StepDone, StepStarted, ignore
from redkeep.model.plan import Plan, Step
from redkeep.model.spec import Spec
from redkeep.model.topology import Observed
from redkeep.planning.desired import Desired
from redkeep.planning.hostfiles.layout import Layout
from redkeep.run.converge import Look, Outcome, converge
from redkeep.run.fleet import Fleet
from redkeep.run.journal import Journal, read
from redkeep.run.steps import ACTIONS, Context

Do = Callable[[Step], Awaitable[None]]


def step(stage: str, name: str) -> Step:
    return Step(stage, "act", "h1", name, why=f"{name} is missing")


class Paper:
    """A deployment of names: what is done is gone from the plan, unless the test says otherwise."""

    def __init__(self, *steps: Step, do: Mapping[str, Do] | None = None) -> None:
        self.left = list(steps)
        self.done: list[str] = []
        self.looks: list[str] = []
        self.events: list[Event] = []
        self.outcome = Outcome()
        self._do = dict(do or {})

    async def act(self, context: Context, step: Step) -> None:
        self.done.append(step.node)
        if step.node in self._do:
            await self._do[step.node](step)
        self.left.remove(step)

    async def look(self, after: str) -> Look[Context]:
        self.looks.append(after)
        return Look(Plan.of(self.left), _context())

    async def run(self, journal: Journal | None = None) -> None:
        await converge(
            await self.look(""),
            self.look,
            emit=self.events.append,
            journal=journal or Journal(None),
            outcome=self.outcome,
            actions={"act": self.act},
        )


def _context() -> Context:
    spec = Spec.model_validate({"mode": "standalone", "hosts": ["local"]})

    async def approve(_: object) -> bool:
        return True

    return Context(
        Fleet(spec, Layout("/b", "main"), False, {}, {}),
        Desired(spec, {}, ()),
        Observed({}, {}),
        approve,
        ignore,
    )


async def test_an_empty_plan_does_nothing() -> None:
    paper = Paper()
    await paper.run()
    assert (paper.done, paper.events, paper.looks) == ([], [], [""])
    assert paper.outcome.last is not None
    assert not paper.outcome.last.plan


async def test_stages_in_their_order_and_a_look_after_each() -> None:
    paper = Paper(step("settings", "d"), step("start", "b"), step("engine", "a"), step("start", "c"))
    await paper.run()
    assert paper.looks == ["", "engine", "start", "settings"]
    assert [paper.done[0], set(paper.done[1:3]), paper.done[3]] == ["a", {"b", "c"}, "d"]
    assert [e.name for e in paper.events if isinstance(e, StageStarted)] == ["engine", "start", "settings"]
    first = paper.outcome.done[0]
    assert (first.step.node, first.status) == ("a", "done")


async def test_the_steps_of_a_stage_run_at_the_same_time() -> None:
    both = asyncio.Barrier(2)

    async def wait(_: Step) -> None:
        await asyncio.wait_for(both.wait(), 10)

    paper = Paper(step("start", "a"), step("start", "b"), do={"a": wait, "b": wait})
    await paper.run()
    assert len(paper.outcome.done) == 2


async def test_restarts_go_one_by_one() -> None:
    running = most = 0

    async def count(_: Step) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    names = "abc"
    paper = Paper(*(step("restart", n) for n in names), do=dict.fromkeys(names, count))
    await paper.run()
    assert (most, paper.done) == (1, ["a", "b", "c"])
    assert paper.looks == ["", "restart", "restart", "restart"]


async def test_a_step_that_fails_lets_the_others_of_its_stage_finish(tmp_path: Path) -> None:
    failed = asyncio.Event()

    async def fail(_: Step) -> None:
        failed.set()
        raise EngineError("it does not start", where="h1")

    async def slow(_: Step) -> None:
        await failed.wait()
        await asyncio.sleep(0)

    paper = Paper(step("start", "a"), step("start", "b"), step("meet", "c"), do={"a": fail, "b": slow})
    journal = Journal(tmp_path / "journal.jsonl", "apply")
    with pytest.raises(EngineError, match="does not start"):
        await paper.run(journal)
    assert {d.step.node: d.status for d in paper.outcome.done} == {"a": "failed", "b": "done"}
    assert "c" not in paper.done
    assert paper.outcome.last is None
    assert sum(isinstance(e, StepStarted) for e in paper.events) == sum(
        isinstance(e, StepDone) for e in paper.events
    )
    entries = list(read(tmp_path / "journal.jsonl"))
    assert sorted((e["event"], e["step"]) for e in entries) == [
        ("done", "act:b"),
        ("failed", "act:a"),
        ("started", "act:a"),
        ("started", "act:b"),
    ]
    assert [e["error"] for e in entries if e["event"] == "failed"] == ["it does not start"]


async def test_a_step_that_changes_nothing_is_named() -> None:
    useless = step("settings", "a")

    async def undone(one: Step) -> None:
        paper.left.append(one)

    paper = Paper(useless, do={"a": undone})
    with pytest.raises(StuckError, match="a is missing") as raised:
        await asyncio.wait_for(paper.run(), 10)
    assert raised.value.where == "a"
    assert paper.done == ["a"]


async def test_a_part_of_a_stage_that_comes_out_again_is_no_progress() -> None:
    async def undone(one: Step) -> None:
        paper.left.append(one)

    paper = Paper(step("settings", "a"), step("settings", "b"), do={"b": undone})
    with pytest.raises(StuckError):
        await asyncio.wait_for(paper.run(), 10)
    assert sorted(paper.done) == ["a", "b"]


async def test_stages_that_undo_each_other_end_too() -> None:
    first, second = step("files", "a"), step("settings", "b")

    async def undo_second(_: Step) -> None:
        if second not in paper.left:
            paper.left.append(second)

    async def undo_first(_: Step) -> None:
        paper.left.append(first)

    paper = Paper(first, second, do={"a": undo_second, "b": undo_first})
    with pytest.raises(StuckError):
        await asyncio.wait_for(paper.run(), 10)
    assert len(paper.done) == 4


async def test_a_cancelled_run_says_what_was_under_way() -> None:
    begun = asyncio.Event()

    async def forever(_: Step) -> None:
        begun.set()
        await asyncio.Event().wait()

    paper = Paper(step("start", "a"), do={"a": forever})
    task = asyncio.create_task(paper.run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(d.step.node, d.status) for d in paper.outcome.done] == [("a", "failed")]


def test_every_action_that_planners_name_can_be_done() -> None:
    assert set(ACTIONS) == {
        "install-engine",
        "prepare-host",
        "write-files",
        "start",
        "assign-slots",
        "meet",
        "replicate",
        "monitor",
        "set-sentinel",
        "set-sentinel-password",
        "set",
        "set-users",
        "reload-tls",
        "restart",
        "forget",
        "hand-over",
        "move-slots",
        "settle-slots",
        "announce",
        "watch-again",
        "reset-sentinel",
        "remove-node",
        "clean-host",
        "tidy",
    }
