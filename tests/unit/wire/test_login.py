"""The login travels with the first command."""

from __future__ import annotations

import asyncio

import pytest

from redkeep.errors import ReplyError
from redkeep.wire.client import Client, Login


class Writer:
    """Remembers what is sent."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


async def opened(answers: bytes) -> tuple[Client, Writer]:
    reader, writer = asyncio.StreamReader(), Writer()
    reader.feed_data(answers)

    async def opener() -> tuple[asyncio.StreamReader, Writer]:
        return reader, writer

    return await Client.open(opener, where="a:1", login=Login("redkeep", "secret")), writer


async def test_it_is_sent_once_and_before_the_first_command() -> None:
    client, writer = await opened(b"+OK\r\n+PONG\r\n+PONG\r\n")
    assert writer.sent == b""
    assert await client.call("PING") == b"PONG"
    assert await client.call("PING") == b"PONG"
    assert writer.sent.count(b"AUTH") == 1
    assert writer.sent.index(b"AUTH") < writer.sent.index(b"PING")


async def test_a_refused_login_is_raised_and_names_the_server() -> None:
    client, writer = await opened(b"-WRONGPASS invalid\r\n-NOAUTH Authentication required.\r\n")
    with pytest.raises(ReplyError) as caught:
        await client.call("PING")
    assert caught.value.code == "WRONGPASS"
    assert caught.value.where == "a:1"
    assert writer.closed
    assert "secret" not in str(caught.value)
