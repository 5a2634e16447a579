"""What every step has at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redkeep.errors import NodeUnreachable, RedkeepError
from redkeep.model.events import Approve, Emit, Note
from redkeep.model.plan import Step
from redkeep.model.topology import NodeView
from redkeep.run.moving.traffic import Traffic

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.engine import Engine
    from redkeep.model.topology import Observed
    from redkeep.planning.desired import Desired, DesiredNode
    from redkeep.run.fleet import Fleet

#: Seconds between two looks while waiting for an effect.
POLL = 0.02


@dataclass
class Context:
    """A fleet, what it shall be, what it was at the last look, and the voices of the use case."""

    fleet: Fleet
    desired: Desired
    observed: Observed
    approve: Approve
    emit: Emit
    #: what steps need that is no one's to see: passwords by user
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    #: what moves of hash slots share; one for all looks of a command
    traffic: Traffic = field(default_factory=Traffic)

    def host(self, name: str) -> Host:
        return self.fleet.hosts[name]

    def note(self, text: str) -> None:
        self.emit(Note(text))


Action = Callable[[Context, Step], Awaitable[None]]


async def until(
    condition: Callable[[], Awaitable[bool]],
    *,
    seconds: float,
    failure: Callable[[], RedkeepError],
    poll: float = POLL,
) -> None:
    """Waits until the condition holds; raises ``failure()`` after so many seconds.

    A server that does not answer just now counts as a condition that does not hold yet.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            if await condition():
                return
        except NodeUnreachable:
            pass
        if asyncio.get_running_loop().time() > deadline:
            raise failure()
        await asyncio.sleep(poll)


async def role_of(context: Context, node: DesiredNode) -> list[object]:
    """ROLE: what a server is, straight from it."""
    reply = await context.fleet.call(node, "ROLE")
    return list(reply) if isinstance(reply, list) else []


def running_engine(context: Context, node: DesiredNode) -> Engine:
    """What runs there by the last look; in an upgrade it is not what the node shall be."""
    view = context.observed.nodes.get(node.name)
    return view.engine if isinstance(view, NodeView) else node.engine
