"""The machines of a checkup with the nodes on each, and words about them."""

from __future__ import annotations

from collections.abc import Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import HostFacts
from redkeep.model.values import Value

_UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


class Machine(Value):
    """A host that could be looked at; ``name`` is for people. ``login``: the session of the user's that it was seen by."""

    name: str
    facts: HostFacts
    nodes: tuple[Node, ...]
    login: str = ""

    @property
    def servers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.seen is not None and n.seen.role != "sentinel")


def machines(checkup: Checkup) -> Iterator[Machine]:
    """Each once: this machine may have several addresses among those that were found."""
    names: dict[int, list[str]] = {}
    facts: dict[int, HostFacts] = {}
    for name, host in checkup.hosts.items():
        if host.seen is not None:
            names.setdefault(id(host.seen), []).append(name)
            facts[id(host.seen)] = host.seen
    for key, hosts in names.items():
        nodes = tuple(n for n in checkup.nodes if n.host in hosts)
        name = "this machine" if checkup.hosts[hosts[0]].here else hosts[0]
        yield Machine(name, facts[key], nodes, checkup.hosts[hosts[0]].login)


def size(number: int) -> str:
    """For people: one digit after the point."""
    for factor, unit in _UNITS:
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} bytes"


def span(seconds: float) -> str:
    """For people: the largest unit that fits."""
    for factor, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.1f} s".replace(".0 s", " s")
