"""Writes keys into a deployment: no key that is there is lost, no server is held up by a large one.

A small value goes by RESTORE where the target takes the payload; everything else is built bit by bit under a temporary
name in the same hash slot and renamed. RENAMENX and RESTORE without REPLACE leave alone what is there already.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redkeep.errors import RedkeepError, ReplyError, WireError
from redkeep.model.slots import hash_tag, key_slot
from redkeep.run.salvage.streams import copy_stream
from redkeep.run.salvage.target import Destination, Node
from redkeep.run.salvage.values import (
    KINDS,
    SMALL,
    Abilities,
    Head,
    Value,
    hash_field_ends,
    heads,
    pieces,
    values,
)
from redkeep.wire.client import Client

#: Bytes in memory, and keys, of one round.
BATCH_BYTES, BATCH_KEYS = 4 << 20, 400
_REDIRECTED = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})
_TRIES, _PAUSE = 100, 0.1
#: How a server begins that does not take a payload of another version, or no RESTORE at all from this user.
_NO_RESTORE = ("ERR DUMP payload version", "ERR Bad data format", "NOPERM", "ERR unknown command")
_SAFE = b":redkeep-rescue:"


@dataclass
class Outcome:
    """Of some keys: how many were written, were there with the same value, or are gone at the source."""

    copied: int = 0
    replaced: list[bytes] = field(default_factory=list)
    same: int = 0
    expired: int = 0
    conflicts: list[bytes] = field(default_factory=list)
    pending_lost: int = 0

    def add(self, other: Outcome) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Copier:
    """``source``: connections to the clean engine, one at a time is enough. ``replace``: keys that differ are replaced."""

    source: Client
    can: Abilities
    to: Destination
    replace: bool
    field_ttl: bool = True

    async def copy(self, found: Sequence[Head]) -> Outcome:
        """Raises what the target refuses for all keys alike (memory, rights, a connection that is lost)."""
        outcome = Outcome()
        small = [h for h in found if not h.large]
        left = await self._restore(small, outcome) if self.to.restores else small
        rest = await self._rewrite([h for h in left if h.kind in SMALL], outcome)
        rest += [h for h in left if h.kind not in SMALL] + [h for h in found if h.large]
        for head in rest:
            await self._build(head, outcome)
        return outcome

    async def _rewrite(self, found: Sequence[Head], outcome: Outcome) -> list[Head]:
        """Small values by the commands that make them, many at a time. Returns those that must be built one by one."""
        read = await values(self.source, found, self.can, texts=True, field_ttl=self.field_ttl)
        with_expiry = self.to.abilities.expiretime
        jobs: list[tuple[Head, list[tuple[Any, ...]]]] = []
        rest: list[Head] = []
        for head, value in zip(found, read, strict=True):
            if not isinstance(value, Value):
                outcome.expired += 1
            elif value.fields_expiring or (head.kind == "string" and not with_expiry):
                rest.append(head)
            else:
                jobs.append((head, _making(head, value)))
        for (head, _), answers in zip(jobs, await self._at_owners(jobs), strict=True):
            refused = next((a for a in answers if isinstance(a, ReplyError)), None)
            if refused is None and answers[-1] in (1, b"OK"):
                outcome.copied += 1
            elif refused is None or refused.code in _REDIRECTED or "no such key" in refused.what:
                rest.append(head)  # it is there already, or moves
            else:
                raise _refused(refused, head.key)
        return rest

    async def _at_owners(self, jobs: Sequence[tuple[Head, list[tuple[Any, ...]]]]) -> list[list[Any]]:
        """The commands of each key, together, at the node that owns its slot."""
        by_node: dict[int, tuple[Node, list[int]]] = {}
        for i, (head, _) in enumerate(jobs):
            node = self.to.node_of(head.key)
            by_node.setdefault(id(node), (node, []))[1].append(i)
        answers: list[list[Any]] = [[] for _ in jobs]
        replies = await asyncio.gather(
            *(node.client.pipeline([c for i in some for c in jobs[i][1]]) for node, some in by_node.values())
        )
        for (_, some), got in zip(by_node.values(), replies, strict=True):
            at = 0
            for i in some:
                answers[i] = got[at : at + len(jobs[i][1])]
                at += len(jobs[i][1])
        return answers

    async def _restore(self, found: Sequence[Head], outcome: Outcome) -> list[Head]:
        """Returns those that have to be written otherwise, because RESTORE is not taken."""
        if not found:
            return []
        dumps = await self.source.pipeline([("DUMP", h.key) for h in found])
        there = [(h, d) for h, d in zip(found, dumps, strict=True) if isinstance(d, bytes)]
        outcome.expired += len(found) - len(there)
        answers = await self._routed([(h.key, self._restoring(h, d)) for h, d in there])
        taken: list[tuple[Head, bytes]] = []
        refused: list[Head] = []
        for (head, dump), answer in zip(there, answers, strict=True):
            if not isinstance(answer, ReplyError):
                outcome.copied += 1
            elif answer.code == "BUSYKEY":
                taken.append((head, dump))
            elif answer.what.startswith(_NO_RESTORE):
                refused.append(head)
            else:
                raise _refused(answer, head.key)
        if refused and len(refused) + len(taken) == len(there):
            self.to.restores = False
        return refused + await self._there_already(taken, outcome)

    @staticmethod
    def _restoring(head: Head, dump: bytes, *more: str) -> tuple[Any, ...]:
        return (
            "RESTORE",
            head.key,
            max(0, head.expires),
            dump,
            *(["ABSTTL"] if head.expires >= 0 else []),
            *more,
        )

    async def _there_already(self, taken: Sequence[tuple[Head, bytes]], outcome: Outcome) -> list[Head]:
        """Returns those that are to be replaced otherwise than by RESTORE."""
        same = await self.equal([h for h, _ in taken])
        for (head, _), is_same in zip(taken, same, strict=True):
            if is_same:
                outcome.same += 1
            elif not self.replace:
                outcome.conflicts.append(head.key)
        refused: list[Head] = []
        replaced = [t for t, s in zip(taken, same, strict=True) if not s] if self.replace else []
        answers = await self._routed([(h.key, self._restoring(h, d, "REPLACE")) for h, d in replaced])
        for (head, _), answer in zip(replaced, answers, strict=True):
            if not isinstance(answer, ReplyError):
                outcome.replaced.append(head.key)
            elif answer.what.startswith(_NO_RESTORE):
                refused.append(head)
            else:
                raise _refused(answer, head.key)
        return refused

    async def _routed(self, commands: Sequence[tuple[bytes, tuple[Any, ...]]]) -> list[Any]:
        """Each to the node that owns its key; again, where slots are moving."""
        answers: list[Any] = [None] * len(commands)
        waiting = list(range(len(commands)))
        for _ in range(_TRIES):
            by_node: dict[int, tuple[Node, list[int]]] = {}
            for i in waiting:
                node = self.to.node_of(commands[i][0])
                by_node.setdefault(id(node), (node, []))[1].append(i)
            replies = await asyncio.gather(
                *(node.client.pipeline([commands[i][1] for i in some]) for node, some in by_node.values())
            )
            for (_, some), got in zip(by_node.values(), replies, strict=True):
                for i, answer in zip(some, got, strict=True):
                    answers[i] = answer
            waiting = [
                i for i in waiting if isinstance(answers[i], ReplyError) and answers[i].code in _REDIRECTED
            ]
            if not waiting:
                break
            await asyncio.sleep(_PAUSE)
            await self.to.look_again()
        return answers

    async def equal(self, found: Sequence[Head]) -> list[bool]:
        """Whether the target has these keys with the same values and expiry."""
        return [r == "" for r in await self.differences(found)]

    async def differences(self, found: Sequence[Head]) -> list[str]:
        """For each: nothing where both sides have the same, else what differs; ``gone`` where the source has it no more."""
        ours = await values(self.source, found, self._common(), field_ttl=self.field_ttl)
        theirs = await self._their_values(found)
        exact = self.to.abilities.expiretime
        return [_difference(h, a, b, exact=exact) for h, a, b in zip(found, ours, theirs, strict=True)]

    def _common(self) -> Abilities:
        theirs = self.to.abilities
        return Abilities(
            self.can.field_ttl and theirs.field_ttl,
            self.can.expiretime,
            self.can.stream_counts and theirs.stream_counts,
        )

    async def _their_values(
        self, found: Sequence[Head]
    ) -> list[tuple[Head, Value | ReplyError | None] | None]:
        by_node: dict[int, tuple[Node, list[Head]]] = {}
        for head in found:
            node = self.to.node_of(head.key)
            by_node.setdefault(id(node), (node, []))[1].append(head)
        got: dict[bytes, tuple[Head, Value | ReplyError | None] | None] = {}
        for one in await asyncio.gather(*(self._of_node(n, some) for n, some in by_node.values())):
            got |= one
        return [got[h.key] for h in found]

    async def _of_node(
        self, node: Node, some: Sequence[Head]
    ) -> dict[bytes, tuple[Head, Value | ReplyError | None] | None]:
        now = 0
        if not self.to.abilities.expiretime:
            seconds, micros = await node.client.call("TIME")
            now = int(seconds) * 1000 + int(micros) // 1000
        theirs = await heads(node.client, [h.key for h in some], self.to.abilities, now, weigh=False)
        same_kind = [
            (ours, head)
            for ours, head in zip(some, theirs, strict=True)
            if head is not None and head.kind == ours.kind
        ]
        read = await values(
            node.client,
            # read in pieces where ours is: one plan for both
            [Head(head.key, head.kind, head.expires, ours.memory) for ours, head in same_kind],
            self._common(),
            field_ttl=self.field_ttl,
        )
        by_key = {head.key: value for (_, head), value in zip(same_kind, read, strict=True)}
        return {
            ours.key: None if head is None else (head, by_key.get(ours.key))
            for ours, head in zip(some, theirs, strict=True)
        }

    async def _build(self, head: Head, outcome: Outcome) -> None:
        """Bit by bit, under another name until it is complete."""
        node = self.to.node_of(head.key)
        for _ in range(_TRIES):
            try:
                await self._built_at(node.client, head, outcome)
                return
            except ReplyError as error:
                if error.code not in _REDIRECTED:
                    raise _refused(error, head.key) from None
            await asyncio.sleep(_PAUSE)
            await self.to.look_again()
            node = self.to.node_of(head.key)
        raise WireError(
            f"the slot of {head.key[:60]!r} moves all the time",
            where=node.name,
            next="run it again when it is settled",
        )

    async def _built_at(self, target: Client, head: Head, outcome: Outcome) -> None:
        new = temporary(head.key)
        exists, _ = await target.all([("EXISTS", head.key), ("UNLINK", new)])
        if exists:
            if (await self.equal([head]))[0]:
                outcome.same += 1
                return
            if not self.replace:
                outcome.conflicts.append(head.key)
                return
        pending_lost = 0
        if head.kind == "stream":
            pending_lost = await copy_stream(
                self.source, target, head.key, new, counts=self._common().stream_counts
            )
        else:
            await self._fill(target, head, new)
        steps: list[tuple[Any, ...]] = [("PEXPIREAT", new, head.expires)] if head.expires >= 0 else []
        steps.append(("RENAME", new, head.key) if exists else ("RENAMENX", new, head.key))
        answers = await target.pipeline(steps)
        renamed = answers[-1]
        if isinstance(renamed, ReplyError):
            if "no such key" not in renamed.what:
                raise renamed
            outcome.expired += 1  # its time had come, or the source has it no more
            return
        if renamed == 0:  # somebody made it meanwhile
            await target.call("UNLINK", new)
            outcome.conflicts.append(head.key)
            return
        outcome.pending_lost += pending_lost
        if exists:
            outcome.replaced.append(head.key)
        else:
            outcome.copied += 1

    async def _fill(self, target: Client, head: Head, new: bytes) -> None:
        if head.kind not in KINDS:
            raise WireError(
                f"the key {head.key[:60]!r} is of the kind {head.kind}, and the target does not take it",
                where="the target",
                next="it needs the same module, in a version that is not older",
            )
        timed = head.kind == "hash" and self.field_ttl and self.can.field_ttl and self.to.abilities.field_ttl
        async for piece in pieces(self.source, head):
            if not piece:
                continue
            await target.all([(*_words(head.kind, new), *_arguments(head.kind, piece))])
            if timed:
                ends = await hash_field_ends(self.source, head.key, piece) or []
                pairs = [(name, end) for name, end in zip(piece[::2], ends, strict=False) if end > 0]
                await target.all([("HPEXPIREAT", new, end, "FIELDS", 1, name) for name, end in pairs])


def _making(head: Head, value: Value) -> list[tuple[Any, ...]]:
    """SET with PXAT (6.2) is one step; others are made under another name first, so that what is there stays."""
    if head.kind == "string":
        return [
            ("SET", head.key, value.texts[0], "NX", *(("PXAT", head.expires) if head.expires >= 0 else ()))
        ]
    new = temporary(head.key)
    steps = [("UNLINK", new), (*_words(head.kind, new), *_arguments(head.kind, value.texts))]
    steps += [("PEXPIREAT", new, head.expires)] if head.expires >= 0 else []
    return [*steps, ("RENAMENX", new, head.key)]


def _words(kind: str, key: bytes) -> tuple[Any, ...]:
    return {
        "string": ("APPEND", key),
        "list": ("RPUSH", key),
        "set": ("SADD", key),
        "zset": ("ZADD", key),
        "hash": ("HSET", key),
    }[kind]


def _arguments(kind: str, piece: Sequence[bytes]) -> Iterable[bytes]:
    if kind != "zset":
        return piece
    return [word for i in range(0, len(piece), 2) for word in (piece[i + 1], piece[i])]


def temporary(key: bytes) -> bytes:
    """A name in the same hash slot, the same for the same key: what a kill left behind is found again."""
    mark = _SAFE + hashlib.sha256(key).hexdigest()[:24].encode()
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1) if begin >= 0 else -1
    if end > begin + 1:
        return b"{" + key[begin + 1 : end] + b"}" + mark
    if b"}" not in key and key:
        return b"{" + key + b"}" + mark
    return b"{" + hash_tag(key_slot(key)).encode() + b"}" + mark


def _difference(
    head: Head,
    ours: Value | ReplyError | None,
    theirs: tuple[Head, Value | ReplyError | None] | None,
    *,
    exact: bool,
) -> str:
    if not isinstance(ours, Value):
        return "gone"
    if theirs is None:
        return "missing"
    other, value = theirs
    if other.kind != head.kind:
        return f"a {other.kind} instead of a {head.kind}"
    if not isinstance(value, Value) or value.digest != ours.digest:
        return "another value"
    if other.expires != head.expires and (exact or abs(other.expires - head.expires) > 2000):
        return "another expiry"
    return ""


def _refused(error: ReplyError, key: bytes) -> RedkeepError:
    hints = {
        "OOM": "raise maxmemory there, and run it again: it goes on where it was",
        "READONLY": "that is a replica now: name the primary, and run it again",
        "NOPERM": "a user with the rights to write all keys: --user",
        "NOREPLICAS": "its replicas are behind (min-replicas-to-write): wait for them, and run it again",
        "MISCONF": "it cannot save (its disk?): mend that, and run it again",
        "LOADING": "it is starting: run it again in a moment",
    }
    return WireError(
        f"the target refuses {key[:60]!r}: {error.what}",
        where=error.where or "the target",
        next=hints.get(error.code, "run it again: it goes on where it was"),
    )
