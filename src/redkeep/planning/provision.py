"""From bare hosts to running processes: engine, host, files, start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from redkeep.model.plan import Step
from redkeep.model.topology import HostFacts, NodeView, Observed, Unreachable
from redkeep.planning.hostfiles.units import KERNEL_WANTED, SOMAXCONN

if TYPE_CHECKING:
    from redkeep.model.files import RemoteFile
    from redkeep.planning.desired import Desired, DesiredHost, DesiredNode

#: States of a unit in which starting it again would do nothing: it runs, or waits at the gate for its peers.
UP = frozenset({"active", "activating", "reloading"})


def provision(
    desired: Desired, observed: Observed, awaits: Callable[[DesiredNode], bool] = lambda _: False
) -> Iterator[Step]:
    """Steps that bring the software, the folders, the files and the processes onto every host.

    ``awaits``: whether a node's files are written with its restart, and not before.
    """
    for host in desired.hosts.values():
        if not desired.on(host.name):
            yield from _letting_in(desired, host, observed)
            continue  # nothing of the deployment is to run there
        facts = observed.hosts.get(host.name)
        known = facts if isinstance(facts, HostFacts) else None
        if host.engine is None:
            yield Step("engine", "install-engine", host.name, why=f"{host.want} is not installed")
        later = desired.settled.hosts[host.name].files if desired.settled else ()
        if reasons := _host_reasons(host, desired.on(host.name), known, later):
            yield Step("host", "prepare-host", host.name, why="; ".join(reasons))
        for node in desired.on(host.name):
            after = desired.settled.node(node.name).files if desired.settled else ()
            yield from _node(node, host, known, after, with_restart=awaits(node))


def _letting_in(desired: Desired, host: DesiredHost, observed: Observed) -> Iterator[Step]:
    """A host that only leaving nodes are on lets those in that come, until its own are gone."""
    facts = observed.hosts.get(host.name)
    rules = tuple(f for f in host.files if f.path == host.layout.firewall)
    if isinstance(facts, HostFacts) and facts.identity and changed_files(rules, facts):
        yield Step("host", "prepare-host", host.name, why="the firewall lets new nodes in")


def _node(
    node: DesiredNode,
    host: DesiredHost,
    facts: HostFacts | None,
    later: tuple[RemoteFile, ...],
    *,
    with_restart: bool,
) -> Iterator[Step]:
    new = facts is None or node.paths.own not in facts.present
    changed = changed_files(node.files, facts, later)
    if (new or changed) and not with_restart:
        names = " ".join(sorted(f.path.rsplit("/", 1)[-1] for f in changed))
        why = "the node is new" if new else f"not as they should be: {names}"
        yield Step("files", "write-files", host.name, node.name, why=why)
    if facts is None or not running(node, host, facts):
        # Sentinels start when there is something to watch: what they see first they know at once.
        yield Step(
            "monitor" if node.sentinel else "start", "start", host.name, node.name, why="it does not run"
        )


def running(node: DesiredNode, host: DesiredHost, facts: HostFacts) -> bool:
    """Started, and meant to be started again after a reboot."""
    if not host.systemd:
        return node.paths.folder in facts.services
    return facts.services.get(node.paths.unit) in UP and node.paths.unit in facts.enabled


def changed_files(
    files: tuple[RemoteFile, ...], facts: HostFacts | None, later: tuple[RemoteFile, ...] = ()
) -> tuple[RemoteFile, ...]:
    """Those whose contents on the host differ, or that are missing there. As in ``later`` is right as well."""
    also = {f.path: f.digest for f in later}
    return tuple(
        f
        for f in files
        if facts is None or facts.digests.get(f.path, "") not in (f.digest, also.get(f.path, f.digest))
    )


def gone(node: DesiredNode, observed: Observed) -> bool:
    """Nothing of a node is on its host any more, or nobody can look there."""
    facts = observed.hosts.get(node.host)
    if not isinstance(facts, HostFacts):
        return True
    its = {node.paths.own, node.paths.data, node.paths.members}
    return not its & facts.present and node.paths.unit_file not in facts.digests


def _host_reasons(
    host: DesiredHost, nodes: tuple[DesiredNode, ...], facts: HostFacts | None, later: tuple[RemoteFile, ...]
) -> list[str]:
    if facts is None:
        return ["nothing is known of it yet"]
    reasons = []
    if changed := changed_files(host.files, facts, later):
        reasons.append("files: " + ", ".join(sorted(f.path.rsplit("/", 1)[-1] for f in changed)))
    if missing := [n.paths.data for n in nodes if n.paths.data not in facts.present]:
        reasons.append(f"{len(missing)} folders are missing")
    if host.systemd:
        reasons += kernel_reasons(facts)
    guarded = host.layout.firewall in {f.path for f in host.files}
    loaded = facts.services.get(host.layout.firewall_unit) == "active"
    if guarded and not loaded:
        reasons.append("the firewall is not loaded")
    if not guarded and (loaded or host.layout.firewall in facts.digests):
        reasons.append("the firewall is no longer wanted")
    return reasons


def kernel_reasons(facts: HostFacts) -> list[str]:
    """Kernel settings that the servers' logs would warn about, and that we may change."""
    reasons = []
    for name, fine in KERNEL_WANTED.items():
        value = facts.kernel.get(name)
        if value is not None and value not in fine and f"{name}:read-only" not in facts.kernel:
            reasons.append(f"{name} is {value}")
    backlog = facts.kernel.get("net.core.somaxconn")
    if (
        backlog is not None
        and int(backlog) < SOMAXCONN
        and "net.core.somaxconn:read-only" not in facts.kernel
    ):
        reasons.append(f"net.core.somaxconn is {backlog}")
    return reasons


def reachable(observed: Observed, node: DesiredNode) -> NodeView | None:
    """The node's own view, where it answered."""
    view = observed.nodes.get(node.name)
    return None if view is None or isinstance(view, Unreachable) else view
