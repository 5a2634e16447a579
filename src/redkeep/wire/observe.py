"""Asks one server everything that a plan or a rule may want to know, in two round trips at most."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redkeep.errors import EngineError, NodeUnreachable, ReplyError, WireError
from redkeep.model.engine import Engine
from redkeep.model.topology import Address, NodeView, SentinelEntry, Unreachable
from redkeep.wire import replies
from redkeep.wire.replies import Lines

if TYPE_CHECKING:
    from redkeep.wire.client import Client

_SERVER = (
    ("INFO",),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("CLUSTER", "NODES"),
    ("CLUSTER", "INFO"),
    ("SENTINEL", "MASTERS"),
)


async def observe(client: Client) -> NodeView:
    """A server's view of itself.

    What an account may not read stays empty. Raises ``NodeUnreachable``, ``ReplyError`` where not even INFO is
    allowed or the server is still loading, ``WireError`` where the answers are not those of Redis or Valkey.
    """
    view, _ = await observe_with(client, ())
    return view


async def observe_with(
    client: Client, more: Sequence[tuple[str, ...]], lines: Lines | None = None
) -> tuple[NodeView, dict[tuple[str, ...], Any]]:
    """The same with the answers to ``more`` commands, and to those of the view, in the same round trip."""
    commands = (*_SERVER, *more)
    told = await client.pipeline(commands)
    answers = told[: len(_SERVER)]
    if isinstance(answers[0], ReplyError):
        raise answers[0]
    for answer in answers:
        # INFO is answered while data are loaded, and the rest is not: half a view would look like a whole one.
        if isinstance(answer, ReplyError) and answer.code == "LOADING":
            raise answer
    found_info, config, acl, nodes, cluster_info, primaries = answers
    try:
        info = replies.info(found_info)
        monitored, peer_password, announce = await _monitored(client, primaries)
        view = replace(
            _view(info, config, acl, nodes, cluster_info, monitored, lines),
            certificate=client.certificate,
            peer_password=peer_password,
            announce=announce,
        )
        return view, dict(zip(commands, told, strict=True))
    except (ValueError, KeyError, TypeError, AttributeError, EngineError) as error:
        raise WireError(
            f"answers that make no sense: {error!r:.120}", next="is this a Redis or Valkey server?"
        ) from error


async def _monitored(client: Client, primaries: Any) -> tuple[tuple[SentinelEntry, ...], str, str]:
    """What a Sentinel watches, the digest of the password that it sends to others, and the address that it announces
    (both shown since 6.2)."""
    if isinstance(primaries, ReplyError) or not primaries:
        return (), "", ""
    entries = [replies.flat_map(e) for e in primaries]
    asked = [("SENTINEL", kind, e["name"]) for e in entries for kind in ("SLAVES", "SENTINELS")]
    own = [("SENTINEL", "CONFIG", "GET", name) for name in ("sentinel-pass", "announce-ip")]
    *answers, secret, address = await client.pipeline([*asked, *own])
    found = tuple(
        replies.sentinel_entry(e, answers[2 * i], answers[2 * i + 1]) for i, e in enumerate(entries)
    )
    password = "" if isinstance(secret, ReplyError) else replies.flat_map(secret).get("sentinel-pass", "")
    announce = "" if isinstance(address, ReplyError) else replies.flat_map(address).get("announce-ip", "")
    return found, hashlib.sha256(password.encode()).hexdigest() if password else "", announce


def _view(
    info: dict[str, str],
    config: Any,
    acl: Any,
    nodes: Any,
    cluster_info: Any,
    monitored: tuple[SentinelEntry, ...],
    lines: Lines | None,
) -> NodeView:
    if "redis_version" not in info and "valkey_version" not in info:
        raise ValueError("INFO names no version")
    is_replica = info.get("role") == "slave"
    sentinel = info.get("redis_mode") == "sentinel" or info.get("server_mode") == "sentinel"
    offset = info.get("slave_repl_offset") if is_replica else info.get("master_repl_offset")
    primary = Address(info["master_host"], replies.integer(info["master_port"])) if is_replica else None
    return NodeView(
        role="sentinel" if sentinel else "replica" if is_replica else "primary",
        engine=Engine.from_info(info),
        run_id=info.get("run_id", ""),
        info=info,
        config={} if isinstance(config, ReplyError) else replies.flat_map(config),
        offset=replies.integer(offset or 0),
        primary=primary,
        link_up=not is_replica or info.get("master_link_status") == "up",
        syncing=info.get("master_sync_in_progress") == "1",
        replicas=replies.replica_lines(info),
        cluster=None if isinstance(nodes, ReplyError) else replies.cluster_view(nodes, cluster_info, lines),
        monitored=monitored,
        acl=() if isinstance(acl, ReplyError) else tuple(replies.text(line) for line in acl),
        keys=sum(
            replies.integer(replies.fields(info[k]).get("keys", 0))
            for k in info
            if k[:2] == "db" and k[2:].isdigit()
        ),
    )


def unreachable(error: WireError) -> Unreachable:
    """A failed look as a value."""
    return Unreachable(error.what, refused=isinstance(error, NodeUnreachable) and error.refused)
