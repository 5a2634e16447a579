"""Streams: entries, IDs, groups, consumers and what these have not acknowledged; read and written without DUMP.

When an entry was last delivered is carried to the millisecond or two (XPENDING tells how long ago); it is not compared. A
pending entry that was deleted from its stream cannot be made again by any command; those are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from redkeep.errors import ReplyError
from redkeep.wire.client import Client

_ENTRIES, _PENDING = 256, 1000


@dataclass
class Pending:
    entry: bytes
    consumer: bytes
    idle: int
    deliveries: int


@dataclass
class GroupState:
    name: bytes
    last: bytes
    read: int | None
    consumers: list[bytes] = field(default_factory=list)


@dataclass
class StreamState:
    """A stream but its entries and what is pending. Counts are None on servers before 7.0."""

    length: int
    last: bytes
    added: int | None
    deleted: bytes | None
    groups: list[GroupState]


async def state_of(client: Client, key: bytes) -> StreamState | None:
    try:
        about = _pairs(await client.call("XINFO", "STREAM", key))
    except ReplyError as error:
        if "no such key" in error.what:
            return None
        raise
    groups = []
    for entry in sorted(
        map(_pairs, await client.call("XINFO", "GROUPS", key)), key=lambda g: bytes(g[b"name"])
    ):
        name = entry[b"name"]
        consumers = [_pairs(c)[b"name"] for c in await client.call("XINFO", "CONSUMERS", key, name)]
        groups.append(
            GroupState(name, entry[b"last-delivered-id"], entry.get(b"entries-read"), sorted(consumers))
        )
    return StreamState(
        about[b"length"],
        about[b"last-generated-id"],
        about.get(b"entries-added"),
        about.get(b"max-deleted-entry-id"),
        groups,
    )


def _pairs(answer: list[Any]) -> dict[bytes, Any]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


async def entries(client: Client, key: bytes) -> AsyncIterator[list[tuple[bytes, list[bytes]]]]:
    begin = b"-"
    while answer := await client.call("XRANGE", key, begin, "+", "COUNT", _ENTRIES):
        yield [(e[0], e[1] or []) for e in answer]
        if len(answer) < _ENTRIES:
            return
        begin = _after(answer[-1][0])


async def pending(client: Client, key: bytes, group: bytes) -> AsyncIterator[list[Pending]]:
    begin = b"-"
    while answer := await client.call("XPENDING", key, group, begin, "+", _PENDING):
        yield [Pending(*entry) for entry in answer]
        if len(answer) < _PENDING:
            return
        begin = _after(answer[-1][0])


def _after(entry: bytes) -> bytes:
    """The smallest ID behind this one; ranges that leave out their begin are younger than 6.2."""
    time, _, number = entry.partition(b"-")
    if int(number) == (1 << 64) - 1:
        return b"%d-0" % (int(time) + 1)
    return b"%s-%d" % (time, int(number) + 1)


async def stream_digest(client: Client, key: bytes, *, counts: bool) -> tuple[bytes, int] | None:
    """The digest of everything that is compared, and how many entries; None where there is no such key.

    ``counts``: with what servers count since 7.0.
    """
    state = await state_of(client, key)
    if state is None:
        return None
    found = hashlib.sha256(b"stream")

    def add(*parts: Any) -> None:
        found.update(repr(parts).encode())

    async for some in entries(client, key):
        for entry, fields in some:
            add(entry, fields)
    add(state.length, state.last, state.added if counts else None, state.deleted if counts else None)
    for group in state.groups:
        add(group.name, group.last, group.read if counts else None, group.consumers)
        async for batch in pending(client, key, group.name):
            for one in batch:
                add(one.entry, one.consumer, one.deliveries)
    return found.digest(), state.length


async def copy_stream(source: Client, target: Client, key: bytes, new: bytes, *, counts: bool) -> int:
    """Builds the stream as ``new``; returns how many pending entries could not be made again."""
    state = await state_of(source, key)
    if state is None:
        return 0
    if state.length == 0:
        await target.call("XADD", new, "0-1", "x", "x")
        await target.call("XTRIM", new, "MAXLEN", 0)
    async for some in entries(source, key):
        await target.all([("XADD", new, entry, *fields) for entry, fields in some])
    settle: list[Any] = ["XSETID", new, state.last]
    if counts and state.added is not None and state.deleted is not None:
        settle += ["ENTRIESADDED", state.added, "MAXDELETEDID", state.deleted]
    await target.call(*settle)
    lost = 0
    for group in state.groups:
        create: list[Any] = ["XGROUP", "CREATE", new, group.name, group.last]
        if counts and group.read is not None:
            create += ["ENTRIESREAD", group.read]
        await target.call(*create)
        await target.all([("XGROUP", "CREATECONSUMER", new, group.name, c) for c in group.consumers])
        async for batch in pending(source, key, group.name):
            lost += await _claim(target, new, group.name, batch)
    return lost


async def _claim(target: Client, new: bytes, group: bytes, batch: list[Pending]) -> int:
    made = await target.all(
        [
            (
                *("XCLAIM", new, group, p.consumer, 0, p.entry),
                *("IDLE", p.idle, "RETRYCOUNT", p.deliveries, "FORCE", "JUSTID"),
            )
            for p in batch
        ],
    )
    return sum(not ids for ids in made)
