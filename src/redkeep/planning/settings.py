"""What runs with other settings than it should: set at run time where the engine allows, else restarted in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from redkeep.model.engine import immutable_settings
from redkeep.model.plan import Step
from redkeep.planning.cluster import in_creation
from redkeep.planning.hostfiles.acl import acl_differs
from redkeep.planning.hostfiles.config import SECRET_SETTINGS, haste, same_value
from redkeep.planning.provision import reachable
from redkeep.planning.rolling import rolling
from redkeep.planning.upgrade import other_engine

if TYPE_CHECKING:
    from redkeep.model.topology import NodeView, Observed
    from redkeep.planning.desired import Desired, DesiredNode


def settings(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Steps for every server that answers; what only a start can change is done in turn (``rolling``).

    While a Cluster is created, also for those that will answer: its short timeouts come back in the end.
    """
    restarts: dict[str, str] = {}
    hasty = in_creation(desired, observed)
    for node in desired.nodes:
        view = reachable(observed, node)
        passing = sorted(haste(node.settings, len(desired.servers))) if hasty else []
        if view is None:
            if passing:
                yield _set(node, passing, "short timeouts were for the creation only")
            continue
        if reason := other_engine(desired.hosts[node.host], node, view):
            restarts[node.name] = reason
            continue  # it reads everything anew; what its files will say the old one may not even understand
        if acl_differs(node.acl, view.acl):
            yield Step(
                "settings", "set-users", node.host, node.name, why="the users differ from the deployment's"
            )
        outdated = _presents_older(desired, node, view)
        if outdated and not node.sentinel:
            yield Step(
                "settings", "reload-tls", node.host, node.name, why="it still presents an older certificate"
            )
        live, fixed = differences(node, view)
        if live or passing:
            why = _changes(node, view, live) if live else "short timeouts were for the creation only"
            yield _set(node, sorted({*live, *passing}), why)
        reason = f"{', '.join(fixed)} can only change at a start" if fixed else ""
        if outdated and node.sentinel:
            reason = "it still presents an older certificate, and a Sentinel reads it at its start only"
        if not reason and desired.renew.get(node.name) == view.run_id:
            reason = "it was asked for"
        if reason:
            restarts[node.name] = reason
    yield from rolling(desired, observed, restarts)


def _set(node: DesiredNode, names: list[str], why: str) -> Step:
    return Step("settings", "set", node.host, node.name, why=why, args={"settings": " ".join(names)})


def _presents_older(desired: Desired, node: DesiredNode, view: NodeView) -> bool:
    certificate = desired.hosts[node.host].certificate
    return bool(certificate and view.certificate and view.certificate != certificate)


def differences(node: DesiredNode, view: NodeView) -> tuple[list[str], list[str]]:
    """Names of settings that differ: those that CONFIG SET can change, and those that need a restart."""
    fixed_names = immutable_settings(view.engine)
    found = sorted(
        k
        for k, wanted in node.settings.items()
        if k in view.config and not same_value(k, wanted, view.config[k])
    )
    return [k for k in found if k not in fixed_names], [k for k in found if k in fixed_names]


def _changes(node: DesiredNode, view: NodeView, names: list[str]) -> str:
    parts = [
        k if k in SECRET_SETTINGS else f"{k} {view.config[k] or '(empty)'} -> {node.settings[k] or '(empty)'}"
        for k in names
    ]
    return ", ".join(parts)
