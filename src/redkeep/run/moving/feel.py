"""What clients feel of a move: writers that ask the announced addresses as an application does, every millisecond.

Each follows one key of a slot: MOVED and ASK as the Cluster specification has it. Its longest wait is the time between
two acknowledged writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redkeep.errors import RedkeepError, ReplyError
from redkeep.model.slots import key_slot
from redkeep.planning.hostfiles.acl import APP
from redkeep.run.load import EXPIRY, PREFIX
from redkeep.wire.client import Client, Login

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.run.deployment import Deployment

INTERVAL = 0.001
_TIMEOUT = 5.0


@dataclass
class Writer:
    """One key, written with rising numbers. ``longest``: seconds without an acknowledged write."""

    key: str
    address: tuple[str, int]
    longest: float = 0.0
    acknowledged: int = 0
    last: int = 0
    errors: int = 0
    clients: dict[tuple[str, int], Client] = field(default_factory=dict, repr=False)


@dataclass
class Felt:
    """``lost``: keys whose last acknowledged value is not there in the end."""

    longest: float = 0.0
    acknowledged: int = 0
    lost: int = 0


@contextlib.asynccontextmanager
async def felt(
    deployment: Deployment, vantage: Host, slots: Iterable[tuple[int, tuple[str, int]]]
) -> AsyncIterator[Felt]:
    """Writes to a key of each slot, first at the address given, until the block ends; then the result is filled in."""
    result, stop = Felt(), asyncio.Event()
    writers = [Writer(f"{PREFIX}:{{{tag(slot)}}}", address) for slot, address in slots]
    tasks = [asyncio.create_task(_write(deployment, vantage, w, stop)) for w in writers]
    try:
        yield result
    finally:
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            result.longest = max(result.longest, writer.longest)
            result.acknowledged += writer.acknowledged
            result.lost += not await _is_there(deployment, vantage, writer)
            for client in writer.clients.values():
                client.close()


def tag(slot: int) -> str:
    """A hash tag of this slot; found by trying."""
    number = 0
    while key_slot(str(number).encode()) != slot:
        number += 1
    return str(number)


async def _write(deployment: Deployment, vantage: Host, writer: Writer, stop: asyncio.Event) -> None:
    since = time.monotonic()
    number = 0
    while not stop.is_set():
        number += 1
        began = time.monotonic()
        try:
            await _once(deployment, vantage, writer, "SET", writer.key, number, "EX", EXPIRY)
        except (RedkeepError, OSError):
            writer.errors += 1
            await asyncio.sleep(0.005)
            continue
        now = time.monotonic()
        # the first one connects and looks for the owner
        writer.longest = max(writer.longest, now - since) if writer.acknowledged else 0.0
        writer.acknowledged, writer.last, since = writer.acknowledged + 1, number, now
        await asyncio.sleep(max(0.0, INTERVAL - (now - began)))


async def _is_there(deployment: Deployment, vantage: Host, writer: Writer) -> bool:
    if not writer.acknowledged:
        return True
    try:
        found = await _once(deployment, vantage, writer, "GET", writer.key)
        await _once(deployment, vantage, writer, "DEL", writer.key)
    except (RedkeepError, OSError):
        return False
    # a write that was not acknowledged may have come through all the same
    return isinstance(found, bytes) and int(found) >= writer.last


async def _once(deployment: Deployment, vantage: Host, writer: Writer, *command: str | int) -> object:
    """One command, wherever its slot is now."""
    address, asking = writer.address, False
    for _ in range(8):
        client = await _client(deployment, vantage, writer, address)
        answer = (await client.pipeline([*([("ASKING",)] if asking else []), command], timeout=_TIMEOUT))[-1]
        if not isinstance(answer, ReplyError):
            return answer
        if answer.code not in ("MOVED", "ASK"):
            raise answer
        asking = answer.code == "ASK"
        host, _, port = answer.what.split(" ")[2].rpartition(":")
        address = (host or address[0], int(port))
        if not asking:
            writer.address = address
    raise RedkeepError("redirected in a circle")


async def _client(deployment: Deployment, vantage: Host, writer: Writer, address: tuple[str, int]) -> Client:
    known = writer.clients.get(address)
    if known is None or known.closed:
        known = writer.clients[address] = await Client.open(
            lambda: vantage.connect(*address, timeout=_TIMEOUT),
            where=f"{address[0]}:{address[1]}",
            login=Login(APP, deployment.secrets.app or ""),
            tls=deployment.fleet.tls,
            timeout=_TIMEOUT,
        )
    return known
