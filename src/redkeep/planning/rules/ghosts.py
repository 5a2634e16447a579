"""Who is still in a Sentinel's list and should not be."""

from __future__ import annotations

from redkeep.model.checkup import Checkup
from redkeep.model.topology import SentinelEntry, Watched
from redkeep.planning.evidence.trust import is_loopback
from redkeep.planning.rules.meant import meant_for_others


def ghost(checkup: Checkup, entry: SentinelEntry, kind: str, watched: Watched) -> str:
    """Why this one does not belong; empty where it does."""
    if is_loopback(watched.address.host) and meant_for_others(checkup):
        return "a loopback address"
    visit = checkup.visits.get(watched.address)
    if "s_down" in watched.flags and (visit is None or not visit.connects):
        return f"gone: {visit.detail if visit and visit.detail else 'it does not answer'}"
    node = checkup.at(watched.address)
    view = node.seen if node else None
    if node is None or view is None:
        return ""
    if (kind == "Sentinel") != (view.role == "sentinel"):
        return f"it is a {view.role} now"
    if kind == "Sentinel":
        watches = {e.name for e in view.monitored}
        return "" if entry.name in watches else f"it does not watch {entry.name} any more"
    primary = checkup.at(entry.address)
    follows = checkup.primary_of(node)
    if primary is None or view.role == "primary" or follows is None or follows is primary:
        return ""
    return f"it follows {follows.name}, which is not the primary of {entry.name}"
