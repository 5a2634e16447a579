"""The settings that ``redkeep client`` prints, as printed, in each real library, through a real failover.

Short: every library that has its runtime here rides through the same two faults of each mode. The longer comparison with
the libraries' own settings is ``python -m tests.clients.table``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import pytest

from redkeep.run.clientprograms import PROGRAMS, Command, Program
from redkeep.run.clientwatch import Watched, now, watching
from tests.clients.stage import Fault, Mode, Stage, staged, until

pytestmark = [pytest.mark.live, pytest.mark.clients, pytest.mark.timeout(1500)]

#: Seconds that all writes may take to come back, on a busy machine: a failover, retries, a JVM without a core.
PATIENCE = 120.0
#: The bundled server has no TLS.
_ENCRYPTED = "tls: true\nengine: {flavor: redis, source: binary, path: /usr/bin/redis-server}\n"

#: Libraries whose first connection is made when an application starts, not with its first command.
_EAGER = ("lettuce", "jedis", "redis-py")


@dataclass(frozen=True)
class Ridden:
    """One fault, as every program saw it: ``None`` where all was well again, else why not."""

    problems: dict[str, str | None]


@pytest.fixture(scope="module", params=["sentinel", "cluster", "sentinel-tls"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    mode, _, tls = request.param.partition("-")
    with staged(cast(Mode, mode), tmp_path_factory.mktemp(mode), _ENCRYPTED if tls else "") as found:
        yield found


@pytest.fixture(scope="module")
def commands(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    folder = tmp_path_factory.mktemp("programs")
    return {p.name: p.build(stage.printed(p.name), folder / p.name) for p in PROGRAMS if not p.missing()}


@pytest.fixture(scope="module", params=["kill", "freeze", "switchover"])
def ridden(request: pytest.FixtureRequest, stage: Stage, commands: dict[str, Command]) -> Ridden:
    """One fault for all libraries together: what takes long is the failover."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(watching(name, command, "settings", stage.environment()))
            for name, command in commands.items()
        ]
        begun = now()
        _begin(programs, stage, begun)
        at = now()
        with stage.fault(cast(Fault, request.param), stage.tags[0]):
            stuck = _wait(programs, stage, at)
            return Ridden({p.name: _problem(p, stage, at) if p in stuck else None for p in programs})


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_writes_come_back_after_a_failover(ridden: Ridden, program: Program) -> None:
    if reason := program.missing():
        pytest.skip(reason)
    assert ridden.problems[program.name] is None


def test_applications_start_during_a_failover(stage: Stage, commands: dict[str, Command]) -> None:
    with ExitStack() as stack:
        stack.enter_context(stage.fault("freeze", stage.tags[0]))
        begun = now()
        programs = [
            stack.enter_context(watching(name, commands[name], "settings", stage.environment()))
            for name in _EAGER
            if name in commands
        ]
        _begin(programs, stage, begun)


def _begin(programs: list[Watched], stage: Stage, since: int) -> None:
    """Until every program has written every tag."""

    def began() -> bool:
        ended = [p for p in programs if p.process.poll() is not None]
        assert not ended, f"ended before writing: {_lacking(ended, stage, since)}"
        return all(_wrote(p, stage, since) for p in programs)

    until(began, lambda: f"writes by {_lacking(programs, stage, since)}")


def _wait(programs: list[Watched], stage: Stage, at: int) -> list[Watched]:
    """Those that were not well again in time: each tag written for two seconds, with no failure there."""
    try:
        until(lambda: all(p.well(stage.tags, at) for p in programs), "writes", PATIENCE)
    except AssertionError:
        return [p for p in programs if not p.well(stage.tags, at)]
    return []


def _wrote(program: Watched, stage: Stage, since: int) -> bool:
    return all(program.writes_since(tag, since) for tag in stage.tags)


def _lacking(programs: list[Watched], stage: Stage, since: int) -> str:
    return "; ".join(
        f"{p.name}: {p.errors[:3]} {p.tail[-5:]}" for p in programs if not _wrote(p, stage, since)
    )


def _problem(program: Watched, stage: Stage, at: int) -> str:
    seen = program.outage(stage.tags_of(stage.tags[0]), at)
    return f"{seen}, exit status {program.process.poll()}, {program.tail[-5:]}"
