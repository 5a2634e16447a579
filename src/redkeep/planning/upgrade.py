"""Another version, flavor or source of the engine under a running deployment: who has to be restarted, and what must
not be tried.

A version that somebody asked for (by ``flavor``, ``version``, or a source whose contents only the operator changes) is
what servers are restarted to. A package that the host's own package manager upgraded beneath a running server is not:
that server keeps its files as they are, and the restart is suggested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.topology import NodeView, Observed
from redkeep.planning.provision import reachable

if TYPE_CHECKING:
    from redkeep.model.engine import Engine, EngineWant, Installed
    from redkeep.planning.desired import Desired, DesiredHost, DesiredNode


def runs_for_now(
    want: EngineWant, installed: Mapping[str, Installed], observed: Observed
) -> dict[str, Engine]:
    """Node -> the engine that it may go on with, although the host's package is another one by now."""
    if want.source != "package" or want.version is not None:
        return {}
    found = {}
    for name, view in observed.nodes.items():
        there = installed.get(name.rpartition(":")[0])
        if isinstance(view, NodeView) and there and same_flavor(view.engine, there.engine):
            found[name] = view.engine
    return found


def same_flavor(one: Engine, other: Engine) -> bool:
    return one.flavor == other.flavor


def other_engine(host: DesiredHost, node: DesiredNode, view: NodeView) -> str:
    """Why the server has to be started anew: another engine is installed, or is about to be; or an empty text."""
    running, want = view.engine, host.want
    if host.engine is not None:
        if not _same(node.engine, running):
            return f"it runs {running}, and {node.engine} is wanted"
        path = view.info.get("executable", "")
        if path and path != node.command[0]:
            return f"it runs {path}, and {node.command[0]} is wanted"
        return ""
    if running.flavor != want.flavor:
        return f"it runs {running}, and {want} is wanted"
    if want.source in ("bundled", "tarball"):
        return "" if _same(node.engine, running) else f"it runs {running}, and {node.engine} is wanted"
    pinned = re.search(r"\d+(\.\d+)+", (want.version or "").rpartition(":")[2])
    if pinned is None or f"{running.version}.".startswith(f"{pinned[0]}."):
        return ""
    return f"it runs {running}, and {want} is wanted"


def _same(one: Engine, other: Engine) -> bool:
    return (one.flavor, one.version) == (other.flavor, other.version)


def awaits_engine(desired: Desired, observed: Observed, node: DesiredNode) -> bool:
    """It runs, as an engine that its files shall not be for any more: they are written while it is down.

    Should it die before that, it comes back as it was.
    """
    view = reachable(observed, node)
    return view is not None and bool(other_engine(desired.hosts[node.host], node, view))


def suggested_restarts(desired: Desired, observed: Observed) -> Iterator[str]:
    """Servers whose package was upgraded beneath them."""
    found: dict[str, list[str]] = {}
    for node in desired.nodes:
        view, engine = reachable(observed, node), desired.hosts[node.host].engine
        if view is None or engine is None or not _same(node.engine, view.engine):
            continue
        if not _same(view.engine, engine):
            found.setdefault(f"{view.engine} runs, and {engine} is installed", []).append(node.name)
    for what, names in found.items():
        yield f"{what}: {', '.join(names)}. redkeep restart brings it in, one server after the other"


def check_upgrade(desired: Desired, observed: Observed) -> None:
    """Raises ``RefusedError`` before anything is touched: an engine that could not load what is there.

    What a replica is sent and what lies on the disk is in the format of the engine that runs.
    """
    for node in desired.servers:
        view = reachable(observed, node)
        if view is None or _same(view.engine, node.engine) or node.engine.loads_from(view.engine):
            continue
        raise RefusedError(
            f"{node.engine} cannot load the data of {view.engine}: it reads snapshots up to RDB version "
            f"{node.engine.reads_rdb_of(view.engine)}, and these are of version {view.engine.rdb_version}",
            where=f"{node.name}: engine in the deployment file",
            next="keep the engine, or take a newer one; to go back, deploy anew and copy the keys; nothing was changed",
        )
