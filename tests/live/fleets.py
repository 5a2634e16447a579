"""Larger deployments of real servers on loopback for the doctor: a Cluster with a replica, and three Sentinels.

Where hosts and zones matter, ``placed`` says where each server is taken to be: the servers and what they say are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from redkeep.model.checkup import Checkup, HostView
from redkeep.model.finding import Finding
from redkeep.model.slots import even_shares
from redkeep.model.spec import load
from redkeep.model.topology import Address, Unreachable
from redkeep.planning.evidence.trust import Policy
from redkeep.planning.rules import judge
from redkeep.run.survey import explore
from redkeep.run.visits import Visitor
from tests.live.servers import Binary, Server, running, until


@dataclass(frozen=True)
class Fleet:
    """A Cluster: primaries, and the replica of the first of them."""

    primaries: tuple[Server, ...]
    replica: Server

    @property
    def all(self) -> tuple[Server, ...]:
        return (*self.primaries, self.replica)

    def tell(self, *words: Any) -> None:
        """All nodes."""
        for server in self.all:
            server.client().execute_command(*words)

    def settled(self) -> None:
        until(lambda: all(_settled(s, len(self.all)) for s in self.all), seconds=40, what="the Cluster")


def _settled(server: Server, nodes: int) -> bool:
    lines = cluster_nodes(server)
    marks = {mark for line in lines for mark in line[2].split(",")}
    return (
        str(server.client().cluster("INFO")["cluster_state"]) == "ok"
        and len(lines) == nodes
        and not marks & {"fail", "fail?", "handshake"}
    )


def cluster_nodes(server: Server) -> list[list[str]]:
    """The lines of CLUSTER NODES, as words."""
    return [line.split() for line in str(server.client().execute_command("CLUSTER", "NODES")).splitlines()]


def my_id(server: Server) -> str:
    return str(server.client().execute_command("CLUSTER", "MYID"))


@contextmanager
def fleet(binary: Binary, folder: Path, *, timeout: int = 1000) -> Iterator[Fleet]:
    """Three primaries, and one replica of the first."""
    text = f"cluster-enabled yes\ncluster-node-timeout {timeout}\nrepl-diskless-sync-delay 0\n"
    with ExitStack() as stack:
        nodes = [stack.enter_context(running(binary, folder / name, text)) for name in ("a", "b", "c", "r")]
        *primaries, replica = nodes
        for epoch, (server, share) in enumerate(zip(primaries, even_shares(3), strict=True), start=1):
            server.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", share.first, share.last)
        for one, other in permutations(nodes, 2):
            one.client().execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        until(lambda: my_id(primaries[0]) in str(replica.client().execute_command("CLUSTER", "NODES")))
        until(lambda: replica.client().execute_command("CLUSTER", "REPLICATE", my_id(primaries[0])))
        found = Fleet(tuple(primaries), replica)
        found.settled()
        until(lambda: replica.client().info("replication")["master_link_status"] == "up", what="the link")
        yield found


@contextmanager
def three_sentinels(
    binary: Binary, folder: Path, primary: Server, *, count: int = 3, down_after: int = 5000
) -> Iterator[tuple[Server, ...]]:
    """They watch it as ``shop``, and know each other."""
    text = (
        f"sentinel monitor shop 127.0.0.1 {primary.port} 2\n"
        f"sentinel down-after-milliseconds shop {down_after}\n"
    )
    with ExitStack() as stack:
        found = tuple(
            stack.enter_context(running(binary, folder / f"sentinel-{i}", text, sentinel=True))
            for i in range(count)
        )
        acquainted(found)
        yield found


def acquainted(sentinels: Sequence[Server]) -> None:
    """Each knows all others."""

    def known() -> bool:
        return all(len(s.client().sentinel_sentinels("shop")) == len(sentinels) - 1 for s in sentinels)

    until(known, seconds=30, what="all Sentinels")


def placed(targets: Sequence[Server], where: Mapping[int, tuple[str, str]]) -> list[Finding]:
    """What the doctor finds when the servers at these ports are on these hosts, in these zones."""
    checkup = _explored(targets)
    unseen = Unreachable("nobody looked")
    nodes = tuple(replace(n, host=where[n.address.port][0]) for n in checkup.nodes)
    hosts = {host: HostView(unseen, zone) for host, zone in where.values()}
    return list(judge(replace(checkup, nodes=nodes, hosts=hosts)).report.findings)


def of_a_file(targets: Sequence[Server]) -> list[Finding]:
    """What the doctor finds when a deployment file names these, and no others."""
    checkup = _explored(targets)
    ports = {t.port for t in targets}
    nodes = tuple(n for n in checkup.nodes if n.address.port in ports)
    spec = load("mode: cluster\nhosts: [local]\n")
    return list(judge(replace(checkup, nodes=nodes, spec=spec)).report.findings)


def _explored(targets: Sequence[Server]) -> Checkup:
    seeds = [Address("127.0.0.1", t.port) for t in targets]
    return asyncio.run(explore("test", seeds, Visitor(Policy(frozenset({"127.0.0.1"})))))
