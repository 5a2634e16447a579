"""The names of all keys of an engine, on disk: each once, in groups of neighbouring hash slots, always in the same order.

SCAN may name a key twice, and names keys in another order in every process. A copy that goes on after a kill needs neither.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from redkeep.errors import EvidenceError
from redkeep.model.slots import SLOTS, key_slot
from redkeep.wire.client import Client

_LENGTH = struct.Struct("<I")
_SCAN = 2000
#: Keys of one group, about: they are held in memory at the same time.
_GROUP = 20_000
_MOST_GROUPS = 256


@dataclass(frozen=True, order=True)
class Group:
    """Keys of one database whose hash slots are neighbours."""

    database: int
    number: int

    def __str__(self) -> str:
        return f"{self.database}-{self.number}"


class KeyList:
    """WORK/keys: a file for each group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def groups(self) -> list[Group]:
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(ValueError):
                database, _, number = path.name.partition("-")
                found.append(Group(int(database), int(number)))
        return sorted(found)

    def keys(self, group: Group) -> list[bytes]:
        return sorted(set(self._read(group)))

    def _read(self, group: Group) -> Iterator[bytes]:
        data = (self._folder / str(group)).read_bytes()
        at = 0
        while at < len(data):
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            yield data[at : at + size]
            at += size

    async def write(self, client: Client, counts: dict[int, int]) -> None:
        """Lists every key of these databases; ``counts`` are how many each has, about."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        for database, count in counts.items():
            await client.call("SELECT", database)
            await self._database(client, database, max(1, min(_MOST_GROUPS, count // _GROUP)))

    async def _database(self, client: Client, database: int, groups: int) -> None:
        with ExitStack() as stack:
            files: dict[int, BinaryIO] = {}
            cursor: Any = b"0"
            while True:
                cursor, keys = await client.call("SCAN", cursor, "COUNT", _SCAN)
                for key in keys:
                    number = key_slot(key) * groups // SLOTS
                    file = files.get(number)
                    if file is None:
                        path = self._folder / str(Group(database, number))
                        file = files[number] = stack.enter_context(path.open("wb"))
                    file.write(_LENGTH.pack(len(key)) + key)
                if cursor == b"0":
                    return


def keyspace(info: dict[str, str]) -> dict[int, dict[str, int]]:
    """INFO keyspace: database -> ``keys``, ``expires`` and whatever else is counted there."""
    found = {}
    for name, value in info.items():
        if name.startswith("db") and name[2:].isdigit():
            pairs = (part.partition("=") for part in value.split(","))
            found[int(name[2:])] = {k: int(v) for k, _, v in pairs if v.isdigit()}
    return found


def take(path: Path, into: Path) -> None:
    """Makes a file that the engine wrote ours. Raises ``EvidenceError`` for what is no plain file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise EvidenceError(
                "the engine left something else than a file", where=str(path), next="run it again"
            )
        if found.st_nlink != 1:
            raise EvidenceError(
                "the engine's file has another name too", where=str(path), next="run it again"
            )
        if os.geteuid() == 0:
            os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
        path.replace(into)
    finally:
        os.close(descriptor)
