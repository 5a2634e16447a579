"""Writers for each hash tag, and their counters (see README.md in the folder above)."""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
import time
from typing import Any

BUCKET, PAUSE = 0.01, 0.02
START = time.time()

_told: set[str] = set()
_lock = threading.Lock()
_counters: dict[str, tuple[dict[int, int], dict[int, int]]] = {}


def naive() -> Any:
    """As the library's own first pages show it."""
    from redis.cluster import ClusterNode, RedisCluster
    from redis.sentinel import Sentinel

    password = os.environ["REDIS_PASSWORD"]
    nodes = [(host, int(port)) for host, port in (n.split(":") for n in os.environ["LOAD_NODES"].split(","))]
    if os.environ["LOAD_MODE"] == "cluster":
        known = [ClusterNode(*node) for node in nodes]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=known, password=password)
    sentinel: Any = Sentinel(nodes, sentinel_kwargs={"password": password}, password=password)  # type: ignore[no-untyped-call]
    return sentinel.master_for(os.environ["LOAD_NAME"])


def say(line: str) -> None:
    with _lock:
        print(line, flush=True)


def write(client: Any, tag: str, key: str) -> None:
    number = 0
    while True:
        began = time.time()
        kind = 0
        try:
            client.set(key, number, ex=3600)
        except Exception as error:  # whatever a library raises is what an application sees
            kind = 1
            text = " ".join(f"{type(error).__name__}: {error}".split())
            shape = re.sub("[0-9]+", "N", text)
            if len(_told) < 20 and shape not in _told:
                _told.add(shape)
                say(f"E {tag} {text}")
        number += 1
        bucket = int((time.time() - START) / BUCKET)
        with _lock:
            counter = _counters[tag][kind]
            counter[bucket] = counter.get(bucket, 0) + 1
        time.sleep(max(0.001, PAUSE - (time.time() - began)))


def report() -> None:
    first = 0
    while True:
        time.sleep(0.25)
        last = int((time.time() - START) / BUCKET) - 1
        for tag, kinds in _counters.items():
            lists = (",".join(str(its.get(i, 0)) for i in range(first, last)) for its in kinds)
            say(f"B {int(START * 1000) + first * 10} {tag} {' '.join(lists)}")
        first = last


def main() -> None:
    client = naive() if sys.argv[1] == "naive" else importlib.import_module("redis_settings").connect()
    for tag in os.environ["LOAD_TAGS"].split(","):
        _counters[tag] = ({}, {})
        for worker in range(int(os.environ["LOAD_WORKERS"])):
            threading.Thread(
                target=write, args=(client, tag, f"redkeep:drill:{{{tag}}}:client-{worker}"), daemon=True
            ).start()
    threading.Thread(target=report, daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # a writer may hang in its library


if __name__ == "__main__":
    main()
