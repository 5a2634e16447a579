"""What bash says about a connection, and probes from hosts that answer oddly."""

from __future__ import annotations

import asyncio
import socket

import pytest

from redkeep.errors import HostUnreachable
from redkeep.hosts.base import Result
from redkeep.hosts.local import LocalHost
from redkeep.planning.placing.probes import HERE, Outcome, ProbeWanted
from redkeep.run.probe import outcome, probe

REFUSED = "bash: connect: Connection refused bash: line 1: /dev/tcp/10.0.0.1/6379: Connection refused "


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (0, "", "open"),
        (124, "", "timeout"),
        (1, REFUSED, "refused"),
        (
            1,
            "bash: connect: No route to host bash: line 1: /dev/tcp/10.0.0.1/6379: No route to host",
            "unreachable",
        ),
        (1, "bash: connect: Network is unreachable", "unreachable"),
        (1, "bash: nowhere.invalid: Name or service not known bash: line 1: ...", "unreachable"),
        (127, "bash: command not found", "unreachable"),
        (1, "", "unreachable"),
    ],
)
def test_outcome(status: int, message: str, expected: Outcome) -> None:
    assert outcome(status, message) == expected


class Answering(LocalHost):
    """A host that has its answer ready."""

    def __init__(self, answer: str | None) -> None:
        super().__init__("h1")
        self._answer = answer

    async def run(
        self, script: str, *, stdin: bytes = b"", timeout: float = 30.0, check: bool = True, root: bool = True
    ) -> Result:
        if self._answer is None:
            raise HostUnreachable("gone")
        return Result(0, self._answer, "")


WANTED = [ProbeWanted("h1", "h2", "10.0.0.2", port, "server") for port in (6379, 6380, 6381)]


async def test_answers_in_any_order_and_noise() -> None:
    said = f"Welcome\n2 124 \n0 0 \n1 1 {REFUSED}\n"
    found = await probe({"h1": Answering(said)}, WANTED)
    assert [(p.port, p.outcome) for p in found] == [(6381, "timeout"), (6379, "open"), (6380, "refused")]
    assert found[2].detail == "Connection refused"


@pytest.mark.parametrize("answer", [None, "", "no bash here\n", "99 0 \n"])
async def test_a_source_that_is_lost_gives_no_probes(answer: str | None) -> None:
    assert await probe({"h1": Answering(answer)}, WANTED) == []


async def test_real_connections_from_here_and_from_a_shell() -> None:
    with socket.socket() as listening, socket.socket() as closed:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        ports = [listening.getsockname()[1], closed.getsockname()[1]]
        wanted = [
            ProbeWanted(source, "h2", "127.0.0.1", p, "client") for source in (HERE, "h1") for p in ports
        ]
        found = await asyncio.wait_for(probe({"h1": LocalHost("h1")}, wanted), 30)
    assert {(p.source, p.port): p.outcome for p in found} == {
        (HERE, ports[0]): "open",
        (HERE, ports[1]): "refused",
        ("h1", ports[0]): "open",
        ("h1", ports[1]): "refused",
    }
