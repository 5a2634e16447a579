"""How long 4,096 hash slots take to a fourth shard, and what a client feels: ``redkeep reshard`` against ``redis-cli``.

A deployment of four primaries on this machine is made by ``redkeep apply``; the fourth is empty. Both sides move the same
slots with the same keys, in turns, and they are moved back in between. A client of its own process reads and writes random
keys all the while (about a thousand commands a second, one at a time), follows MOVED and ASK, and notes every wait.

    python bench/reshard.py                          everything (ten minutes)
    python bench/reshard.py --only redis             Redis 7.0: redis-cli's default and pipeline 100, and ours
    python bench/reshard.py --only valkey            Valkey 9: redis-cli, valkey-cli's atomic option, ours in both ways
    python bench/reshard.py --only large             50,000 keys of 10 KB
    python bench/reshard.py --only huge              a hash of a million fields
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing as mp
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
from redis import Redis

from redkeep.model.slots import SLOTS, key_slot

ENGINES = {"package": "{flavor: redis, source: package}", "bundled": "{flavor: valkey, source: bundled}"}
MOVED_SLOTS = 4096
SOURCES = 3


@dataclass(frozen=True)
class Felt:
    """Milliseconds, of a client that asks one command after the other."""

    p99: float
    longest: float
    errors: int
    count: int


@dataclass(frozen=True)
class Took:
    """``seconds``: from the first change to the last; ``command``: the whole command, with Python's start."""

    seconds: float
    command: float
    felt: Felt
    detail: str = ""


# The client -----------------------------------------------------------------------------------------------------------


class Wire:
    """One blocking connection."""

    def __init__(self, port: int, password: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader()
        self.ask(("AUTH", password))

    def ask(self, *commands: tuple[Any, ...]) -> Any:
        self.socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        answer: Any = None
        for _ in commands:
            while (answer := self.reader.gets()) is False:
                data = self.socket.recv(1 << 16)
                if not data:
                    raise OSError("closed")
                self.reader.feed(data)
        return answer


def client(ports: Sequence[int], password: str, keys: Sequence[str], stop: Any, result: Any) -> None:
    """Random keys until told to stop; then what it felt."""
    wires = {port: Wire(port, password) for port in ports}
    owner: dict[int, int] = {}
    waits: list[float] = []
    errors = 0
    chooser = random.Random(1)
    while not stop.is_set():
        key = keys[chooser.randrange(len(keys))]
        command = ("SET", key, "x" * 100) if chooser.random() < 0.5 else ("GET", key)
        slot = key_slot(key.encode())
        began = time.perf_counter()
        port, asking = owner.get(slot, ports[0]), False
        for _ in range(2000):
            answer = wires[port].ask(("ASKING",), command) if asking else wires[port].ask(command)
            if not isinstance(answer, hiredis.ReplyError):
                break
            word, _, rest = str(answer).partition(" ")
            if word in ("MOVED", "ASK"):
                port, asking = int(rest.rpartition(":")[2]), word == "ASK"
                if not asking:
                    owner[slot] = port
            elif word in ("TRYAGAIN", "CLUSTERDOWN"):
                time.sleep(0.001)
            else:
                errors += 1
                break
        waits.append(time.perf_counter() - began)
        time.sleep(0.0008)
    waits.sort()
    result.send((waits[int(len(waits) * 0.99)] * 1000, waits[-1] * 1000, errors, len(waits)))


@contextlib.contextmanager
def felt(ports: Sequence[int], password: str, keys: Sequence[str]) -> Iterator[Callable[[], Felt]]:
    context = mp.get_context("spawn")
    stop, (mine, theirs) = context.Event(), context.Pipe()
    process = context.Process(target=client, args=(ports, password, keys, stop, theirs), daemon=True)
    process.start()
    found: list[Felt] = []

    def ended() -> Felt:
        stop.set()
        if not found:
            found.append(Felt(*mine.recv()))
            process.join(10)
        return found[0]

    try:
        time.sleep(1.5)
        yield ended
    finally:
        stop.set()
        process.join(10)
        process.kill()


# The deployment -------------------------------------------------------------------------------------------------------


class Deployment:
    """Four primaries without replicas; the fourth has no slots, and stays a primary."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.first = _free_ports(4)
        self.ports = [self.first + i for i in range(4)]
        engine = ENGINES.get(source, f"{{flavor: redis, source: binary, path: {source}}}")
        (folder / "redkeep.yaml").write_text(
            f"name: bench-{self.first}\nmode: cluster\nengine: {engine}\nhosts: [local]\n"
            f"port: {self.first}\nshards: 4\nreplicas: 0\npersistence: none\naccept_risk: true\nfailover: patient\n"
        )
        self.redkeep("apply", "--yes")
        self.password = str(self.redkeep("url", "--user", "admin", "--reveal")["password"])
        self.app = str(self.redkeep("url", "--reveal")["password"])
        self.admin(3).config_set("cluster-allow-replica-migration", "no")
        self.redkeep("reshard", "--empty", self.name(3), "--yes")

    def name(self, index: int) -> str:
        return f"local:{self.ports[index]}"

    def admin(self, index: int) -> Any:
        return Redis(port=self.ports[index], username="redkeep", password=self.password, socket_timeout=60)

    def redkeep(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "redkeep", *arguments, "--json"],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"redkeep {' '.join(arguments)}: {done.stdout}\n{done.stderr}")
        return dict(json.loads(done.stdout))

    def ids(self) -> list[str]:
        return [str(self.admin(i).execute_command("CLUSTER", "MYID").decode()) for i in range(4)]

    def owners(self) -> dict[int, int]:
        """Slot -> which of the four."""
        found: dict[int, int] = {}
        for index in range(4):
            text = Wire(self.ports[index], self.app).ask(("CLUSTER", "NODES")).decode()
            mine = next(line for line in text.splitlines() if "myself" in line)
            for part in mine.split()[8:]:
                first, _, last = part.partition("-")
                found.update(dict.fromkeys(range(int(first), int(last or first) + 1), index))
        return found

    def fill(self, count: int, size: int) -> list[str]:
        """So many strings; returns a thousand of their names."""
        owners = self.owners()
        wires = [Wire(port, self.app) for port in self.ports]
        value = b"v" * size
        batch = max(1, min(2000, 2_000_000 // size))
        pending: list[list[tuple[Any, ...]]] = [[] for _ in range(4)]
        for number in range(count):
            key = f"key:{number}"
            mine = pending[owners[key_slot(key.encode())]]
            mine.append(("SET", key, value))
            if len(mine) >= batch:
                wires[pending.index(mine)].ask(*mine)
                mine.clear()
        for wire, mine in zip(wires, pending, strict=True):
            if mine:
                wire.ask(*mine)
        return [f"key:{n}" for n in range(0, count, max(1, count // 1000))]

    def keys(self) -> int:
        return sum(int(self.admin(i).dbsize()) for i in range(4))

    def back(self) -> None:
        """The fourth is empty again."""
        self.redkeep("reshard", "--empty", self.name(3), "--yes", "--max-latency", "50ms")

    def destroy(self) -> None:
        self.redkeep("destroy", "--yes", "--delete-data")


def _free_ports(count: int) -> int:
    for _ in range(500):
        first = random.randrange(11_000, 21_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                for real in (port, port + 10_000):
                    found = stack.enter_context(socket.socket())
                    found.bind(("127.0.0.1", real))
            return first
    raise SystemExit("no free ports on this machine")


# The sides ------------------------------------------------------------------------------------------------------------

Side = Callable[[Deployment], tuple[float, float, str]]


def ours(*options: str) -> Side:
    def move(on: Deployment) -> tuple[float, float, str]:
        began = time.perf_counter()
        sources = ",".join(on.name(i) for i in range(SOURCES))
        found = on.redkeep(
            "reshard", "--from", sources, "--to", on.name(3), "--slots", str(MOVED_SLOTS), "--yes", *options
        )
        return found["seconds"], time.perf_counter() - began, f"{found['moved_keys']} keys, {found['method']}"

    return move


def theirs(cli: Sequence[str], *options: str) -> Side:
    def move(on: Deployment) -> tuple[float, float, str]:
        ids = on.ids()
        began = time.perf_counter()
        done = subprocess.run(
            [
                *cli, "--user", "redkeep", "--no-auth-warning", "--cluster", "reshard", f"127.0.0.1:{on.first}",
                "--cluster-from", ",".join(ids[:SOURCES]), "--cluster-to", ids[3],
                "--cluster-slots", str(MOVED_SLOTS), "--cluster-yes", *options,
            ],
            env={**os.environ, "REDISCLI_AUTH": on.password, "VALKEYCLI_AUTH": on.password},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        took = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{cli[0]} {' '.join(options)} failed:\n{done.stdout[-2000:]}")
        return took, took, ""

    return move


def measure(on: Deployment, side: Side, keys: Sequence[str]) -> Took:
    before = on.keys()
    with felt(on.ports, on.app, keys) as ended:
        seconds, command, detail = side(on)
        time.sleep(0.2)
        found = ended()
    after = on.keys()
    if after != before:
        raise SystemExit(f"{before} keys before, {after} after")
    return Took(seconds, command, found, detail)


def compare(
    on: Deployment, sides: dict[str, Side], keys: Sequence[str], rounds: int
) -> dict[str, list[Took]]:
    """In turns; one line each."""
    found: dict[str, list[Took]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            took = measure(on, side, keys)
            found[name].append(took)
            print(
                f"  {name:34} {took.seconds:7.2f} s (command {took.command:6.2f})   client p99 {took.felt.p99:6.1f} ms, "
                f"longest {took.felt.longest:7.1f} ms of {took.felt.count}   {took.detail}",
                flush=True,
            )
            on.back()
    return found


def ratio(found: dict[str, list[Took]], mine: str, other: str, goal: float) -> None:
    """Median of the ratios of neighbouring runs."""
    each = [t.seconds / m.seconds for m, t in zip(found[mine], found[other], strict=True)]
    whole = [t.seconds / m.command for m, t in zip(found[mine], found[other], strict=True)]
    print(
        f"  {mine} against {other}: {statistics.median(each):.1f} times as fast "
        f"(with Python's start {statistics.median(whole):.1f}; goal {goal:g})",
        flush=True,
    )


@contextlib.contextmanager
def deployed(source: str) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="redkeep-bench-") as name:
        on = Deployment(Path(name), source)
        try:
            yield on
        finally:
            on.destroy()


# The comparisons ------------------------------------------------------------------------------------------------------


def redis(rounds: int, keys: int) -> None:
    print(f"Redis 7.0, {MOVED_SLOTS} slots of {keys} keys of 100 B:")
    with deployed("package") as on:
        names = on.fill(keys, 100)
        sides = {
            "redkeep": ours(),
            "redis-cli": theirs(["redis-cli"]),
            "redis-cli --cluster-pipeline 100": theirs(["redis-cli"], "--cluster-pipeline", "100"),
        }
        found = compare(on, sides, names, rounds)
        ratio(found, "redkeep", "redis-cli", 8)
        ratio(found, "redkeep", "redis-cli --cluster-pipeline 100", 4)


def newest_redis(server: str, rounds: int, keys: int) -> None:
    print(f"{server}, {MOVED_SLOTS} slots of {keys} keys of 100 B:")
    with deployed(server) as on:
        names = on.fill(keys, 100)
        sides = {
            "redkeep": ours(),
            "redis-cli --cluster-pipeline 100": theirs(["redis-cli"], "--cluster-pipeline", "100"),
        }
        found = compare(on, sides, names, rounds)
        ratio(found, "redkeep", "redis-cli --cluster-pipeline 100", 25)


def valkey(rounds: int, keys: int) -> None:
    print(f"Valkey 9, {MOVED_SLOTS} slots of {keys} keys of 100 B:")
    with deployed("bundled") as on:
        names = on.fill(keys, 100)
        sides = {
            "redkeep": ours(),
            "redkeep --max-pause 15ms": ours("--max-pause", "15ms"),
            "redis-cli --cluster-pipeline 100": theirs(["redis-cli"], "--cluster-pipeline", "100"),
        }
        if atomic := valkey_cli():
            sides["valkey-cli, atomic"] = theirs(atomic, "--cluster-use-atomic-slot-migration")
        else:
            print("  no valkey-cli 9 here: python bench/reshard.py --valkey-cli PATH")
        found = compare(on, sides, names, rounds)
        ratio(found, "redkeep", "redis-cli --cluster-pipeline 100", 25)
        ratio(found, "redkeep --max-pause 15ms", "redis-cli --cluster-pipeline 100", 6)
        if atomic:
            ratio(found, "redkeep", "valkey-cli, atomic", 1.3)


def large(rounds: int) -> None:
    for source, title in (("package", "Redis 7.0"), ("bundled", "Valkey 9")):
        print(f"{title}, {MOVED_SLOTS} slots of 50000 keys of 10 KB:")
        with deployed(source) as on:
            names = on.fill(50_000, 10_000)
            found = compare(on, {"redkeep": ours(), "redis-cli": theirs(["redis-cli"])}, names, rounds)
            ratio(found, "redkeep", "redis-cli", 1)


def huge(rounds: int) -> None:
    for source, title in (("package", "Redis 7.0"), ("bundled", "Valkey 9")):
        print(f"{title}, a hash of 1000000 fields among {MOVED_SLOTS} slots:")
        with deployed(source) as on:
            names = on.fill(10_000, 100)
            huge_hash(on)
            sides = {"redkeep": ours(), "redis-cli": theirs(["redis-cli"], "--cluster-timeout", "120000")}
            if source == "bundled":
                sides["redkeep --max-pause 15ms"] = ours("--max-pause", "15ms")
            compare(on, sides, names, rounds)


def huge_hash(on: Deployment) -> None:
    """In the first shard's first and last slot, one each: redis-cli moves slots from one end, we from the other."""
    mine = [slot for slot, index in on.owners().items() if index == 0]
    wire = Wire(on.ports[0], on.app)
    for wanted in (min(mine), max(mine)):
        tag = next(str(i) for i in range(10 * SLOTS) if key_slot(str(i).encode()) == wanted)
        for start in range(0, 1_000_000, 1000):
            fields = [part for n in range(start, start + 1000) for part in (f"field:{n}", f"value:{n}")]
            wire.ask(("HSET", f"{{{tag}}}:huge", *fields))


_given: list[str] = []


def valkey_cli() -> list[str]:
    """Debian testing's, where the lab has it (its libraries with it), or whatever was named."""
    if _given:
        return _given
    if found := shutil.which("valkey-cli"):
        return [found]
    cache = Path(os.environ.get("REDKEEP_LAB_CACHE", Path.home() / ".cache/redkeep-lab"))
    for layer in sorted(cache.glob("layer-valkey-forky-*/usr/bin/valkey-cli")):
        for base in sorted(cache.glob("base-forky-*/usr/lib64/ld-linux-x86-64.so.2")):
            roots = [layer.parents[2], base.parents[2]]
            paths = ":".join(f"{r}/usr/lib/x86_64-linux-gnu" for r in roots)
            return [str(base), "--library-path", paths, str(layer)]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("redis", "valkey", "large", "huge"))
    parser.add_argument(
        "--redis", default="", metavar="SERVER", help="only this redis-server, of 8.4 or later"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument(
        "--valkey-cli", default="", help="a valkey-cli of version 9, to compare with its atomic option"
    )
    arguments = parser.parse_args()
    if arguments.valkey_cli:
        _given.append(arguments.valkey_cli)
    load = os.getloadavg()[0]
    has_redis = shutil.which("redis-server") and shutil.which("redis-cli")
    if not has_redis:
        print("no redis-server and redis-cli here: apt-get install redis-server redis-tools")
        return 1
    if arguments.redis:
        newest_redis(arguments.redis, arguments.rounds, arguments.keys)
        return 0
    if arguments.only in (None, "redis"):
        redis(arguments.rounds, arguments.keys)
    if arguments.only in (None, "valkey"):
        valkey(arguments.rounds, arguments.keys)
    if arguments.only in (None, "large"):
        large(arguments.rounds)
    if arguments.only in (None, "huge"):
        huge(arguments.rounds)
    print(f"load of the machine: {load:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
