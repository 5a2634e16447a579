"""The keys of marked slots go from the source to the target: MIGRATE, a batch at a time.

One batch is in flight from a source, and the question for the next keys goes out with it: deeper pipelines would keep
the server from its clients. How long a batch kept it from them, the server says itself, by TIME before and after. A batch
holds keys of a few slots, one MIGRATE each, as a Cluster wants it. Where the way to the server is long, several connections
take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redkeep.errors import EngineError, ReplyError
from redkeep.model.slots import key_slot
from redkeep.run.moving import doubles
from redkeep.run.moving.ends import PATIENCE, until_answers, until_ok
from redkeep.run.moving.heavy import AT_ONCE, Heavy, weigh
from redkeep.wire.replies import seconds, text

if TYPE_CHECKING:
    from redkeep.run.fleet import Fleet
    from redkeep.run.moving.ends import Road
    from redkeep.run.moving.pace import Pace
    from redkeep.run.moving.traffic import Traffic
    from redkeep.wire.client import Client

#: MIGRATEs in one batch, and their timeout in milliseconds: a target that stopped holds the source up for the product.
_TOGETHER = 4
_TIMEOUT = 500
#: Seconds that a silent target is waited for, and how often in a row it may break off.
_SILENCE = 20.0
_BREAKS = 5
#: Connections where the way is long; each second one for so many seconds of round trip.
_LANES, _LANE = 8, 0.005

_HINTS = {
    "OOM": "the target is full: raise maxmemory there, or move less",
    "NOAUTH": "redkeep apply puts the passwords right",
    "WRONGPASS": "redkeep apply puts the passwords right",
    "NOPERM": "redkeep apply puts the users right",
    "MOVED": "the target does not expect these slots any more; run it again",
    "ERR DUMP payload version": "the target is an older version than the source and cannot read its values",
}


@dataclass
class Drain:
    """``heavy``: keys that go alone, by slot; they were told and approved before. ``owner_is_source``: whose value stays
    where both sides have a key."""

    fleet: Fleet
    road: Road
    pace: Pace
    traffic: Traffic
    heavy: dict[int, dict[bytes, Heavy]] = field(default_factory=dict)
    owner_is_source: bool = True
    _breaks: int = 0

    async def slots(self, counts: Mapping[int, int]) -> None:
        """Until the source has no key of these slots. ``counts``: how many it has of each, about."""
        left = {slot: count for slot, count in counts.items() if count}
        before, idle = -1, 0
        while left:
            await self._ordinary(left)
            for slot in left:
                for heavy in self.heavy.get(slot, {}).values():
                    await self._alone(heavy)
            left = {s: n for s, n in (await self.road.source.counts(list(counts))).items() if n}
            idle = idle + 1 if sum(left.values()) == before else 0
            before = sum(left.values())
            if idle > _BREAKS:
                raise EngineError(
                    f"{before} keys do not leave", where=self.road.source.name, next="redkeep check says more"
                )

    async def _ordinary(self, left: Mapping[int, int]) -> None:
        queue = deque(sorted(left.items()))
        lanes = 1 + min(_LANES - 1, int(self.pace.round_trip / _LANE))
        clients = [await self.fleet.another(self.road.source.node) for _ in range(min(lanes, len(queue)))]
        try:
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(self._lane(client, queue))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for client in clients:
                client.close()

    async def _lane(self, client: Client, queue: deque[tuple[int, int]]) -> None:
        batch: list[tuple[int, list[bytes]]] = []
        while queue or batch:
            wanted = self._take(queue)
            commands = [self.road.migrate(keys, timeout=_TIMEOUT) for _, keys in batch]
            asked = [("CLUSTER", "GETKEYSINSLOT", s, n + len(self.heavy.get(s, ()))) for s, n, _ in wanted]
            began, *answers = await client.pipeline(
                [("TIME",), *commands, ("TIME",), *asked], timeout=PATIENCE
            )
            moved, ended, listed = answers[: len(batch)], answers[len(batch)], answers[len(batch) + 1 :]
            if batch:
                self.pace.took(sum(len(keys) for _, keys in batch), seconds(ended) - seconds(began))
            for (slot, keys), answer in zip(batch, moved, strict=True):
                await self._answered(slot, keys, answer)
            batch = await self._listed(wanted, listed)
            if self.pace.gap:
                await asyncio.sleep(self.pace.gap)

    def _take(self, queue: deque[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """Slot, keys to ask for, keys that it has in all: as much as one batch may hold."""
        taken: list[tuple[int, int, int]] = []
        room = self.pace.keys
        while queue and room > 0 and len(taken) < _TOGETHER:
            slot, count = queue.popleft()
            part = min(count, room)
            if part < count:
                if taken and part < count // 2:  # rather whole slots
                    queue.appendleft((slot, count))
                    break
                queue.appendleft((slot, count - part))
            taken.append((slot, part, count))
            room -= part
            if part < count:
                break
        return taken

    async def _listed(
        self, wanted: Sequence[tuple[int, int, int]], answers: Sequence[Any]
    ) -> list[tuple[int, list[bytes]]]:
        """The keys of the next batch; the large ones stay for later."""
        found = []
        for (slot, _, count), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, ReplyError):
                raise answer
            keys = [key for key in answer if key not in self.heavy.get(slot, ())]
            if count > AT_ONCE and keys:  # too many to have been looked at before
                for heavy in await weigh(self.road.source, slot, keys):
                    self.heavy.setdefault(slot, {})[heavy.key] = heavy
                keys = [key for key in keys if key not in self.heavy.get(slot, ())]
            if keys:
                found.append((slot, keys))
        return found

    async def _alone(self, heavy: Heavy) -> None:
        """A large key. It may take long; the target is silent meanwhile."""
        timeout = int(max(2 * _TIMEOUT, heavy.cost * 10_000))
        client = await self.fleet.another(self.road.source.node, timeout=PATIENCE + timeout / 1000)
        try:
            (answer,) = await client.pipeline([self.road.migrate([heavy.key], timeout=timeout)])
        finally:
            client.close()
        await self._answered(heavy.slot, [heavy.key], answer)

    async def _answered(self, slot: int, keys: Sequence[bytes], answer: Any) -> None:
        """What MIGRATE said. Keys that stayed are found again by counting."""
        if not isinstance(answer, ReplyError):
            if text(answer) == "OK":
                self.traffic.moved_keys += len(keys)
                self._breaks = 0
            return
        said = answer.what.partition("Target instance replied with error: ")[2] or answer.what
        if said.startswith("BUSYKEY"):
            await self._on_both_sides(slot, keys)
        elif said.startswith("CLUSTERDOWN"):
            await until_ok(self.road.target)
        elif said.startswith("IOERR"):
            # The target may have taken the keys all the same: then they are on both sides, and the next try says so.
            self._breaks += 1
            if self._breaks > _BREAKS or not await until_answers(
                self.fleet, self.road.target, seconds=_SILENCE
            ):
                raise EngineError(
                    f"{self.road.target.name} does not take keys any more ({said})",
                    where=f"from {self.road.source.name}",
                    next="see to that server, then run it again: it goes on where it stopped",
                )
        else:
            hint = next((h for words, h in _HINTS.items() if said.startswith(words)), "run it again")
            raise EngineError(
                f"{self.road.target.name} refuses keys: {said[:200]}",
                where=f"hash slot {slot}, from {self.road.source.name}",
                next=hint,
            )

    async def _on_both_sides(self, slot: int, keys: Sequence[bytes]) -> None:
        """The owner's value stays; who that is, the source is asked again before anything goes."""
        source, target = self.road.source, self.road.target
        both = await doubles.present(target, keys)
        if not both:
            return
        view = await source.view()
        if any(slot in r for r in view.me.slots) != self.owner_is_source:
            raise EngineError(
                f"hash slot {slot} changed its owner meanwhile",
                where=source.name,
                next="run it again: it looks at who owns what, and goes on from there",
            )
        if not self.owner_is_source:
            await doubles.save(self.traffic, both, stays=target, goes=source)
            await doubles.drop(source, both)
            return
        await doubles.save(self.traffic, both, stays=source, goes=target)
        client = await self.fleet.another(source.node, timeout=PATIENCE)
        try:
            (answer,) = await client.pipeline([self.road.migrate(both, timeout=_TIMEOUT * 10, replace=True)])
        finally:
            client.close()
        await self._answered(slot, both, answer)


def by_slot(heavy: Sequence[Heavy]) -> dict[int, dict[bytes, Heavy]]:
    found: dict[int, dict[bytes, Heavy]] = {}
    for one in heavy:
        found.setdefault(key_slot(one.key), {})[one.key] = one
    return found
