"""One operator at a time, on every host.

The lock is held by an open session with the host and ends with it: a killed operator never leaves one behind.
A silent operator (its network is cut) loses it after half a minute, because the holder must write a line now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redkeep.errors import HostError, LockedError

if TYPE_CHECKING:
    from redkeep.hosts.base import Host, Session

_BEAT = 10.0

#: flock's descriptor lives as long as the shell does; the text in the file says who holds it.
_HOLD = r"""
mkdir -p {folder} && exec 9>>{lock} || exit 3
flock -n 9 || {{ echo "held $(cat {lock})"; exit 4; }}
printf '%s' {who} >{lock}; echo locked
while IFS= read -r -t 30 beat; do :; done
: >{lock}
"""


@contextlib.asynccontextmanager
async def locked(hosts: Sequence[tuple[Host, str]], *, purpose: str) -> AsyncIterator[None]:
    """Holds the lock of the deployment on all hosts (each with its base folder), or raises ``LockedError``.

    The first host decides between two operators who start at the same time; the others follow together.
    """
    who = f"{_user()}@{socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC ({purpose})"
    sessions: list[Session] = []
    beat: asyncio.Task[None] | None = None
    try:
        for group in (hosts[:1], hosts[1:]):
            found = await asyncio.gather(
                *(_take(host, base, who) for host, base in group), return_exceptions=True
            )
            sessions += [s for s in found if not isinstance(s, BaseException)]
            for failure in found:
                if isinstance(failure, BaseException):
                    raise failure
        beat = asyncio.create_task(_beat(sessions, asyncio.current_task()))
        yield
    except asyncio.CancelledError:
        if beat is None or not beat.done() or beat.cancelled():
            raise
        raise LockedError(
            "the lock was lost: a host did not hear from us for half a minute",
            where=hosts[0][0].name if hosts else "",
            next="run the same command again; another operator may have begun meanwhile",
        ) from None
    finally:
        if beat is not None:
            beat.cancel()
        await asyncio.gather(*(s.close() for s in sessions), return_exceptions=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


async def _take(host: Host, base: str, who: str) -> Session:
    script = _HOLD.format(folder=shlex.quote(base), lock=shlex.quote(f"{base}/lock"), who=shlex.quote(who))
    session = await host.session(f"bash -c {shlex.quote(script)}")
    line = (await session.line(timeout=20.0)).strip()
    if line == "locked":
        return session
    await session.close()
    if line.startswith("held"):
        raise LockedError(
            "another operator is at work on this deployment",
            where=f"{host.name}: {line[5:] or 'holder unknown'}",
            next="wait until it ends; its lock goes away with its session, even if it is killed",
        )
    raise HostError(
        "the lock could not be taken",
        where=f"{host.name}: {base}/lock",
        next="is the disk full or read-only?",
    )


async def _beat(sessions: Sequence[Session], worker: asyncio.Task[None] | None) -> None:
    """Keeps the lock. Where it is lost (we were suspended, or the network was away), the work is ended at once."""
    try:
        while all(session.alive for session in sessions):
            for session in sessions:
                await session.send(b"\n")
            await asyncio.sleep(_BEAT)
    except OSError:
        pass
    if worker is not None:
        worker.cancel()
