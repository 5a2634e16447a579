"""Brings the keys of a clean engine into a deployment, group by group, and compares both sides afterwards.

After each group it is written down that it is done; a group that was cut short is done again, which finds what is there
already and leaves it. So a run that follows a kill ends as one that was never cut.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redkeep.errors import RefusedError, ReplyError
from redkeep.model.events import Emit, Note
from redkeep.rescue.disk.tree import text_of
from redkeep.run.salvage.copying import Copier, Outcome
from redkeep.run.salvage.keys import Group, KeyList
from redkeep.run.salvage.pace import Pace
from redkeep.run.salvage.survey import batches
from redkeep.run.salvage.target import Destination
from redkeep.run.salvage.values import Abilities, Head, heads
from redkeep.run.salvage.workplace import Workplace
from redkeep.wire.client import Client

CONFLICTS = "conflicts.jsonl"
_MOST_NAMED = 1000
#: A copy and its comparison are made once more where keys were missing that had been written before.
_ROUNDS = 2


@dataclass
class Compared:
    """``differing``: keys with what differs. ``gone``: what expired while it was copied."""

    equal: int = 0
    gone: int = 0
    conflicts: int = 0
    differing: list[dict[str, Any]] = field(default_factory=list)
    differing_count: int = 0
    missing_in: set[Group] = field(default_factory=set)


@dataclass
class Import:
    """``to_database``: all keys go into that one, else into the one that they were in."""

    work: Workplace
    source: Client
    can: Abilities
    keys: KeyList
    groups: Sequence[Group]
    total: int
    to: Destination
    replace: bool
    field_ttl: bool
    to_database: int | None
    emit: Emit

    async def run(self) -> dict[str, Any]:
        """The part of the document that is about the target. Raises what stops it; run again, it goes on."""
        record = self._record()
        record["runs"] += 1
        self.work.keep()
        copier = Copier(self.source, self.can, self.to, self.replace, self.field_ttl)
        for group in self.groups:
            await self.to.select(self._database(group))  # before anything is written
        outcome, compared = Outcome(), Compared()
        for _ in range(_ROUNDS):
            outcome.add(await self._copy(copier, record))
            compared = await self._compare(copier)
            if not compared.missing_in:
                break
            record["done"] = [g for g in record["done"] if Group(*g) not in compared.missing_in]
            self.work.keep()
        return self._document(record, outcome, compared)

    def _database(self, group: Group) -> int:
        return group.database if self.to_database is None else self.to_database

    def _record(self) -> dict[str, Any]:
        identity = {
            "target": self.to.identity,
            "replace": self.replace,
            "databases": sorted({g.database for g in self.groups}),
        }
        record = self.work.state.get("import")
        if record is None or record["of"] != identity:
            record = {"of": identity, "done": [], "runs": 0, "replaced": 0, "pending_lost": 0}
            self.work.state["import"] = record
        done = {Group(*g) for g in record["done"]}
        kept = [c for c in self.work.lines(CONFLICTS) if Group(*c["group"]) in done] if done else []
        self.work.write(CONFLICTS, "")
        self.work.append(CONFLICTS, kept)
        self.work.keep()
        return record

    async def _copy(self, copier: Copier, record: dict[str, Any]) -> Outcome:
        done = {Group(*g) for g in record["done"]}
        pace = Pace("importing", self.total, self.emit)
        outcome = Outcome()
        for group in self.groups:
            keys = self.keys.keys(group)
            if group in done:
                pace.add(len(keys))
                continue
            await self.source.call("SELECT", group.database)
            await self.to.select(self._database(group))
            here = Outcome()
            async for names, batch in batches(self.source, keys, self.can):
                here.add(await copier.copy(batch))
                pace.add(names)
            self.work.append(CONFLICTS, (_conflict(group, key) for key in here.conflicts))
            record["done"].append([group.database, group.number])
            record["replaced"] += len(here.replaced)
            record["pending_lost"] += here.pending_lost
            self.work.keep()
            outcome.add(here)
        pace.end()
        return outcome

    async def _compare(self, copier: Copier) -> Compared:
        pace = Pace("comparing", self.total, self.emit)
        found = Compared()
        conflicts: dict[Group, set[bytes]] = {}
        for line in self.work.lines(CONFLICTS):
            conflicts.setdefault(Group(*line["group"]), set()).add(base64.b64decode(line["key_base64"]))
        for group in self.groups:
            await self.source.call("SELECT", group.database)
            await self.to.select(self._database(group))
            known = conflicts.get(group, set())
            keys = self.keys.keys(group)
            there = 0
            async for names, batch in batches(self.source, keys, self.can):
                there += len(batch)
                for head, difference in zip(batch, await copier.differences(batch), strict=True):
                    await self._judge(copier, group, head, difference, known, found)
                pace.add(names)
            found.gone += len(keys) - there
        pace.end()
        return found

    async def _judge(
        self, copier: Copier, group: Group, head: Head, difference: str, known: set[bytes], found: Compared
    ) -> None:
        if difference and head.key not in known:
            difference = await self._once_more(copier, head)
        if head.key in known:
            found.conflicts += 1
        elif not difference:
            found.equal += 1
        elif difference == "gone":
            found.gone += 1
        else:
            found.differing_count += 1
            if difference == "missing":
                found.missing_in.add(group)
            if len(found.differing) < _MOST_NAMED:
                found.differing.append(
                    {"database": group.database, "key": text_of(head.key), "difference": difference}
                )

    async def _once_more(self, copier: Copier, head: Head) -> str:
        """What expires just now is on one side and not on the other, for a moment."""
        for _ in range(3):
            await asyncio.sleep(0.05)
            (now,) = await heads(self.source, [head.key], self.can)
            if now is None:
                return "gone"
            (difference,) = await copier.differences([now])
            if not difference or difference == "gone":
                break
        return difference

    def _document(self, record: dict[str, Any], outcome: Outcome, compared: Compared) -> dict[str, Any]:
        conflicts = self.work.lines(CONFLICTS)
        complete = not (compared.conflicts or compared.differing_count)
        if outcome.same:
            self.emit(Note(f"{outcome.same:,} keys were there already, with the same value"))
        return {
            "target": self.to.title,
            "engine": ", ".join(sorted({str(n.engine) for n in self.to.nodes})),
            "nodes": [n.name for n in self.to.nodes],
            "method": "RESTORE" if self.to.restores else "type by type",
            "runs": record["runs"],
            "copied_now": outcome.copied + len(outcome.replaced),
            "already_there": outcome.same,
            "replaced": record["replaced"],
            "equal": compared.equal,
            "expired_meanwhile": compared.gone,
            "pending_entries_lost": record["pending_lost"],
            "conflicts": [{"database": c["group"][0], "key": c["key"]} for c in conflicts[:_MOST_NAMED]],
            "conflict_count": len(conflicts),
            "differing": compared.differing,
            "differing_count": compared.differing_count,
            "complete": complete,
        }


async def copy_functions(source: Client, to: Destination, *, replace: bool) -> list[dict[str, Any]]:
    """Every library of functions, to every primary: each with what the target said where it did not take it."""
    try:
        libraries = await source.call("FUNCTION", "LIST", "WITHCODE")
    except ReplyError:  # before 7.0 there are none
        return []
    told: list[dict[str, Any]] = []
    for library in libraries:
        about = dict(zip(library[::2], library[1::2], strict=True))
        words = ("FUNCTION", "LOAD", *(["REPLACE"] if replace else []), about[b"library_code"])
        answers = [(await node.client.pipeline([words]))[0] for node in to.nodes]
        refused = next((a.what for a in answers if isinstance(a, ReplyError)), "")
        told.append({"library": text_of(about[b"library_name"]), "refused": refused})
    return told


def _conflict(group: Group, key: bytes) -> dict[str, Any]:
    return {
        "group": [group.database, group.number],
        "key": text_of(key),
        "key_base64": base64.b64encode(key).decode(),
    }


def require_room(to: Destination, memory: int) -> None:
    """Refuses what would end in the middle with OOM, or push out others' keys; a rough measure, so with a margin."""
    each = memory // len(to.nodes)
    for node in to.nodes:
        if node.room is not None and each > node.room:
            raise RefusedError(
                f"the keys take about {each / 2**20:.0f} MiB there, and {node.room / 2**20:.0f} MiB are left below "
                "maxmemory",
                where=node.name,
                next="raise maxmemory, or take a deployment with more room",
            )
