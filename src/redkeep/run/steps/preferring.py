"""Which replica Sentinels promote: they choose by priority, then by offset (``sentinelSelectSlave`` in sentinel.c)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from redkeep.errors import WireError

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context


@contextlib.asynccontextmanager
async def preferred(context: Context, new: DesiredNode) -> AsyncIterator[None]:
    """Where there is a choice, ours is put first until the block ends."""
    if len(context.desired.present) < 3:
        yield
        return
    await _prefer(context, new)
    try:
        yield
    finally:
        await _prefer(context, None)


async def _prefer(context: Context, first: DesiredNode | None) -> None:
    """All others get what the deployment file says, also one that an earlier run, cut off, had put first."""
    name = "replica-priority"

    async def one(node: DesiredNode) -> None:
        wanted = "1" if node == first else node.settings.get(name, "100")
        for last in (False, True):  # Sentinels close all connections of a server whose role they change
            try:
                await context.fleet.call(node, "CONFIG", "SET", name, wanted)
                return
            except WireError as error:
                if node == first:
                    raise
                context.fleet.drop(node)
                if last or "no answer" in error.what:
                    context.note(f"{node.name}: {name} was not set to {wanted}: {error.what}")
                    return

    await asyncio.gather(*map(one, context.desired.servers))
