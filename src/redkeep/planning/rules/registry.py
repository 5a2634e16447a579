"""How a rule is written down: its identifier, its severity, what it needs to look at, and the function that looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from redkeep.model.checkup import Checkup
from redkeep.model.finding import Severity
from redkeep.model.values import Value

#: What a rule looks at beyond each node's INFO:
#: ``config`` (CONFIG GET), ``acl`` (ACL LIST), ``cluster`` (CLUSTER NODES), ``sentinel`` (SENTINEL MASTERS), ``modules``
#: (MODULE LIST), ``data`` (small values), ``latency`` (LATENCY LATEST), ``vantage`` (connections from where clients are),
#: ``host`` (the machine), ``process`` (a server's process on its machine), ``restart`` (what starts it again), ``file``
#: (the configuration file that it was started with).
Need = Literal[
    "config",
    "acl",
    "cluster",
    "sentinel",
    "modules",
    "data",
    "latency",
    "vantage",
    "host",
    "process",
    "restart",
    "file",
]


class Found(Value):
    """What a rule says. The rule's own name and severity are added; ``severity`` is for where it differs.

    ``subject``: the node (its name), the shard, the host, or ``deployment``. ``evidence``: the value and where it was
    read. ``why``: two sentences with what will happen. ``fix``: commands or settings, filled in.
    ``accepted``: the reason why it counts as information only. ``rule``: another rule's name than the one that looked.
    """

    subject: str
    evidence: str
    why: str
    fix: str
    severity: Severity | None = None
    accepted: str = ""
    rule: str = ""


Check = Callable[[Checkup], Iterator[Found]]


class Rule(Value):
    id: str
    severity: Severity
    needs: tuple[Need, ...]
    check: Check


RULES: dict[str, Rule] = {}


def rule(identifier: str, severity: Severity, *, needs: tuple[Need, ...] = ()) -> Callable[[Check], Check]:
    """Registers a rule. A function yields nothing for what it cannot see: ``needs`` makes that a ``not-checked``."""

    def register(check: Check) -> Check:
        assert identifier not in RULES, identifier
        RULES[identifier] = Rule(identifier, severity, needs, check)
        return check

    return register
