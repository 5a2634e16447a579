"""How long a Cluster takes from started servers to true readiness: Redkeep's steps against ``redis-cli --cluster create``.

Both sides get servers of their own that were started the same way, with the engine's own defaults, and are judged by
the same eyes: every node says ok, every replica is linked, all views are identical, and a key of every shard is written
and read. Sides alternate, so that other load on the machine meets both alike.

    python bench/creation.py                       3+3 and 6+6, both sides
    python bench/creation.py --nodes 100           a large fleet, our side only
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from redkeep.errors import RedkeepError
from redkeep.model.events import Event, StageStarted
from redkeep.model.plan import Plan
from redkeep.model.slots import SLOTS, even_shares, key_slot
from redkeep.model.spec import load
from redkeep.model.topology import NodeView, Observed
from redkeep.planning.cluster import cluster
from redkeep.planning.desired import Desired
from redkeep.planning.hostfiles.acl import ADMIN
from redkeep.planning.settings import settings
from redkeep.run.converge import Look, Outcome, converge
from redkeep.run.deployment import Deployment
from redkeep.run.journal import Journal
from redkeep.run.opening import opened
from redkeep.run.steps import ACTIONS, Context
from redkeep.wire.client import Client, direct
from redkeep.wire.replies import cluster_view

#: shards (with one replica each) -> how many times faster than redis-cli we want to be.
GOALS = {3: 14.0, 6: 30.0}
#: A server accepts no writes in the first two seconds of its life: creation is timed after them, on both sides.
WARM_UP = 2.2
#: Seconds after which a side has failed.
LIMIT = 180.0

Create = Callable[[Deployment, Desired], Awaitable[None]]


@dataclass(frozen=True)
class Took:
    """Seconds until the side said that it was done, and until that was true."""

    said: float
    ready: float


# Servers --------------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> int:
    """The first of so many ports that are free together with their bus ports."""
    for _ in range(500):
        first = random.randrange(11_000, 22_000)
        if all(_is_free(p) and _is_free(p + 10_000) for p in range(first, first + count)):
            return first
    raise SystemExit("no free ports on this machine")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def servers(binary: str, folder: Path, desired: Desired, password: str) -> Iterator[None]:
    """Cluster nodes as a tutorial starts them, plus the user that Redkeep works with. The kernel ends them with us."""
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    running = []
    try:
        for node in desired.servers:
            home = folder / str(node.port)
            home.mkdir(parents=True)
            (home / "server.conf").write_text(
                f"port {node.port}\nbind 127.0.0.1\ndir {home}\nlogfile {home}/log\n"
                f"cluster-enabled yes\nuser {ADMIN} on >{password} ~* &* +@all\n"
            )
            running.append(
                subprocess.Popen([*guard, binary, str(home / "server.conf")], stdin=subprocess.DEVNULL)
            )
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


# The two sides --------------------------------------------------------------------------------------------------------


def ours(log: Callable[[Event], None]) -> Create:
    """The steps of ``apply`` that make a Cluster of running servers, in the same loop."""

    async def create(deployment: Deployment, desired: Desired) -> None:
        async def look(after: str) -> Look[Context]:
            observed = Observed({}, await deployment.fleet.views(desired.nodes))
            steps = list(cluster(desired, observed))
            known = {step.id for step in steps}
            steps += [s for s in settings(desired, observed) if s.id not in known and s.action == "set"]
            context = Context(deployment.fleet, desired, observed, _yes, log)
            return Look(Plan.of(steps), context)

        journal, outcome = Journal(None, "bench"), Outcome()
        await converge(await look(""), look, emit=log, journal=journal, outcome=outcome, actions=ACTIONS)

    return create


async def _yes(question: object) -> bool:
    return True


def redis_cli(binary: str) -> Create:
    async def create(deployment: Deployment, desired: Desired) -> None:
        ordered = sorted(desired.servers, key=lambda n: n.initial_role)  # primaries first
        addresses = [f"127.0.0.1:{n.port}" for n in ordered]
        process = await asyncio.create_subprocess_exec(
            binary,
            "--cluster",
            "create",
            *addresses,
            "--cluster-replicas",
            str(desired.spec.replicas),
            "--cluster-yes",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"redis-cli failed:\n{output.decode(errors='replace')[-2000:]}")

    return create


# The judge ------------------------------------------------------------------------------------------------------------


async def until_ready(deployment: Deployment, desired: Desired) -> None:
    """The same for both sides; asks every 20 ms."""
    deadline = time.monotonic() + LIMIT
    while (reason := await _not_ready(deployment, desired)) is not None:
        if time.monotonic() > deadline:
            raise SystemExit(f"not ready after {LIMIT:g} s: {reason}")
        await asyncio.sleep(0.02)


async def _not_ready(deployment: Deployment, desired: Desired) -> str | None:
    """Why the Cluster is not ready, or ``None``."""
    clients = await asyncio.gather(*(deployment.fleet.client(n) for n in desired.servers))
    asked = [("CLUSTER", "NODES"), ("CLUSTER", "INFO"), ("ROLE",)]
    answers = await asyncio.gather(*(c.pipeline(asked) for c in clients))
    maps = [cluster_view(nodes, info) for nodes, info, _ in answers]
    if not all(m.state_ok for m in maps):
        return f"{sum(not m.state_ok for m in maps)} nodes do not say ok"
    linked = sum(role[0] == b"slave" and role[3] == b"connected" for *_, role in answers)
    if linked != desired.spec.shards * desired.spec.replicas:
        return "not every replica is linked"
    if len({frozenset((n.id, n.primary_id, n.slots) for n in m.nodes) for m in maps}) != 1:
        return "views differ"
    if any(n.flags & {"fail", "fail?", "handshake"} or not n.link_up for m in maps for n in m.nodes):
        return "not all nodes are connected"
    primaries = [n for n in maps[0].nodes if n.slots]
    if sum(n.slot_count for n in primaries) != SLOTS or len(primaries) != desired.spec.shards:
        return "slots are missing"
    written = await asyncio.gather(*(_write(n.address.port, n.slots[0].first) for n in primaries))
    return None if all(written) else "a key could not be written and read"


async def _write(port: int, slot: int) -> bool:
    key = f"bench:{slot_tag(slot)}"
    try:
        async with await Client.open(direct("127.0.0.1", port), where=str(port)) as client:
            await client.call("SET", key, "value")
            return bool(await client.call("GET", key) == b"value")
    except RedkeepError:
        return False


_tags: dict[int, str] = {}


def slot_tag(slot: int) -> str:
    """A hash tag of this slot; found once, so that looking for it is not part of what is timed."""
    number = 0
    while slot not in _tags:
        tag = f"{{{number}}}"
        _tags.setdefault(key_slot(tag.encode()), tag)
        number += 1
    return _tags[slot]


# A run ----------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def fleet(
    source: str, shards: int, folder: Path, replicas: int = 1
) -> AsyncIterator[tuple[Deployment, Desired]]:
    """A deployment of this machine as ``apply`` opens it, and what it shall be."""
    flavor = "redis" if source == "package" else "valkey"
    file = folder / "redkeep.yaml"
    file.write_text(
        f"name: bench\nmode: cluster\nengine: {{flavor: {flavor}, source: {source}}}\nhosts: [local]\n"
        f"shards: {shards}\nreplicas: {replicas}\nport: {free_ports(shards * (1 + replicas))}\nfailover: patient\n"
    )
    spec = load(file.read_text(), str(file))
    async with opened(spec, file, keep=True, base=str(folder / "base")) as deployment:
        sight = await deployment.look()
        if not sight.installed:
            raise SystemExit("no server of this source here: apt-get install redis-server redis-tools")
        # The engine's own, and nothing else: these servers were not started by us.
        default = {
            "cluster-node-timeout": "15000",
            "repl-diskless-sync-delay": "5",
            "repl-diskless-load": "disabled",
        }
        nodes = tuple(
            replace(n, settings=default, wire=replace(n.wire, announce="127.0.0.1"))
            for n in sight.desired.nodes
        )
        yield deployment, replace(sight.desired, nodes=nodes)


async def once(source: str, shards: int, create: Create, replicas: int = 1) -> Took:
    with tempfile.TemporaryDirectory(prefix="redkeep-bench-") as name:
        folder = Path(name)
        async with fleet(source, shards, folder, replicas) as (deployment, desired):
            server = next(h.engine for h in desired.hosts.values())
            assert server is not None
            binary = desired.servers[0].command[0]
            with servers(binary, folder / "servers", desired, deployment.secrets.admin):
                await _answering(deployment, desired)
                for share in even_shares(shards):
                    slot_tag(share.first)
                await asyncio.sleep(WARM_UP)
                begun = time.monotonic()
                await create(deployment, desired)
                said = time.monotonic() - begun
                await until_ready(deployment, desired)
                return Took(said, time.monotonic() - begun)


async def _answering(deployment: Deployment, desired: Desired) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        views = await deployment.fleet.views(desired.nodes)
        if all(isinstance(v, NodeView) for v in views.values()):
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the servers do not start")


async def compare(source: str, shards: int, rounds: int, cli: str) -> float | None:
    """Prints one line a side; returns the ratio, or ``None`` where there is no redis-cli to compare with."""
    mine: list[Took] = []
    theirs: list[Took] = []
    for _ in range(rounds):
        if cli:
            theirs.append(await once(source, shards, redis_cli(cli)))
        mine.append(await once(source, shards, ours(lambda _: None)))
    title = f"{shards}+{shards}"
    median = statistics.median
    if theirs:
        print(
            f"{title:7} redis-cli  said done {median(t.said for t in theirs):6.2f} s   "
            f"ready {median(t.ready for t in theirs):6.2f} s"
        )
    print(
        f"{title:7} redkeep    said done {median(t.said for t in mine):6.2f} s   "
        f"ready {median(t.ready for t in mine):6.2f} s   best {min(t.ready for t in mine):.2f}, "
        f"worst {max(t.ready for t in mine):.2f}"
    )
    if not theirs:
        return None
    # Pairs ran one after the other: their ratio is less moved by other load than that of two medians.
    ratio = median(t.ready / m.ready for t, m in zip(theirs, mine, strict=True))
    print(f"{title:7} ratio {ratio:.1f}   (goal: at least {GOALS.get(shards, 0):g})", flush=True)
    return ratio


async def large(source: str, nodes: int, rounds: int) -> None:
    """A fleet of primaries with one replica each, our side alone; where its time goes, by stage."""
    for _ in range(rounds):
        stages: list[tuple[str, float]] = []

        def log(event: Event, stages: list[tuple[str, float]] = stages) -> None:
            if isinstance(event, StageStarted):
                stages.append((event.name, time.monotonic()))

        took = await once(source, nodes // 2, ours(log))
        ends = [at for _, at in stages[1:]] + [stages[0][1] + took.said]
        parts = "  ".join(f"{name} {end - at:.2f}" for (name, at), end in zip(stages, ends, strict=True))
        print(
            f"{nodes} nodes  said done {took.said:.2f} s   ready {took.ready:.2f} s   ({parts})", flush=True
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", choices=("package", "bundled"), help="whose servers (default: both)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--nodes", type=int, default=0, help="a fleet of so many bundled servers, our side only"
    )
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    if arguments.nodes:
        asyncio.run(large(arguments.source or "bundled", arguments.nodes, arguments.rounds))
        return 0
    cli = shutil.which("redis-cli") or ""
    if not cli:
        print("no redis-cli here, so nothing to compare with: apt-get install redis-tools")
    found = [arguments.source] if arguments.source else ["package", "bundled"]
    fine = True
    for source in found:
        if source == "package" and not shutil.which("redis-server"):
            print("package: no redis-server here: apt-get install redis-server")
            continue
        print(f"{source}:")
        for shards, goal in GOALS.items():
            ratio = asyncio.run(compare(source, shards, arguments.rounds, cli))
            fine = fine and (ratio is None or ratio >= goal)
    print(
        f"load of the machine: {load_before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores"
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
