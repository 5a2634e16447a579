"""A small client of the drills' own, for where no client library can be: it connects from one of the hosts.

Applications inside the hosts' network cannot be measured from outside it. This one finds its primary as a client library
does (Cluster: CLUSTER SLOTS of any node; Sentinel: the first that answers; plain replication: whose ROLE says so) and
gives up a connection at the first error, so that the next call looks again.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redkeep.errors import NodeUnreachable, RedkeepError, ReplyError
from redkeep.model.slots import key_slot
from redkeep.wire.client import Client, Login

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.run.load import Access, Lane

#: Seconds, as the drills' other client has them.
TIMEOUT = 1.0


class Follower:
    """One connection to the primary of one shard. Make it with ``follow``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, key: str, value: str, *, ex: int) -> None:
        await self._client.call("SET", key, value, "EX", ex)

    async def mget(self, keys: Sequence[str]) -> list[Any]:
        return list(await self._client.call("MGET", *keys))

    async def aclose(self) -> None:
        self._client.close()


async def follow(lane: Lane, *, access: Access, vantage: Host, tls: ssl.SSLContext | None) -> Follower:
    """Raises ``RedkeepError`` while no primary can be found or reached."""
    login = Login("default", access.password or "")

    async def opened(host: str, port: int) -> Client:
        return await Client.open(
            lambda: vantage.connect(host, port, timeout=TIMEOUT),
            where=f"{host}:{port}",
            login=login,
            tls=tls,
            timeout=TIMEOUT,
        )

    async def asked(addresses: Sequence[tuple[str, int]], *command: str) -> Any:
        last: RedkeepError = NodeUnreachable("nobody to ask")
        for host, port in addresses:
            try:
                async with await opened(host, port) as client:
                    reply = await client.call(*command)
            except (RedkeepError, OSError) as error:
                last = error if isinstance(error, RedkeepError) else NodeUnreachable(str(error), where=host)
                continue
            if reply is not None:
                return reply
        raise last

    if access.mode == "cluster":
        slot = key_slot(lane.tag.encode())
        ranges = await asked(access.servers, "CLUSTER", "SLOTS")
        owner = next((r[2] for r in ranges if r[0] <= slot <= r[1]), None)
        if owner is None:
            raise ReplyError(f"nobody serves slot {slot}")
        return Follower(await opened(owner[0].decode(), int(owner[1])))
    if access.mode == "sentinel":
        found = await asked(access.sentinels, "SENTINEL", "get-master-addr-by-name", access.primary_name)
        return Follower(await opened(found[0].decode(), int(found[1])))
    for address in access.servers[1:] and access.servers:
        with contextlib.suppress(RedkeepError, OSError):
            client = await opened(*address)
            if (await client.call("ROLE"))[0] == b"master":
                return Follower(client)
            client.close()
    return Follower(await opened(*access.servers[0]))
