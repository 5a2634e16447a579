"""Breaks a deployment on purpose and measures what clients felt."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, RefusedError
from redkeep.model.drill import FAULTS, HELD, ClientFelt, Drill, Felt, Happened, Kind, Run, Target
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.planning.drills import drilling
from redkeep.planning.drills.drilling import check_kind
from redkeep.run import clientprograms, drillrecord, measure
from redkeep.run.clientride import Ride, Rider, remove_keys, ridden
from redkeep.run.deployment import Deployment, Sight, hosts_of
from redkeep.run.drillrecord import SLICE_MS
from redkeep.run.faulting import Prepared, drop_connections, prepare
from redkeep.run.load import Lane, Load, audit
from redkeep.run.lock import locked
from redkeep.run.opening import opened
from redkeep.run.watching import Log, watching
from redkeep.usecases import client as settings

if TYPE_CHECKING:
    from redkeep.model.spec import Spec

#: Seconds of calm load before the fault and after everything is well again.
CALM = 1.5
#: Seconds until the load's clients must have found their primaries.
START_LIMIT = 60.0
#: Seconds between a shard's reads of what was acknowledged last.
READ_INTERVAL = 0.02

__all__ = ["SLICE_MS", "Wanted", "check_kind", "drill", "history"]


@dataclass(frozen=True)
class Wanted:
    """``target``: node, host or shard; the first that fits without. ``rate``: writes a second to each shard.
    ``keep``: what was written stays, for whoever counts again, until it expires. ``groups``: of a partition.
    ``client``: the full name of a client library that rides through it too."""

    faults: tuple[Kind, ...]
    target: str | None = None
    runs: int = 1
    hold: float | None = None
    rate: int = 500
    keep: bool = False
    groups: str | None = None
    client: str | None = None


async def drill(
    spec: Spec, file: Path, wanted: Wanted, *, approve: Approve, emit: Emit, base: str | None = None
) -> Drill:
    """All runs, one after the other; each begins and ends with a deployment that is well.

    Raises ``RefusedError`` for a deployment that is not marked for drills, is not well, or would not come through.
    """
    drilling.check_allowed(spec, str(file))
    if wanted.groups:
        drilling.parse_groups(wanted.groups, [h.name for h in spec.hosts])
    async with (
        _rider(spec, file, wanted.client, emit) as rider,
        opened(spec, file, keep=False, base=base) as deployment,
    ):
        sight = await deployment.look()
        deployment.require_all(sight)
        targets = [_target(deployment, sight, kind, wanted) for kind in wanted.faults]
        for target in targets:  # what cannot be done later is not begun
            prepare(deployment, sight, target)
        await _consent(approve, spec, wanted, targets[0])
        runs: list[Run] = []
        began = datetime.now(UTC)
        try:
            async with locked(hosts_of(deployment), purpose="drill"), _crashes_allowed(deployment):
                await _runs(deployment, sight, wanted, emit, rider, runs)
        except BaseException:
            if runs:
                kept = _kept(deployment, sight, wanted, runs, began)
                emit(Note(f"cut short; what {len(runs)} of the runs measured is in {kept.report}"))
            raise
        return _kept(deployment, sight, wanted, runs, began)


async def _runs(
    deployment: Deployment, sight: Sight, wanted: Wanted, emit: Emit, rider: Rider | None, done: list[Run]
) -> None:
    """One after the other; each is added to ``done``."""
    for kind in wanted.faults * wanted.runs:
        if done:
            await _settled(deployment, sight)
            sight = await deployment.look()
        emit(Note(f"run {len(done) + 1} of {wanted.runs * len(wanted.faults)}: {kind}"))
        target = _target(deployment, sight, kind, wanted)
        done.append(await _run(deployment, sight, target, wanted, emit, rider))
        deployment.journal("drill").note(
            f"{kind} of {done[-1].subject}: {done[-1].window_ms:.0f} ms, {done[-1].lost} lost"
        )


def _kept(
    deployment: Deployment, sight: Sight, wanted: Wanted, runs: Sequence[Run], began: datetime
) -> Drill:
    found = Drill(
        name=deployment.spec.name,
        mode=deployment.spec.mode,
        engine=str(deployment.expected),
        began=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        fault=wanted.faults[0] if len(wanted.faults) == 1 else "sequence",
        settings=_settings(deployment, sight, wanted),
        runs=tuple(runs),
    )
    return drillrecord.keep(deployment.vault.folder, found, began)


@contextlib.asynccontextmanager
async def _crashes_allowed(deployment: Deployment) -> AsyncIterator[None]:
    """The crash hook answers one crash of a shard in ten minutes. Here several are wanted; at the latest in half an hour
    the limit holds again."""
    path = shlex.quote(deployment.layout.drill_until)
    hosts = [host for host, _ in hosts_of(deployment)]
    await asyncio.gather(*(h.run(f"echo $(( $(date +%s) + 1800 )) >{path}; chmod 644 {path}") for h in hosts))
    try:
        yield
    finally:
        await asyncio.shield(asyncio.gather(*(h.run(f"rm -f {path}") for h in hosts), return_exceptions=True))


def _target(deployment: Deployment, sight: Sight, kind: Kind, wanted: Wanted) -> Target:
    """Chosen anew for each run: a failover moves the primary, and ``--target shard 1`` means whoever leads it now."""
    if kind == "partition" and wanted.groups:
        groups = drilling.parse_groups(wanted.groups, [h.name for h in deployment.spec.hosts])
        target = drilling.part(groups, sight.desired, sight.observed, deployment.placement, hold=wanted.hold)
    else:
        target = drilling.choose(kind, sight.desired, sight.observed, wanted=wanted.target, hold=wanted.hold)
    drilling.check_survivable(target, sight.desired, sight.observed, deployment.placement)
    return target


async def _consent(approve: Approve, spec: Spec, wanted: Wanted, target: Target) -> None:
    what = ", ".join(dict.fromkeys(wanted.faults))
    times = f", {wanted.runs} times" if wanted.runs > 1 else ""
    question = f"break {spec.name} on purpose: {what} of {target.subject}{times}?"
    if not await approve(Approval("ordinary", question, FAULTS[wanted.faults[0]])):
        raise RefusedError("nothing was broken", next="redkeep drill asks again")


async def _settled(deployment: Deployment, sight: Sight) -> None:
    """A primary votes once in two node timeouts for the same lost primary, and Sentinels wait likewise (Redis and
    Valkey, cluster_legacy.c: clusterSendFailoverAuthIfNeeded): runs that follow faster would measure that wait."""
    await measure.until(lambda: measure.whole(deployment, sight), "the deployment is not whole")
    timing = deployment.spec.timing
    pause = 2 * timing.detection_ms if deployment.spec.mode == "cluster" else timing.failover_timeout_ms
    await asyncio.sleep(pause / 1000 + 1.0)


@contextlib.asynccontextmanager
async def _rider(spec: Spec, file: Path, client: str | None, emit: Emit) -> AsyncIterator[Rider | None]:
    """The user's client library as a program, with the settings that are printed for it; built before anything is
    touched."""
    if client is None:
        yield None
        return
    library = settings.known(client)
    program = clientprograms.of(library.full_name)
    printed = await settings.client(spec, file, library)
    with tempfile.TemporaryDirectory(prefix="redkeep-client-") as folder:
        emit(Note(f"building a program with {library.title}; the first time its registry is asked"))
        texts = {f.name: f.text for f in printed.files}
        command = await asyncio.to_thread(program.build, texts, Path(folder) / "program")
        yield Rider(program.version or library.proven, command)


async def _run(
    deployment: Deployment,
    sight: Sight,
    target: Target,
    wanted: Wanted,
    emit: Emit,
    rider: Rider | None = None,
) -> Run:
    """Load on, one fault, recovery awaited, everything read back."""
    fault = prepare(deployment, sight, target)
    shards = await measure.primaries(deployment, sight)
    connect, _ = measure.connector(deployment, sight, avoid=target.hosts)
    load = Load(
        connect,
        measure.tags(shards),
        interval=1 / wanted.rate,
        read_interval=READ_INTERVAL,
    )
    felt_by: ClientFelt | None = None
    async with (
        measure.swept(deployment, sight, load.lanes, keep=wanted.keep),
        watching(deployment, sight) as log,
        _riding(rider, deployment, sight, load) as ride,
    ):
        await load.start()
        try:
            await _flowing(load)
            await asyncio.sleep(CALM)
            emit(Note(f"{target.fault}: {target.subject}"))
            at, redundant = await _break(deployment, sight, target, fault, load, log)
            felt_by = await ride.felt(at, target) if ride else None
            await asyncio.sleep(CALM)
        finally:
            await load.stop()
    async with measure.owners(deployment, sight) as clients:
        felt = [await _felt(lane, at, clients) for lane in load.lanes]
        if not wanted.keep:
            await measure.remove(clients, load.lanes)
        if rider:
            await remove_keys(clients, load.lanes)
    return replace(_result(target, load.lanes, felt, log, at, redundant), client=felt_by)


@contextlib.asynccontextmanager
async def _riding(
    rider: Rider | None, deployment: Deployment, sight: Sight, load: Load
) -> AsyncIterator[Ride | None]:
    """The program at work on the same shards, before anything is broken."""
    if rider is None:
        yield None
        return
    with ridden(rider, measure.access(deployment, sight), load.lanes) as ride:
        await ride.flowing()
        yield ride


async def _flowing(load: Load) -> None:
    """Every shard's writes come through. Raises ``RedkeepError`` where they do not within a while."""
    deadline = time.monotonic() + START_LIMIT
    while waiting := [lane for lane in load.lanes if len(lane.acknowledged) < 10]:
        if time.monotonic() > deadline:
            lane = waiting[0]
            raise RedkeepError(
                f"writes to {lane.shard} are not acknowledged from here, so there is nothing to measure",
                where=lane.errors[-1][1] if lane.errors else "no answer",
                next="drill from where the announced addresses can be reached; nothing was broken",
            )
        await asyncio.sleep(0.05)


async def _break(
    deployment: Deployment, sight: Sight, target: Target, fault: Prepared, load: Load, log: Log
) -> tuple[float, float]:
    """When it was, and how many seconds later all was well. Whatever happens in between, the fault is undone."""
    hit = [lane for lane in load.lanes if lane.shard in {measure.shard_name(s) for s in target.shards}]
    at = time.monotonic()
    try:
        await fault.cause()
        log.add(target.subject, target.fault)
        await drop_connections(deployment, sight, target)
        if target.fault in ("full-disk", "slow-disk"):
            await _snapshot(deployment, sight, target)
        if target.fault in HELD:
            await asyncio.sleep(max(0.0, target.hold - (time.monotonic() - at)))
    finally:
        await asyncio.shield(fault.undo())
    if target.fault in HELD:
        log.add(target.subject, "undone")
        await drop_connections(deployment, sight, target)
    if target.fault == "full-disk":
        await _snapshot(deployment, sight, target)
    else:
        for lane in hit:
            await measure.until(partial(_through, lane, at), f"writes to {lane.shard} did not come back")
    await measure.until(lambda: measure.whole(deployment, sight), "the deployment is not whole again")
    return at, time.monotonic() - at


async def _through(lane: Lane, at: float) -> bool:
    """Writes come through again, or never stopped: a replica may take over between two of them."""
    now = time.monotonic()
    failed = [t for t, _ in lane.errors if t >= at]
    last = lane.times[-1] if lane.times else 0.0
    return last > (failed[-1] if failed else at) and now - last < 0.5 and now - at > 1.0


async def _snapshot(deployment: Deployment, sight: Sight, target: Target) -> None:
    """What a full disk does is felt at the next snapshot; and the next that succeeds ends it."""
    for name in target.nodes:
        node = sight.desired.node(name)
        if node.sentinel or not deployment.spec.rdb:
            continue
        try:
            await deployment.fleet.call(node, "BGSAVE")
        except RedkeepError as error:
            if "in progress" not in error.what:
                raise
    await asyncio.sleep(1.0)


async def _felt(lane: Lane, at: float, clients: dict[str, Any]) -> Felt:
    counted = await audit([lane], partial(measure.read, clients))
    return Felt(
        shard=lane.shard,
        window_ms=lane.window(at) * 1000,
        longest_gap_ms=lane.longest_gap(at) * 1000,
        acknowledged=counted.acknowledged,
        lost=counted.lost,
        errors=len(lane.errors),
        keys=lane.key(0)[:-1],
        sent=lane.sent,
        unacknowledged=tuple(sorted(set(range(lane.sent)) - set(lane.acknowledged))),
        series=_series(lane, at),
    )


def _series(lane: Lane, at: float) -> tuple[tuple[float, int, float, int], ...]:
    slices: dict[int, list[float]] = {}
    for when, latency in zip(lane.times, lane.latencies, strict=True):
        entry = slices.setdefault(int((when - at) * 1000 // SLICE_MS), [0, 0.0, 0])
        entry[0] += 1
        entry[1] = max(entry[1], latency * 1000)
    for when, _ in lane.errors:
        slices.setdefault(int((when - at) * 1000 // SLICE_MS), [0, 0.0, 0])[2] += 1
    return tuple(
        (float(n * SLICE_MS), int(a), round(worst, 2), int(e)) for n, (a, worst, e) in sorted(slices.items())
    )


def _result(
    target: Target, lanes: Sequence[Lane], felt: Sequence[Felt], log: Log, at: float, redundant: float
) -> Run:
    hit = {measure.shard_name(s) for s in target.shards}
    windows = [f.window_ms for f in felt if f.shard in hit] or [f.window_ms for f in felt]
    happened = tuple(Happened((when - at) * 1000, node, what) for when, node, what in log.seen)
    voted = [
        h.at_ms for h in happened if h.at_ms > 0 and h.what == "is primary" and h.node not in target.nodes
    ]
    return Run(
        fault=target.fault,
        subject=target.subject,
        felt=tuple(felt),
        window_ms=max(windows, default=0.0),
        voted_ms=min(voted) if voted else None,
        redundant_again_ms=redundant * 1000,
        stale_reads=sum(lane.stale for lane in lanes),
        reordered=sum(lane.reordered for lane in lanes),
        reads=sum(lane.reads for lane in lanes),
        happened=happened,
    )


def _settings(deployment: Deployment, sight: Sight, wanted: Wanted) -> dict[str, Any]:
    _, vantage = measure.connector(deployment, sight)
    return {
        "detection_ms": deployment.spec.timing.detection_ms,
        "rate": wanted.rate,
        "target": wanted.target,
        "hold_seconds": wanted.hold,
        "clients": vantage,
        "client": wanted.client,
    }


def history(spec: Spec, file: Path) -> list[dict[str, Any]]:
    """All drills on record, the oldest first."""
    from redkeep.run.vault import Vault

    return drillrecord.records(Vault(file, spec.name).folder)
