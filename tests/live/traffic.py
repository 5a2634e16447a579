"""Applications at work while a deployment is changed: what they were told is written is read back by somebody else.

with Traffic({"cluster": lambda: RedisCluster(...)}) as traffic: ...change...
assert traffic.lost(reader) == []
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import redis


class Writer:
    """One application: numbered writes over its own client, one after the other. ``fresh``: a connection for each."""

    def __init__(self, name: str, connect: Callable[[], Any], *, fresh: bool = False) -> None:
        self.name = name
        self.acknowledged: list[int] = []
        self.errors: list[str] = []
        self.longest = 0.0
        self._connect = connect
        self._fresh = fresh
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name)

    def key(self, number: int) -> str:
        return f"{self.name}:{number}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), self.name

    def _work(self) -> None:
        client: Any = None
        number, last = 0, time.monotonic()
        while not self._stopping.is_set():
            number += 1
            try:
                client = client or self._connect()
                client.set(self.key(number), number)
            except redis.RedisError as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                time.sleep(0.01)
            else:
                now = time.monotonic()
                self.acknowledged.append(number)
                self.longest, last = max(self.longest, now - last), now
            if self._fresh and client is not None:
                client.close()
                client = None
            time.sleep(0.001)
        if client is not None:
            client.close()


class Traffic:
    """Writers by name; ``fresh`` ones connect anew for every write."""

    def __init__(
        self, held: Mapping[str, Callable[[], Any]], fresh: Mapping[str, Callable[[], Any]] | None = None
    ) -> None:
        self.writers = [Writer(name, connect) for name, connect in held.items()]
        self.writers += [Writer(name, connect, fresh=True) for name, connect in (fresh or {}).items()]

    def __enter__(self) -> Traffic:
        for writer in self.writers:
            writer.start()
        deadline = time.monotonic() + 30
        while not all(writer.acknowledged for writer in self.writers):
            if time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise AssertionError(f"no write comes through: {self.errors[:3]}")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self.writers:
            writer.stop()

    @property
    def errors(self) -> list[str]:
        return [f"{w.name}: {e}" for w in self.writers for e in w.errors]

    @property
    def count(self) -> int:
        return sum(len(w.acknowledged) for w in self.writers)

    def unexpected(self, mode: str) -> list[str]:
        """Errors that a change of primary does not explain. A Cluster's clients follow it by themselves; those of
        Sentinels are told, by READONLY or a closed connection, and ask again."""
        told = ("previous master is now a slave", "No master found", "Connection refused", "closed by server")
        return [e for e in self.errors if mode != "sentinel" or not any(words in e for words in told)]

    def lost(self, reader: Any) -> list[str]:
        """Acknowledged writes that an independent reader does not find."""
        missing = []
        for writer in self.writers:
            for start in range(0, len(writer.acknowledged), 500):
                numbers = writer.acknowledged[start : start + 500]
                pipeline = reader.pipeline(transaction=False)
                for number in numbers:
                    pipeline.get(writer.key(number))
                found = pipeline.execute()
                missing += [
                    writer.key(n)
                    for n, v in zip(numbers, found, strict=True)
                    if v not in (str(n), str(n).encode())
                ]
        return missing
