"""Tries the connections that a deployment will need, before anything is changed: host to host, and from here.

Nothing has to listen at the other end: a port that refuses is reached, one that stays silent is filtered.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from redkeep.errors import HostError
from redkeep.planning.placing.probes import HERE, Outcome, Probe, ProbeWanted

if TYPE_CHECKING:
    from redkeep.hosts.base import Host

#: Seconds after which silence counts as filtered: more than a lost packet's first retransmission.
LIMIT = 3

#: bash connects by itself, so that no tool is needed on the host. One line a target: number, status, message.
_SCRIPT = r"""
try() {{ e=$(timeout {limit} bash -c ": </dev/tcp/$2/$3" 2>&1); echo "$1 $? $(echo $e | tr '\n' ' ')"; }}
{calls}
wait
"""


async def probe(hosts: Mapping[str, Host], wanted: Collection[ProbeWanted]) -> list[Probe]:
    """All probes, those of one source at the same time. A source that is lost gives no probes."""
    by_source: dict[str, list[ProbeWanted]] = defaultdict(list)
    for item in wanted:
        by_source[item.source].append(item)
    results = await asyncio.gather(
        *(
            _from_here(items) if source == HERE else _from_host(hosts[source], items)
            for source, items in by_source.items()
        )
    )
    return [p for found in results for p in found]


async def _from_here(wanted: list[ProbeWanted]) -> list[Probe]:
    room = asyncio.Semaphore(64)

    async def one(item: ProbeWanted) -> Probe:
        async with room:
            try:
                async with asyncio.timeout(LIMIT):
                    _, writer = await asyncio.open_connection(item.address, item.port)
                writer.close()
                return item.answered("open", "")
            except TimeoutError:
                return item.answered("timeout", f"no answer within {LIMIT} s")
            except ConnectionRefusedError:
                return item.answered("refused", "")
            except OSError as error:
                return item.answered("unreachable", str(error))

    return list(await asyncio.gather(*map(one, wanted)))


async def _from_host(host: Host, wanted: list[ProbeWanted]) -> list[Probe]:
    calls = "\n".join(f"try {i} {item.address} {item.port} &" for i, item in enumerate(wanted))
    try:
        result = await host.run(
            _SCRIPT.format(limit=LIMIT, calls=calls),
            timeout=30 + LIMIT * (1 + len(wanted) // 50),
            check=False,
        )
    except HostError:
        return []
    found = []
    for line in result.stdout.splitlines():
        if (match := re.fullmatch(r"(\d+) (\d+) ?(.*)", line)) and int(match[1]) < len(wanted):
            found.append(wanted[int(match[1])].answered(outcome(int(match[2]), match[3]), _reason(match[3])))
    return found


def _reason(message: str) -> str:
    """The system's own words at the end of what bash says."""
    return message.strip().rpartition(": ")[2][-200:]


def outcome(status: int, message: str) -> Outcome:
    """What bash's exit status and message say; 124 is that of ``timeout``."""
    if status == 0:
        return "open"
    if status == 124:
        return "timeout"
    return "refused" if "refused" in message.lower() else "unreachable"
