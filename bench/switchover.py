"""How long writes stand still when a primary is changed on purpose, and what is lost: ours against the engine's own command.

    python bench/switchover.py                         three modes, both engines, 5 changes each
    python bench/switchover.py --changes 20 --mode sentinel --engine redis
    python bench/switchover.py --mtu 1500              as root: in a network namespace whose loopback has a network's MTU

The same writers, a deployment of its own on this machine, changes in turns: one by ``redkeep switchover``, one by the
naive command (Cluster: CLUSTER FAILOVER; plain replication: FAILOVER TO; Sentinel: SENTINEL FAILOVER). Writers are
redis-py without retries, or with --lean a client that asks one node and connects once; the window is the longest time
between two acknowledged writes of one of them. Every acknowledged write is read back by another client after each change.

``--mtu``: outgoing connections of the Cluster bus have Nagle's algorithm on. Over a loopback of 64 KiB packets the news of
the new primary waits for a delayed acknowledgement, 40 ms; over a network it fills a packet, which is acknowledged at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from redkeep.hosts.local import LocalHost
from redkeep.model.slots import hash_tag
from redkeep.run.follow import follow
from redkeep.run.load import Access, Connect, Lane, Load, audit, connect

ENGINES = {
    "redis": "engine: {flavor: redis, source: binary, path: /usr/bin/redis-server}\n",
    "valkey": "engine: {flavor: valkey, source: bundled}\n",
}
MODES = {
    "cluster": "mode: cluster\nshards: 3\nreplicas: 1\n",
    "sentinel": "mode: sentinel\nreplicas: 2\n",
    "standalone": "mode: standalone\nreplicas: 2\n",
}
GOALS = {"cluster": 50, "sentinel": 250, "standalone": 15}
#: Seconds of writing before and after a change.
CALM = 1.0
#: So many writers, each a write a millisecond at best.
WRITERS = 6


@dataclass
class Side:
    windows: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    acknowledged: int = 0
    lost: int = 0


class Bench:
    """A deployment in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        mode: str,
        engine: str,
        port: int,
        text: str = "",
        *,
        lean: bool = False,
        interval: float = 0.0,
    ) -> None:
        """``text``: the lines of the file that say what is deployed, where not those of ``MODES``."""
        self.folder, self.mode, self.name = folder, mode, f"bench-{port}"
        self.lean, self.interval = lean, interval
        (folder / "redkeep.yaml").write_text(
            f"name: {self.name}\nhosts: [local]\nport: {port}\nsentinel_port: {port + 8}\n"
            f"{text or f'failover: fast{chr(10)}{MODES[mode]}'}{ENGINES[engine]}"
        )

    async def redkeep(self, *arguments: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "redkeep",
            *arguments,
            "--json",
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode:
            raise SystemExit(f"redkeep {' '.join(arguments)}: {out.decode()} {err.decode()[-800:]}")
        return json.loads(out)

    async def prepare(self) -> None:
        await self.redkeep("apply", "--yes")
        app = await self.redkeep("url", "--reveal")
        admin = await self.redkeep("url", "--user", "admin", "--reveal")
        self.admin_password = admin["password"]
        nodes = (await self.redkeep("status"))["nodes"]
        ports = [(n["role"] == "sentinel", int(n["name"].partition(":")[2])) for n in nodes]
        self.servers = [p for sentinel, p in ports if not sentinel]
        self.sentinels = [p for sentinel, p in ports if sentinel]
        self.access = Access(
            self.mode,
            tuple(("127.0.0.1", p) for p in self.servers),
            tuple(("127.0.0.1", p) for p in self.sentinels),
            self.name,
            app["password"],
        )

    def writer(self) -> Connect:
        """redis-py builds a whole client anew after an error; the lean one asks one node and connects once."""
        if not self.lean:
            return lambda lane: connect(self.access)
        return partial(follow, access=self.access, vantage=LocalHost(), tls=None)

    def admin(self, port: int) -> Any:
        return Redis(port=port, username="redkeep", password=self.admin_password, decode_responses=True)

    async def primary(self) -> str:
        nodes = (await self.redkeep("status"))["nodes"]
        return str(min(n["name"] for n in nodes if n["role"] == "primary"))

    async def ours(self, primary: str) -> None:
        await self.redkeep("switchover", primary, "--yes")

    async def naive(self, primary: str) -> None:
        nodes = (await self.redkeep("status"))["nodes"]
        replica = next(n["name"] for n in nodes if n["primary"] == primary)
        old, new = (int(n.partition(":")[2]) for n in (primary, replica))
        if self.mode == "cluster":
            await self.admin(new).execute_command("CLUSTER", "FAILOVER")
        elif self.mode == "sentinel":
            await self.admin(self.sentinels[0]).execute_command("SENTINEL", "FAILOVER", self.name)
        else:
            await self.admin(old).execute_command("FAILOVER", "TO", "127.0.0.1", new)
        deadline = time.monotonic() + 60
        while (await self.admin(old).info("replication"))["role"] == "master":
            if time.monotonic() > deadline:
                raise SystemExit("the naive change did not come about")
            await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """All well, and nobody follows a replica; what the naive way leaves behind is put right by hand."""
        for _ in range(200):
            status = await self.redkeep("status")
            primaries = {n["name"] for n in status["nodes"] if n["role"] == "primary"}
            follows = {n["primary"] for n in status["nodes"] if n["role"] == "replica"}
            if status["state"] == "ok" and follows <= primaries:
                return
            if self.mode == "standalone" and len(primaries) == 1:
                for node in status["nodes"]:
                    if node["role"] == "replica" and node["primary"] not in primaries:
                        port = int(next(iter(primaries)).partition(":")[2])
                        await self.admin(int(node["name"].partition(":")[2])).replicaof("127.0.0.1", port)
            await asyncio.sleep(0.5)
        raise SystemExit("the deployment does not become well again")

    async def change(self, side: Side, *, ours: bool) -> None:
        await self.settled()
        primary = await self.primary()
        salt = f"{time.time_ns()}-"
        slots = [0, 8000, 16000] if self.mode == "cluster" else [None] * 3
        tags = {f"lane {i}": hash_tag(slots[i % 3], f"{salt}{i}-") for i in range(WRITERS)}
        load = Load(self.writer(), tags, interval=self.interval)
        await load.start()
        await asyncio.sleep(CALM)
        begun = time.monotonic()
        await (self.ours(primary) if ours else self.naive(primary))
        side.seconds.append(time.monotonic() - begun)
        await asyncio.sleep(CALM)
        await load.stop()
        side.windows.append(max(b - a for lane in load.lanes for a, b in pairwise(lane.times)) * 1000)
        span = max(lane.times[-1] for lane in load.lanes) - min(lane.times[0] for lane in load.lanes)
        side.rates.append(sum(len(lane.times) for lane in load.lanes) / span)
        if not ours:
            await asyncio.sleep(12 if self.mode == "sentinel" else 1)  # until the old primary gave in
        reader = await connect(self.access)

        async def read(lane: Lane, keys: list[str]) -> list[Any]:
            return list(await reader.mget(keys))

        found = await audit(load.lanes, read)
        await reader.aclose()
        side.acknowledged += found.acknowledged
        side.lost += found.lost


async def measure(mode: str, engine: str, options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="redkeep-bench-") as folder:
        bench = Bench(Path(folder), mode, engine, options.port, lean=options.lean, interval=options.interval)
        ours, naive = Side(), Side()
        try:
            await bench.prepare()
            for _ in range(options.changes):
                await bench.change(ours, ours=True)
                await bench.change(naive, ours=False)
        finally:
            await bench.redkeep("destroy", "--yes", "--delete-data")
    for name, side in (("redkeep switchover", ours), ("the engine's command", naive)):
        print(
            f"{mode:10} {engine:6} {name:20} window {statistics.median(side.windows):6.0f} ms "
            f"({min(side.windows):.0f} to {max(side.windows):.0f}), {statistics.median(side.rates):6.0f} writes/s, "
            f"{side.acknowledged} acknowledged, {side.lost} lost; {statistics.median(side.seconds):.1f} s in all",
            flush=True,
        )
    print(f"{'':17} goal {GOALS[mode]} ms, nothing lost", flush=True)
    return ours.lost == 0


def main() -> None:
    network = argparse.ArgumentParser(add_help=False)
    network.add_argument("--mtu", type=int, help="in bytes, of a loopback of its own")
    _, others = network.parse_known_args()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[network]
    )
    parser.add_argument("--changes", type=int, default=5, help="for each mode, engine and side")
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--port", type=int, default=18_400)
    parser.add_argument("--lean", action="store_true", help="write with a lean client instead of redis-py")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two writes of a writer")
    options = parser.parse_args()
    if options.mtu:
        begin = f'ip link set lo mtu {options.mtu} up && exec "$@"'
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", begin, "sh", sys.executable, __file__, *others])
    well = [
        asyncio.run(measure(mode, engine, options))
        for mode in options.mode or MODES
        for engine in options.engine or ENGINES
    ]
    sys.exit(0 if all(well) else 1)


if __name__ == "__main__":
    main()
