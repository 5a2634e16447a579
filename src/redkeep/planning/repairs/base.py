"""What a repair is: commands for one node, why, what makes it last, and when its effect is there. Values only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

from redkeep.model.checkup import Checkup, Node
from redkeep.model.plan import Step
from redkeep.model.topology import Address, ClusterNode, NodeView
from redkeep.planning.evidence.handouts import handed_out_by, handouts
from redkeep.planning.evidence.trust import Peer, Policy, is_loopback
from redkeep.planning.rules.logins import Login, login_of


@dataclass(frozen=True)
class Secret:
    """A password by where it is known from: it is looked up when the command is sent, and never shown.

    ``setting``: masterauth of the node; ``file``: auth-pass for ``name`` in that Sentinel's file; ``given``: the user's.
    """

    source: Literal["setting", "file", "given"]
    node: str = ""
    name: str = ""

    def __str__(self) -> str:
        return "PASSWORD"


Word = str | Secret
Command = tuple[Word, ...]


class Settled(Protocol):
    """When a repair has had its effect, as these nodes see it; ``holds`` is given the views of those that answered."""

    @property
    def asks(self) -> tuple[str, ...]: ...

    def holds(self, views: Mapping[str, NodeView]) -> bool: ...


@dataclass(frozen=True)
class Repair:
    """Commands for one node. ``keeps``: what makes it last. ``stage`` is that of its step.

    ``guards`` are asked first, each with the answer without which nothing is done. ``undo`` is said when ``settled``
    does not come true in time. ``sensitive`` is whether a secret is among the words.
    """

    rule: str
    node: str
    why: str
    commands: tuple[Command, ...]
    keeps: str
    stage: str = "settings"
    guards: tuple[tuple[Command, str], ...] = ()
    settled: Settled | None = None
    undo: tuple[Command, ...] = ()

    @property
    def shown(self) -> str:
        """The commands, without what is secret."""
        return "; ".join(" ".join(str(word) or '""' for word in command) for command in self.commands)

    @property
    def sensitive(self) -> bool:
        return any(isinstance(word, Secret) for command in (*self.commands, *self.undo) for word in command)

    def step(self, host: str) -> Step:
        return Step(
            self.stage,
            "repair",
            host,
            self.node,
            why=f"{self.rule}: {self.why}",
            args={"rule": self.rule, "commands": self.shown},
        )


@dataclass(frozen=True)
class Case:
    """What repairs are planned from. ``rules``: those that found something which nobody accepted.

    ``given``: the user's login for all nodes; ``policy`` and ``named`` say who may be shown a password.
    """

    checkup: Checkup
    rules: frozenset[str]
    given: Login | None = None
    policy: Policy = field(default_factory=Policy)
    named: frozenset[Address] = frozenset()
    own_ca: bool = False
    #: a deployment file says that all of it is on this machine, so that this machine may be changed
    is_here: bool = False

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        return {n.name: n for n in self.checkup.nodes}

    def may_see(self, node: Node) -> bool:
        """Whether this node may be shown a password: it was shown the user's, or could have been."""
        visit = self.checkup.visit(node)
        if visit is None or node.seen is None:
            return False
        if visit.login == "ok":
            return True
        try:
            address = str(ipaddress.ip_address(node.address.host))
        except ValueError:
            return False
        trusted = bool(visit.certificate and visit.certificate.trusted)
        peer = Peer(
            address,
            named=node.address in self.named,
            vouched=node.address in self._vouched,
            encrypted=trusted,
            own_ca=self.own_ca,
        )
        return not self.policy.withheld(peer)

    @cached_property
    def _vouched(self) -> frozenset[Address]:
        """Whom those tell of that the user named, by address or by identity."""
        told = [h for h in handouts(self.checkup) if any(n.address in self.named for n in h.by)]
        meant = [n for h in told if h.identity and (n := self.checkup.by_id(h.identity))]
        return frozenset({*(h.address for h in told), *(n.address for n in meant)})

    def resolve(self, secret: Secret) -> str:
        """The password that it stands for; empty where it is not known any more."""
        node = self.nodes.get(secret.node)
        if secret.source == "given":
            return self.given.password if self.given else ""
        if node is None:
            return ""
        if secret.source == "file":
            return from_file(node, "auth-pass", secret.name) or ""
        login = login_of(node)
        return login.password if login else ""


def from_file(node: Node, directive: str, name: str) -> str | None:
    """What a Sentinel's file says about a name that it watches: empty for nothing, ``None`` where it is not readable."""
    settings = node.process.settings if node.process else None
    if not settings or "sentinel" not in settings:
        return None
    words = [line.split(maxsplit=2) for line in settings["sentinel"]]
    found = [w[2] for w in words if len(w) == 3 and w[0].lower() == directive and w[1] == name]
    value = found[-1] if found else ""
    if "\\" in value:
        return None  # quoted in a way that only the server reads for sure
    return value.strip("\"'")


IN_SENTINELS_FILE = "the Sentinel keeps it in its own file"
IN_NODES_CONF = "the node keeps it in its nodes.conf"


def config(node: Node, *pairs: tuple[str, Word]) -> tuple[tuple[Command, ...], str]:
    """CONFIG SET for each pair, kept in the file where there is one; the commands, and what makes them last."""
    commands: tuple[Command, ...] = tuple(("CONFIG", "SET", name, value) for name, value in pairs)
    file = node.seen.info.get("config_file", "") if node.seen else ""
    if file:
        return (*commands, ("CONFIG", "REWRITE")), f"CONFIG REWRITE writes it into {file}"
    return (
        commands,
        "until the next restart only: the server runs without a file, so write it where it is started",
    )


def reachable_address(checkup: Checkup, node: Node) -> str:
    """The IP address at which the node was asked and answered, where others can use it; else empty.

    From no place that was asked from may it be known to lead nowhere.
    """
    found = [vantage.visits.get(node.address) for vantage in checkup.vantages.values()]
    if any(v is not None and v.outcome != "untried" and not v.connects for v in found):
        return ""
    try:
        parsed = str(ipaddress.ip_address(node.address.host))
    except ValueError:
        return ""
    return "" if node.seen is None or is_loopback(parsed) else parsed


@dataclass(frozen=True)
class Listed:
    """All of ``asks`` hand out this address; where it is that of a Cluster's node, with its bus connected."""

    address: Address
    asks: tuple[str, ...]

    def holds(self, views: Mapping[str, NodeView]) -> bool:
        return all(name in views and self._by(views[name]) for name in self.asks)

    def _by(self, view: NodeView) -> bool:
        if view.cluster:
            return any(self._connected(line) for line in view.cluster.nodes)
        node = Node("", self.address, "", view)
        return any(h.address == self.address for h in handed_out_by([(node, view)]))

    def _connected(self, line: ClusterNode) -> bool:
        return line.address == self.address and line.link_up


@dataclass(frozen=True)
class Linked:
    """A replica's link is up, and its primary lists it at this address (where one is wanted)."""

    replica: str
    primary: str
    address: Address | None = None

    @property
    def asks(self) -> tuple[str, ...]:
        return (self.replica, self.primary) if self.address else (self.replica,)

    def holds(self, views: Mapping[str, NodeView]) -> bool:
        ours = views.get(self.replica)
        if ours is None or not ours.link_up:
            return False
        theirs = views.get(self.primary)
        return self.address is None or (
            theirs is not None and any(line.address == self.address for line in theirs.replicas)
        )


@dataclass(frozen=True)
class Knows:
    """A Sentinel sees its primary up, and so many replicas and other Sentinels."""

    sentinel: str
    name: str
    replicas: int
    sentinels: int

    @property
    def asks(self) -> tuple[str, ...]:
        return (self.sentinel,)

    def holds(self, views: Mapping[str, NodeView]) -> bool:
        view = views.get(self.sentinel)
        entry = next((e for e in view.monitored if e.name == self.name), None) if view else None
        if entry is None or entry.flags & DOWN or not entry.settings.get("runid"):
            return False
        up = [w for w in entry.watched_sentinels if not w.flags & DOWN]
        return len(entry.watched_replicas) >= self.replicas and len(up) >= self.sentinels


#: Flags under which nobody should touch a Sentinel, and under which somebody does not count.
DOWN = frozenset({"s_down", "o_down", "failover_in_progress", "disconnected"})

Repairs = Iterator[Repair]
