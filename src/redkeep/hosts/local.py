"""This machine as a host: commands run as child processes, without SSH and, where need be, without root."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, TYPE_CHECKING

from redkeep.hosts.sessions import ProcessSession
from redkeep.hosts.shell import GRACE, Raw, ShellHost, limited, ran_out

if TYPE_CHECKING:
    from redkeep.hosts.base import Session


class LocalHost(ShellHost):
    """Runs each command in a session of its own, so that its end takes its children along.

    ``root=True`` means sudo only where we are not root and sudo asks for no password. Without ``sudo`` everything runs
    as the current user: a deployment on one's own machine needs no root, and its servers have to read its files.
    """

    def __init__(self, name: str = "local", *, sudo: bool = True) -> None:
        self.name = name
        self._sudo: bool | None = None if sudo and os.geteuid() and _has_sudo() else False

    @property
    def is_local(self) -> bool:
        return True

    async def connect(
        self, address: str, port: int, *, timeout: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See ``Host.connect``; raises ``OSError`` (``TimeoutError`` after ``timeout`` seconds) as sockets do."""
        async with asyncio.timeout(timeout):
            return await asyncio.open_connection(address, port)

    async def session(self, script: str) -> Session:
        """See ``Host.session``."""
        sudo = ["sudo", "-n"] if self._sudo else []
        child = await _child([*sudo, "sh", "-c", script], stdin=PIPE, stderr=DEVNULL)
        return ProcessSession(child)

    async def close(self) -> None:
        """Nothing is held open."""

    async def _execute(self, script: str, *, stdin: bytes | Path, timeout: float, root: bool) -> Raw:
        if root and self._sudo is None:
            self._sudo = (await _spawn(["sudo", "-n", "true"], stdin=b"", timeout=10.0)).status == 0
        if root and self._sudo:
            # Root's processes cannot be ended by us, so the time limit goes along.
            started = time.monotonic()
            command = ["sudo", "-n", *limited(script, timeout)]
            raw = await _spawn(command, stdin=stdin, timeout=timeout + 2 * GRACE)
            expired = raw.expired or ran_out(raw.status, time.monotonic() - started, timeout)
            return replace(raw, expired=expired)
        return await _spawn(["sh", "-c", script], stdin=stdin, timeout=timeout)


def _has_sudo() -> bool:
    from shutil import which  # only here: it loads three compression libraries

    return which("sudo") is not None


async def _spawn(command: list[str], *, stdin: bytes | Path, timeout: float) -> Raw:
    """One child process with its own process group, which does not outlive the call when that is cut short."""
    if isinstance(stdin, Path):
        with stdin.open("rb") as stream:
            child = await _child(command, stdin=stream, stderr=PIPE)
        content = None
    else:
        child = await _child(command, stdin=PIPE, stderr=PIPE)
        content = stdin
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await child.communicate(content)
    except TimeoutError:
        await _end(child)
        return Raw(124, b"", b"", expired=True)
    except asyncio.CancelledError:
        await _end(child)
        raise
    return Raw(child.returncode if child.returncode is not None else -1, stdout, stderr)


async def _child(
    command: Sequence[str], *, stdin: IO[bytes] | int, stderr: int
) -> asyncio.subprocess.Process:
    """A new process in a session of its own.

    Cut short while it is being made, it is made all the same and then ended: asyncio waits for ever for a process whose
    pipes it had not connected when it was cancelled (seen with Python 3.11.7: Ctrl-C at the start of a stage hung).
    """
    making = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=PIPE, stderr=stderr, start_new_session=True
        )
    )
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await _end(await making)
        raise


async def _end(child: asyncio.subprocess.Process) -> None:
    """Ends the process group: politely, then by force. Its output is read to the end, or its pipes would stay open."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await child.communicate()
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await child.communicate()
