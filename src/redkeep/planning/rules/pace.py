"""Will everyone follow? Whether replicas keep up with what is written, and come back without a full copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import NodeView, ReplicaLine
from redkeep.planning.rules.machines import size
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import cli, listed, number, set_and_keep_on

#: A replica says every second what it has; the engines' own limit for min-replicas-max-lag is ten.
_LAG_S = 10

#: Two signs of life are missing.
_SILENT_S = 2

#: So many bytes, and so many seconds of what is written now, may be on the way.
_BYTES, _SECONDS = 1024**2, 3

#: Seconds of writes that a backlog should hold, and how much one is enlarged beyond that.
_BACKLOG_S, _SPARE = 60, 2


@rule("replication-lag", "warning")
def replication_lag(checkup: Checkup) -> Iterator[Found]:
    for primary, view in checkup.primaries:
        allowed = number(primary.setting("min-replicas-max-lag"), _LAG_S) or _LAG_S
        rate = write_rate(primary, view)
        for line in view.replicas:
            if line.state != "online":
                continue
            replica = checkup.at(line.address)
            behind = _behind(primary, view, line, replica)
            if line.lag <= allowed and behind <= max(_BYTES, _SECONDS * rate):
                continue
            name = replica.name if replica else str(line.address)
            yield Found(
                name,
                f"{size(behind)} behind {primary.name}, last heard of {line.lag} s ago (INFO replication of "
                f"{primary.name}: offset {line.offset} of {view.offset}, lag {line.lag})",
                "The primary confirms a write before any replica has it. What this one lacks at the moment of a failover "
                "is lost, and reads from it are that old.",
                _lag_fix(checkup, primary, replica, allowed),
            )


def _lag_fix(checkup: Checkup, primary: Node, replica: Node | None, allowed: int) -> str:
    slow = cli(checkup, replica, "SLOWLOG", "GET", "10") if replica else "SLOWLOG GET 10 on it"
    bound = set_and_keep_on(checkup, [primary], "min-replicas-to-write", "1")
    return (
        f"find what holds it up: processor and disk of its host, the line between the two, {slow}; if writes must not run "
        f"ahead by more than {allowed} s: {bound}"
    )


def _behind(primary: Node, view: NodeView, line: ReplicaLine, replica: Node | None) -> int:
    """Bytes, in both looks, and by what the replica says itself: what it has not confirmed yet it may have all the same.

    One that does not answer us is behind from its second missing sign of life on.
    """
    behind = [view.offset - line.offset]
    later = primary.details.later
    for fields in _replica_fields(later):
        if (fields.get("ip"), fields.get("port")) == (line.address.host, str(line.address.port)):
            behind.append(number(later.get("master_repl_offset")) - number(fields.get("offset")))
    if replica is not None and replica.seen is not None:
        behind.append(view.offset - replica.seen.offset)
    elif line.lag < _SILENT_S:
        return 0
    return max(0, min(behind))


def _replica_fields(info: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for key, value in info.items():
        if key.startswith("slave") and key[5:].isdecimal():
            yield dict(part.split("=", 1) for part in value.split(",") if "=" in part)


@rule("backlog-too-small", "warning")
def backlog_too_small(checkup: Checkup) -> Iterator[Found]:
    for primary, view in checkup.primaries:
        backlog, rate = number(view.info.get("repl_backlog_size")), write_rate(primary, view)
        if not (bytes_wanted := wanted_backlog(primary, view)):
            continue
        nodes = [primary, *(node for node, _ in checkup.replicas_of(primary))]
        wanted = str(bytes_wanted)
        yield Found(
            primary.name,
            f"repl-backlog-size {size(backlog)} holds {backlog / rate:.0f} s: {size(int(rate))} are written each second "
            f"(INFO replication twice, {primary.details.seconds:.1f} s apart)",
            "A replica that was away for longer copies everything anew: a fork, a snapshot and a reload. During that time "
            "it protects nothing, and every blip of the network does it again.",
            f"{set_and_keep_on(checkup, nodes, 'repl-backlog-size', wanted)} (memory beyond maxmemory)"
            if checkup.spec is None
            else f"repl-backlog-size: {wanted} below settings: in the deployment file, then redkeep apply, for "
            f"{listed(nodes)}",
        )


def wants_second_look(view: NodeView) -> bool:
    """Whether a primary's INFO, once more a moment later, could make any of these rules say something."""
    if not view.replicas:
        return False
    behind = max(view.offset - line.offset for line in view.replicas)
    backlog = number(view.info.get("repl_backlog_size"))
    return behind > _BYTES or _average(view) * _BACKLOG_S > backlog


def wanted_backlog(primary: Node, view: NodeView) -> int:
    """Bytes; 0 where what it has is enough."""
    backlog, rate = number(view.info.get("repl_backlog_size")), write_rate(primary, view)
    if not view.replicas or backlog <= 0 or rate * _BACKLOG_S <= backlog:
        return 0
    return _round_up(int(rate * _BACKLOG_S * _SPARE))


def write_rate(primary: Node, view: NodeView) -> float:
    """Bytes each second that replicas are sent. A single burst between two looks is none: the server's own average counts.

    The average is over some 1.6 s, and of what is sent to all replicas (7.0), or of what arrives at all.
    """
    details = primary.details
    written = number(details.later.get("master_repl_offset")) - view.offset
    if not details.later or details.seconds <= 0 or written <= 0:
        return 0.0
    return min(written / details.seconds, _average(view))


def _average(view: NodeView) -> float:
    sent = view.info.get("instantaneous_output_repl_kbps")
    shares = max(1, len(view.replicas)) if sent is not None else 1
    try:
        average = float(sent if sent is not None else view.info.get("instantaneous_input_kbps", "0"))
    except ValueError:
        return 0.0
    return average * 1024 / shares


def _round_up(wanted: int) -> int:
    power = 1024**2
    while power < wanted:
        power *= 2
    return power
