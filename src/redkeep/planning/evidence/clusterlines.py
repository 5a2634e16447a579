"""Lines of CLUSTER NODES with those who say them: N nodes say N lines each, and most of these are the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup, Node
    from redkeep.model.topology import ClusterNode, ClusterView, NodeView

#: A line, and those who say it in the same words.
Said = tuple["ClusterNode", list["Node"]]


def said_by(members: Iterable[tuple[Node, ClusterView]]) -> list[Said]:
    """What was read as one (``Lines`` of wire/replies.py) is told as one."""
    lines: dict[int, ClusterNode] = {}
    by: dict[int, list[Node]] = defaultdict(list)
    for node, view in members:
        keys = list(map(id, view.nodes))
        lines.update(zip(keys, view.nodes, strict=True))
        for key in keys:
            by[key].append(node)
    return [(line, by[key]) for key, line in lines.items()]


def clustered(seen: Iterable[tuple[Node, NodeView]]) -> list[tuple[Node, ClusterView]]:
    """The servers of Clusters among these."""
    return [(n, v.cluster) for n, v in seen if v.cluster and v.role != "sentinel"]


def said(checkup: Checkup) -> list[Said]:
    """By all nodes; worked out once for a checkup."""
    return checkup.once(_said)


def _said(checkup: Checkup) -> list[Said]:
    return said_by(clustered(checkup.seen))
