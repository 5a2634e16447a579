"""Servers that are none: they answer what a test wants, and keep what they were sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: From all bytes of one message, what is sent back; ``None``: nothing at all.
Answer = Callable[[bytes], bytes | None]


@dataclass
class Pretender:
    host: str
    port: int
    received: list[bytes] = field(default_factory=list)

    @property
    def heard(self) -> bytes:
        return b"".join(self.received)


@contextmanager
def pretending(answer: Answer, *, host: str = "127.0.0.1") -> Iterator[Pretender]:
    """A thread for each connection; all of them end with the context."""
    stop = threading.Event()
    with socket.create_server((host, 0)) as listener:
        listener.settimeout(0.1)
        pretender = Pretender(host, listener.getsockname()[1])

        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(0.1)
                while not stop.is_set():
                    try:
                        data = connection.recv(1 << 16)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    pretender.received.append(data)
                    if (reply := answer(data)) is not None:
                        connection.sendall(reply)

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    thread = threading.Thread(target=talk, args=(listener.accept()[0],))
                    threads.append(thread)
                    thread.start()

        threads = [threading.Thread(target=serve)]
        threads[0].start()
        try:
            yield pretender
        finally:
            stop.set()
            for thread in list(threads):
                thread.join(5)


def commands_in(data: bytes) -> int:
    """How many commands a message holds, as our client packs them: one array each."""
    return sum(1 for line in data.split(b"\r\n") if line.startswith(b"*"))


def each(reply: bytes) -> Answer:
    """The same reply to every command."""
    return lambda data: reply * commands_in(data)
