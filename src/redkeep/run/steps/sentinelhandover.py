"""A planned change of primary where Sentinels watch: they make it, and no write is lost by it.

SENTINEL FAILOVER alone leaves the old primary writable for about ten seconds, and what it takes then is lost (measured:
17,500 writes). So writes are held first, every replica catches up, the Sentinels promote one, and the old primary is made
a replica the moment that one is promoted, not when the Sentinels come to it.

It is not a vote, so a quorum is asked for freshly.

Valkey 9's SENTINEL FAILOVER name COORDINATED loses nothing either, but holds writes no shorter (measured: 308 ms, and
1.8 s where its election was slow, against 250 to 350), and clients stay held on the old primary for seconds after it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, RefusedError, ReplyError, WireError
from redkeep.run.steps.context import Context, role_of, until
from redkeep.run.steps.preferring import preferred
from redkeep.wire import replies

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode

#: Milliseconds for which writes are held while replicas catch up. Should we be killed, they go on after that.
CATCH_UP_MS = 1000
#: Milliseconds for which they are held once the Sentinels were asked. Should we be killed then, the Sentinels make the
#: old primary a replica within about ten seconds, and until they do nothing may be written there.
CHANGE_MS = 15_000
#: Seconds that an earlier failover may still take: its end is when every replica follows the new primary.
IDLE_LIMIT = 60.0
#: Seconds for a Sentinel to see a replica as one that it may promote: it asks each for INFO every ten.
SEEN_LIMIT = 25.0
#: Milliseconds since the Sentinel last asked the replica, at which it is told to begin. It goes through a failover in
#: ticks of 52 to 100 ms; in the third it promotes the replica, and asks it in the same tick if it is time.
AGE_MS = 790
#: Round trips between what it says of that and its hearing of the failover.
TRIPS = 5.5
#: Seconds that this moment is waited for; it comes every ten.
STEP_LIMIT = 12.0
#: Seconds after which nobody waits for a promotion any more.
PROMOTION_LIMIT = 120.0
#: Seconds for the other Sentinels to hear of it; should they not, clients find out by themselves.
TOLD_LIMIT = 2.0
#: Seconds between two looks while writes are held.
POLL = 0.001


async def by_sentinels(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """Raises ``RefusedError`` where nothing was changed, ``EngineError`` otherwise."""
    asked = await _with_a_quorum(context, old)
    async with preferred(context, new):
        await _seen_by(context, asked, new)
        await _in_step(context, asked, new)
        promoted = await _held(context, asked, old, new)
    if promoted != new:
        raise EngineError(
            f"the Sentinels promoted {promoted.name}, not {new.name}; nothing was lost by it",
            where=context.desired.spec.name,
            next="run it again to go on to that one",
        )


async def _held(context: Context, asked: DesiredNode, old: DesiredNode, new: DesiredNode) -> DesiredNode:
    await _held_until_equal(context, old, new)
    try:
        await context.fleet.call(old, "CLIENT", "PAUSE", CHANGE_MS, "WRITE")
        await context.fleet.call(asked, "SENTINEL", "FAILOVER", context.desired.spec.name)
    except BaseException as error:
        await _let_go(context, old)
        if isinstance(error, ReplyError):
            raise _refused(old, f"the Sentinels refuse: {error.what}") from error
        raise
    promoted = await _promoted(context, asked, old)
    try:
        await _demoted(context, old, promoted)
        await _told(context, asked, promoted)
        await cut_off(context, old)
    finally:
        await _let_go(context, old)
    return promoted


async def _in_step(context: Context, asked: DesiredNode, new: DesiredNode) -> None:
    """Waits for the moment at which the Sentinel will ask the replica again soon after it was promoted.

    Clients learn of the new primary when the Sentinel has seen its INFO. During a failover it asks a second after the
    last time (``sentinelSendPeriodicCommands``), and at the wrong moment clients wait for all of that second.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STEP_LIMIT
    while loop.time() < deadline:
        begun = loop.time()
        entry = await _entry(context, asked, new)
        trip = (loop.time() - begun) * 1000
        ahead = AGE_MS - int((entry or {}).get("info-refresh", "0")) - trip * TRIPS
        if ahead >= 0:
            await asyncio.sleep(ahead / 1000)
            return
        await asyncio.sleep(0.05)


async def finish_by_sentinels(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """What was cut short between promotion and the end of the old primary: it is what the Sentinels do themselves later."""
    if await sentinels_agree(context, new):
        await _demoted(context, old, new)
        await cut_off(context, old)
        await _let_go(context, old)


async def cut_off(context: Context, old: DesiredNode) -> None:
    """Ends the clients' connections to the old primary, held writers among them, as Sentinels do (``sentinelSendSlaveOf``).

    Some libraries look for the primary only when they connect, and an answer READONLY is none of their reasons to:
    Lettuce never came back from a switchover without this (measured). It leaves our own connection.
    """
    await _insist(context, old, "CLIENT", "KILL", "TYPE", "normal")


async def sentinels_agree(context: Context, new: DesiredNode) -> bool:
    """Whether all that answer name it as the primary."""
    for sentinel in context.desired.sentinels:
        with contextlib.suppress(WireError):  # who does not answer will hear of it from the others
            if await _named_by(context, sentinel) != new:
                return False
    return True


async def _named_by(context: Context, sentinel: DesiredNode) -> DesiredNode | None:
    """The primary, as this Sentinel tells clients."""
    said = await context.fleet.call(
        sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", context.desired.spec.name
    )
    assert isinstance(said, list)
    return context.desired.at(replies.text(said[0]), int(said[1]))


async def sentinels_idle(context: Context) -> bool:
    """Whether none that answers is at a failover. One that still is, while another makes the next, ends with an address of
    its own and the same epoch, and nobody corrects it (measured)."""
    for sentinel in context.desired.sentinels:
        with contextlib.suppress(WireError):
            if "failover_in_progress" in await _flags(context, sentinel):
                return False
    return True


async def _with_a_quorum(context: Context, old: DesiredNode) -> DesiredNode:
    """A Sentinel that sees the primary well and can reach enough others; one that would outlive the primary's host first.

    Rather the last than the first: the one that makes the failover says where the primary was until all replicas follow
    the new one (``SENTINEL MASTERS``, which redis-py asks for), the others say it at once, and clients ask the first.
    """
    await until(
        lambda: sentinels_idle(context),
        seconds=IDLE_LIMIT,
        failure=lambda: _refused(old, "the Sentinels are still at another failover"),
        poll=0.05,
    )
    said = []
    from_the_last = context.desired.sentinels[::-1]
    for sentinel in sorted(from_the_last, key=lambda n: n.host == old.host):
        try:
            await context.fleet.call(sentinel, "SENTINEL", "CKQUORUM", context.desired.spec.name)
            flags = await _flags(context, sentinel)
        except WireError as error:
            said.append(f"{sentinel.name}: {error.what}")
            continue
        if "_down" not in flags:
            return sentinel
        said.append(f"{sentinel.name}: the primary is down for it")
    raise _refused(old, "no Sentinel has a quorum for it: " + "; ".join(said))


async def _flags(context: Context, sentinel: DesiredNode) -> str:
    said = await context.fleet.call(sentinel, "SENTINEL", "MASTER", context.desired.spec.name)
    return replies.flat_map(said).get("flags", "")


async def _seen_by(context: Context, sentinel: DesiredNode, new: DesiredNode) -> None:
    """Waits until the Sentinel would promote it: it knows the replica, as up, linked and before the others."""

    async def ready() -> bool:
        entries = await _entries(context, sentinel)
        mine = await _entry(context, sentinel, new)
        if mine is None or not _may_be_promoted(mine):
            return False
        rivals = [e for e in entries if e["name"] != mine["name"] and _may_be_promoted(e)]
        return all(int(mine["slave-priority"]) < int(e["slave-priority"]) for e in rivals)

    await until(
        ready,
        seconds=SEEN_LIMIT,
        failure=lambda: _refused(new, f"{sentinel.name} does not see {new.name} as the one to promote"),
        poll=0.05,
    )


async def _entries(context: Context, sentinel: DesiredNode) -> list[dict[str, str]]:
    said = await context.fleet.call(sentinel, "SENTINEL", "SLAVES", context.desired.spec.name)
    assert isinstance(said, list)
    return list(map(replies.flat_map, said))


async def _entry(context: Context, sentinel: DesiredNode, node: DesiredNode) -> dict[str, str] | None:
    """What a Sentinel knows of a replica."""
    entries = await _entries(context, sentinel)
    return next((e for e in entries if context.desired.at(e["ip"], int(e["port"])) == node), None)


def _may_be_promoted(entry: dict[str, str]) -> bool:
    flags = set(entry.get("flags", "").split(","))
    return (
        not flags & {"s_down", "o_down", "disconnected"}
        and entry.get("master-link-status") == "ok"
        and entry.get("slave-priority", "0") != "0"
    )


async def _held_until_equal(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """Writes are held, and every replica that has a link has every byte. Otherwise they go on, and it is refused."""
    others = [n for n in context.desired.present if n != old]
    linked = await asyncio.gather(*(_linked(context, n) for n in others))
    replicas = [n for n, up in zip(others, linked, strict=True) if up]
    if new not in replicas:
        raise _refused(old, f"{new.name} has no link to it")
    await context.fleet.call(old, "CLIENT", "PAUSE", CATCH_UP_MS, "WRITE")
    deadline = asyncio.get_running_loop().time() + CATCH_UP_MS / 1000 * 0.8
    try:
        while True:
            mine = int(str((await role_of(context, old))[1]))
            theirs = await asyncio.gather(*(_offset(context, n) for n in replicas))
            # what was written since the hold ended, none may have: so this is asked first
            if asyncio.get_running_loop().time() > deadline:
                lacking = max(0, *(mine - offset for offset in theirs))
                raise _refused(old, f"its replicas did not catch up in time, {lacking} bytes are lacking")
            if all(offset >= mine for offset in theirs):
                return
            await asyncio.sleep(POLL)
    except BaseException:
        await _let_go(context, old)
        raise


async def _linked(context: Context, node: DesiredNode) -> bool:
    try:
        role = await role_of(context, node)
    except WireError:
        return False
    return role[:1] == [b"slave"] and role[3:4] == [b"connected"]


async def _offset(context: Context, node: DesiredNode) -> int:
    return int(str((await role_of(context, node))[4]))


async def _let_go(context: Context, old: DesiredNode) -> None:
    """Writes go on; if that cannot be said, by the time limit of the hold."""
    await _insist(context, old, "CLIENT", "UNPAUSE")


async def _insist(context: Context, node: DesiredNode, *words: str) -> None:
    """Sentinels end the connections of a server that they reconfigure, ours among them: then it is said on another one."""
    for _ in range(2):
        try:
            await context.fleet.call(node, *words)
            return
        except WireError:
            context.fleet.drop(node)


async def _promoted(context: Context, asked: DesiredNode, old: DesiredNode) -> DesiredNode:
    """The replica that has become the primary. As long as the Sentinel is at it, writes stay held.

    Each is asked by itself: one that hangs must not keep us from seeing another one's promotion.
    """
    loop = asyncio.get_running_loop()
    begun = renewed = loop.time()
    asking = {asyncio.create_task(_until_primary(context, n)): n for n in context.desired.present if n != old}
    try:
        while True:
            done, _ = await asyncio.wait(
                asking, timeout=CHANGE_MS / 3000, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    return asking[task]
                del asking[task]
            if loop.time() - renewed < CHANGE_MS / 3000:
                continue
            if await _given_up(context, asked, old):
                await _let_go(context, old)
                raise _refused(old, "the Sentinels gave it up")
            if loop.time() - begun > PROMOTION_LIMIT:
                await _let_go(context, old)
                raise EngineError(
                    f"no replica was promoted within {PROMOTION_LIMIT:.0f} s; writes go on where they were",
                    where=f"{asked.name}: SENTINEL MASTER {context.desired.spec.name}",
                    next="look at redkeep status and redkeep check, then run it again",
                )
            await context.fleet.call(old, "CLIENT", "PAUSE", CHANGE_MS, "WRITE")
            renewed = loop.time()
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _until_primary(context: Context, node: DesiredNode) -> None:
    """On another connection where this one ends: Sentinels close those of a server that they promote."""
    while True:
        try:
            if (await role_of(context, node))[:1] == [b"master"]:
                return
        except WireError:
            context.fleet.drop(node)
        await asyncio.sleep(POLL)


async def _given_up(context: Context, asked: DesiredNode, old: DesiredNode) -> bool:
    """The Sentinel is no longer at it, and still names the old one. Where it cannot be asked, nobody knows."""
    try:
        idle = "failover_in_progress" not in await _flags(context, asked)
        return idle and await _named_by(context, asked) == old
    except WireError:
        context.fleet.drop(asked)
        return False


async def _demoted(context: Context, old: DesiredNode, new: DesiredNode) -> None:
    """At once a replica: who is let go after that is told READONLY, and looks for the new primary."""
    client = await context.fleet.client(old)
    host, port = new.announced
    answers = await client.pipeline([("REPLICAOF", host, port), ("CONFIG", "REWRITE")])
    for answer in answers:
        if isinstance(answer, ReplyError):
            raise answer


async def _told(context: Context, asked: DesiredNode, new: DesiredNode) -> None:
    """Waits until another Sentinel than the one that makes the failover names the new primary.

    Clients that are let go before come back to the old one, and fail again and again until a Sentinel says so.
    """

    async def heard(sentinel: DesiredNode) -> bool:
        try:
            while True:
                if await _named_by(context, sentinel) == new:
                    return True
                await asyncio.sleep(POLL)
        except WireError:
            return False

    asking = [asyncio.create_task(heard(n)) for n in context.desired.sentinels if n != asked]
    try:
        async with asyncio.timeout(TOLD_LIMIT):
            for first in asyncio.as_completed(asking):
                if await first:
                    return
    except TimeoutError:
        pass  # they will
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def _refused(old: DesiredNode, why: str) -> RefusedError:
    return RefusedError(
        f"nothing was changed: {why}", where=old.name, next="look at redkeep status, then run it again"
    )
