"""What Redkeep needs of a machine: run a command, put files there, open a connection from there.

``LocalHost`` and ``SshHost`` are the two ways; everything above speaks this protocol only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from redkeep.model.files import RemoteFile
from redkeep.model.values import Value

__all__ = ["DEFAULT_TIMEOUT", "Host", "RemoteFile", "Result", "Session"]

#: Seconds that a remote command may take when its caller names no limit.
DEFAULT_TIMEOUT = 30.0


class Result(Value):
    """How a command ended: its exit status, and all it printed (decoded, broken bytes replaced)."""

    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.status == 0


class Session(Protocol):
    """A command that goes on, with both of its ends open. It is ended with the connection it came from."""

    async def line(self, *, timeout: float) -> str:
        """The next line it prints; an empty text when it has ended or said nothing in time."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises ``OSError`` where the command has ended."""
        ...

    @property
    def alive(self) -> bool:
        """It has not ended, as far as is known here."""
        ...

    async def close(self) -> None:
        """Closes its input, waits a moment, and ends it."""
        ...


class Host(Protocol):
    """One machine. Every call has a time limit and raises ``HostUnreachable`` when the session is lost."""

    name: str

    @property
    def is_local(self) -> bool: ...

    async def run(
        self,
        script: str,
        *,
        stdin: bytes = b"",
        timeout: float = DEFAULT_TIMEOUT,
        check: bool = True,
        root: bool = True,
    ) -> Result:
        """Runs a POSIX shell script (``sh -c``), as root by default (sudo where the login is not root).

        ``stdin`` is what the script reads; secrets go there. ``check`` turns a status other than 0 into
        ``CommandFailed``. Seconds in ``timeout``; past it the command is ended and ``CommandFailed`` raised.
        """
        ...

    async def write(self, files: Sequence[RemoteFile], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Writes all files, each replaced atomically (temporary name, fsync, rename), folders made as needed."""
        ...

    async def read(self, path: str, *, timeout: float = DEFAULT_TIMEOUT) -> bytes | None:
        """A file's bytes, or ``None`` where there is none."""
        ...

    async def upload(self, source: str, path: str, *, mode: int = 0o755, timeout: float = 600.0) -> None:
        """Copies a local file (of any size) to the host, atomically."""
        ...

    async def connect(
        self, address: str, port: int, *, timeout: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection that starts on this host: for a remote one, a channel through its SSH session."""
        ...

    async def session(self, script: str) -> Session:
        """Starts a script (as root) that stays; it must end by itself when its input ends."""
        ...

    async def close(self) -> None: ...
