"""What the demo and the drills share: load on every shard, the wait until all is well, the count of what was lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, ReplyError
from redkeep.hosts.local import LocalHost
from redkeep.model.slots import hash_tag
from redkeep.model.topology import NodeView
from redkeep.planning.hostfiles.acl import APP
from redkeep.run.follow import follow
from redkeep.run.load import Access, Connect, Lane, connect
from redkeep.wire.client import Client, Login

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.deployment import Deployment, Sight

#: Seconds that a deployment may take to be whole again.
RECOVERY_LIMIT = 90.0
#: Seconds in which what a run wrote is removed when it is cut short.
_SWEEP_LIMIT = 5.0
#: Keys removed in one pipeline.
_BATCH = 1000


async def primaries(deployment: Deployment, sight: Sight) -> dict[str, tuple[DesiredNode, int | None]]:
    """``shard 1`` -> its primary and its first slot (``None`` outside a Cluster), in the order of shards."""
    found: dict[str, tuple[DesiredNode, int | None]] = {}
    views = await deployment.fleet.views(sight.desired.servers)
    for node in sorted(sight.desired.servers, key=lambda n: n.shard):
        view = views[node.name]
        if not isinstance(view, NodeView) or view.role != "primary":
            continue
        if view.cluster is not None and not view.cluster.me.slots:
            continue
        slot = view.cluster.me.slots[0].first if view.cluster else None
        found[shard_name(node.shard)] = (node, slot)
    return found


def shard_name(number: int) -> str:
    return f"shard {number + 1}"


def tags(shards: Mapping[str, tuple[DesiredNode, int | None]]) -> dict[str, str]:
    """A hash tag for each shard; none is used twice, so that what an earlier run left cannot pass for this one's."""
    return {shard: hash_tag(slot, f"{time.time_ns()}-") for shard, (_, slot) in shards.items()}


def access(deployment: Deployment, sight: Sight) -> Access:
    """How an application reaches the deployment."""
    spec = deployment.spec

    def handed_out(node: DesiredNode) -> tuple[str, int]:
        return node.wire.client_announce or node.wire.announce, node.port

    encrypted = any(n.wire.tls for n in sight.desired.servers)
    return Access(
        mode=spec.mode,
        servers=tuple(handed_out(n) for n in sight.desired.servers),
        sentinels=tuple(handed_out(n) for n in sight.desired.sentinels),
        primary_name=spec.name,
        password=deployment.secrets.app,
        ca=str(deployment.vault.folder / "pki/ca.crt") if encrypted else "",
    )


def connector(deployment: Deployment, sight: Sight, *, avoid: Collection[str] = ()) -> tuple[Connect, str]:
    """How a load's clients connect, and from where, in words.

    Clients outside the hosts' networks, or on this machine, are redis-py here. Inside, they start on a host of the
    deployment, one that is not about to be broken (not of ``avoid``).
    """
    way = access(deployment, sight)
    if deployment.spec.is_local or deployment.spec.clients == "public":
        return (lambda lane: connect(way)), "here, with redis-py"
    names = [
        h.name for h in deployment.spec.hosts if h.name not in avoid and h.name in deployment.fleet.hosts
    ]
    name = names[-1] if names else deployment.spec.hosts[0].name
    tls = deployment.fleet.tls if way.ca else None
    vantage = deployment.fleet.hosts[name]
    return partial(follow, access=way, vantage=vantage, tls=tls), name


async def whole(deployment: Deployment, sight: Sight) -> bool:
    """Every node answers, every replica is linked, one primary a shard."""
    views = await deployment.fleet.views(sight.desired.nodes)
    known = {n: v for n, v in views.items() if isinstance(v, NodeView)}
    if len(known) < len(views):
        return False
    servers = [known[n.name] for n in sight.desired.servers]
    leading = sum(v.role == "primary" for v in servers)
    well = all(v.link_up and (v.cluster is None or v.cluster.state_ok) for v in servers)
    return well and leading == deployment.spec.shards


async def until(
    condition: Callable[[], Awaitable[bool]], failure: str, *, seconds: float = RECOVERY_LIMIT
) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise RedkeepError(
                f"{failure} within {seconds:.0f} s",
                next="redkeep status and redkeep check tell what is missing",
            )
        await asyncio.sleep(0.05)


async def writes_again(lane: Lane, at: float) -> bool:
    """A write was acknowledged after the first that failed since ``at``."""
    failed = [t for t, _ in lane.errors if t >= at]
    return bool(failed) and bool(lane.times) and lane.times[-1] > failed[0] and time.monotonic() - at > 1.0


@contextlib.asynccontextmanager
async def owners(deployment: Deployment, sight: Sight) -> AsyncIterator[dict[str, Client]]:
    """``shard 1`` -> a plain connection to its primary of now, as the application's user: another way than the
    writer's, for whoever counts or removes what it wrote."""
    clients: dict[str, Client] = {}
    login = Login(APP, deployment.secrets.app or "")
    try:
        for shard, (node, _) in (await primaries(deployment, sight)).items():
            host = deployment.fleet.hosts[node.host] if not deployment.spec.is_local else LocalHost()
            clients[shard] = await Client.open(
                partial(host.connect, "127.0.0.1", node.port, timeout=10.0),
                where=node.name,
                login=login,
                tls=deployment.fleet.tls if node.wire.tls else None,
                timeout=30.0,
            )
        yield clients
    finally:
        for client in clients.values():
            client.close()


async def read(clients: dict[str, Client], lane: Lane, keys: list[str]) -> list[Any]:
    """The values, from whichever primary has them now."""
    answers: list[Any] = []
    for client in [c for s, c in clients.items() if s == lane.shard] + list(clients.values()):
        answers = await client.pipeline([("GET", k) for k in keys])
        if not any(isinstance(a, ReplyError) for a in answers):  # MOVED: another shard's
            return answers
    return answers


async def remove(clients: dict[str, Client], lanes: list[Lane]) -> None:
    """Removes everything that the lanes wrote, acknowledged or not."""
    for lane in lanes:
        for client in [c for s, c in clients.items() if s == lane.shard] or list(clients.values()):
            for start in range(0, lane.sent, _BATCH):
                numbers = range(start, min(lane.sent, start + _BATCH))
                await client.call("UNLINK", *(lane.key(n) for n in numbers))


@contextlib.asynccontextmanager
async def swept(
    deployment: Deployment, sight: Sight, lanes: list[Lane], *, keep: bool
) -> AsyncIterator[None]:
    """A run that is cut short leaves no keys, as far as that goes in a moment; what is left expires by itself."""
    try:
        yield
    except BaseException:
        if not keep:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_SWEEP_LIMIT), owners(deployment, sight) as clients:
                    await remove(clients, lanes)
        raise
