"""The deployment that rescued keys go into: one primary, or a Cluster's; who owns which slot, and what they can."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from redkeep.errors import NodeUnreachable, RedkeepError, RefusedError, ReplyError, UsageError, WireError
from redkeep.model.engine import Capability, Engine
from redkeep.model.slots import SLOTS, key_slot
from redkeep.model.targets import Target
from redkeep.model.topology import Address, ClusterNode, ClusterView
from redkeep.planning.evidence.trust import Peer, Policy
from redkeep.run.salvage.values import Abilities
from redkeep.run.visits import resolved
from redkeep.wire import replies
from redkeep.wire.client import Client, Login, Opener, direct
from redkeep.wire.tls import over_tls

_TIMEOUT = 60.0
_CONNECT = 10.0


@dataclass(frozen=True)
class Way:
    """How to get in, and whom the password may be shown."""

    target: Target
    login: Login
    tls: ssl.SSLContext | None = None
    own_ca: bool = False
    trust_discovered: bool = False
    allow_clear_text: bool = False


@dataclass
class Node:
    """One primary. ``room``: bytes that it takes until its maxmemory; None: no limit."""

    name: str
    client: Client
    engine: Engine
    run_id: str
    room: int | None
    id: str = ""
    database: int = 0


#: Connects to a node of a Cluster that another one names.
Reach = Callable[[ClusterNode], Awaitable[Node]]


@dataclass
class Destination:
    """``slots`` is empty where there is no Cluster. ``restores``: RESTORE is taken with the source's payloads."""

    title: str
    nodes: list[Node]
    slots: list[int] = field(default_factory=list)
    reach: Reach | None = None
    restores: bool = True

    @property
    def cluster(self) -> bool:
        return bool(self.slots)

    @property
    def abilities(self) -> Abilities:
        """What all of them can."""
        return Abilities(*(all(getattr(abilities_of(n.engine), f) for n in self.nodes) for f in _FIELDS))

    @property
    def identity(self) -> str:
        """The same for the same deployment, whichever of its nodes was named."""
        return " ".join(sorted(n.name for n in self.nodes))

    def node_of(self, key: bytes) -> Node:
        return self.nodes[self.slots[key_slot(key)]] if self.slots else self.nodes[0]

    async def select(self, database: int) -> None:
        """Raises ``RefusedError`` where there is no such database."""
        for node in self.nodes:
            if node.database == database:
                continue
            try:
                await node.client.call("SELECT", database)
            except ReplyError as error:
                raise _no_database(node, database, error, cluster=self.cluster) from None
            node.database = database

    async def look_again(self) -> None:
        """Who owns which slot now: after a redirection. Connections that are there stay."""
        seed = next((n for n in self.nodes if not n.client.closed), None)
        if seed is None or self.reach is None:
            return
        database = seed.database
        self.nodes, self.slots = await _primaries(seed, self.reach, self.nodes)
        await self.select(database)

    def close(self) -> None:
        for node in self.nodes:
            node.client.close()


_FIELDS = ("field_ttl", "expiretime", "stream_counts")


def abilities_of(engine: Engine) -> Abilities:
    return Abilities(
        engine.supports(Capability.FIELD_TTL),
        engine.supports(Capability.EXPIRETIME),
        engine.supports(Capability.EXPIRETIME),  # both came with 7.0
    )


async def connected(way: Way) -> Destination:
    """Raises ``WireError`` and ``RefusedError``; nothing was written."""
    target = way.target
    policy = Policy(
        frozenset(await resolved(target.address.host)), way.trust_discovered, way.allow_clear_text
    )
    address = await _primary_of_sentinel(way) if target.sentinel else target.address
    if target.sentinel:
        policy = replace(policy, named=policy.named | set(await resolved(address.host)))
    first = await _node(address, way, policy, named=True)
    try:
        info = replies.info(await first.client.call("INFO"))
        if info.get("cluster_enabled") == "1":

            async def reach(node: ClusterNode) -> Node:
                where = Address(node.address.host or target.address.host, node.address.port)
                return await _node(where, way, policy, named=False)

            return await of_cluster(str(target), first, reach)
        if info.get("role") == "slave":
            host, port = info.get("master_host", "?"), info.get("master_port", "?")
            raise UsageError(
                "that is a replica, which takes no writes",
                where=str(target.address),
                next=f"name its primary, {host}:{port}",
            )
        return Destination(str(target), [first])
    except BaseException:
        first.client.close()
        raise


async def of_cluster(title: str, seed: Node, reach: Reach) -> Destination:
    """All primaries that a node knows."""
    nodes, slots = await _primaries(seed, reach, [])
    return Destination(title, nodes, slots, reach)


async def _primary_of_sentinel(way: Way) -> Address:
    target = way.target
    client = await _client(target.address, replace(way, login=Login()), None)
    try:
        found = await client.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.name)
    except ReplyError as error:
        raise WireError(
            f"the Sentinel says: {error.what}", where=str(target), next="name the primary itself"
        ) from None
    finally:
        client.close()
    if not found:
        raise UsageError(f"no Sentinel watches {target.name}", where=str(target), next="correct the name")
    return Address(replies.text(found[0]), int(found[1]))


async def _client(address: Address, way: Way, login: Login | None) -> Client:
    context, name = way.tls, None
    if context is not None and context.check_hostname:
        name = address.host
    opener = direct(address.host, address.port)
    if context is None:
        return await Client.open(opener, where=str(address), login=login, timeout=_CONNECT)
    return await _encrypted(opener, address, context, name, login)


async def _encrypted(
    opener: Opener, address: Address, context: ssl.SSLContext, name: str | None, login: Login | None
) -> Client:
    try:
        async with asyncio.timeout(_CONNECT):
            reader, writer = await opener()
            reader, writer, _ = await over_tls(reader, writer, context, name)
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(
            f"its certificate is not trusted: {error.verify_message}",
            where=str(address),
            next="--ca FILE names the CA that signed it",
        ) from None
    except (OSError, TimeoutError, EOFError) as error:
        raise NodeUnreachable(
            f"connection failed: {str(error) or 'no answer in time'}",
            where=str(address),
            next="is the server up, and is TLS what it speaks?",
        ) from None
    return Client(reader, writer, where=str(address), timeout=_CONNECT, login=login)


async def _node(address: Address, way: Way, policy: Policy, *, named: bool) -> Node:
    login = way.login if way.login.password else None
    if login is not None:
        addresses = await resolved(address.host)
        for one in addresses:
            peer = Peer(one, named=named, vouched=True, encrypted=way.tls is not None, own_ca=way.own_ca)
            if reason := policy.withheld(peer):
                raise RefusedError(reason, where=str(address), next="name the option, if that is acceptable")
    return await node_at(await _client(address, way, login), str(address))


async def node_at(client: Client, name: str) -> Node:
    """A server over a connection that is there; closed where it does not let us in."""
    try:
        client.timeout = _CONNECT
        info = replies.info(await client.call("INFO"))
        client.timeout = _TIMEOUT
    except ReplyError as error:
        client.close()
        raise _not_let_in(error, name) from None
    except BaseException:
        client.close()
        raise
    limit, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    return Node(
        name,
        client,
        Engine.from_info(info),
        info.get("run_id", ""),
        max(0, limit - used) if limit else None,
    )


def _not_let_in(error: ReplyError, name: str) -> RedkeepError:
    hint = "redis://USER:PASSWORD@HOST, the variable REDKEEP_PASSWORD, or --password-file"
    if error.code == "NOPERM":
        hint = "a user with the rights to read and write all keys, and INFO: --user"
    return WireError(f"not let in: {error.what}", where=name, next=hint)


def _no_database(node: Node, database: int, error: ReplyError, *, cluster: bool) -> RedkeepError:
    if cluster:
        return RefusedError(
            f"there are keys in database {database}, and this Cluster has only database 0",
            where=node.name,
            next="--db N takes one database, into database 0; once for each, where their keys' names do not meet",
        )
    return RefusedError(
        f"there are keys in database {database}, which is not there: {error.what}",
        where=node.name,
        next=f"raise `databases` there above {database} and restart it, or take one database: --db N",
    )


async def _view(client: Client) -> ClusterView:
    nodes, info = await client.pipeline([("CLUSTER", "NODES"), ("CLUSTER", "INFO")])
    for answer in (nodes, info):
        if isinstance(answer, ReplyError):
            raise answer
    return replies.cluster_view(nodes, info)


async def _primaries(seed: Node, reach: Reach, before: Sequence[Node]) -> tuple[list[Node], list[int]]:
    """Connections that are there are kept, and those that nobody needs any more closed."""
    view = await _view(seed.client)
    owners = [n for n in view.nodes if n.slots]
    missing = SLOTS - sum(r.size for n in owners for r in n.slots)
    if missing or not view.state_ok:
        raise WireError(
            f"the Cluster is not whole: {missing} slots have no owner"
            if missing
            else "the Cluster is not ok",
            where=seed.name,
            next="redkeep check says what is wrong with it",
        )
    seed.id = view.my_id
    known = {n.id: n for n in (*before, seed) if not n.client.closed}
    slots = [0] * SLOTS
    nodes: list[Node] = []
    try:
        for number, node in enumerate(owners):
            for one in node.slots:
                slots[one.first : one.last + 1] = [number] * one.size
            if node.id not in known:
                found = await reach(node)
                found.id = node.id
                nodes.append(found)
            else:
                nodes.append(known[node.id])
    except BaseException:
        for new in nodes:
            if new.id not in known:
                new.client.close()
        raise
    for old in known.values():
        if old not in nodes:
            old.client.close()
    return nodes, slots
