"""Where nodes run: which machine and which zone, as far as that can be told."""

from __future__ import annotations

from redkeep.model.checkup import Checkup, Node


def machine(checkup: Checkup, node: Node) -> str:
    """The host's name; of several addresses that lead to one machine always the same one."""
    view = checkup.hosts.get(node.host)
    if checkup.spec is not None or view is None or view.seen is None:
        return node.host
    return min(name for name, other in checkup.hosts.items() if other.seen is view.seen)


def zone(checkup: Checkup, node: Node) -> str:
    """Empty where nobody said."""
    view = checkup.hosts.get(node.host)
    return view.zone if view else ""
