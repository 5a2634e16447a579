"""Watches every node while something is done to the deployment: who answers, who is primary, what Sentinels say."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from redkeep.errors import RedkeepError
from redkeep.planning.hostfiles.acl import ADMIN
from redkeep.wire.client import Client, Login

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.deployment import Deployment, Sight

#: Seconds between two looks at a node, and that one may take before the node counts as silent.
INTERVAL = 0.03
SILENT = 1.0
#: What Sentinels publish that a report shows.
_SENTINEL_EVENTS = (
    "+sdown",
    "-sdown",
    "+odown",
    "+try-failover",
    "+elected-leader",
    "+promoted-slave",
    "+switch-master",
)
_ROLES = {b"master": "primary", b"slave": "replica"}


@dataclass
class Log:
    """What was seen, in order: (seconds on the monotonic clock, node, what)."""

    seen: list[tuple[float, str, str]] = field(default_factory=list)

    def add(self, node: str, what: str) -> None:
        self.seen.append((time.monotonic(), node, what))


@contextlib.asynccontextmanager
async def watching(deployment: Deployment, sight: Sight) -> AsyncIterator[Log]:
    """A log that fills while the block runs."""
    log = Log()
    tasks = [asyncio.create_task(_watch(deployment, node, log)) for node in sight.desired.servers]
    tasks += [asyncio.create_task(_listen(deployment, node, log)) for node in sight.desired.sentinels]
    try:
        yield log
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _open(deployment: Deployment, node: DesiredNode) -> Client:
    host = deployment.fleet.hosts[node.host]
    return await Client.open(
        partial(host.connect, "127.0.0.1", node.port, timeout=SILENT),
        where=node.name,
        login=Login(ADMIN, deployment.secrets.admin),
        tls=deployment.fleet.tls if node.wire.tls else None,
        timeout=SILENT,
    )


async def _watch(deployment: Deployment, node: DesiredNode, log: Log) -> None:
    """Changes of its role, and of whether it answers."""
    client: Client | None = None
    before = ""
    while True:
        try:
            client = client or await _open(deployment, node)
            reply = await client.call("ROLE")
            now = _ROLES.get(reply[0], reply[0].decode())
        except (RedkeepError, OSError):
            if client is not None:
                client.close()
            client, now = None, "silent"
        if now != before and before:
            log.add(node.name, "answers no more" if now == "silent" else f"is {now}")
        before = now
        await asyncio.sleep(INTERVAL)


async def _listen(deployment: Deployment, node: DesiredNode, log: Log) -> None:
    """A Sentinel's own words about its primary."""
    silent = False
    while True:
        try:
            async with await _open(deployment, node) as client:
                await client.call("PSUBSCRIBE", *_SENTINEL_EVENTS)
                if silent:
                    log.add(node.name, "answers again")
                silent = False
                while True:
                    message = await client.message(timeout=60.0)
                    if isinstance(message, list) and message[0] == b"pmessage":
                        _, _, channel, text = message
                        log.add(node.name, f"{channel.decode()} {text.decode(errors='replace')}"[:120])
        except (RedkeepError, OSError):
            if not silent:
                log.add(node.name, "answers no more")
            silent = True
            await asyncio.sleep(0.2)
