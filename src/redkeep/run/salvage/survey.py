"""What a clean engine holds: how many keys of which kind, one digest of all, and what looks like an intruder's."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from redkeep.model.events import Emit
from redkeep.rescue.disk.tree import text_of
from redkeep.rescue.redis.rdb import payload_in
from redkeep.run.salvage.copying import BATCH_BYTES, BATCH_KEYS
from redkeep.run.salvage.keys import Group, KeyList
from redkeep.run.salvage.pace import Pace
from redkeep.run.salvage.values import MODULUS, Abilities, Head, Value, heads, key_digest, values
from redkeep.wire.client import Client

#: What is looked at of a value, in bytes: payloads are short.
_LOOKED_AT = 64 << 10
_MOST_SUSPECTS = 10_000


@dataclass(frozen=True)
class Suspect:
    """A key whose value holds a line that an intruder would want to be run or trusted."""

    database: int
    key: bytes
    kind: str
    line: str
    value: bytes
    share: int  # in the digest
    expiring: bool
    memory: int

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        document: dict[str, Any] = {
            "database": self.database,
            "key": text_of(self.key),
            "kind": self.kind,
            "line": self.line,
        }
        if whole:
            document["key_base64"] = base64.b64encode(self.key).decode()
            document["value_base64"] = base64.b64encode(self.value).decode()
        return document


@dataclass
class Contents:
    """``kinds``: database -> kind -> keys. ``memory``: bytes, as the engine says of each key."""

    kinds: dict[int, dict[str, int]] = field(default_factory=dict)
    expiring: dict[int, int] = field(default_factory=dict)
    memory: int = 0
    fields_expiring: int = 0
    large: int = 0
    digest: int = 0
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)

    @property
    def keys(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.kinds.values())

    def count(self, database: int, head: Head, share: int, sign: int = 1) -> None:
        kinds = self.kinds.setdefault(database, {})
        kinds[head.kind] = kinds.get(head.kind, 0) + sign
        if head.expires >= 0:
            self.expiring[database] = self.expiring.get(database, 0) + sign
        self.memory += sign * head.memory
        self.digest = (self.digest + sign * share) % MODULUS

    def without(self, suspect: Suspect) -> None:
        head = Head(suspect.key, suspect.kind, 0 if suspect.expiring else -1, suspect.memory)
        self.count(suspect.database, head, suspect.share, -1)

    def as_json(self) -> dict[str, Any]:
        return {
            "keys": self.keys,
            "databases": {
                str(database): {
                    "keys": sum(kinds.values()),
                    "kinds": {k: n for k, n in sorted(kinds.items()) if n},
                    "expiring": self.expiring.get(database, 0),
                }
                for database, kinds in sorted(self.kinds.items())
            },
            "memory_bytes": self.memory,
            "fields_expiring": self.fields_expiring,
            "digest": f"{self.digest:064x}",
        }


async def batches(
    client: Client, keys: Sequence[bytes], can: Abilities
) -> AsyncIterator[tuple[int, list[Head]]]:
    """The keys that are still there, in pieces that hold nobody up; with each, how many names it stands for."""
    for begin in range(0, len(keys), BATCH_KEYS):
        some = keys[begin : begin + BATCH_KEYS]
        batch: list[Head] = []
        size = told = 0
        for head in await heads(client, some, can):
            told += 1
            if head is None:
                continue
            if batch and size + head.memory > BATCH_BYTES:
                yield told - 1, batch
                batch, size, told = [], 0, 1
            batch.append(head)
            size += head.memory
        yield told, batch


async def survey(
    client: Client,
    keys: KeyList,
    groups: Sequence[Group],
    total: int,
    can: Abilities,
    emit: Emit,
    *,
    field_ttl: bool,
) -> Contents:
    """Reads everything once. ``field_ttl``: there are hashes whose fields expire."""
    found, pace = Contents(), Pace("reading", total, emit)
    for group in groups:
        await client.call("SELECT", group.database)
        async for names, batch in batches(client, keys.keys(group), can):
            for head, value in zip(
                batch, await values(client, batch, can, texts=True, field_ttl=field_ttl), strict=True
            ):
                _count(found, group.database, head, value)
            pace.add(names)
    pace.end()
    return found


def _count(found: Contents, database: int, head: Head, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, Value):
        found.unreadable.append({"database": database, "key": text_of(head.key), "why": value.what})
        return
    share = key_digest(database, value)
    found.count(database, head, share)
    found.fields_expiring += value.fields_expiring
    found.large += head.large
    for text in value.texts:
        if len(text) > 12 and (line := payload_in(text[:_LOOKED_AT])):
            if len(found.suspects) < _MOST_SUSPECTS:
                kept = text[:_LOOKED_AT]
                found.suspects.append(
                    Suspect(database, head.key, head.kind, line, kept, share, head.expires >= 0, head.memory)
                )
            return
