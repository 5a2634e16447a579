"""A command that stays: the same for a child process here and for one behind SSH, which look alike."""

from __future__ import annotations

import asyncio
from typing import Any

from redkeep.hosts.shell import GRACE


class ProcessSession:
    """See ``Session``. ``process`` is asyncio's or asyncssh's: both have stdin, stdout, wait and terminate."""

    def __init__(self, process: Any) -> None:
        self._process = process

    async def line(self, *, timeout: float) -> str:
        try:
            async with asyncio.timeout(timeout):
                line: bytes = await self._process.stdout.readline()
        except (TimeoutError, OSError):
            return ""
        return line.decode(errors="replace").rstrip("\n")

    async def send(self, data: bytes) -> None:
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def close(self) -> None:
        try:
            self._process.stdin.close()
            async with asyncio.timeout(GRACE):
                await self._process.wait()
        except (TimeoutError, OSError):
            self._process.terminate()
