"""Parsers of what servers say: bytes in, values out, nothing else. Hostile input gives ``ValueError``, never a hang."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from redkeep.errors import ReplyError
from redkeep.model.slots import SlotRange
from redkeep.model.topology import Address, ClusterNode, ClusterView, ReplicaLine, SentinelEntry, Watched

_TOO_LARGE = 1 << 64

#: Nodes that one server may tell of. A Cluster has a thousand at most; who says more makes them up, and us look for them.
_MOST = 2000


def text(value: Any) -> str:
    """A reply as text; broken UTF-8 stays visible as \\xNN."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def integer(said: str | int) -> int:
    """A number as servers have them, of 64 bits. Raises ``ValueError``."""
    found = int(said)
    if abs(found) >= _TOO_LARGE:
        raise ValueError(f"a number of {len(str(found))} digits")
    return found


def info(reply: Any) -> dict[str, str]:
    """INFO as one flat mapping; the section headers are dropped."""
    return dict([line.split(":", 1) for line in text(reply).splitlines() if ":" in line and line[0] != "#"])


def seconds(reply: Any) -> float:
    """TIME: what the server's clock says, since the epoch. Raises the error that the server answered instead."""
    if isinstance(reply, ReplyError):
        raise reply
    whole, microseconds = reply
    return int(whole) + int(microseconds) / 1e6


def flat_map(reply: Any) -> dict[str, str]:
    """CONFIG GET and each entry of SENTINEL: names and values in turn."""
    if isinstance(reply, Mapping):
        return {text(k): text(v) for k, v in reply.items()}
    if not isinstance(reply, Sequence) or isinstance(reply, str | bytes) or len(reply) % 2:
        raise ValueError(f"not a list of pairs: {reply!r:.80}")
    try:
        # one decoding for all: CONFIG GET has five hundred words
        words = b"\0".join(reply).decode().split("\0")
    except (UnicodeDecodeError, TypeError):
        words = []
    if len(words) != len(reply):
        words = [text(value) for value in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def fields(value: str) -> dict[str, str]:
    """``ip=10.0.0.1,port=6379,state=online`` as a mapping."""
    return dict(part.split("=", 1) for part in value.split(",") if "=" in part)


def replica_lines(found: Mapping[str, str]) -> tuple[ReplicaLine, ...]:
    """The ``slave0:``, ``slave1:`` ... lines of a primary's INFO replication."""
    lines = []
    named = [key for key in found if key[:5] == "slave" and key[5:].isdecimal()]
    if len(named) > _MOST:
        raise ValueError(f"{len(named)} replicas of one server")
    for key in named:
        f = fields(found[key])
        lines.append(
            ReplicaLine(
                Address(f["ip"], integer(f["port"])),
                f.get("state", ""),
                integer(f.get("offset", 0)),
                integer(f.get("lag", -1)),
            )
        )
    return tuple(lines)


def cluster_node(line: str) -> ClusterNode:
    """One line of CLUSTER NODES: ``id ip:port@bus[,hostname] flags primary ping pong epoch link slot...``."""
    parts = line.split(" ")
    if len(parts) < 8:
        raise ValueError(f"not a line of CLUSTER NODES: {line[:80]!r}")
    where, _, extra = parts[1].partition(",")
    hostname = extra.split(",", 1)[0] if "=" not in extra.split(",", 1)[0] else ""
    address, _, bus = where.partition("@")
    host, _, port = address.rpartition(":")
    migrating: dict[int, str] = {}
    importing: dict[int, str] = {}
    ranges: list[SlotRange] = []
    for item in parts[8:]:
        if item.startswith("["):
            if match := re.fullmatch(r"\[(\d+)-([<>])-(\w+)\]", item):
                (migrating if match[2] == ">" else importing)[integer(match[1])] = match[3]
        elif item:
            ranges.append(SlotRange.parse(item))
    return ClusterNode(
        id=parts[0],
        address=Address(host, integer(port or 0)),
        bus_port=integer(bus or 0),
        flags=frozenset(parts[2].split(",")),
        primary_id="" if parts[3] == "-" else parts[3],
        config_epoch=integer(parts[6]),
        link_up=parts[7] == "connected",
        slots=tuple(ranges),
        migrating=migrating,
        importing=importing,
        hostname=hostname,
    )


#: What changes all the time in a line of CLUSTER NODES, and tells nothing here: when PING was sent and PONG received.
_TIMES = re.compile(r" \d+ \d+ (?=\d+ (?:dis)?connected)")


class Lines:
    """Lines of CLUSTER NODES that were read before: those of N nodes are N * N, and most are the same ones."""

    def __init__(self) -> None:
        self._known: dict[str, ClusterNode] = {}

    def read(self, reply: str) -> tuple[ClusterNode, ...]:
        known = self._known
        lines = _TIMES.sub(" 0 0 ", reply).splitlines()
        try:
            return tuple([known[line] for line in lines])
        except KeyError:
            fresh = {line: cluster_node(line) for line in lines if line and line not in known}
            known |= fresh
        return tuple([known[line] for line in lines if line])


def cluster_view(nodes_reply: Any, info_reply: Any, lines: Lines | None = None) -> ClusterView:
    """``lines``: shared by the nodes of a Cluster, whose views then share what is the same."""
    told = text(nodes_reply)
    if told.count("\n") > _MOST:
        raise ValueError(f"{told.count(chr(10))} nodes of one Cluster")
    nodes = (lines or Lines()).read(told)
    state = info(info_reply)
    mine = next((n.id for n in nodes if "myself" in n.flags), None)
    if mine is None:
        raise ValueError("CLUSTER NODES has no line for the node itself")
    return ClusterView(
        my_id=mine,
        state_ok=state.get("cluster_state") == "ok",
        slots_assigned=integer(state.get("cluster_slots_assigned", 0)),
        current_epoch=integer(state.get("cluster_current_epoch", 0)),
        nodes=nodes,
    )


def sentinel_entry(entry: Mapping[str, str], replicas: Any, sentinels: Any) -> SentinelEntry:
    """One of SENTINEL MASTERS with its SENTINEL REPLICAS and SENTINEL SENTINELS."""
    return SentinelEntry(
        name=entry["name"],
        address=Address(entry["ip"], integer(entry["port"])),
        flags=frozenset(entry.get("flags", "").split(",")),
        quorum=integer(entry.get("quorum", 0)),
        config_epoch=integer(entry.get("config-epoch", 0)),
        replicas=_addresses(replicas),
        sentinels=_addresses(sentinels),
        settings=dict(entry),
        watched_replicas=_watched(replicas),
        watched_sentinels=_watched(sentinels),
    )


def _watched(reply: Any) -> tuple[Watched, ...]:
    entries = [flat_map(e) for e in reply] if isinstance(reply, Sequence) else []
    if len(entries) > _MOST:
        raise ValueError(f"{len(entries)} nodes of one primary")
    return tuple(
        Watched(
            Address(e["ip"], integer(e["port"])),
            e.get("runid", ""),
            frozenset(e.get("flags", "").split(",")),
            e,
        )
        for e in entries
        if "ip" in e and "port" in e
    )


def _addresses(reply: Any) -> tuple[Address, ...]:
    if not isinstance(reply, Sequence):
        return ()
    entries = [flat_map(e) for e in reply]
    return tuple(Address(e["ip"], integer(e["port"])) for e in entries if "ip" in e and "port" in e)
