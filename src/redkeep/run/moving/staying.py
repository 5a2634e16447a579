"""A shard that gives its last slot away stays a shard, to be filled again: left to itself, the engine makes its servers
replicas of whoever took that slot (``cluster-allow-replica-migration``, on by default; ``clusterUpdateSlotsConfigWith`` in
cluster.c), and the deployment has one shard less than its file says.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from redkeep.errors import WireError
from redkeep.planning.switchover import followers
from redkeep.wire.replies import flat_map

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.deployment import Deployment, Sight

_SETTING = "cluster-allow-replica-migration"


@contextlib.asynccontextmanager
async def staying(deployment: Deployment, sight: Sight, primaries: Iterable[str]) -> AsyncIterator[None]:
    """While the block runs, these primaries and their replicas stay what they are. Then the setting is as before: it matters
    only in the moment in which a slot goes. Should we be killed, it stays off until the server starts anew, or, where a
    CONFIG REWRITE came in between, until somebody sets it."""
    held: list[DesiredNode] = []
    for name in primaries:
        primary = sight.desired.node(name)
        for node in (primary, *followers(sight.desired, sight.observed, primary)):
            with contextlib.suppress(WireError):  # a version without it, or a replica that is away
                now = flat_map(await deployment.fleet.call(node, "CONFIG", "GET", _SETTING))
                if now.get(_SETTING) == "yes":
                    await deployment.fleet.call(node, "CONFIG", "SET", _SETTING, "no")
                    held.append(node)
    try:
        yield
    finally:
        for node in held:
            with contextlib.suppress(WireError):
                await deployment.fleet.call(node, "CONFIG", "SET", _SETTING, "yes")
