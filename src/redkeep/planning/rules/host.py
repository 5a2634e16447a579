"""Is the host fit? What the servers' own logs warn about, supervision, and versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

from redkeep.planning.evidence.lifecycle import (
    FLAWS,
    Flaw,
    end_of_distribution,
    end_of_fixes,
    of_distribution,
)
from redkeep.planning.placing.preflight import LEAST_DISK, clock_skew
from redkeep.planning.rules.machines import Machine, machines, size
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import listed, number

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup, Disk, Node, Package
    from redkeep.model.engine import Engine
    from redkeep.model.topology import HostFacts, NodeView

#: Bytes of a server: fewer than this are pages that it never uses again.
_SWAPPED = 4 * 1024**2
#: What servers ask for where their file does not say, and the descriptors that they keep for themselves.
_MAXCLIENTS, _OWN = 10_000, 32


@rule("overcommit", "warning", needs=("host",))
def overcommit(checkup: Checkup) -> Iterator[Found]:
    yield from _kernel(
        checkup,
        "vm.overcommit_memory",
        [
            m
            for m in machines(checkup)
            if m.servers and m.facts.kernel.get("vm.overcommit_memory") in ("0", "2")
        ],
        "A fork is refused as soon as its copy would not fit into memory, although it shares nearly all of it. Then there "
        "is no snapshot, no rewrite and no full synchronisation, and writes may be refused.",
        "sysctl -w vm.overcommit_memory=1, and the line vm.overcommit_memory = 1 in /etc/sysctl.d/90-redis.conf",
    )


@rule("transparent-huge-pages", "warning", needs=("host",))
def transparent_huge_pages(checkup: Checkup) -> Iterator[Found]:
    """A server that refuses them for itself (``disable-thp``) has none, whatever the host says."""
    concerned = []
    for machine in machines(checkup):
        takes_them = [n for n in machine.servers if _takes_huge_pages(n)]
        if machine.facts.kernel.get("transparent_hugepage") == "always" and takes_them:
            concerned.append(machine)
    yield from _kernel(
        checkup,
        "transparent_hugepage",
        concerned,
        "While a snapshot or a full synchronisation runs, each write copies 2 MiB instead of 4 KiB. Latency jumps, and "
        "memory grows until it is gone.",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, the same at boot (tmpfiles.d), and restart the "
        "servers, replicas first",
    )


def _takes_huge_pages(node: Node) -> bool:
    if node.process and node.process.huge_pages is False:
        return False
    return node.setting("disable-thp") != "yes"


def _kernel(checkup: Checkup, name: str, found: list[Machine], why: str, fix: str) -> Iterator[Found]:
    groups: dict[tuple[str, bool], list[Machine]] = defaultdict(list)
    for machine in found:
        fixed = machine.facts.root and f"{name}:read-only" in machine.facts.kernel
        groups[machine.facts.kernel[name], fixed].append(machine)
    for (value, fixed), hosts in groups.items():
        accepted = (
            "it is a container's host that decides this, and it cannot be set from inside" if fixed else ""
        )
        yield Found(
            listed(m.name for m in hosts),
            f"{name} {value} ({_PLACES[name]})",
            why,
            f"redkeep apply sets it; by hand: {fix}" if checkup.spec and not checkup.spec.is_local else fix,
            accepted=accepted,
        )


_PLACES = {
    "vm.overcommit_memory": "/proc/sys/vm/overcommit_memory",
    "transparent_hugepage": "/sys/kernel/mm/transparent_hugepage/enabled",
}


@rule("swapping", "warning", needs=("process",))
def swapping(checkup: Checkup) -> Iterator[Found]:
    for machine in machines(checkup):
        swapped = [(n, n.process.swapped or 0) for n in machine.servers if n.process]
        large = [f"{size(s)} of {n}" for n, s in swapped if s >= _SWAPPED]
        if large:
            shown = listed(large)
            swappiness = machine.facts.kernel.get("vm.swappiness", "not known")
            yield Found(
                machine.name,
                f"swapped out: {shown} (VmSwap in /proc/PID/status); vm.swappiness {swappiness}",
                "A command that touches such a page waits for the disk, and everybody waits behind it. Sentinels and the "
                "Cluster take a server that swaps for dead.",
                "less memory for what runs there (maxmemory), or more memory; then sysctl -w vm.swappiness=1, and "
                "swapoff -a where the rest fits",
            )


@rule("listen-backlog", "warning", needs=("host", "config"))
def listen_backlog(checkup: Checkup) -> Iterator[Found]:
    for machine in machines(checkup):
        limit = machine.facts.kernel.get("net.core.somaxconn", "")
        if not limit.isdigit():
            continue
        wanted = [(n, backlog) for n in machine.servers if (backlog := number(n.setting("tcp-backlog")))]
        cut = [n for n, backlog in wanted if backlog > int(limit)]
        if cut:
            most = max(backlog for _, backlog in wanted)
            yield Found(
                machine.name,
                f"net.core.somaxconn {limit} (/proc/sys/net/core/somaxconn), and tcp-backlog {most} of {listed(cut)} "
                "(CONFIG GET)",
                "The kernel keeps fewer waiting connections than the server asked for. When all clients come back at once, "
                "as after a failover, the rest is turned away.",
                f"sysctl -w net.core.somaxconn={most}, the same line in /etc/sysctl.d/90-redis.conf, and restart the "
                f"servers, replicas first; or tcp-backlog {limit} in their files",
            )


@rule("file-limit", "warning", needs=("process", "config"))
def file_limit(checkup: Checkup) -> Iterator[Found]:
    groups: dict[tuple[int, int, int], list[Node]] = defaultdict(list)
    for node, _ in checkup.servers:
        process, running = node.process, number(node.setting("maxclients"), -1)
        if process is None or process.open_files is None or running < 0:
            continue
        wanted = _wanted_clients(node)
        if running < wanted and process.open_files < wanted + _OWN:
            groups[process.open_files, running, wanted].append(node)
    for (files, lowered, asked), nodes in groups.items():
        unit = next((n.process.supervisor for n in nodes if n.process and n.process.supervisor), "its unit")
        yield Found(
            listed(nodes),
            f"{files} open files allowed (/proc/PID/limits), so maxclients is {lowered} (CONFIG GET) instead of {asked}",
            "The server lowered maxclients by itself when it started. The next client after that is turned away, and "
            "replicas and Sentinels count as well.",
            f"LimitNOFILE={asked + _OWN} or more in {unit} (systemctl edit), or ulimit -n before its start; then restart "
            "it, replicas first",
        )


def _wanted_clients(node: Node) -> int:
    values = (node.process.settings or {}).get("maxclients", ()) if node.process else ()
    value = values[-1] if values else ""
    return number(value, _MAXCLIENTS)


@rule("clock-skew", "warning", needs=("host",))
def clocks(checkup: Checkup) -> Iterator[Found]:
    known = {m.name: m.facts for m in machines(checkup)}
    if skew := clock_skew(known):
        yield Found(
            skew.fast,
            f"{skew} (date on both)",
            "Keys expire at another moment on another host: after a failover some are gone early, others come back. Logs of "
            "one event cannot be put in order.",
            f"timedatectl set-ntp true (or chrony) on {skew.fast} and {skew.slow}, and look at timedatectl",
        )


@rule("disk-low", "warning", needs=("process",))
def disk_low(checkup: Checkup) -> Iterator[Found]:
    for machine in machines(checkup):
        disks: dict[str, list[tuple[Node, NodeView, Disk]]] = defaultdict(list)
        for node in machine.servers:
            disk = node.process.disk if node.process else None
            if node.seen and disk and _persists(node):
                disks[disk.id].append((node, node.seen, disk))
        for users in disks.values():
            needed = sum(view.memory for _, view, _ in users) + LEAST_DISK
            disk = users[0][2]
            if disk.free < needed:
                yield Found(
                    machine.name,
                    f"{size(disk.free)} are free of the {size(disk.size)} below {disk.folder}; the next snapshots or "
                    f"rewrites of {listed(n for n, _, _ in users)} may take {size(needed)}",
                    "A snapshot or a rewrite is written beside the old file, and fails where there is no room. Then writes "
                    "are refused, or exist in memory only.",
                    f"du -xh {disk.folder} | sort -h | tail; remove what is old, or take a larger disk",
                )


def _persists(node: Node) -> bool:
    return bool(node.setting("save")) or node.setting("appendonly") == "yes"


@rule("not-supervised", "warning", needs=("process", "restart"))
def not_supervised(checkup: Checkup) -> Iterator[Found]:
    groups: dict[tuple[str, str, str], list[Node]] = defaultdict(list)
    for node, _ in checkup.seen:
        if node.process is None:
            continue
        process, accepted = node.process, ""
        if not process.supervisor:
            seen = "it belongs to no unit, container or supervisor (/proc/PID/cgroup)"
        elif process.restart == "no":
            seen = f"{process.supervisor} has Restart=no (systemctl show)"
        elif process.starts_at_boot is False:
            seen = f"{process.supervisor} is not enabled (systemctl is-enabled)"
        elif process.supervisor == "bin/supervise":
            seen = "bin/supervise restarts it after a crash, and nothing starts it after a reboot"
            accepted = _without_systemd(checkup, node)
        else:
            continue
        groups[seen, accepted, _supervision(process.supervisor)].append(node)
    for (seen, accepted, fix), nodes in groups.items():
        yield Found(
            listed(nodes),
            seen,
            "After a crash or a reboot it stays away, and the deployment has one copy less. Nobody misses it before the "
            "next failure, which then takes the last one.",
            "redkeep apply on a host with systemd" if accepted else fix,
            accepted=accepted,
        )


def _without_systemd(checkup: Checkup, node: Node) -> str:
    host = checkup.hosts.get(node.host)
    if host and host.seen and not host.seen.systemd:
        return "the host has no systemd that may be used"
    return ""


def _supervision(unit: str) -> str:
    gap = "with RestartSec= above the time of a failover, so that no old primary comes back first"
    if unit.endswith(".service"):
        return f"systemctl edit {unit}: [Service] Restart=always, {gap}; then systemctl enable {unit}"
    return f"a systemd unit for it: Restart=always, {gap}; then systemctl enable --now UNIT"


@rule("version-end-of-life", "warning")
def version_end_of_life(checkup: Checkup) -> Iterator[Found]:
    groups: dict[tuple[str, str, str], list[Node]] = defaultdict(list)
    for node, view in checkup.seen:
        problems = _problems(checkup, node, view)
        if problems:
            package = node.process.package if node.process else None
            accepted = ""
            if package and of_distribution(package):
                problems, accepted = _patched(checkup, node, package, problems)
            evidence = f"{view.engine} (INFO server): {'; '.join(problems)}"
            groups[evidence, accepted, _upgrade(view.engine, package)].append(node)
    for (evidence, accepted, fix), nodes in groups.items():
        yield Found(
            listed(nodes),
            evidence,
            "Flaws that become known from now on stay open here, and scanners look for the known ones by version. Some of "
            "them let whoever may run a script run code on the host.",
            fix,
            accepted=accepted,
        )


def _problems(checkup: Checkup, node: Node, view: NodeView) -> dict[str, Flaw | None]:
    """What there is to say, with the flaw that it is about."""
    found: dict[str, Flaw | None] = {}
    ended = end_of_fixes(view.engine)
    if ended and ended <= checkup.time.date():
        found[f"no security fixes since {ended}"] = None
    for flaw in FLAWS:
        fix = flaw.fix(view.engine)
        if fix is not None and (not flaw.tls or _has_tls(checkup, node)):
            mended = f"mended in {fix}" if fix else "mended in newer lines only"
            found[f"{flaw.id}, {flaw.what}, is {mended}"] = flaw
    return found


def _has_tls(checkup: Checkup, node: Node) -> bool:
    visit = checkup.visit(node)
    return (node.setting("tls-port") or "0") != "0" or bool(visit and visit.tls)


def _patched(
    checkup: Checkup, node: Node, package: Package, problems: dict[str, Flaw | None]
) -> tuple[dict[str, Flaw | None], str]:
    """What is left of the problems of a distribution's package, and why it counts as information, if it does."""
    host = checkup.hosts.get(node.host)
    facts = host.seen if host else None
    ended = _distribution_ended(facts, checkup.time.date())
    if ended:
        return {**problems, f"and so has its distribution: {ended}": None}, ""
    if package.fixes is None:
        return (
            problems,
            f"{package.name} {package.version} is the distribution's, which mends flaws without a new number",
        )
    open_flaws = {p: f for p, f in problems.items() if f and f.id not in package.fixes}
    if open_flaws:
        return {
            f"{p}, and not in the changelog of {package.name} {package.version}": f
            for p, f in open_flaws.items()
        }, ""
    named = [f.id for f in problems.values() if f]
    proof = f", and its changelog names {listed(named)}" if named else ""
    return problems, f"{package.name} {package.version} is the distribution's, which sends fixes{proof}"


def _distribution_ended(facts: HostFacts | None, today: date) -> str:
    ended = end_of_distribution(facts.system, facts.system_version) if facts else None
    if facts is None or ended is None or ended > today:
        return ""
    return f"{facts.system} {facts.system_version} ended on {ended}"


def _upgrade(engine: Engine, package: Package | None) -> str:
    order = "replicas first, then a switchover, the old primary last; keep a snapshot from before"
    if package and of_distribution(package):
        return f"apt-get install --only-upgrade {package.name} (or dnf update), then restart: {order}"
    newer = (
        "a maintained line of Valkey or Redis"
        if engine.flavor == "redis"
        else "the last release of a maintained line"
    )
    meanwhile = (
        "for users that need no scripts: ACL SETUSER NAME -@scripting"
        if engine.version.major >= 6
        else "where no script is needed: rename-command, in its file, for EVAL and EVALSHA"
    )
    return f"upgrade to {newer}: {order}. Until then, {meanwhile}"


@rule("versions-mixed", "info")
def versions_mixed(checkup: Checkup) -> Iterator[Found]:
    groups: dict[str, list[str]] = defaultdict(list)
    for node, view in checkup.seen:
        groups[str(view.engine)].append(node.name)
    if len(groups) > 1:
        yield Found(
            "deployment",
            "; ".join(f"{engine} on {listed(names)}" for engine, names in sorted(groups.items()))
            + " (INFO server)",
            "A newer primary may send what an older replica cannot load, so a failover to the newer one is a way of no "
            "return. Settings and commands differ as well.",
            "finish the upgrade: replicas first, then a switchover, the old primary last",
        )
