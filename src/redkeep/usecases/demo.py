"""A real deployment on this machine, a real primary killed, a real client watching; and nothing of it left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redkeep.errors import RedkeepError
from redkeep.hosts.local import LocalHost
from redkeep.model.events import Approval, Emit, Note
from redkeep.model.spec import Mode, load
from redkeep.model.topology import NodeView
from redkeep.planning.hostfiles.acl import APP
from redkeep.run import measure
from redkeep.run.deployment import Deployment, Sight
from redkeep.run.load import Audit, Lane, Load, audit
from redkeep.run.opening import opened
from redkeep.usecases.apply import apply

#: Seconds that the client writes before the fault, and after everything is well again.
CALM = 1.5
#: Seconds for its first acknowledged write.
FIRST_WRITE_LIMIT = 30.0


@dataclass(frozen=True)
class Outage:
    """What clients saw of one fault. Times in milliseconds."""

    killed: str
    shard: str
    window_ms: float
    redundant_again_ms: float
    audit: Audit
    errors: int
    #: writes acknowledged in each tenth of a second, by shard; and the tenth in which the fault was
    pulse: dict[str, list[int]]
    fault_at: int


@dataclass(frozen=True)
class Demo:
    mode: str
    engine: str
    ready_seconds: float
    nodes: tuple[str, ...]
    outage: Outage
    urls: tuple[str, ...]
    detection_ms: int

    def as_json(self) -> dict[str, Any]:
        seen = self.outage
        run = {
            "window_ms": round(seen.window_ms, 1),
            "acknowledged": seen.audit.acknowledged,
            "lost": seen.audit.lost,
            "stale_reads": 0,
            "errors": seen.errors,
            "redundant_again_ms": round(seen.redundant_again_ms, 1),
        }
        return {
            "mode": self.mode,
            "engine": self.engine,
            "ready_seconds": round(self.ready_seconds, 3),
            "nodes": list(self.nodes),
            "drill": {
                "fault": "primary-kill",
                "settings": {"killed": seen.killed, "shard": seen.shard, "detection_ms": self.detection_ms},
                "runs": [run],
                "median_window_ms": run["window_ms"],
                "report": None,
            },
        }


async def demo(
    mode: Mode, *, emit: Emit, show: Callable[[Demo], None], stay: Callable[[], Awaitable[None]]
) -> Demo:
    """Builds, breaks, measures, shows; ``stay`` returns when the deployment may go."""
    async with _playground() as folder:
        file, base = folder / "redkeep.yaml", str(folder / "servers")
        file.write_text(_text(mode), encoding="utf-8")
        spec = load(file.read_text(encoding="utf-8"), str(file))
        emit(Note(f"a {mode} deployment on this machine, ports from {spec.port}"))
        begun = time.monotonic()
        done = await apply(spec, file, approve=_yes, emit=emit, base=base)
        ready = time.monotonic() - begun
        if not done.ok:
            raise RedkeepError("the deployment did not become ready", where=base, next="run it again with -v")
        emit(Note(f"ready after {ready:.2f} s; now a client writes to every shard, and a primary is killed"))
        async with opened(spec, file, keep=False, base=base) as deployment:
            sight = await deployment.look(hosts=True)
            outage = await _break(deployment, sight, emit)
        password = deployment.secrets.app
        urls = tuple(f"redis://{APP}:{password}@{e.address}" for e in done.endpoints if e.kind == "server")
        names = tuple(n.name for n in sight.desired.nodes)
        found = Demo(mode, str(deployment.expected), ready, names, outage, urls, spec.timing.detection_ms)
        show(found)
        await stay()
        return found


async def _yes(approval: Approval) -> bool:
    return True


def _text(mode: Mode) -> str:
    """The deployment file of the demo. The append-only file keeps a lone server's writes over the kill."""
    persistence = "aof" if mode == "standalone" else "rdb"
    first = _free_ports()
    return (
        f"name: demo\nmode: {mode}\nhosts: [local]\nport: {first}\nsentinel_port: {first + 20}\n"
        f"failover: fast\npersistence: {persistence}\ndrills: allowed\n"
    )


def _free_ports() -> int:
    """The first of a block of ports of which servers, their buses and Sentinels can have what they need."""
    for _ in range(200):
        first = random.randrange(20_000, 32_000, 50)  # below the ports that outgoing connections take
        if all(_is_free(p) for p in [*range(first, first + 23), *range(first + 10_000, first + 10_006)]):
            return first
    raise RedkeepError(
        "no free ports on this machine", where="127.0.0.1", next="end what listens there, or try again"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextlib.asynccontextmanager
async def _playground() -> AsyncIterator[Path]:
    """A folder whose servers end and whose files go with it, even when this process is killed.

    A process of its own waits for the end of a pipe that only we hold open, and then cleans up.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="redkeep-demo-"))
    except OSError as error:
        raise RedkeepError(
            f"no folder for the demo: {error.strerror}",
            where=os.environ.get("TMPDIR", "/tmp"),
            next="set TMPDIR to a folder with room that you may write to",
        ) from None
    quoted = shlex.quote(str(folder))
    pids = f"{quoted}/servers/*/data/{{supervisor,server}}.pid"
    kill = f'for p in {pids}; do [ -f "$p" ] && kill -9 $(cat "$p") 2>/dev/null; done'
    cleaner = await LocalHost(sudo=False).session(
        f"trap '' HUP INT TERM; cat >/dev/null; kill_all() {{ bash -c {shlex.quote(kill)}; }}; "
        f"kill_all; sleep 0.2; kill_all; rm -rf {quoted}"
    )
    try:
        yield folder
    finally:
        await cleaner.close()
        shutil.rmtree(folder, ignore_errors=True)


async def _break(deployment: Deployment, sight: Sight, emit: Emit) -> Outage:
    """Load on, one primary killed, recovery awaited, everything read back."""
    found = await measure.primaries(deployment, sight)
    connect, _ = measure.connector(deployment, sight)
    load_ = Load(connect, measure.tags(found))
    await load_.start()
    await asyncio.sleep(CALM)
    await _writing(load_.lanes)
    shard, (victim, _) = min(found.items())
    view = await deployment.fleet.view(victim)
    assert isinstance(view, NodeView)
    emit(Note(f"kill -9 {victim.name} (primary of {shard}, process {view.info['process_id']})"))
    at = time.monotonic()
    os.kill(int(view.info["process_id"]), signal.SIGKILL)
    deployment.fleet.drop(victim)
    lane = next(lane for lane in load_.lanes if lane.shard == shard)
    await measure.until(lambda: measure.writes_again(lane, at), "writes did not come back")
    await measure.until(lambda: measure.whole(deployment, sight), "the deployment is not whole again")
    redundant = time.monotonic() - at
    await asyncio.sleep(CALM / 2)
    await load_.stop()
    async with measure.owners(deployment, sight) as clients:
        counted = await audit(load_.lanes, partial(measure.read, clients))
    begin = min(lane.times[0] for lane in load_.lanes)
    return Outage(
        killed=victim.name,
        shard=shard,
        window_ms=lane.window(at) * 1000,
        redundant_again_ms=redundant * 1000,
        audit=counted,
        errors=sum(len(lane.errors) for lane in load_.lanes),
        pulse={lane.shard: _pulse(lane, begin) for lane in load_.lanes},
        fault_at=int((at - begin) * 10),
    )


async def _writing(lanes: list[Lane]) -> None:
    """Nothing is broken before the client writes: what it cannot do already is no news afterwards."""
    deadline = time.monotonic() + FIRST_WRITE_LIMIT
    while lane := next((lane for lane in lanes if not lane.times), None):
        if time.monotonic() > deadline:
            raise RedkeepError(
                f"the client cannot write to {lane.shard}: {lane.errors[-1][1] if lane.errors else 'no answer'}",
                where="redis-py, on this machine",
                next="mend what it says; a missing module: install Redkeep anew for this Python",
            )
        await asyncio.sleep(0.05)


def _pulse(lane: Lane, begin: float) -> list[int]:
    counts = [0] * (int((lane.times[-1] - begin) * 10) + 1)
    for at in lane.times:
        counts[int((at - begin) * 10)] += 1
    return counts
