"""Where nodes may be that others know by an address which is of no use from here.

``127.0.0.1:6379``, as somebody says it, is a server of his own machine. A Sentinel that greets with a loopback address may
be on the machine of any server. Whoever is met there counts only if it has the identity that was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redkeep.model.topology import Address, NodeView
from redkeep.planning.evidence.trust import is_loopback

if TYPE_CHECKING:
    from redkeep.model.checkup import Details, Node, Visit
    from redkeep.planning.evidence.handouts import Handout
    from redkeep.run.visits import Seen


#: Somebody may invent Sentinels.
_MOST = 500


@dataclass
class Guesses:
    """``lost``: Sentinels by port and identity whose address leads nowhere from here.

    ``strangers``: who was met at a guess and is none of ours, as far as is known.
    """

    lost: set[tuple[int, str]] = field(default_factory=set)
    strangers: dict[Address, Seen] = field(default_factory=dict)
    _identities: dict[Address, set[str]] = field(default_factory=dict)
    _tried: set[Address] = field(default_factory=set)

    def wonder(self, handout: Handout) -> None:
        if not is_loopback(handout.address.host) or not handout.identity:
            return
        for host in {node.address.host for node in handout.by}:
            near = Address(host, handout.address.port)
            self._identities.setdefault(near, set()).add(handout.identity)
        if handout.sentinel:
            self.lost.add((handout.address.port, handout.identity))

    def pending(self, nodes: Iterable[Node], visited: Mapping[Address, Visit]) -> dict[Address, bool]:
        """What was not tried yet, with whether somebody vouches for it: the machine of one that was asked does."""
        seen = [(n, n.view) for n in nodes if isinstance(n.view, NodeView)]
        for node in (n for n, v in seen if v.role != "sentinel"):
            for port, identity in self.lost:
                self._identities.setdefault(Address(node.address.host, port), set()).add(identity)
        met = {i for n, v in seen for i in _identities(v, n.details)}
        fresh = {
            a
            for a, wanted in self._identities.items()
            if wanted - met and a not in visited and a not in self._tried and not is_loopback(a.host)
        }
        chosen = sorted(fresh, key=str)[: max(0, _MOST - len(self._tried))]
        self._tried.update(chosen)
        known = {n.address.host for n, _ in seen if visited[n.address].login != "withheld"}
        return {a: a.host in known for a in chosen}

    def holds(self, address: Address, seen: Seen) -> bool:
        """Whether this is one that was told of. Before 6.2 a Sentinel does not tell its identity."""
        if not isinstance(seen.view, NodeView):
            return False
        unnamed = seen.view.role == "sentinel" and not seen.details.sentinel_id
        if unnamed or _identities(seen.view, seen.details) & self._identities[address]:
            return True
        self.strangers[address] = seen
        return False


def _identities(view: NodeView, details: Details) -> set[str]:
    found = {view.run_id, details.sentinel_id, view.cluster.my_id if view.cluster else ""}
    return found - {""}
