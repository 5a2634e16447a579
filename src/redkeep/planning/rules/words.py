"""Words that rules share: lists that stay short, and commands filled in for one node."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from redkeep.model.checkup import Checkup, Node

#: Names in one sentence, at most.
_NAMED = 6
#: Servers count in 64 bits. Who says more makes fun of us.
_TOO_LARGE = 1 << 64


def listed(names: Iterable[object], limit: int = _NAMED) -> str:
    """``a, b, c and 4 more``; each name once."""
    every = list(dict.fromkeys(map(str, names)))
    shown = ", ".join(every[:limit])
    return shown + (f" and {len(every) - limit} more" if len(every) > limit else "")


def cli(checkup: Checkup, node: Node, *command: str) -> str:
    """The command line that says this to the node. Passwords are left to REDISCLI_AUTH."""
    visit = checkup.visit(node)
    words = ["redis-cli", "-h", node.address.host, "-p", str(node.address.port)]
    if visit and visit.tls:
        words.append("--tls")
    return shlex.join([*words, *command])


def set_and_keep(checkup: Checkup, node: Node, name: str, value: str) -> str:
    """Changes a setting at run time and in the file; where that is Redkeep's, the deployment file is the place."""
    if node.seen is not None and not node.seen.config:
        return f"{name} {value} where this server is configured (this user may not use CONFIG)"
    if checkup.spec is not None:
        return f"redkeep apply sets it again; by hand: {cli(checkup, node, 'CONFIG', 'SET', name, value)}"
    return f"{cli(checkup, node, 'CONFIG', 'SET', name, value)} && {cli(checkup, node, 'CONFIG', 'REWRITE')}"


def set_and_keep_on(checkup: Checkup, nodes: Sequence[Node], name: str, value: str) -> str:
    """The same for several nodes: filled in for the first, the others by name."""
    return set_and_keep(checkup, nodes[0], name, value) + and_on(nodes[1:])


def and_on(others: Sequence[Node]) -> str:
    """``; the same on b, c``, or nothing."""
    return f"; the same on {listed(others)}" if others else ""


def number(text: str | None, default: int = 0) -> int:
    """What a server says is a number, or the default where it is none, or one that no server has."""
    try:
        found = int(text) if text else default
    except ValueError:
        return default
    return found if abs(found) < _TOO_LARGE else default
