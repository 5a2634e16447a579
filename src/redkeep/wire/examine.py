"""What the doctor asks a server beyond its view of itself. Everything here reads; nothing is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redkeep.errors import NodeUnreachable, ReplyError, WireError
from redkeep.model.checkup import Details, Greeting, Sample, SlotOwner
from redkeep.model.topology import Address, ClusterView, NodeView
from redkeep.wire import replies

if TYPE_CHECKING:
    from redkeep.wire.client import Client


#: Commands that take a server over or down, which some installations rename.
TAKEOVER = ("config", "module", "debug", "replicaof", "shutdown", "flushall")

_SLOTS, _SENTINEL_ID = ("CLUSTER", "SLOTS"), ("SENTINEL", "MYID")
#: What is asked of every server, by the name that ``Details.refused`` has for it; the first ones belong to its view.
_ASKED: dict[str, tuple[str, ...]] = {
    "config": ("CONFIG", "GET", "*"),
    "acl": ("ACL", "LIST"),
    "cluster": ("CLUSTER", "NODES"),
    "sentinel": ("SENTINEL", "MASTERS"),
    "modules": ("MODULE", "LIST"),
    "commands": ("COMMAND", "INFO", *TAKEOVER),
    "latency": ("LATENCY", "LATEST"),
}
COMMANDS = (*list(_ASKED.values())[4:], _SLOTS, _SENTINEL_ID)

#: Keys that the known attacks use (honeypot reports; Redis exploits that write cron and SSH files).
KNOWN_KEYS = (
    "backup1", "backup2", "backup3", "backup4", "crackit", "crackit_key", "weaponized", "trojan1", "trojan2", "trojan3",
    "trojan4", "1", "x", "xx", "xxx", "ssh_key", "sshkey", "kinsing", "watchdog", "bash1", "bash2", "bash3",
)  # fmt: skip

#: Other keys that are looked at, and the size of values that may hold a cron line or an SSH key.
_KEYS, _SMALLEST, _LARGEST, _PREFIX = 200, 16, 4096, 1024

#: Hello messages come every two seconds.
_HELLO_SECONDS = 2.3


async def examine(
    client: Client, view: NodeView, answers: Mapping[tuple[str, ...], Any], owners: Owners
) -> Details:
    """What a server tells beside its view. ``answers``: to ``COMMANDS``; ``owners`` is shared by the nodes of a Cluster.

    Raises ``WireError`` only where the connection is lost.
    """
    asked = _ASKED | ({"own": _SENTINEL_ID} if view.role == "sentinel" else {})
    if view.role != "sentinel" and view.cluster:
        asked |= {"own": _SLOTS}
    found = {name: answers[command] for name, command in asked.items()}
    own = found.get("own")
    refused = {name: a.what for name, a in found.items() if isinstance(a, ReplyError)}
    samples, refusal = await _samples(client, view) if view.role != "sentinel" else ((), "")
    return Details(
        slot_owners=owners(own) if view.cluster else (),
        modules=modules(found["modules"]),
        samples=samples,
        commands=command_names(found["commands"]),
        stalls=stalls(found["latency"]),
        open_keys=await _open_keys(client, view.cluster) if view.cluster else {},
        sentinel_id=replies.text(own) if view.role == "sentinel" and isinstance(own, bytes) else "",
        refused=refused | ({"data": refusal} if refusal else {}),
    )


class Owners:
    """Servers as CLUSTER SLOTS names them: what N nodes say of N servers is mostly the same, and made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes | None, int, bytes], SlotOwner] = {}
        self._last: tuple[Any, tuple[SlotOwner, ...]] = (None, ())

    def __call__(self, reply: Any) -> tuple[SlotOwner, ...]:
        """Each server once: by name or address, whatever clients are told to prefer."""
        if self._last[0] != reply:
            self._last = (reply, self._read(reply))
        return self._last[1]

    def _read(self, reply: Any) -> tuple[SlotOwner, ...]:
        found: dict[int, SlotOwner] = {}
        for entry in reply if isinstance(reply, list) else ():
            for server in entry[2:] if isinstance(entry, list) else ():
                if isinstance(server, list) and len(server) >= 3:
                    owner = self._owner(*server[:3])
                    if owner is not None:
                        found[id(owner)] = owner
        return tuple(found.values())

    def _owner(self, host: Any, port: Any, node_id: Any) -> SlotOwner | None:
        if not (isinstance(port, int) and isinstance(node_id, bytes) and isinstance(host, bytes | None)):
            return None
        owner = self._known.get((host, port, node_id))
        if owner is None:
            address = Address(replies.text(host or b""), port)
            owner = self._known[host, port, node_id] = SlotOwner(address, replies.text(node_id), host is None)
        return owner


async def _open_keys(client: Client, cluster: ClusterView) -> dict[int, int]:
    slots = sorted({*cluster.me.migrating, *cluster.me.importing})
    counts = await client.pipeline([("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots]) if slots else []
    return {slot: count for slot, count in zip(slots, counts, strict=True) if isinstance(count, int)}


async def later(client: Client, details: Details, since: float, least: float) -> Details:
    """INFO replication again, at least so many seconds after the first look, which was at ``since`` (monotonic)."""
    await asyncio.sleep(max(0.0, least - (time.monotonic() - since)))
    seconds = time.monotonic() - since
    try:
        again = replies.info(await client.call("INFO", "replication"))
    except (WireError, ValueError):
        return details
    return replace(details, later=again, seconds=seconds)


def modules(reply: Any) -> tuple[str, ...]:
    """Names of loaded modules."""
    found = []
    for entry in reply if isinstance(reply, Sequence) and not isinstance(reply, bytes) else ():
        try:
            found.append(replies.flat_map(entry[:4])["name"])
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(found)


def command_names(reply: Any) -> frozenset[str] | None:
    """Which of the commands that were asked for exist; ``None`` where that may not be asked."""
    if not isinstance(reply, list):
        return None
    return frozenset(replies.text(e[0]).lower() for e in reply if isinstance(e, list) and e)


def stalls(reply: Any) -> dict[str, int]:
    """LATENCY LATEST: name, time, latest and longest in milliseconds, of each kind of event."""
    entries = reply if isinstance(reply, list) else []
    return {
        replies.text(e[0]): e[3]
        for e in entries
        if isinstance(e, list) and len(e) >= 4 and isinstance(e[3], int)
    }


async def _samples(client: Client, view: NodeView) -> tuple[tuple[Sample, ...], str]:
    """The beginnings of small text values: those with notorious keys, and of some others; and why some are missing."""
    names: list[bytes | str] = [key for key in KNOWN_KEYS if view.keys]
    if not names:
        return (), ""
    first = [("READONLY",)] if view.cluster else []
    scanned = (await client.pipeline([*first, ("SCAN", "0", "COUNT", _KEYS)]))[-1]
    if isinstance(scanned, list) and len(scanned) == 2 and isinstance(scanned[1], list):
        names += [key for key in scanned[1][:_KEYS] if isinstance(key, bytes)]
    sizes = await client.pipeline([("STRLEN", name) for name in names])
    small = [
        n for n, s in zip(names, sizes, strict=True) if isinstance(s, int) and _SMALLEST <= s <= _LARGEST
    ]
    values = await client.pipeline([("GETRANGE", name, 0, _PREFIX) for name in small]) if small else []
    found = {
        replies.text(name): replies.text(value)
        for name, value in zip(small, values, strict=True)
        if isinstance(value, bytes)
    }
    return tuple(Sample(key, text) for key, text in found.items()), _refusal([scanned, *sizes, *values])


def _refusal(answers: Sequence[Any]) -> str:
    """A command that is not for us, or that is renamed; not a key of another type, or of another shard."""
    errors = (a.what for a in answers if isinstance(a, ReplyError))
    return next((e for e in errors if e.startswith(("NOPERM", "ERR unknown command"))), "")


async def hello_sentinels(client: Client, count: int) -> tuple[Greeting, ...]:
    """The Sentinels that greet each other through this server, at most so many.

    Ends the use of the connection for anything else.
    """
    await client.call("SUBSCRIBE", "__sentinel__:hello")
    found: dict[str, Greeting] = {}
    deadline = time.monotonic() + _HELLO_SECONDS
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        try:
            message = await client.message(timeout=left)
        except NodeUnreachable:
            break
        if isinstance(message, list) and len(message) == 3:
            parts = replies.text(message[2]).split(",")
            if len(parts) >= 8 and parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 6:
                found[parts[2]] = Greeting(Address(parts[0], int(parts[1])), parts[2])
    return tuple(found.values())


async def listeners(client: Client) -> int:
    """How many subscribers wait for Sentinels' greetings; 0 where that may not be asked."""
    try:
        reply = await client.call("PUBSUB", "NUMSUB", "__sentinel__:hello")
    except ReplyError:
        return 0
    return int(reply[1]) if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], int) else 0
