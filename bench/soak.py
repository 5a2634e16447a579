"""Whether a failover profile gives up primaries that are alive: false alarms under load, and how near they came.

    python -m bench.soak                              an hour of `failover: fast`
    python -m bench.soak --minutes 5 --profile 1500   milliseconds, as in the deployment file

A Cluster (three shards with a replica each) and a primary with two replicas and three Sentinels, both on this machine, and
for the whole time: a writer on each shard, a snapshot (fork) of some server every few seconds, large hashes that are
written and read as a whole and deleted, and a neighbour that takes a whole core every other half minute. Nothing is
broken, so every change of a primary is a false alarm. Watched twenty times a second: the age of the last answer that a
Cluster's node has had from another whose link is up (``pong-recv`` of CLUSTER NODES; a node is pinged at least once in half
a node timeout), and of the primary's last valid answer to a Sentinel (``last-ok-ping-reply``, asked every second or as often
as down-after-milliseconds, which counts from an unanswered question on: so this age may be a second more than it). Their
largest against the timeout says how much room there was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.creation import free_ports
from bench.switchover import Bench
from redis.exceptions import RedisError

from redkeep.model.slots import hash_tag
from redkeep.run.load import Load, connect
from redkeep.wire.replies import text

MODES = {"cluster": "mode: cluster\nshards: 3\nreplicas: 1\n", "sentinel": "mode: sentinel\nreplicas: 2\n"}
EVERY = 0.05
_BUSY = "import time\nend = time.time() + 30\nwhile time.time() < end: pass"


@dataclass
class Seen:
    """``gap``: milliseconds, the largest; ``alarms``: changes of primaries; ``suspicions``: looks at which somebody was
    suspected (PFAIL, or subjectively down)."""

    timeout: int = 0
    gap: int = 0
    alarms: int = 0
    suspicions: int = 0
    looks: int = 0
    late: float = 0.0
    lines: list[str] = field(default_factory=list)


async def watch_cluster(bench: Bench, seen: Seen, until: float) -> None:
    clients = {port: bench.admin(port) for port in bench.servers}
    seen.timeout = int(
        (await clients[bench.servers[0]].config_get("cluster-node-timeout"))["cluster-node-timeout"]
    )
    owners: dict[str, str] = {}
    while (begun := time.monotonic()) < until:
        for port, client in clients.items():
            now = time.time() * 1000
            nodes = await client.execute_command("CLUSTER", "NODES")  # two words: not parsed
            for line in nodes.splitlines():
                name, _, flags, _, _, pong, _, link, *slots = line.split()
                if "myself" not in flags and link == "connected":
                    seen.gap = max(seen.gap, int(now) - int(pong))
                seen.suspicions += "fail?" in flags
                if "myself" in flags and slots:
                    if owners.get(slots[0], name) != name:
                        seen.alarms += 1
                        seen.lines.append(f"{time.strftime('%H:%M:%S')} {port} took {slots[0]}")
                    owners[slots[0]] = name
        await _next(seen, begun)


async def watch_sentinels(bench: Bench, seen: Seen, until: float) -> None:
    clients = {port: bench.admin(port) for port in bench.sentinels}
    primary = ""
    while (begun := time.monotonic()) < until:
        for client in clients.values():
            told = await client.execute_command("SENTINEL", "MASTERS", NEVER_DECODE=True)
            found = {text(k): text(v) for k, v in told[0].items()}
            seen.timeout = int(found["down-after-milliseconds"])
            seen.gap = max(seen.gap, int(found["last-ok-ping-reply"]))
            seen.suspicions += "_down" in found["flags"]
            address = f"{found['ip']}:{found['port']}"
            if primary not in ("", address):
                seen.alarms += 1
                seen.lines.append(f"{time.strftime('%H:%M:%S')} {address} is the primary")
            primary = address
        await _next(seen, begun)


async def _next(seen: Seen, begun: float) -> None:
    seen.looks += 1
    seen.late = max(seen.late, time.monotonic() - begun)
    await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - begun)))


async def forks(bench: Bench, until: float) -> None:
    """A snapshot of one server after the other."""
    while time.monotonic() < until:
        with contextlib.suppress(RedisError):
            await bench.admin(random.choice(bench.servers)).bgsave()  # one that is under way already says so
        await asyncio.sleep(4)


async def large_keys(bench: Bench, until: float) -> None:
    """A hash of 50,000 fields: a few at a time, read as a whole, and deleted at once."""
    lane = Load(lambda _: connect(bench.access), {"large": hash_tag(7)}).lanes[0]
    client = await connect(bench.access)
    while time.monotonic() < until:
        with contextlib.suppress(RedisError, TimeoutError, OSError):
            for start in range(0, 50_000, 2_000):
                await client.hset(
                    f"large:{{{lane.tag}}}", mapping={f"f{n}": "v" * 50 for n in range(start, start + 2_000)}
                )
            await client.hgetall(f"large:{{{lane.tag}}}")
            await client.delete(f"large:{{{lane.tag}}}")
        await asyncio.sleep(2)
    await client.aclose()


async def neighbour(until: float) -> None:
    """Another program that wants a whole core, every other half minute."""
    while time.monotonic() < until:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _BUSY)
        await process.wait()
        await asyncio.sleep(30)


async def soak(bench: Bench, seen: Seen, minutes: float) -> None:
    await bench.prepare()
    for port in bench.servers:  # something for snapshots to write
        with contextlib.suppress(RedisError):
            await bench.admin(port).execute_command("DEBUG", "POPULATE", 50_000)
    until = time.monotonic() + minutes * 60
    tags = {f"shard {n}": hash_tag(n * 5462 + 9) for n in range(3)}
    load = Load(lambda _: connect(bench.access), tags, interval=0.005)
    await load.start()
    watch = watch_cluster if bench.mode == "cluster" else watch_sentinels
    await asyncio.gather(watch(bench, seen, until), forks(bench, until), large_keys(bench, until))
    await load.stop()
    errors = sum(len(lane.errors) for lane in load.lanes)
    written = sum(len(lane.acknowledged) for lane in load.lanes)
    print(
        f"{bench.mode:9} {minutes:g} min, timeout {seen.timeout} ms: {seen.alarms} false failovers, largest gap "
        f"{seen.gap} ms, suspected at {seen.suspicions} of {seen.looks} looks (the slowest took {seen.late * 1000:.0f} ms), "
        f"{written:,} writes, {errors} failed",
        flush=True,
    )
    for line in seen.lines:
        print(f"          {line}")


async def main_async(options: argparse.Namespace, folder: Path) -> int:
    found: dict[str, Seen] = {}
    benches = []
    for mode in options.mode.split(","):
        (folder / mode).mkdir()
        file = f"{MODES[mode]}failover: {options.profile}\naccept_risk: true\n"
        benches.append(Bench(folder / mode, mode, options.engine, free_ports(20), file))
        found[mode] = Seen()
    busy = asyncio.create_task(neighbour(time.monotonic() + options.minutes * 60))
    try:
        await asyncio.gather(*(soak(b, found[b.mode], options.minutes) for b in benches))
    finally:
        busy.cancel()
        for bench in benches:
            await bench.redkeep("destroy", "--yes", "--delete-data")
    print(f"load of the machine in the last 15 minutes: {os.getloadavg()[2]:.1f}, {os.cpu_count()} cores")
    return int(any(seen.alarms for seen in found.values()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--profile", default="fast", help="fast, balanced, patient, or milliseconds")
    parser.add_argument("--engine", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--mode", default="cluster,sentinel")
    with tempfile.TemporaryDirectory(prefix="redkeep-soak-") as name:
        return asyncio.run(main_async(parser.parse_args(), Path(name)))


if __name__ == "__main__":
    sys.exit(main())
