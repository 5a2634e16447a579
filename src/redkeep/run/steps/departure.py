"""Nodes that leave: stopped with their data kept aside, forgotten by Sentinels, and hosts cleaned up after them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, RedkeepError
from redkeep.model.topology import NodeView, SentinelEntry
from redkeep.run.steps.context import Context, until
from redkeep.run.steps.processes import stop_supervised

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredNode
    from redkeep.planning.hostfiles.layout import Layout

#: Seconds until the replicas that stay must have their copies: nothing is taken away before.
SYNC_LIMIT = 3600.0
#: Seconds until a primary that gave everything away has deleted it.
EMPTY_LIMIT = 60.0
#: Seconds for a Sentinel to find its primary's replicas and the other Sentinels again: they greet every 2 s, and a
#: primary is asked for its replicas every 10 s.
FOUND_LIMIT = 60.0


async def remove_node(context: Context, step: Step) -> None:
    """Stops a server or Sentinel for good. Raises ``EngineError`` where it still has what nobody else would have."""
    node = context.desired.node(step.node)
    if not node.sentinel:
        await _not_needed(context, node)
    host, machine = context.desired.hosts[node.host], context.host(node.host)
    if node.settings.get("shutdown-on-sigterm") and isinstance(await context.fleet.view(node), NodeView):
        # it has handed over, or has nothing: it is not to look for a successor
        await context.fleet.call(node, "CONFIG", "SET", "shutdown-on-sigterm", "default")
    if host.systemd:
        unit = node.paths.unit
        await machine.run(
            f"systemctl disable -q --now {unit} 2>/dev/null || systemctl stop {unit}", timeout=180.0
        )
    else:
        await machine.run(stop_supervised(node.paths.data), timeout=60.0)
    context.fleet.drop(node)
    kept = (await machine.run(_aside(host.layout, node, datetime.now(UTC)), timeout=600.0)).stdout.strip()
    if host.systemd:
        await machine.run(f"rm -f {shlex.quote(node.paths.unit_file)}; systemctl daemon-reload")
    if kept:
        context.note(f"{node.name} is stopped; its data is kept on {node.host} in {kept}")


async def _not_needed(context: Context, node: DesiredNode) -> None:
    view = await context.fleet.view(node)
    if isinstance(view, NodeView) and (
        (view.cluster and view.cluster.me.slots)
        or (view.role == "primary" and view.cluster is None and view.replicas)
    ):
        raise EngineError(
            f"{node.name} shall leave and still is a primary that others need",
            where=node.host,
            next="apply again: it hands over first",
        )
    await until(partial(_empty, context, node), seconds=EMPTY_LIMIT, failure=partial(_keys_left, node))
    for other in context.desired.servers:
        await until(partial(_copied, context, other), seconds=SYNC_LIMIT, failure=partial(_no_copy, other))


async def _empty(context: Context, node: DesiredNode) -> bool:
    """A Cluster's primary without slots has no keys: what it had has moved, and is deleted a moment later."""
    view = await context.fleet.view(node)
    return not (isinstance(view, NodeView) and view.cluster and view.role == "primary" and view.keys)


def _keys_left(node: DesiredNode) -> RedkeepError:
    return EngineError(
        f"{node.name} owns no hash slots any more, and still has keys",
        where=node.host,
        next="redkeep reshard brings keys to the owners of their slots; then apply again",
    )


async def _copied(context: Context, node: DesiredNode) -> bool:
    view = await context.fleet.view(node)
    return isinstance(view, NodeView) and (view.role == "primary" or view.link_up)


def _no_copy(node: DesiredNode) -> RedkeepError:
    return EngineError(
        f"{node.name} has no copy of its primary yet", where=node.host, next="apply again later"
    )


def _aside(layout: Layout, node: DesiredNode, now: datetime) -> str:
    """Moves the node's folder away and says where to; without data it is deleted."""
    folder, data = shlex.quote(node.paths.folder), shlex.quote(node.paths.data)
    aside = shlex.quote(f"{layout.base}.removed-{now:%Y%m%d-%H%M%S}")
    return (
        f"[ -e {folder} ] || exit 0\n"
        f'if [ -n "$(ls -d {_data_files(data)} 2>/dev/null)" ]; then\n'
        f"  mkdir -p {aside} && chmod 0700 {aside} && mv {folder} {aside}/ && echo {aside}\n"
        f"else rm -rf {folder}; fi"
    )


def _data_files(folder: str) -> str:
    """What a server's data is in, for ``ls -d``; quoted already."""
    return f"{folder}/*.rdb {folder}/*.aof {folder}/appendonlydir"


async def reset_sentinel(context: Context, step: Step) -> None:
    """SENTINEL RESET, and until it knows the living again: meanwhile it could not take part in a failover."""
    node, name = context.desired.node(step.node), context.desired.spec.name
    gone = {n.announced for n in context.desired.leaving}
    replicas, others = len(context.desired.servers) - 1, len(context.desired.sentinels) - 1
    await context.fleet.call(node, "SENTINEL", "RESET", name)

    async def knows() -> bool:
        entry = await _entry(context, node)
        if entry is None:
            return False
        listed = {(a.host, a.port) for a in (*entry.replicas, *entry.sentinels)}
        return len(entry.replicas) >= replicas and len(entry.sentinels) >= others and not listed & gone

    await until(knows, seconds=FOUND_LIMIT, failure=partial(_not_found, node), poll=0.1)


async def _entry(context: Context, node: DesiredNode) -> SentinelEntry | None:
    view = await context.fleet.view(node)
    if not isinstance(view, NodeView):
        return None
    return next((e for e in view.monitored if e.name == context.desired.spec.name), None)


def _not_found(node: DesiredNode) -> RedkeepError:
    return EngineError(
        f"{node.name} was reset, and does not find the other Sentinels and all replicas again",
        where=node.host,
        next="redkeep check says whom it does not reach; then apply again",
    )


async def clean_host(context: Context, step: Step) -> None:
    """What is left on a host without nodes: identity, passwords, scripts, firewall. Data that was kept aside stays."""
    host, machine = context.desired.hosts[step.host], context.host(step.host)
    layout = host.layout
    lines = []
    if host.systemd:
        unit = layout.firewall_unit
        paths = shlex.join([f"/etc/systemd/system/{unit}", layout.logrotate])
        lines.append(f"systemctl disable -q --now {unit} 2>/dev/null; rm -f {paths}; systemctl daemon-reload")
        shared = shlex.join([layout.sysctl, layout.tmpfiles])
        # the kernel settings serve every deployment of this host
        lines.append(f"ls /etc/systemd/system/redkeep-*.service >/dev/null 2>&1 || rm -f {shared}")
    base, aside = (
        shlex.quote(layout.base),
        shlex.quote(f"{layout.base}.removed-{datetime.now(UTC):%Y%m%d-%H%M%S}"),
    )
    lines.append(
        f"if ls {_data_files(f'{base}/*/data')} 2>/dev/null | grep -q .; then mv {base} {aside}; else rm -rf {base}; fi"
    )
    await machine.run("\n".join(lines), timeout=120.0)


ACTIONS = {"remove-node": remove_node, "reset-sentinel": reset_sentinel, "clean-host": clean_host}
