"""Replicas that tell their primary all the time how far they are, which by themselves they do once a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context

#: Seconds between two requests for an acknowledgement.
NUDGE = 0.002


class Acknowledging:
    """While it is open, replicas are asked for their offset every 2 ms; they tell it to their primary."""

    def __init__(self, context: Context, nodes: list[DesiredNode]) -> None:
        self._context, self._nodes = context, nodes
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._ask())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        clients = [await self._context.fleet.client(n) for n in self._nodes]
        while True:
            for client in clients:
                await client.tell("REPLCONF", "GETACK", "*")
            await asyncio.sleep(NUDGE)
