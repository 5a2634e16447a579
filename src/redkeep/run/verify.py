"""Ready means ready: every node well, views identical, replicas linked, and a key of every shard written and read
through the addresses that clients are given, from where clients are."""

from __future__ import annotations

import asyncio
import secrets as random
import ssl
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, ReplyError
from redkeep.hosts.local import LocalHost
from redkeep.model.slots import SLOTS, SlotRange, key_slot
from redkeep.model.topology import NodeView, Unreachable
from redkeep.planning.hostfiles.acl import APP
from redkeep.wire.client import Client, Login

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.planning.desired import Desired, DesiredNode
    from redkeep.run.deployment import Deployment, Sight

#: Keys that Redkeep writes to prove that one can; they expire by themselves.
PREFIX = "redkeep:verify"
EXPIRY = 60


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


async def verify(deployment: Deployment, sight: Sight, *, seconds: float) -> list[Check]:
    """Repeats the checks until all hold, or until so many seconds are over; then what failed says why."""
    deadline = asyncio.get_running_loop().time() + seconds
    desired = sight.desired
    views: Mapping[str, NodeView | Unreachable] = sight.observed.nodes
    while True:
        checks = list(_states(desired, views))
        if all(c.ok for c in checks):
            checks += await _writes(deployment, desired, views)
        if all(c.ok for c in checks) or asyncio.get_running_loop().time() > deadline:
            return checks
        await asyncio.sleep(0.05)
        views = await deployment.fleet.views(desired.nodes)


def _states(desired: Desired, views: Mapping[str, NodeView | Unreachable]) -> Iterator[Check]:
    silent = [f"{n}: {v.reason}" for n, v in views.items() if isinstance(v, Unreachable)]
    yield Check("every node answers", not silent, "; ".join(silent[:5]))
    known = {n: v for n, v in views.items() if isinstance(v, NodeView)}
    broken = [n for n, v in known.items() if v.role == "replica" and not v.link_up]
    yield Check("every replica is linked", not broken, ", ".join(broken[:5]))
    if desired.spec.mode == "cluster":
        yield from _cluster(known)
    else:
        primaries = [n for n, v in known.items() if v.role == "primary"]
        yield Check("there is one primary", len(primaries) == 1, ", ".join(primaries))
    if desired.sentinels:
        yield from _sentinels(desired, known)


def _cluster(known: dict[str, NodeView]) -> Iterator[Check]:
    views = {n: v.cluster for n, v in known.items() if v.cluster}
    down = [n for n, v in views.items() if not v.state_ok]
    yield Check("every node says that the cluster is well", not down, ", ".join(down[:5]))
    maps = {
        n: tuple(sorted((r.first, r.last, m.id) for m in v.nodes for r in m.slots)) for n, v in views.items()
    }
    covered = all(sum(last - first + 1 for first, last, _ in m) == SLOTS for m in maps.values())
    yield Check("all 16384 hash slots are served", covered)
    yield Check("all nodes agree on who serves which slots", len(set(maps.values())) == 1)
    strained = {
        n
        for n, v in views.items()
        for m in v.nodes
        if m.id != v.my_id and (not m.link_up or m.flags & {"fail", "fail?", "handshake"})
    }
    yield Check("every node is connected with every other", not strained, ", ".join(sorted(strained)[:5]))


def _sentinels(desired: Desired, known: dict[str, NodeView]) -> Iterator[Check]:
    name = desired.spec.name
    entries = {
        n.name: e
        for n in desired.sentinels
        if n.name in known
        for e in known[n.name].monitored
        if e.name == name
    }
    yield Check("every Sentinel watches the primary", len(entries) == len(desired.sentinels))
    yield Check("the Sentinels agree on the primary", len({e.address for e in entries.values()}) == 1)
    others, replicas = len(desired.sentinels) - 1, len(desired.servers) - 1
    yield Check("every Sentinel knows the others", all(len(e.sentinels) >= others for e in entries.values()))
    yield Check(
        "every Sentinel knows all replicas", all(len(e.replicas) >= replicas for e in entries.values())
    )


async def _writes(
    deployment: Deployment, desired: Desired, views: Mapping[str, NodeView | Unreachable]
) -> list[Check]:
    """A key of every shard, through the announced address of its primary, as the application's user."""
    eyes, place = vantage(deployment)
    login = Login(APP, deployment.secrets.app or "")
    tasks = []
    for node in desired.servers:
        view = views[node.name]
        if not isinstance(view, NodeView) or view.role != "primary":
            continue
        slots = view.cluster.me.slots if view.cluster else None
        if slots == ():
            continue
        tasks.append(_write(eyes, place, node, slots or (), login, _client_tls(deployment, node)))
    limited = asyncio.Semaphore(32)
    return list(await asyncio.gather(*(_within(limited, t) for t in tasks)))


async def _within(room: asyncio.Semaphore, task: Awaitable[Check]) -> Check:
    async with room:
        return await task


def vantage(deployment: Deployment) -> tuple[Host, str]:
    """Where clients are: outside means here; inside means one of the hosts."""
    if deployment.spec.clients == "public" or deployment.spec.is_local:
        return LocalHost(), "here"
    name = deployment.placement.servers[-1].host
    return deployment.fleet.hosts[name], name


def _client_tls(deployment: Deployment, node: DesiredNode) -> ssl.SSLContext | None:
    """Trusts the deployment's CA, as a client with its CA file would; the names were checked when they were issued."""
    return deployment.fleet.tls if node.wire.tls else None


async def _write(
    vantage: Host,
    place: str,
    node: DesiredNode,
    slots: Sequence[SlotRange],
    login: Login,
    tls: ssl.SSLContext | None,
) -> Check:
    address = node.wire.client_announce or node.wire.announce
    title = f"written and read at {address}:{node.port} from {place}"
    key = _key_in(slots)
    value = random.token_hex(8)

    def opener() -> Awaitable[tuple[Any, Any]]:
        return vantage.connect(address, node.port, timeout=5.0)

    try:
        async with await Client.open(opener, where=f"{address}:{node.port}", login=login, tls=tls) as client:
            said, found, _ = await client.pipeline(
                [("SET", key, value, "EX", EXPIRY), ("GET", key), ("DEL", key)]
            )
    except RedkeepError as error:
        return Check(title, False, error.what)
    problem = next((reply.what for reply in (said, found) if isinstance(reply, ReplyError)), "")
    return Check(title, found == value.encode(), problem)


def _key_in(slots: Sequence[SlotRange]) -> str:
    """A key of ours in one of these slots (any, where there are none); found by trying."""
    while True:
        key = f"{PREFIX}:{random.token_hex(4)}"
        if not slots or any(r.first <= key_slot(key.encode()) <= r.last for r in slots):
            return key
