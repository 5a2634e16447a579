"""A connection to one server: the only place that knows the client library.

It speaks RESP2 over any pair of streams (a socket here, a channel through SSH), packs and parses with hiredis,
and puts a time limit on everything. It has no retries and no pool: whoever observes wants to see the failure.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from types import TracebackType
from typing import Any, Protocol, cast

import hiredis

from redkeep.errors import NodeUnreachable, ReplyError
from redkeep.model.checkup import NOT_THIS_PROTOCOL
from redkeep.model.values import Value
from redkeep.wire.tls import over_tls

Arg = str | bytes | int | float
Reply = Any


class Reader(Protocol):
    async def read(self, n: int = -1) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


Opener = Callable[[], Awaitable[tuple[Any, Any]]]

_CHUNK = 1 << 16

#: An array that claims ten million elements or more.
_ABSURD = re.compile(rb"\r\n[*%~>]\d{8,}\r\n")


class Login(Value):
    """Who we are to a server. An empty password means no AUTH."""

    user: str = "default"
    password: str = field(default="", repr=False)


class Client:
    """One connection. Make it with ``Client.open``."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        *,
        where: str,
        timeout: float,
        login: Login | None = None,
        certificate: str = "",
        limit: int = 0,
    ) -> None:
        """``limit``: bytes that the answers to one call may take, for servers that nobody vouches for; 0: any."""
        self._reader = reader
        self._writer = writer
        self._parser = hiredis.Reader(replyError=ReplyError)
        self._where = where
        self._login = login if login is not None and login.password else None
        self.timeout = timeout
        #: SHA-256 of the certificate (DER) that the server presented; empty without TLS.
        self.certificate = certificate
        self._closed = False
        self._limit = limit
        self._taken, self._tail = 0, b"\r\n"
        #: Replies come in the order of commands: tasks that share a connection take turns.
        self._turn = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        opener: Opener,
        *,
        where: str,
        login: Login | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> Client:
        """Connects, and speaks TLS if told. Logs in together with the first command, which saves a round trip.

        Raises ``NodeUnreachable`` (``where`` names the server).
        """
        certificate = ""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await opener()
                if tls is not None:
                    reader, writer, certificate = await over_tls(reader, writer, tls)
        except (OSError, TimeoutError, EOFError) as error:
            raise _unreachable(where, error) from error
        return cls(reader, writer, where=where, timeout=timeout, login=login, certificate=certificate)

    async def call(self, *command: Arg) -> Reply:
        """One command, its reply; an error reply is raised."""
        (reply,) = await self.pipeline([command])
        if isinstance(reply, ReplyError):
            reply.where = self._where
            raise reply
        return reply

    async def pipeline(
        self, commands: Sequence[Sequence[Arg]], *, timeout: float | None = None
    ) -> list[Reply]:
        """All commands in one write, all replies in order; error replies are returned as ``ReplyError`` values.

        A login that is refused is raised, and the connection closed.
        """
        limit = self.timeout if timeout is None else timeout
        login, self._login = self._login, None  # the task that comes first takes the turn first
        first = [("AUTH", login.user, login.password)] if login else []
        self._taken = 0
        ours = False
        try:
            async with self._turn, asyncio.timeout(limit):
                ours = True
                self._writer.write(
                    b"".join(hiredis.pack_command(cast(Any, tuple(c))) for c in [*first, *commands])
                )
                await self._writer.drain()
                welcome = await self._next() if login else None
                if isinstance(welcome, ReplyError):
                    welcome.where = self._where
                    self.close()
                    raise welcome
                return [await self._next() for _ in commands]
        except (OSError, TimeoutError, EOFError) as error:
            self.close()
            raise _unreachable(self._where, error) from error
        except asyncio.CancelledError:
            if ours:
                self.close()  # replies that are under way would be taken for those of the next command
            raise

    async def all(self, commands: Sequence[Sequence[Arg]], *, timeout: float | None = None) -> list[Reply]:
        """A pipeline in which the first error reply is raised. Nothing is sent where there is nothing to ask."""
        answers = await self.pipeline(commands, timeout=timeout) if commands else []
        for answer in answers:
            if isinstance(answer, ReplyError):
                answer.where = self._where
                raise answer
        return answers

    async def tell(self, *command: Arg) -> None:
        """A command that the server does not answer (REPLCONF GETACK)."""
        if self._login is not None:
            await self.call("PING")
        try:
            async with self._turn, asyncio.timeout(self.timeout):
                self._writer.write(hiredis.pack_command(cast(Any, command)))
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            self.close()
            raise _unreachable(self._where, error) from error

    async def _next(self) -> Reply:
        try:
            while (reply := self._parser.gets()) is False:
                data = await self._reader.read(_CHUNK)
                if not data:
                    raise EOFError("connection closed by the server")
                self._check(data)
                self._parser.feed(data)
        except hiredis.HiredisError as error:
            raise EOFError(f"{NOT_THIS_PROTOCOL}: {error}") from error
        return reply

    def _check(self, data: bytes) -> None:
        """The parser makes room for as many elements as an array claims to have, before they are there."""
        self._taken += len(data)
        if self._limit and (self._taken > self._limit or _ABSURD.search(self._tail + data)):
            raise EOFError("answers without end")
        self._tail = data[-16:]

    async def message(self, *, timeout: float) -> Reply:
        """What the server sends by itself to a subscriber; ``None`` when nothing came in time."""
        try:
            async with asyncio.timeout(timeout):
                return await self._next()
        except TimeoutError:
            return None
        except (OSError, EOFError) as error:
            self.close()
            raise _unreachable(self._where, error) from error

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def was_answered(self) -> bool:
        """Whether anything came back for the last commands, be it not all of it."""
        return self._taken > 0

    def close(self) -> None:
        self._closed = True
        self._writer.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def direct(host: str, port: int) -> Opener:
    """Opens a connection from this machine."""

    async def open_() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host, port)

    return open_


def _unreachable(where: str, error: BaseException) -> NodeUnreachable:
    if isinstance(error, TimeoutError):
        return NodeUnreachable(
            "no answer in time",
            where=where,
            next="is the host up, and does the security group let this port through?",
        )
    if isinstance(error, ConnectionRefusedError):
        found = NodeUnreachable(
            "nobody listens there (connection refused)", where=where, next="is the server started?"
        )
        found.refused = True
        return found
    return NodeUnreachable(
        f"connection failed: {error}", where=where, next="is the server started, and is TLS what it speaks?"
    )
