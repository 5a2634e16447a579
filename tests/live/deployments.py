"""Small deployments of real servers on loopback, as somebody would make them by hand, for the doctor to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.live.servers import Binary, Server, running, until

#: Listens on loopback alone, and would on another address as well: as a server that is meant for others.
FOR_OTHERS = "bind 127.0.0.1 -203.0.113.99\nprotected-mode no\n"

#: A replica is sent its copy without waiting for others.
_AT_ONCE = "repl-diskless-sync-delay 0\n"


def linked(replica: Server, password: str | None = None) -> bool:
    return bool(replica.client(password=password).info("replication")["master_link_status"] == "up")


def has_replicas(primary: Server, count: int, password: str | None = None) -> bool:
    return bool(primary.client(password=password).info("replication")["connected_slaves"] == count)


def whole(node: Server) -> bool:
    return bool(node.client().cluster("INFO")["cluster_state"] == "ok")


@contextmanager
def replicated(
    binary: Binary,
    folder: Path,
    *,
    primary: str = "",
    replicas: tuple[str, ...] = ("",),
    password: str | None = None,
) -> Iterator[tuple[Server, ...]]:
    """A primary and its replicas, with the links up; each with its own lines of configuration."""
    with ExitStack() as stack:
        first = stack.enter_context(running(binary, folder / "primary", f"{_AT_ONCE}{primary}"))
        follow = f"replicaof 127.0.0.1 {first.port}\n"
        rest = [
            stack.enter_context(running(binary, folder / f"replica-{i}", follow + text))
            for i, text in enumerate(replicas)
        ]
        for server in rest:
            until(partial(linked, server, password), what="the link")
        until(partial(has_replicas, first, len(replicas), password), what="all replicas")
        yield first, *rest


@contextmanager
def clustered(binary: Binary, folder: Path, *, extra: str = "") -> Iterator[tuple[Server, Server]]:
    """A Cluster of two primaries that know each other."""
    with ExitStack() as stack:
        text = f"cluster-enabled yes\ncluster-node-timeout 3000\n{extra}"
        a, b = (stack.enter_context(running(binary, folder / name, text)) for name in "ab")
        for server, first, last in ((a, 0, 8191), (b, 8192, 16383)):
            server.client().execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
        a.client().execute_command("CLUSTER", "MEET", "127.0.0.1", b.port)
        for server in (a, b):
            until(partial(whole, server), seconds=30, what="the Cluster")
        yield a, b


@contextmanager
def watched(
    binary: Binary, folder: Path, primary: Server, *, name: str = "shop", extra: str = ""
) -> Iterator[Server]:
    text = (
        f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {name} 500\n{extra}"
    )
    with running(binary, folder, text, sentinel=True) as sentinel:
        yield sentinel
