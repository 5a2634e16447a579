"""Will the data be there tomorrow? Restarts, persistence, memory limits, and what confirmed writes can lose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from redkeep.model.engine import immutable_settings
from redkeep.model.values import Value
from redkeep.planning.evidence.drift import Difference, differences
from redkeep.planning.placing.preflight import MEMORY_SHARE
from redkeep.planning.rules.machines import Machine, machines, size, span
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import cli, listed, number, set_and_keep_on

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup, Node, ProcessFacts
    from redkeep.model.topology import NodeView

#: A restart that comes so many seconds after the detection of the failure comes after the failover.
_ELECTION = 5.0
#: Seconds: INFO tells a server's age, and the file system a file's, in whole ones.
_PRECISION = 2.0
#: A disk with less than this is full for a server.
_FULL = 1024**2


@rule("restart-rollback", "warning", needs=("config", "process", "restart"))
def restart_rollback(checkup: Checkup) -> Iterator[Found]:
    def snapshots_only(node: Node) -> bool:
        return bool(node.setting("save")) and node.setting("appendonly") == "no"

    yield from _after_a_restart(
        checkup,
        snapshots_only,
        "appendonly no, save {save} (CONFIG GET)",
        "After a crash it is back with its last snapshot before anybody is promoted, and its replicas copy that. Even "
        "writes that WAIT confirmed are gone then, on all of them.",
    )


@rule("empty-restart-wipe", "error", needs=("config", "process", "restart"))
def empty_restart_wipe(checkup: Checkup) -> Iterator[Found]:
    def nothing(node: Node) -> bool:
        return node.setting("save") == "" and node.setting("appendonly") == "no"

    yield from _after_a_restart(
        checkup,
        nothing,
        'appendonly no, save "" (CONFIG GET)',
        "After a crash it is back empty before anybody is promoted, and its replicas copy that: the whole data set is "
        "gone, on all of them.",
    )


def _after_a_restart(
    checkup: Checkup, persists: Callable[[Node], bool], seen: str, why: str
) -> Iterator[Found]:
    """Primaries with replicas that something restarts before a failover; those behind the gate are only mentioned."""
    groups: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for node, view in checkup.primaries:
        process = node.process
        if process is None or not persists(node) or not _has_replicas(checkup, node, view):
            continue
        if restart := _restart(checkup, node, view, process):
            evidence = f"{seen.format(save=node.setting('save'))}; {restart}"
            groups[evidence, process.gate].append(node)
    for (evidence, gate), nodes in groups.items():
        accepted = f"Redkeep's gate ({gate}) asks its peers first" if gate else ""
        fix = "nothing to do" if gate else _restart_fix(checkup, nodes)
        yield Found(listed(nodes), evidence, why, fix, accepted=accepted)


def _restart_fix(checkup: Checkup, nodes: list[Node]) -> str:
    delay = "RestartSec=60 in its unit, where Sentinel or Cluster promotes a replica meanwhile"
    return f"{set_and_keep_on(checkup, nodes, 'appendonly', 'yes')}; or {delay}"


def _has_replicas(checkup: Checkup, node: Node, view: NodeView) -> bool:
    return bool(view.replicas) or any(True for _ in checkup.replicas_of(node))


def _restart(checkup: Checkup, node: Node, view: NodeView, process: ProcessFacts) -> str:
    """What restarts it too soon; empty where nothing does, or where that cannot be told (a container's policy)."""
    if process.restart in ("no", "") and not (process.gate or process.supervisor.endswith(_QUICK)):
        return ""
    detection = _detection(checkup, node, view)
    delay = process.restart_seconds
    if delay is not None and detection is not None and delay > detection + _ELECTION:
        return ""
    who = f"{process.supervisor} restarts it"
    if process.restart:
        who += f" (Restart={process.restart}{f', after {span(delay)}' if delay is not None else ''})"
    then = (
        "nobody is promoted by itself" if detection is None else f"a failover begins after {span(detection)}"
    )
    return f"{who}, and {then}"


#: Supervisors without settings that we read: all of them restart at once.
_QUICK = ("supervise", "supervisord", "runsv", "circusd", "pm2")


def _detection(checkup: Checkup, node: Node, view: NodeView) -> float | None:
    """Seconds until the others take it for dead; ``None`` where nobody would be promoted."""
    if view.cluster:
        timeout = number(node.setting("cluster-node-timeout"))
        return timeout / 1000 if timeout > 0 else None
    found = [
        ms / 1000
        for _, sentinel in checkup.sentinels
        for e in sentinel.monitored
        if checkup.at(e.address) is node and (ms := number(e.settings.get("down-after-milliseconds"))) > 0
    ]
    return max(found, default=None)


@rule("persistence-failing", "error")
def persistence_failing(checkup: Checkup) -> Iterator[Found]:
    for node, view in checkup.servers:
        failed = list(_failures(checkup, node, view))
        if not failed:
            continue
        refusing = view.info.get("aof_last_write_status") == "err" or (
            bool(node.setting("save")) and node.setting("stop-writes-on-bgsave-error") != "no"
        )
        consequence = (
            "Writes are refused until it works again (MISCONF)."
            if refusing
            else "Nobody notices before the next restart."
        )
        yield Found(
            node.name,
            "; ".join(failed),
            f"What was written since then is in memory only, and gone with the process. {consequence}",
            _persistence_fix(checkup, node),
        )


def _failures(checkup: Checkup, node: Node, view: NodeView) -> Iterator[str]:
    info = view.info
    if info.get("rdb_last_bgsave_status") == "err":
        yield f"rdb_last_bgsave_status:err (INFO persistence){_since(checkup, info.get('rdb_last_save_time', ''))}"
    if info.get("aof_enabled") == "1":
        for field in ("aof_last_write_status", "aof_last_bgrewrite_status"):
            if info.get(field) == "err":
                yield f"{field}:err (INFO persistence)"
    disk = node.process.disk if node.process else None
    if disk and disk.free < _FULL and (node.setting("save") or node.setting("appendonly") == "yes"):
        yield f"{size(disk.free)} are free of the {size(disk.size)} below {disk.folder}"


def _since(checkup: Checkup, saved: str) -> str:
    if (when := number(saved)) <= 0:
        return ""
    ago = max(0.0, checkup.time.timestamp() - when)
    return f", the last good snapshot is {span(ago)} old"


def _persistence_fix(checkup: Checkup, node: Node) -> str:
    log = node.setting("logfile") or "the server's log"
    folder = node.setting("dir") or "its dir"
    again = "BGREWRITEAOF" if node.setting("appendonly") == "yes" else "BGSAVE"
    return (
        f"{log} names the reason: no room below {folder} (df {folder}), no permission there, or no memory for a fork "
        f"(vm.overcommit_memory); then {cli(checkup, node, again)}"
    )


@rule("maxmemory-unset", "warning")
def maxmemory_unset(checkup: Checkup) -> Iterator[Found]:
    unlimited = [(n, v) for n, v in checkup.servers if _limit(n, v) == 0]
    if unlimited:
        nodes = [n for n, _ in unlimited]
        used = max(v.memory for _, v in unlimited)
        source = "CONFIG GET" if all(n.setting("maxmemory") for n in nodes) else "INFO memory"
        yield Found(
            listed(nodes),
            f"maxmemory 0 ({source}); used are up to {size(used)} (INFO memory)",
            "It grows until the kernel kills a process of its choice, which is mostly this one. Nothing is evicted and no "
            "write is refused before that.",
            "write maxmemory into the deployment file, then redkeep apply"
            if checkup.spec
            else f"{set_and_keep_on(checkup, nodes, 'maxmemory', '2gb')} (the number is yours: at most three quarters of "
            "the host's memory, for all of its servers together)",
        )


def _limit(node: Node, view: NodeView) -> int | None:
    """``None`` where it could not be read. INFO has it as well, for those who may not use CONFIG."""
    text = node.setting("maxmemory") or view.info.get("maxmemory", "")
    found = number(text, -1)
    return found if found >= 0 else None


@rule("maxmemory-over-host", "error", needs=("host",))
def maxmemory_over_host(checkup: Checkup) -> Iterator[Found]:
    for machine in machines(checkup):
        limits = [(n, _limit(n, n.seen) or 0) for n in machine.servers if n.seen]
        total = sum(limit for _, limit in limits)
        if total <= machine.facts.memory * MEMORY_SHARE:
            continue
        yield Found(
            machine.name,
            f"maxmemory of {len(limits)} {'server' if len(limits) == 1 else 'servers'} together {size(total)} (CONFIG GET); "
            f"the host has {size(machine.facts.memory)} (/proc/meminfo), of which a quarter is for forks and buffers",
            "While a snapshot is written, each page that changes exists twice. When they are as full as they may be, the "
            "host swaps or the kernel kills servers, several at once.",
            _memory_fix(checkup, machine, limits),
        )


def _memory_fix(checkup: Checkup, machine: Machine, limits: list[tuple[Node, int]]) -> str:
    limited = [n for n, limit in limits if limit]
    share = int(machine.facts.memory * MEMORY_SHARE / max(1, len(limited))) // 1024**2
    if checkup.spec:
        return f"write maxmemory: {share}MiB or less into the deployment file, then redkeep apply"
    return f"{set_and_keep_on(checkup, limited, 'maxmemory', f'{share}mb')}; or a host with more memory"


@rule("write-safety", "info", needs=("config",))
def write_safety(checkup: Checkup) -> Iterator[Found]:
    groups: dict[str, list[tuple[Node, NodeView]]] = defaultdict(list)
    for node, view in checkup.primaries:
        if _has_replicas(checkup, node, view) and (evidence := _unlimited(node)):
            groups[evidence].append((node, view))
    for evidence, pairs in groups.items():
        nodes = [n for n, _ in pairs]
        node, view = pairs[0]
        alone = _detection(checkup, node, view)
        cut_off = (
            f"for up to {span(alone)} (cluster-node-timeout)"
            if view.cluster and alone is not None
            else "for as long as it is cut off"
        )
        yield Found(
            listed(nodes),
            evidence,
            "A confirmed write is on the replicas some milliseconds later: a primary that dies takes those with it. One "
            f"that is cut off goes on confirming {cut_off}, and all of that is lost when it follows the new primary.",
            f"{_safety_fix(checkup, nodes)}; for single writes WAIT 1 100 after them",
        )


def _unlimited(node: Node) -> str:
    """Empty where a lonely primary stops by itself, or where it cannot be told."""
    least = node.setting("min-replicas-to-write")
    lag = node.setting("min-replicas-max-lag")
    if least is None or (least != "0" and lag != "0"):
        return ""
    aof = node.setting("appendonly") == "yes"
    disk = f"appendonly yes, appendfsync {node.setting('appendfsync')}" if aof else "appendonly no"
    return f"min-replicas-to-write {least}, min-replicas-max-lag {lag}, {disk} (CONFIG GET)"


def _safety_fix(checkup: Checkup, nodes: list[Node]) -> str:
    if checkup.spec:
        return (
            "if that matters more than writes while replicas are away: settings: {min-replicas-to-write: 1} in the "
            "deployment file"
        )
    return set_and_keep_on(checkup, nodes, "min-replicas-to-write", "1")


#: Stands for the name of the file: it differs where the rest is the same for many nodes.
_ITS_FILE = "\0"


class _Drift(Value):
    """What is the same for several nodes."""

    evidence: str
    names: tuple[str, ...]
    edited: bool


@rule("config-drift", "warning", needs=("config", "file"))
def config_drift(checkup: Checkup) -> Iterator[Found]:
    groups: dict[_Drift, list[Node]] = defaultdict(list)
    for node, view in checkup.servers:
        found = list(differences(node))
        if found:
            edited = _edited(checkup, node, view)
            shown = "; ".join(d.said(_ITS_FILE) for d in found[:4])
            more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
            drift = _Drift(
                f"{shown}{more}{_who(checkup, node, found, edited)}",
                tuple(d.name for d in found),
                bool(edited),
            )
            groups[drift].append(node)
    for drift, nodes in groups.items():
        yield Found(
            listed(nodes),
            drift.evidence.replace(_ITS_FILE, _files(nodes)),
            "What runs now is not what runs after the next restart, or not what was meant. The difference shows after a "
            "crash, when nobody has time for it.",
            _drift_fix(checkup, nodes, drift),
        )


def _files(nodes: list[Node]) -> str:
    found = list(dict.fromkeys(n.process.config_file if n.process else "its file" for n in nodes))
    return found[0] if len(found) == 1 else f"its file ({listed(found, limit=2)})"


def _edited(checkup: Checkup, node: Node, view: NodeView) -> datetime | None:
    """When its file was changed after its start, by this machine's clock."""
    process, host = node.process, checkup.hosts.get(node.host)
    age = number(view.info.get("uptime_in_seconds"), -1)
    if process is None or process.file_changed is None or not host or not host.seen or age < 0:
        return None
    changed = process.file_changed - host.seen.clock
    started = checkup.time.timestamp() - age
    return datetime.fromtimestamp(changed, checkup.time.tzinfo) if changed > started + _PRECISION else None


def _who(checkup: Checkup, node: Node, found: list[Difference], edited: datetime | None) -> str:
    """Who made the difference, where that can be told."""
    on_disk = [d for d in found if d.file is not None]
    if not on_disk or node.process is None or node.process.file_changed is None:
        return ""
    if all(d.by_server for d in on_disk):
        return "; the server wrote its file itself (CONFIG REWRITE), and was told otherwise since then"
    if edited is not None:
        return f"; the file was changed {edited:%Y-%m-%d %H:%M} UTC, after the server's start"
    if _has_start(node):
        return "; the file is older than the server's start, so this was set at run time (CONFIG SET)"
    return ""


def _has_start(node: Node) -> bool:
    return node.seen is not None and number(node.seen.info.get("uptime_in_seconds"), -1) >= 0


def _drift_fix(checkup: Checkup, nodes: list[Node], drift: _Drift) -> str:
    if checkup.spec:
        return "redkeep apply sets it as the deployment file says; to keep what runs, write it there first"
    view = nodes[0].seen
    if drift.edited and view and set(drift.names) <= immutable_settings(view.engine):
        return "only a start reads these: restart it, replicas first and never a primary before a failover"
    keep = cli(checkup, nodes[0], "CONFIG", "REWRITE")
    name = drift.names[0]
    return f"to keep what runs: {keep}; to take the file's: {cli(checkup, nodes[0], 'CONFIG', 'SET', name, 'VALUE')}"
