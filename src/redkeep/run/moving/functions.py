"""Functions (FUNCTION LOAD) are no keys: every primary has its own, and no slot brings them along.

So a primary that gets its first slots gets the functions of the one that gives them, before the slots: an application
that calls them would fail there. ``redis-cli --cluster add-node`` does the same (``clusterManagerCommandAddNode``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redkeep.errors import EngineError, ReplyError

if TYPE_CHECKING:
    from redkeep.run.moving.ends import End


async def bring_functions(source: End, target: End) -> bool:
    """Whether there were any to bring. Nothing is done to a target that owns slots, or has functions of its own.

    Raises ``EngineError`` where the target cannot load them: an older version, for example.
    """
    # an error as the answer: a version without functions
    ours, theirs = [(await at.client.pipeline([("FUNCTION", "LIST")]))[0] for at in (source, target)]
    if isinstance(ours, ReplyError) or not ours or (not isinstance(theirs, ReplyError) and theirs):
        return False
    if (await target.view()).me.slots:
        return False
    (payload,) = await source.all([("FUNCTION", "DUMP")])
    try:
        await target.all([("FUNCTION", "RESTORE", payload)])
    except ReplyError as error:
        raise EngineError(
            f"{target.name} cannot load the functions of {source.name}: {error.what}",
            where=f"FUNCTION LIST on {source.name}",
            next="delete those that nobody calls (FUNCTION DELETE), or load them there yourself; then run it again",
        ) from error
    return True
