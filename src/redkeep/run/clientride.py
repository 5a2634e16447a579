"""A real client library beside the drills' own writer: its program runs here, on the same shards, through the same fault."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redkeep.errors import RedkeepError
from redkeep.model.drill import ClientFelt
from redkeep.planning.clients import PASSWORD_VARIABLE
from redkeep.run.clientprograms import Command
from redkeep.run.clientwatch import Watched, now, watching
from redkeep.run.load import PREFIX
from redkeep.run.measure import shard_name

if TYPE_CHECKING:
    from redkeep.model.drill import Target
    from redkeep.run.load import Access, Lane
    from redkeep.wire.client import Client

#: Seconds that the program may take until it writes, and until it writes again after all nodes were well.
START, BACK = 120.0, 30.0
#: Writers of the program for each shard.
WORKERS = 2


@dataclass(frozen=True)
class Rider:
    """A library by its name and version, and its program."""

    library: str
    command: Command


@dataclass
class Ride:
    """A program at work. ``tags``: shard -> hash tag."""

    library: str
    program: Watched
    tags: dict[str, str]
    began: int

    async def flowing(self) -> None:
        """It writes to every shard. Raises ``RedkeepError`` where it does not within a while: nothing is broken yet."""
        deadline = time.monotonic() + START
        while not all(self.program.writes_since(tag, self.began) for tag in self.tags.values()):
            ended = self.program.process.poll()
            if ended is not None or time.monotonic() > deadline:
                said = " | ".join((self.program.errors or self.program.tail)[-3:])[:400]
                raise RedkeepError(
                    f"{self.library} does not write to every shard from here"
                    + (f": it ended with status {ended}" if ended is not None else f" within {START:.0f} s"),
                    where=said or "it says nothing",
                    next="drill from where the announced addresses can be reached; nothing was broken",
                )
            await asyncio.sleep(0.1)

    async def felt(self, at: float, target: Target) -> ClientFelt:
        """What it saw of a fault at ``at`` (seconds, monotonic), once it is well again or was waited for in vain."""
        epoch = now() - int((time.monotonic() - at) * 1000)
        since = now()
        deadline = time.monotonic() + BACK
        every = tuple(self.tags.values())
        while not self.program.well(every, since):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        hit = tuple(self.tags[shard_name(s)] for s in target.shards if shard_name(s) in self.tags)
        outage = self.program.outage(hit or every, epoch)
        return ClientFelt(
            self.library,
            outage.back,
            outage.failed,
            (time.monotonic() - at) * 1000,
            tuple(e.partition(" ")[2] for e in outage.errors),  # without the tag
        )


@contextmanager
def ridden(rider: Rider, access: Access, lanes: Sequence[Lane]) -> Iterator[Ride]:
    """The program, from its start to its end. It ends with us too: its standard input closes."""
    tags = {lane.shard: lane.tag for lane in lanes}
    nodes = access.sentinels if access.mode == "sentinel" else access.servers
    environment = {
        **os.environ,
        PASSWORD_VARIABLE: access.password or "",
        "LOAD_MODE": access.mode,
        "LOAD_TAGS": ",".join(tags.values()),
        "LOAD_WORKERS": str(WORKERS),
        "LOAD_NODES": ",".join(f"{host}:{port}" for host, port in nodes),
        "LOAD_NAME": access.primary_name,
    }
    with watching(rider.library, rider.command, "settings", environment) as program:
        yield Ride(rider.library, program, tags, now())


async def remove_keys(clients: dict[str, Client], lanes: Sequence[Lane]) -> None:
    """Those that the program wrote."""
    for lane in lanes:
        for client in [c for s, c in clients.items() if s == lane.shard] or list(clients.values()):
            await client.call("UNLINK", *(f"{PREFIX}:{{{lane.tag}}}:client-{i}" for i in range(WORKERS)))
