"""What applications notice while their deployment changes: writes acknowledged, lost, failed, and the longest silence.

Hosts of the test lab (Debian 12) and redis-py on the lab's internet, with as many streams of numbered writes as
``--lanes``, over all hash slots. It has the retries that the library has by itself, or none with ``--no-retries``; a
failure is what it raised. After each change another client reads every acknowledged write. Needs root.

    python bench/change.py                           a Cluster of 3 shards with a replica each
    python bench/change.py --mode sentinel           a primary, two replicas, three Sentinels
    python bench/change.py --flavor valkey --only restart,switchover
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.lab.errors import LabUnavailable
from tests.lab.lab import Lab
from tests.lab.site import Site
from tests.writing import Writing, access_of, application, writing

from redkeep.run.load import connect

HOSTS = ("a11", "a12", "a13", "a14", "a15", "a16")
FIRST, REPLACED = HOSTS[:5], (*HOSTS[:4], HOSTS[5])
FILE = """mode: cluster
engine: {{flavor: {flavor}, source: {source}}}
clients: public
tls: false
failover: fast
shards: {shards}
replicas: {replicas}
accept_risk: true
"""

SENTINEL = """mode: sentinel
engine: {{flavor: {flavor}, source: {source}}}
clients: public
tls: false
failover: fast
replicas: {replicas}
accept_risk: true
"""

#: A change: what is done while the application writes.
Change = Callable[[], None]


def changes(site: Site, mode: str, flavor: str) -> dict[str, Change]:
    """In this order; until the upgrade, which is for good, each has the size that the first began with."""

    hosts = FIRST
    size: dict[str, Any] = {"shards": 3, "replicas": 1} if mode == "cluster" else {"replicas": 2}

    def resized(engine: tuple[str, str] = (flavor, "package"), **values: int) -> Change:
        text = FILE if mode == "cluster" else SENTINEL
        text = text.format(flavor=engine[0], source=engine[1], **values)

        def apply() -> None:
            site.write(text, only=hosts)
            found = site.apply()
            if not found["verified"]["ok"]:
                raise SystemExit(f"{found['verified']}")

        return apply

    def replaced() -> None:
        nonlocal hosts
        hosts = REPLACED
        resized(**size)()

    def command(*words: str) -> Change:
        return lambda: void(site.run(*words, "--yes").ok())

    def switchovers() -> None:
        for _ in range(20):
            shard = str(random.randrange(1, 4)) if mode == "cluster" else "1"
            site.run("switchover", shard, "--yes").ok()

    others = ["admin", "replication", "gate", *(["sentinel"] if mode == "sentinel" else [])]
    common: dict[str, Change] = {
        "restart": command("restart"),
        "rotate": command("rotate", *others),
        "rotate-finish": command("rotate", "--finish", *others),
        "rotate-app": command("rotate", "app"),
        "rotate-app-end": command("rotate", "--finish", "app"),
        "switchover": switchovers,
    }
    if flavor == "redis":
        common["upgrade"] = resized(("valkey", "bundled"), **size)
    if mode == "sentinel":
        return {
            "begin": resized(**size),
            "replica-more": resized(replicas=3),
            "replica-less": resized(**size),
            "host-replaced": replaced,
            **common,
        }
    return {
        "begin": resized(**size),
        "3-to-5-shards": resized(shards=5, replicas=1),
        "5-to-3-shards": resized(**size),
        "replica-more": resized(shards=3, replicas=2),
        "replica-less": resized(**size),
        "host-replaced": replaced,
        **common,
    }


def void(_: object) -> None:
    """For a change whose result is what the application notices."""


def measure(site: Site, title: str, change: Change, options: argparse.Namespace) -> bool:
    """Prints one line; true where nothing was lost."""
    client = connect if options.no_retries else application
    with writing(
        access_of(site.run), lanes=options.lanes, interval=options.interval, call=site.lab.call, client=client
    ) as load:
        begun = time.monotonic()
        change()
        seconds = time.monotonic() - begun
    lost = load.lost()
    rate = load.acknowledged / _span(load)
    errors = Counter(text for lane in load.lanes for _, text in lane.errors)
    print(
        f"{title:<14} {seconds:6.1f} s  {rate:7,.0f} writes/s  {load.acknowledged:9,} acknowledged  {lost} lost  "
        f"{errors.total()} failed  longest silence of a stream {load.longest_gap * 1000:5.0f} ms",
        flush=True,
    )
    for text, count in errors.most_common(5):
        print(f"{'':14} {count} x {text[:100]}", flush=True)
    return lost == 0


def _span(load: Writing) -> float:
    times = [t for lane in load.lanes for t in (lane.times[0], lane.times[-1])]
    return max(times) - min(times)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("cluster", "sentinel"), default="cluster")
    parser.add_argument("--flavor", choices=("redis", "valkey"), default="redis")
    parser.add_argument("--lanes", type=int, default=24, help="streams of writes")
    parser.add_argument(
        "--interval", type=float, default=0.002, help="seconds between two writes of a stream"
    )
    parser.add_argument("--no-retries", action="store_true", help="a client without retries of its own")
    parser.add_argument("--only", default="", help="these changes, by their names, separated by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Lab(HOSTS) as lab:
        site = Site.at(lab, Path(folder))
        every = changes(site, options.mode, options.flavor)
        every.pop("begin")()
        kept = [
            measure(site, title, change, options)
            for title, change in every.items()
            if not options.only or title in options.only.split(",")
        ]
    before = os.getloadavg()
    print(f"load of the machine in the last 15 minutes: {before[2]:.1f}, {os.cpu_count()} cores")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabUnavailable as reason:
        sys.exit(f"no lab here: {reason}")
