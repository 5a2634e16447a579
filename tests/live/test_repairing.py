"""How a repair is carried out: guards, refusals, effects that do not come, and secrets in what servers say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from redkeep.errors import EngineError, RefusedError, WireError
from redkeep.model.events import Event
from redkeep.model.topology import Address
from redkeep.planning.repairs import Case, Repair, Secret, steps
from redkeep.planning.repairs.base import Listed
from redkeep.planning.rules.logins import Login
from redkeep.run.repairing import Surgery, repair
from redkeep.usecases.check import Access, examine, targets_of
from tests.live.servers import Server, available, running

pytestmark = pytest.mark.live

STRONG = "a4f09c1be77d4c55b12f8e02d9c3a6e1"
SET = (("CONFIG", "SET", "tcp-keepalive", "60"),)
UNTOUCHED = "tcp-keepalive 77\n"
UNSET = (("CONFIG", "SET", "tcp-keepalive", "1"),)


def carry_out(
    server: Server, commands: Any, before: Callable[[], object] = lambda: None, **more: Any
) -> list[Event]:
    """Looks at the server, and does this to it."""

    async def body() -> list[Event]:
        events: list[Event] = []
        checkup, visitor = await examine(targets_of([f"127.0.0.1:{server.port}"]), Access())
        named = more.pop("named", visitor.named)
        case = Case(checkup, frozenset(), Login("", STRONG), visitor.policy, named)
        wanted = Repair("keepalive-off", checkup.nodes[0].name, "test", commands, "test", **more)
        plan, by_id = steps(case, [wanted])
        before()
        for step in plan:
            await repair(Surgery(case, visitor, by_id, events.append, limit=0.5), step)
        return events

    return asyncio.run(body())


def keepalive(server: Server) -> str:
    return str(server.client().config_get("tcp-keepalive")["tcp-keepalive"])


def test_an_effect_that_does_not_come_is_taken_back(tmp_path: Path) -> None:
    with running(available()[0], tmp_path) as server:
        never = Listed(Address("203.0.113.1", 1), (f"127.0.0.1:{server.port}",))
        with pytest.raises(EngineError, match=r"no effect within 0 s .* it was set back"):
            carry_out(server, SET, settled=never, undo=UNSET)
        assert keepalive(server) == "1"


def test_nothing_is_done_where_somebody_else_is_at_work(tmp_path: Path) -> None:
    with running(available()[0], tmp_path) as server:
        was = keepalive(server)
        with pytest.raises(EngineError, match="somebody is at work"):
            carry_out(server, SET, guards=((("DBSIZE",), "7"),))
        assert keepalive(server) == was


def test_a_refusal_does_not_repeat_the_password(tmp_path: Path) -> None:
    """A server that has no such command says all of its arguments."""
    with running(available()[0], tmp_path) as server:
        with pytest.raises(EngineError) as caught:
            carry_out(server, (("KONFIG", "SET", "masterauth", Secret("given")),))
        assert "the server refuses KONFIG SET masterauth PASSWORD" in str(caught.value)
        assert STRONG not in str(caught.value)


def test_whoever_may_not_see_a_password_is_not_told_one(tmp_path: Path) -> None:
    with running(available()[0], tmp_path) as server:
        with pytest.raises(RefusedError, match="may not be shown a password"):
            carry_out(server, (("CONFIG", "SET", "masterauth", Secret("given")),), named=frozenset())
        assert server.client().config_get("masterauth")["masterauth"] == ""


def test_another_server_at_the_same_address_is_left_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running(available()[0], tmp_path / "a"))

        def replaced() -> None:
            server.process.kill()
            server.process.wait(5)
            stack.enter_context(running(available()[0], tmp_path / "b", UNTOUCHED, port=server.port))

        with pytest.raises(WireError, match="another server answers there now"):
            carry_out(server, SET, before=replaced)
        assert keepalive(server) == "77"
