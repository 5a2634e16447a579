"""One server or Sentinel is started anew, with the files that it shall have, and only while all others are well.

A primary with a replica has handed over before (``planning/rolling.py``). Files for another engine are written while the
node is down: at every other moment, whatever starts it finds files that fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redkeep.errors import EngineError, RedkeepError, RefusedError
from redkeep.model.topology import HostFacts, NodeView, Unreachable
from redkeep.planning.provision import changed_files
from redkeep.run.steps.context import Context, until
from redkeep.run.steps.processes import STOP_LIMIT, launch, linked, ready, stop_supervised
from redkeep.run.steps.tryout import try_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redkeep.model.files import RemoteFile
    from redkeep.model.plan import Step
    from redkeep.planning.desired import Desired, DesiredNode

#: Seconds for the others to be well before a restart, and for the node to have its copy after it.
WELL_LIMIT = 120.0
SYNC_LIMIT = 600.0
#: Save points under which an orderly shutdown writes the data down, and nothing else does for an hour.
SAVE_AT_SHUTDOWN = "3600 1"


async def restart(context: Context, step: Step) -> None:
    """Raises ``EngineError`` where the others are not well, or where it does not come back well."""
    node = context.desired.node(step.node)
    facts = context.observed.hosts[step.host]
    files = changed_files(node.files, facts if isinstance(facts, HostFacts) else None)
    if any(f.path == node.paths.managed for f in files):
        await try_settings(context, node)
    await _others_well(context, node)
    saved = await _save_at_shutdown(context, node)
    await _stop(context, node, files)
    await launch(context, node)
    await ready(context, node)
    await until(
        lambda: linked(context, node),
        seconds=SYNC_LIMIT,
        failure=lambda: _problem(f"{node.name} runs again, but is not in sync", node),
    )
    if saved:  # nobody wants to find this in front of a later, empty start
        await context.host(node.host).run(f"rm -f {node.paths.data}/dump.rdb")
    await _others_well(context, node)


async def _stop(context: Context, node: DesiredNode, files: tuple[RemoteFile, ...]) -> None:
    machine = context.host(node.host)
    context.fleet.drop(node)
    if context.desired.hosts[node.host].systemd:
        await machine.run(f"systemctl stop {node.paths.unit}", timeout=STOP_LIMIT)
        await machine.write(files)
        await machine.run("systemctl daemon-reload")
    else:
        await machine.run(stop_supervised(node.paths.data), timeout=STOP_LIMIT)
        await machine.write(files)


async def _others_well(context: Context, node: DesiredNode) -> None:
    """Everybody else answers, replicas have their links, the Cluster is well and the Sentinels agree: one thing at a
    time is enough."""
    said = ""

    async def well() -> bool:
        nonlocal said
        views = await context.fleet.views(n for n in context.desired.nodes if n != node)
        said = next((f"{name} {words}" for name, view in views.items() if (words := _ill(view))), "")
        if not said and context.desired.sentinels:
            said = _sentinels_ill(context.desired, views, node)
        return not said

    await until(
        well,
        seconds=WELL_LIMIT,
        failure=lambda: _problem(f"{node.name} is not restarted while others are not well: {said}", node),
        poll=0.1,
    )


def _sentinels_ill(
    desired: Desired, views: Mapping[str, NodeView | Unreachable], restarted: DesiredNode
) -> str:
    """They agree on the primary, and are at no failover. SENTINEL GET-MASTER-ADDR-BY-NAME names the new one early;
    clients that ask SENTINEL MASTERS, as redis-py does, are sent to the old one until the failover has ended."""
    known = {n: v for n, v in views.items() if isinstance(v, NodeView)}
    leader = next((n for n, v in known.items() if v.role == "primary"), restarted.name)
    for sentinel in desired.sentinels:
        view = known.get(sentinel.name)
        entries = [e for e in view.monitored if e.name == desired.spec.name] if view else []
        for entry in entries:
            named = desired.at(entry.address.host, entry.address.port)
            if named is None or named.name != leader:
                return f"{sentinel.name} still names {entry.address} as the primary"
            if "failover_in_progress" in entry.flags:
                return f"{sentinel.name} is at a failover"
    return ""


def _ill(view: NodeView | Unreachable) -> str:
    if isinstance(view, Unreachable):
        return f"does not answer ({view.reason})"
    if not view.link_up:
        return "has no link to its primary"
    if view.cluster is not None and not view.cluster.state_ok:
        return "says that the Cluster is not well"
    return ""


async def _save_at_shutdown(context: Context, node: DesiredNode) -> bool:
    """A primary that keeps nothing on disk and is restarted in place writes its data down this once.

    SIGTERM saves where there are save points (``prepareForShutdown`` in server.c). Raises ``RefusedError`` where the
    disk could not hold it: the server would not end, and in the end be killed.
    """
    if node.sentinel or context.desired.spec.persistence != "none":
        return False
    view, facts = await context.fleet.view(node), context.observed.hosts[node.host]
    if not isinstance(view, NodeView) or view.role != "primary" or not view.keys:
        return False
    if isinstance(facts, HostFacts) and facts.disk_free < view.memory:
        raise RefusedError(
            f"{node.name} keeps nothing on disk, and there is no room to write its data down for the restart",
            where=f"{node.host}: {facts.disk_free // 1024**2} MiB free, {view.memory // 1024**2} MiB of data",
            next="make room, or give it a replica; nothing was changed",
        )
    await context.fleet.call(node, "CONFIG", "SET", "save", SAVE_AT_SHUTDOWN)
    return True


def _problem(what: str, node: DesiredNode) -> RedkeepError:
    return EngineError(what, where=node.host, next="look at redkeep status, mend that, and run it again")


ACTIONS = {"restart": restart}
