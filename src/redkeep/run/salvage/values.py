"""What a key holds, in a form that is the same on every server: for comparing two servers, and for one digest of all.

Neither DUMP nor DEBUG DIGEST is: both follow from a version's encodings, and the second is not allowed on most servers.

The digest of a value is over its kind and elements: of a list and a stream in order, of others by the sum of the
elements' digests, so that it may be read in pieces and in any order. Scores are numbers, not how a version prints them. The
digest of a data set is the sum over its keys (database, key, kind, value, absolute expiry), modulo 2^256.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redkeep.errors import EngineError, ReplyError
from redkeep.wire.client import Client

MODULUS = 1 << 256
#: Bytes in memory from which a value is read and written in pieces: no server should be held up by one command.
LARGE = 256 << 10
#: Elements, and bytes of a string, of one piece.
PIECE, STRING_PIECE = 512, 1 << 20
KINDS = ("string", "list", "set", "zset", "hash", "stream")
_NEVER = -1


@dataclass(frozen=True)
class Head:
    """What is known of a key before its value: ``expires`` in milliseconds since 1970, -1: never."""

    key: bytes
    kind: str
    expires: int
    memory: int

    @property
    def large(self) -> bool:
        return self.memory > LARGE


@dataclass
class Value:
    """``parts``: the elements where the value is small, else nothing. ``fields_expiring``: fields of a hash that do."""

    head: Head
    digest: bytes
    elements: int = 0
    fields_expiring: int = 0
    texts: list[bytes] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Abilities:
    """Of a server, as far as it changes what is read: ``fields`` expire, ``since`` its expiry times are exact."""

    field_ttl: bool
    expiretime: bool
    #: entries-added, max-deleted-entry-id and entries-read of streams (7.0)
    stream_counts: bool


def _hash(*parts: bytes) -> bytes:
    """Of parts that cannot run into each other."""
    return hashlib.sha256(b"".join([word for part in parts for word in (b"%d:" % len(part), part)])).digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")


def key_digest(database: int, value: Value) -> int:
    """One key's share in the digest of a data set."""
    head = value.head
    return _number(_hash(b"%d" % database, head.key, head.kind.encode(), value.digest, b"%d" % head.expires))


class Summer:
    """The digest of one value, from pieces in whatever order the kind allows."""

    def __init__(self, kind: str) -> None:
        self._kind, self._ordered = kind, kind in ("string", "list", "stream")
        self._run = hashlib.sha256(kind.encode())
        self._sum = 0
        self.count = 0

    def add(self, *parts: bytes) -> None:
        self.count += 1
        if self._kind == "string":
            self._run.update(parts[0])
        elif self._ordered:
            self._run.update(_hash(*parts))
        else:
            self._sum += _number(_hash(*parts))

    @property
    def digest(self) -> bytes:
        if self._ordered:
            return self._run.digest()
        return _hash(self._kind.encode(), b"%d" % self.count, (self._sum % MODULUS).to_bytes(32, "big"))


async def heads(
    client: Client, keys: Sequence[bytes], can: Abilities, now: int = 0, *, weigh: bool = True
) -> list[Head | None]:
    """What each key is; None for those that are gone. Without PEXPIRETIME the time is the server's own plus the rest.

    ``weigh``: ask how much memory it takes, else that is 0.
    """
    words = "PEXPIRETIME" if can.expiretime else "PTTL"
    asked: list[tuple[Any, ...]] = [("TYPE", k) for k in keys]
    asked += [(words, k) for k in keys]
    asked += [("MEMORY", "USAGE", k) for k in keys] if weigh else []
    answers = await client.pipeline(asked)
    for answer in answers:
        if isinstance(answer, ReplyError):
            raise answer
    count = len(keys)
    weights = answers[2 * count :] if weigh else [0] * count
    found: list[Head | None] = []
    for key, kind, expires, memory in zip(
        keys, answers[:count], answers[count : 2 * count], weights, strict=True
    ):
        if kind == b"none" or expires == -2 or memory is None:
            found.append(None)
            continue
        if expires >= 0 and not can.expiretime:
            expires += now
        found.append(Head(key, _text(kind), int(expires), int(memory)))
    return found


def _text(kind: Any) -> str:
    return kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)


#: Read by one command, of which nothing but the key is different.
SMALL: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "string": (("GET",), ()),
    "list": (("LRANGE",), (0, -1)),
    "set": (("SMEMBERS",), ()),
    "zset": (("ZRANGE",), (0, -1, "WITHSCORES")),
    "hash": (("HGETALL",), ()),
}


async def values(
    client: Client, found: Sequence[Head], can: Abilities, *, texts: bool = False, field_ttl: bool = True
) -> list[Value | ReplyError | None]:
    """The values of keys of these kinds, in order: None for a key that is gone, an error where it is of another kind.

    ``texts``: keep elements for whoever wants to look at them. ``field_ttl``: hashes may have fields that expire.
    """
    small = [h for h in found if not h.large and h.kind in SMALL]
    commands = [(*SMALL[h.kind][0], h.key, *SMALL[h.kind][1]) for h in small]
    answers = dict(
        zip((h.key for h in small), await client.pipeline(commands) if commands else [], strict=True)
    )
    ends = await _field_ends(client, small, answers) if can.field_ttl and field_ttl else {}
    result: list[Value | ReplyError | None] = []
    for head in found:
        if head.key in answers:
            answer = answers[head.key]
            result.append(
                answer if isinstance(answer, ReplyError) else _value(head, answer, ends.get(head.key), texts)
            )
        else:
            result.append(await _in_pieces(client, head, can, texts=texts, field_ttl=field_ttl))
    return result


async def _field_ends(
    client: Client, small: Sequence[Head], answers: dict[bytes, Any]
) -> dict[bytes, list[int]]:
    asked = []
    for head in small:
        answer = answers[head.key]
        if head.kind == "hash" and isinstance(answer, list) and answer:
            names = answer[::2]
            asked.append((head.key, ("HPEXPIRETIME", head.key, "FIELDS", len(names), *names)))
    if not asked:
        return {}
    replies = await client.pipeline([command for _, command in asked])
    return {key: reply for (key, _), reply in zip(asked, replies, strict=True) if isinstance(reply, list)}


def _value(head: Head, answer: Any, ends: list[int] | None, texts: bool) -> Value | None:
    if answer is None or (head.kind != "string" and not answer):
        return None
    if head.kind == "string":
        return Value(head, hashlib.sha256(b"string" + answer).digest(), 1, 0, [answer] if texts else [])
    summer = Summer(head.kind)
    expiring = 0
    if head.kind == "hash":
        expiring = _add_fields(summer, answer, ends)
        kept = answer
    else:
        for parts in elements(head.kind, answer):
            summer.add(*parts)
        kept = answer
    return Value(head, summer.digest, summer.count, expiring, list(kept) if texts else [])


def _add_fields(summer: Summer, answer: Sequence[bytes], ends: Sequence[int] | None) -> int:
    expiring = 0
    for i in range(0, len(answer), 2):
        end = ends[i // 2] if ends else _NEVER
        if end > 0:
            summer.add(answer[i], answer[i + 1], b"%d" % end)
            expiring += 1
        else:
            summer.add(answer[i], answer[i + 1])
    return expiring


def elements(kind: str, answer: Sequence[bytes]) -> Iterable[tuple[bytes, ...]]:
    """What of an answer counts: a score is the number that it stands for."""
    if kind == "zset":
        for i in range(0, len(answer), 2):
            yield answer[i], struct.pack(">d", float(answer[i + 1]) + 0.0)
    else:
        for one in answer:
            yield (one,)


async def _in_pieces(
    client: Client, head: Head, can: Abilities, *, texts: bool, field_ttl: bool
) -> Value | ReplyError | None:
    try:
        if (
            head.kind not in KINDS
        ):  # a module's: only both sides' module knows it; the payload ends in version and checksum
            dump = await client.call("DUMP", head.key)
            return Value(head, _hash(dump[:-10]), 1) if dump else None
        if head.kind == "stream":
            from redkeep.run.salvage.streams import stream_digest

            found = await stream_digest(client, head.key, counts=can.stream_counts)
            return Value(head, found[0], found[1]) if found else None
        # SCAN of a collection may name an element twice while the server rearranges it: then it is read once more
        for _ in range(20):
            summer, expiring = Summer(head.kind), 0
            kept: list[bytes] = []
            async for piece in pieces(client, head):
                if head.kind == "hash":
                    ends = (
                        await hash_field_ends(client, head.key, piece)
                        if can.field_ttl and field_ttl
                        else None
                    )
                    expiring += _add_fields(summer, piece, ends)
                elif head.kind == "string":
                    summer.add(piece[0])
                else:
                    for parts in elements(head.kind, piece):
                        summer.add(*parts)
                if texts and len(kept) < PIECE:
                    kept += piece
            if head.kind in ("string", "list") or summer.count == await _length(client, head):
                return Value(head, summer.digest, summer.count, expiring, kept) if summer.count else None
    except ReplyError as error:
        return error
    raise EngineError(
        f"the {head.kind} {head.key[:60]!r} changes while it is read", where="the server", next="run it again"
    )


async def hash_field_ends(client: Client, key: bytes, piece: Sequence[bytes]) -> list[int] | None:
    names = piece[::2]
    if not names:
        return None
    found: list[int] = await client.call("HPEXPIRETIME", key, "FIELDS", len(names), *names)
    return found


_LENGTHS = {"set": "SCARD", "zset": "ZCARD", "hash": "HLEN"}


async def _length(client: Client, head: Head) -> int:
    return int(await client.call(_LENGTHS[head.kind], head.key))


async def pieces(client: Client, head: Head) -> AsyncIterator[list[bytes]]:
    """A large value bit by bit, as the commands that read it give it: names and values, members and scores, in turn."""
    key = head.key
    if head.kind == "string":
        at = 0
        while piece := await client.call("GETRANGE", key, at, at + STRING_PIECE - 1):
            yield [piece]
            at += len(piece)
            if len(piece) < STRING_PIECE:
                return
    elif head.kind == "list":
        at = 0
        while piece := await client.call("LRANGE", key, at, at + PIECE - 1):
            yield piece
            at += len(piece)
    else:
        word = {"set": "SSCAN", "hash": "HSCAN", "zset": "ZSCAN"}.get(head.kind)
        if word is None:
            raise EngineError(
                f"the key {key[:60]!r} is of the kind {head.kind}, which is not copied",
                where="the clean engine",
                next="only the server with that module can move it (DUMP and RESTORE)",
            )
        cursor: Any = b"0"
        while True:
            cursor, piece = await client.call(word, key, cursor, "COUNT", PIECE)
            yield piece
            if cursor == b"0":
                return
