"""Moves hash slots between shards while applications go on; run again, it finishes what was interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import EngineError, NodeUnreachable, RefusedError, UsageError
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.model.plan import Plan
from redkeep.model.slots import SLOTS, in_ranges, ranges_text
from redkeep.model.topology import NodeView, Observed
from redkeep.planning import reshard as planning
from redkeep.planning.identity import check_identity
from redkeep.planning.reshard import By, Move, Shard, primary_of, towards, unsettled, views
from redkeep.planning.room import check_room, evictions, tight_for
from redkeep.run.converge import Look, Outcome, converge
from redkeep.run.deployment import Deployment, Sight, check_hosts, hosts_of
from redkeep.run.lock import locked
from redkeep.run.moving import goal as goals
from redkeep.run.moving.counting import counted, strays
from redkeep.run.moving.feel import Felt, felt
from redkeep.run.moving.staying import staying
from redkeep.run.moving.traffic import MAX_LATENCY, Traffic
from redkeep.run.opening import opened
from redkeep.run.sessions import key_question
from redkeep.run.steps import ACTIONS, Context
from redkeep.run.verify import Check, vantage, verify
from redkeep.usecases.apply import accepted

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import Desired
    from redkeep.run.moving.goal import Goal

#: Seconds that servers which are just starting or failing over are waited for, and that views may take to agree.
_WHOLE_LIMIT, _READY_LIMIT = 30.0, 60.0
#: Keys and bytes in a second, for an estimate before anything was measured here.
_KEYS_PER_SECOND = {"atomic": 300_000.0, "migrate": 80_000.0}
_BYTES_PER_SECOND = {"atomic": 100e6, "migrate": 50e6}


@dataclass(frozen=True)
class Request:
    """What somebody wants, by the names of nodes. Nothing at all means: finish what is open."""

    sources: tuple[str, ...] = ()
    target: str = ""
    slots: int | None = None
    rebalance: By | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    empty: str = ""
    abandon: bool = False

    def __str__(self) -> str:
        """As on the command line; the same words for the same wish."""
        if self.empty:
            return f"--empty {self.empty}"
        if self.rebalance:
            weights = "".join(f" --weight {n}={w:g}" for n, w in sorted(self.weights.items()))
            return f"--rebalance --by {self.rebalance}{weights}"
        if self.target:
            return f"--from {','.join(self.sources)} --to {self.target} --slots {self.slots}"
        return ""


@dataclass(frozen=True)
class Limits:
    """In seconds: see ``Traffic``. ``probe``: measure what clients feel, by writing as they do."""

    max_latency: float = MAX_LATENCY
    max_pause: float | None = None
    probe: bool = False


@dataclass(frozen=True)
class Leg:
    """One move as it is shown beforehand: keys counted, bytes in proportion to them."""

    move: Move
    keys: int
    size: float
    way: str

    @property
    def seconds(self) -> float:
        return max(self.keys / _KEYS_PER_SECOND[self.way], self.size / _BYTES_PER_SECOND[self.way])


@dataclass(frozen=True)
class Proposed:
    name: str
    request: str
    legs: tuple[Leg, ...]
    #: slots in the middle of a move, or with keys at a node that does not own them
    open: tuple[int, ...]
    going_on: bool


@dataclass(frozen=True)
class Resharded:
    """``longest_pause``: seconds, ``None`` where nobody measured it; the same for ``lost``."""

    traffic: Traffic
    seconds: float
    checks: tuple[Check, ...] = ()
    felt: Felt | None = None

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)

    @property
    def method(self) -> str | None:
        return "+".join(sorted(self.traffic.methods)) or None

    def as_json(self) -> dict[str, Any]:
        traffic, felt_ = self.traffic, self.felt
        return {
            "moved_slots": traffic.moved_slots,
            "moved_keys": traffic.moved_keys,
            "seconds": round(self.seconds, 3),
            "keys_per_second": round(traffic.moved_keys / self.seconds) if self.seconds else 0,
            "longest_pause_ms": round(felt_.longest * 1000, 1) if felt_ else None,
            "method": self.method,
            "settled_slots": traffic.settled,
            "acknowledged": felt_.acknowledged if felt_ else None,
            "lost": felt_.lost if felt_ else None,
            "both_sides": {"keys": traffic.doubles, "saved": str(traffic.saved) if traffic.saved else None},
            "verified": {"ok": self.ok, "checks": [c.as_json() for c in self.checks]},
        }


Show = Callable[[Proposed], None]


async def reshard(
    spec: Spec,
    file: Path,
    request: Request,
    limits: Limits,
    *,
    approve: Approve,
    emit: Emit,
    show: Show = lambda _: None,
) -> Resharded:
    """Raises ``UsageError`` for a wish that makes no sense here, ``RefusedError`` where another one is unfinished or it
    was not approved, ``LockedError``, and what looking and moving raise.
    """
    if spec.mode != "cluster":
        raise UsageError(
            "only a Cluster has hash slots", where=f"{file}: mode", next="redkeep status shows what runs"
        )
    async with opened(spec, file, keep=True, accept_key=key_question(approve)) as deployment:
        sight = await _whole(deployment, emit)
        known = goals.read(deployment.vault)
        goal, going_on = await _goal(deployment, sight, request, known)
        stray = await strays(deployment.fleet, sight.desired, sight.observed)
        plan = _plan(sight, goal, stray)
        if not plan:
            async with locked(hosts_of(deployment), purpose="reshard"):
                _unchanged(deployment, known)
                goals.forget(deployment.vault)
            return Resharded(Traffic(), 0.0)
        proposed = await _proposed(deployment, sight, goal, stray, limits, going_on=going_on)
        show(proposed)
        await _fitting(proposed, sight, spec, approve)
        if not await approve(Approval("ordinary", "move them?" if goal.slots else "put them right?")):
            raise RefusedError(
                "nothing was moved: it was not approved", next="redkeep status shows who has which slots"
            )
        async with locked(hosts_of(deployment), purpose="reshard"):
            _unchanged(deployment, known)
            if goal.slots and not going_on:
                goals.write(deployment.vault, goal)
            found = await _carry_out(deployment, goal, stray, limits, approve, emit)
            goals.forget(deployment.vault)
            return found


async def _carry_out(
    deployment: Deployment, goal: Goal, stray: Sequence[int], limits: Limits, approve: Approve, emit: Emit
) -> Resharded:
    """The loop, under the lock. What was stray before is looked at once more, and no longer afterwards."""
    traffic = Traffic(limits.max_latency, limits.max_pause, deployment.vault.folder)
    sight: Sight

    async def look(after: str) -> Look[Context]:
        nonlocal sight
        sight = await deployment.look(hosts=after == "", engine=False)
        deployment.require_all(sight)
        plan = _plan(sight, goal, () if after else stray)
        context = Context(deployment.fleet, sight.desired, sight.observed, approve, emit, {}, traffic)
        return Look(plan, context)

    first = await look("")
    begun = time.monotonic()
    async with staying(deployment, sight, planning.emptied(_shards(sight), _left(sight, goal))):
        async with _probing(deployment, sight, first.plan, wanted=limits.probe) as measured:
            journal = deployment.journal("reshard")
            try:
                await converge(first, look, emit=emit, journal=journal, outcome=Outcome(), actions=ACTIONS)
            except NodeUnreachable as error:
                error.next = (
                    "once it is back, or a replica has taken over, redkeep reshard goes on where it stopped"
                )
                raise
            seconds = time.monotonic() - begun
        checks = await verify(deployment, sight, seconds=_READY_LIMIT)
    return Resharded(traffic, seconds, tuple(checks), measured)


def _plan(sight: Sight, goal: Goal, stray: Sequence[int]) -> Plan:
    """First what is open, then what is left of the goal."""
    steps = [
        *planning.settling(sight.desired, sight.observed, also=stray),
        *planning.moving(sight.desired, _left(sight, goal), why=f"redkeep reshard {goal.request}"),
    ]
    return Plan.of(steps)


def _left(sight: Sight, goal: Goal) -> tuple[Move, ...]:
    """What is left of the goal."""
    wanted = {_shard(name, sight): in_ranges(ranges) for name, ranges in goal.slots.items()}
    return towards(_shards(sight), wanted)


# What is wanted -------------------------------------------------------------------------------------------------------


async def _goal(
    deployment: Deployment, sight: Sight, request: Request, unfinished: Goal | None
) -> tuple[Goal, bool]:
    """The absolute form of the request, and whether it was decided on before."""
    if request.abandon:
        return goals.Goal("--abandon", {}), False
    if unfinished is not None:
        _still_there(sight, unfinished)
    if unfinished is not None and (str(request) in ("", unfinished.request) or _plan(sight, unfinished, ())):
        if str(request) not in ("", unfinished.request):
            raise RefusedError(
                "another reshard is unfinished, and this is a different one",
                where=f"since {unfinished.at}: redkeep reshard {unfinished.request}",
                next="redkeep reshard goes on with it; --abandon leaves the slots where they are now and forgets it",
            )
        return unfinished, True
    if not str(request):
        return goals.Goal("", {}), False
    moves = _moves(await counted(deployment.fleet, sight.desired, _shards(sight)), sight, request)
    return goals.Goal(str(request), planning.goals(moves)), False


def _still_there(sight: Sight, unfinished: Goal) -> None:
    """Raises ``RefusedError`` where a shard that was to get slots is gone: nobody can say where they shall go instead."""
    gone = unfinished.slots.keys() - {n.name for n in sight.desired.servers}
    if gone:
        raise RefusedError(
            f"an unfinished reshard was to bring slots to {', '.join(sorted(gone))}, not in this deployment any more",
            where=f"since {unfinished.at}: redkeep reshard {unfinished.request}",
            next="redkeep reshard --abandon forgets it and puts open slots right; then say what you want",
        )


def _unchanged(deployment: Deployment, known: Goal | None) -> None:
    """Nobody decided on another one until we had the lock."""
    if goals.read(deployment.vault) != known:
        raise RefusedError(
            "another reshard began or ended meanwhile",
            where=str(deployment.vault.folder),
            next="run it again: it looks at what there is now",
        )


def _shards(sight: Sight) -> tuple[Shard, ...]:
    return planning.shards(sight.desired, sight.observed)


def _moves(found: Sequence[Shard], sight: Sight, request: Request) -> tuple[Move, ...]:
    try:
        if request.empty:
            return planning.empty(found, _shard(request.empty, sight))
        if request.rebalance:
            weights = {_shard(name, sight): weight for name, weight in request.weights.items()}
            return planning.rebalance(found, by=request.rebalance, weights=weights)
        sources = [_shard(name, sight) for name in request.sources]
        return planning.take(found, sources, _shard(request.target, sight), request.slots or 0)
    except ValueError as error:
        raise UsageError(
            str(error), where=f"redkeep reshard {request}", next="redkeep status shows them"
        ) from None


def _shard(name: str, sight: Sight) -> str:
    """The primary of a node's shard, now."""
    names = [n.name for n in sight.desired.servers]
    if name not in names:
        raise UsageError(f"no such node: {name}", where="redkeep reshard", next=f"one of {', '.join(names)}")
    found = primary_of(name, sight.desired, sight.observed)
    if found is None:
        raise EngineError(
            f"it cannot be told which shard {name} belongs to",
            where=name,
            next="redkeep status; is it running?",
        )
    return found.name


async def _proposed(
    deployment: Deployment, sight: Sight, goal: Goal, stray: Sequence[int], limits: Limits, *, going_on: bool
) -> Proposed:
    found = {s.name: s for s in await counted(deployment.fleet, sight.desired, _shards(sight))}
    wanted = {_shard(name, sight): in_ranges(ranges) for name, ranges in goal.slots.items()}
    legs = []
    for move in towards(list(found.values()), wanted):
        shard = found[move.source]
        keys = int(sum(shard.sizes.get(slot, 0) for slot in in_ranges(move.slots)))
        size = shard.memory * keys / max(shard.keys, 1)
        way = planning.way(sight.observed, move.source, move.target, limits.max_pause)
        legs.append(Leg(move, keys, size, way))
    open_ = {*unsettled(views(sight.desired, sight.observed)), *stray}
    return Proposed(deployment.spec.name, goal.request, tuple(legs), tuple(sorted(open_)), going_on)


async def _fitting(proposed: Proposed, sight: Sight, spec: Spec, approve: Approve) -> None:
    """Raises ``RefusedError`` where the targets have no room, or would make some by eviction that nobody accepts."""
    found = tight_for(
        sight.desired, sight.observed, ((leg.move, leg.keys, leg.size) for leg in proposed.legs)
    )
    where = f"redkeep reshard {proposed.request}"
    check_room(found, where=where, instead="another target, or fewer slots (--abandon forgets this wish)")
    if reason := evictions(found):
        await accepted(approve, "risk", reason, spec)


# What must hold before ------------------------------------------------------------------------------------------------


async def _whole(deployment: Deployment, emit: Emit) -> Sight:
    """The first look; servers that are just starting or failing over are given time."""
    sight = await deployment.look()
    deployment.require_all(sight)
    check_hosts(sight)
    check_identity(sight.desired, sight.observed, sight.identity)
    deadline, told = asyncio.get_running_loop().time() + _WHOLE_LIMIT, False
    while problem := _problem(sight.desired, sight.observed):
        if asyncio.get_running_loop().time() > deadline:
            raise EngineError(
                problem[0],
                where=problem[1],
                next="redkeep check tells what to do about it; where nothing runs yet, redkeep apply",
            )
        if not told:
            emit(Note(f"waiting: {problem[0]} ({problem[1]})"))
            told = True
        await asyncio.sleep(0.3)
        sight = await deployment.look(hosts=False)
    silent = [n for n, v in sight.observed.nodes.items() if not isinstance(v, NodeView)]
    if silent:
        emit(Note(f"warning  {', '.join(silent)}: no answer; it learns of the new owners when it is back"))
    return sight


def _problem(desired: Desired, observed: Observed) -> tuple[str, str] | None:
    """Why no slot can be moved now: what, and where."""
    seen = views(desired, observed)
    silent = ", ".join(n for n, v in observed.nodes.items() if not isinstance(v, NodeView))
    if not seen:
        return "no server answers", silent
    down = [n for n, v in seen.items() if not v.state_ok]
    served = {slot for v in seen.values() if v.me.is_primary for slot in in_ranges(v.me.slots)}
    missing = set(range(SLOTS)) - served - set(unsettled(seen))
    if missing and not silent:
        return f"{len(missing)} hash slots are nobody's", ranges_text(missing)[:80]
    if missing:
        return f"{len(missing)} hash slots have no owner that answers", silent
    return ("not every server says that the cluster is well", ", ".join(down)) if down else None


# What clients feel ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _probing(
    deployment: Deployment, sight: Sight, plan: Plan, *, wanted: bool
) -> AsyncIterator[Felt | None]:
    if not wanted:
        yield None
        return
    slots = planning.probed(sight.desired, _shards(sight), plan)
    async with felt(deployment, vantage(deployment)[0], slots.items()) as found:
        await asyncio.sleep(0.2)
        yield found
        await asyncio.sleep(0.2)
