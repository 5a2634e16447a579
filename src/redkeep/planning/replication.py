"""Primary and replicas without Cluster: who follows whom, and Sentinels that watch.

A server's first role stands in the file it is seeded with, so a fresh deployment needs no step here. Later the
servers and the Sentinels are the authority; only who follows nobody, or a stranger, is set right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.plan import Step
from redkeep.planning.hostfiles.config import same_value, sentinel_settings
from redkeep.planning.provision import reachable

if TYPE_CHECKING:
    from redkeep.model.topology import NodeView, Observed, SentinelEntry
    from redkeep.planning.desired import Desired, DesiredNode


def current_primary(desired: Desired, observed: Observed) -> DesiredNode:
    """The server that is the primary now, by what the Sentinels and the servers say; at first, by the placement.

    Raises ``RefusedError`` where two servers with data both are primaries and no Sentinel decides.
    """
    views = [(n, v) for n in desired.present if (v := reachable(observed, n))]
    for sentinel in desired.sentinels:
        view = reachable(observed, sentinel)
        for entry in view.monitored if view else ():
            node = desired.at(entry.address.host, entry.address.port)
            if entry.name == desired.spec.name and node is not None:
                return node
    placed = next(n for n in desired.servers if n.initial_role == "primary")
    primaries = [(n, v) for n, v in views if v.role == "primary"]
    addresses = (v.primary for _, v in views if v.primary)
    followed = {node.name for a in addresses if (node := desired.at(a.host, a.port))}
    candidates = (
        [n for n, v in primaries if n.name in followed]
        or [n for n, v in primaries if v.keys]
        or [n for n, _ in primaries]
    )
    if len(candidates) > 1 and not desired.sentinels:
        raise RefusedError(
            "more than one server is a primary with data of its own, and nothing here may decide which data counts",
            where=", ".join(n.name for n in candidates),
            next="compare them by hand, make the others replicas with REPLICAOF, and apply again",
        )
    if not candidates and len(followed) == 1:
        return desired.node(*followed)  # it does not answer just now, and everybody else follows it
    return placed if placed in candidates or not candidates else candidates[0]


def replication(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Servers that follow nobody, or somebody who is not of the deployment, follow the current primary."""
    primary = current_primary(desired, observed)
    for node in desired.servers:
        view = reachable(observed, node)
        if view is None or node == primary or _follows_ours(desired, view, primary):
            continue
        if view.role == "primary" and view.keys and _known_to_sentinels(desired, observed, node):
            continue  # a former primary that came back: the Sentinels make it a replica themselves
        yield Step(
            "replicate",
            "replicate",
            node.host,
            node.name,
            why="it follows nobody"
            if view.primary is None
            else f"it follows {view.primary}, which is not of this deployment, or leaves it",
            args={"primary": primary.name},
        )


def _known_to_sentinels(desired: Desired, observed: Observed, node: DesiredNode) -> bool:
    """By the address that it has now. One whose address changed while it was away nobody would turn into a replica."""
    entries = [e for e, _ in _entries(desired, observed)]
    known = {(a.host, a.port) for e in entries for a in (e.address, *e.replicas)}
    return bool(desired.sentinels) and (not entries or node.announced in known)


def _entries(desired: Desired, observed: Observed) -> list[tuple[SentinelEntry, DesiredNode]]:
    """What the Sentinels that stay watch under the deployment's name."""
    return [
        (entry, node)
        for node in desired.sentinels
        if (view := reachable(observed, node))
        for entry in view.monitored
        if entry.name == desired.spec.name
    ]


def addresses_of_sentinels(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Addresses that changed: a Sentinel tells its own anew, all watch the primary at its new one, and what is left of
    old ones is forgotten."""
    for node in desired.sentinels:
        view = reachable(observed, node)
        if view is not None and view.announce and view.announce != node.wire.announce:
            why = f"it announces {view.announce}, and its host is {node.wire.announce} now"
            yield Step("monitor", "announce", node.host, node.name, why=why)
    entries = _entries(desired, observed)
    if any(desired.at(e.address.host, e.address.port) is None for e, _ in entries):
        primary = current_primary(desired, observed)
        old = next(e.address for e, _ in entries if desired.at(e.address.host, e.address.port) is None)
        why = f"they watch {old}, which is nobody's address any more"
        yield Step("monitor", "watch-again", "", why=why, args={"primary": primary.name})
        return
    if desired.leaving:
        return  # they are reset for that in any case
    view = reachable(observed, current_primary(desired, observed)) if entries else None
    linked = {line.address for line in view.replicas} if view else set()
    for entry, node in entries:
        stale = [a for a in entry.replicas if desired.at(a.host, a.port) is None and a not in linked]
        if view is not None and stale:
            why = f"it still remembers {', '.join(map(str, stale[:3]))}, which is nobody's address any more"
            yield Step("reset", "reset-sentinel", node.host, node.name, why=why)


def _follows_ours(desired: Desired, view: NodeView, primary: DesiredNode) -> bool:
    """The primary, or another server that stays."""
    found = desired.at(view.primary.host, view.primary.port) if view.primary else None
    return found is not None and (found == primary or found not in desired.leaving)


def monitoring(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Sentinels that do not watch the primary yet, or watch it with other settings."""
    wanted = sentinel_settings(desired.spec)
    for node in desired.sentinels:
        view = reachable(observed, node)
        if view is None:
            continue
        entry = next((e for e in view.monitored if e.name == desired.spec.name), None)
        if entry is None:
            primary = current_primary(desired, observed)
            why = f"it does not watch {desired.spec.name}"
            yield Step("monitor", "monitor", node.host, node.name, why=why, args={"primary": primary.name})
            continue
        if node.peer_password != view.peer_password:
            why = "it logs in with another password than the deployment's"
            yield Step("monitor", "set-sentinel-password", node.host, node.name, why=why)
        differing = {k: v for k, v in wanted.items() if not same_value(k, v, entry.settings.get(k, v))}
        if differing:
            changes = ", ".join(f"{k} {entry.settings.get(k)} -> {v}" for k, v in sorted(differing.items()))
            names = " ".join(sorted(differing))
            yield Step("monitor", "set-sentinel", node.host, node.name, why=changes, args={"settings": names})
