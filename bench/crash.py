"""How long writes stand still when a primary's process dies: the vote at once, a plain restart, the engine's timeout.

    python -m bench.crash                      Cluster and Sentinel, both engines
    python -m bench.crash --mode cluster --engine redis --crashes 9

One deployment on this machine with the engine's own patience (cluster-node-timeout 15 s, down-after-milliseconds 30 s). A
primary is killed with kill -9: with the crash hook at work; with neither hook nor gate, only a supervisor that restarts
it; and with nobody who restarts it, so that the others must notice. The window is the time from the kill to the first write
acknowledged again on that shard. Writers are redis-py without retries, a write each millisecond, which builds a whole client
anew after an error; with --lean a client that asks one node for the slots and connects once. The load average is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.switchover import ENGINES, Bench
from redis.exceptions import RedisError

from redkeep.model.slots import hash_tag
from redkeep.run.load import Load, audit, connect

MODES = {
    "cluster": "mode: cluster\nshards: 3\nreplicas: 1\nfailover: patient\n",
    "sentinel": "mode: sentinel\nreplicas: 2\nfailover: patient\ncrash_failover: true\n",
}
#: Milliseconds; with Sentinel for a client that asks the Sentinels anew, as redis-py does.
GOALS = {"cluster": 100, "sentinel": 1300}
CALM = 1.0


@dataclass(frozen=True)
class Crashed:
    """``window``: milliseconds from the kill to the first write that the client got acknowledged again; ``promoted``: to
    the first replica that says it is the primary, ``None`` where none did."""

    window: float
    promoted: float | None
    acknowledged: int
    lost: int


class Crash(Bench):
    """``bench.switchover`` knows how a deployment is made and reached."""

    @property
    def base(self) -> Path:
        home = Path("/var/lib/redkeep") if os.geteuid() == 0 else self.folder / ".local/share/redkeep"
        return home / self.name

    async def kill(self, shard: int, *, supervised: bool) -> Crashed:
        slots = [0, 8000, 16000] if self.mode == "cluster" else [None]
        shard %= len(slots)
        salt = f"{time.time_ns()}-"
        load = Load(self.writer(), {"lane": hash_tag(slots[shard], salt)})
        await load.start()
        await asyncio.sleep(CALM)
        lane = load.lanes[0]
        port = await self._owner(slots[shard])
        pid = (await self.admin(port).info("server"))["process_id"]
        if not supervised:
            os.kill(int((self.base / str(port) / "data/supervisor.pid").read_text()), signal.SIGKILL)
        others = [self.admin(p) for p in self.servers if p != port]
        roles = [(await other.role())[0] for other in others]
        replicas = [o for o, role in zip(others, roles, strict=True) if role == "slave"]
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        promotion = asyncio.create_task(_promoted(replicas))
        await asyncio.sleep(0.01)  # what was on its way to us is no write after the crash
        gone = time.monotonic()
        while not (lane.times and lane.times[-1] > gone):
            if time.monotonic() - at > 120:
                raise SystemExit("writes did not come back")
            await asyncio.sleep(0.05)
        await asyncio.sleep(CALM)
        await load.stop()
        window = lane.window(at) * 1000
        if promotion.done():
            promoted = (promotion.result() - at) * 1000
        else:
            promoted = None  # it came back itself
            promotion.cancel()
        if not supervised:
            await self.redkeep("apply", "--yes")
        reader = await connect(self.access)

        async def read(_: Any, keys: list[str]) -> list[Any]:
            deadline = time.monotonic() + 60
            while True:  # others may still call the Cluster down when the shard writes again
                try:
                    return list(await reader.mget(keys))
                except RedisError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.1)

        found = await audit(load.lanes, read)
        await reader.aclose()
        return Crashed(window, promoted, found.acknowledged, found.lost)

    async def _owner(self, slot: int | None) -> int:
        for port in self.servers:
            info = await self.admin(port).info("replication")
            if info["role"] != "master":
                continue
            if slot is None:
                return port
            nodes = str(await self.admin(port).execute_command("CLUSTER", "NODES"))
            mine = next(line.split()[8:] for line in nodes.splitlines() if "myself" in line)
            if any(int(r.split("-")[0]) <= slot <= int(r.split("-")[-1]) for r in mine):
                return port
        raise SystemExit("nobody is the primary")

    def without_hooks(self) -> None:
        """Until the next apply: a supervisor that restarts, and nothing else."""
        for name in ("gate", "crashed"):
            path = self.base / "bin" / name
            path.unlink()
            path.write_text("#!/bin/sh\nexit 0\n")
            path.chmod(0o755)


async def measure(mode: str, engine: str, crashes: int, port: int, lean: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="redkeep-bench-") as folder:
        bench = Crash(Path(folder), mode, engine, port, MODES[mode], lean=lean)
        show = partial(_show, mode, engine)
        try:
            await bench.prepare()
            (bench.base / "drill-until").write_text(f"{int(time.time()) + 7200}\n")
            # A primary votes once in two node timeouts for the same shard: the shards take turns.
            ours = []
            for number in range(crashes):
                await bench.settled()
                if mode == "sentinel" or (number and number % 3 == 0):
                    await asyncio.sleep(31)
                ours.append(await bench.kill(number, supervised=True))
            show("its host asks for the vote", ours)
            await asyncio.sleep(31)
            await bench.settled()
            bench.without_hooks()
            restarts = []
            for number in range(min(3, crashes)):
                restarts.append(await bench.kill(number, supervised=True))
                await bench.settled()
            await bench.redkeep("apply", "--yes")
            show("a plain restart", restarts)
            await bench.settled()
            show("the engine's timeout", [await bench.kill(0, supervised=False)])
        finally:
            await bench.redkeep("destroy", "--yes", "--delete-data")
        print(f"{'':17} goal {GOALS[mode]} ms", flush=True)


async def _promoted(replicas: list[Any]) -> float:
    """When one of them says that it is the primary; asked each five milliseconds."""
    while True:
        for replica in replicas:
            if (await replica.role())[0] == "master":
                return time.monotonic()
        await asyncio.sleep(0.005)


def _show(mode: str, engine: str, side: str, runs: list[Crashed]) -> None:
    windows = [r.window for r in runs]
    promoted = [r.promoted for r in runs if r.promoted is not None]
    new = f", a new primary after {statistics.median(promoted):.0f} ms" if promoted else ""
    print(
        f"{mode:10} {engine:6} {side:27} window {statistics.median(windows):7.0f} ms ({min(windows):.0f} to "
        f"{max(windows):.0f}, {len(windows)} crashes){new}, {sum(r.acknowledged for r in runs)} acknowledged, "
        f"{sum(r.lost for r in runs)} lost, load {os.getloadavg()[0]:.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crashes", type=int, default=6)
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--port", type=int, default=18_500)
    parser.add_argument("--lean", action="store_true", help="write with a lean client instead of redis-py")
    options = parser.parse_args()
    for mode in options.mode or MODES:
        for engine in options.engine or ENGINES:
            asyncio.run(measure(mode, engine, options.crashes, options.port, options.lean))
    sys.exit(0)


if __name__ == "__main__":
    main()
