"""Everything that one look of the doctor found: what rules judge, and nothing that needs I/O.

Each node's own view stays its own. What could not be seen is said, never left out: a view is ``Unreachable`` with its
reason, a setting that was refused is ``None``, a host that nobody may look at is not in ``hosts``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from redkeep.model.topology import Address, HostFacts, NodeView, Unreachable
from redkeep.model.values import Value

if TYPE_CHECKING:
    from redkeep.model.spec import Spec

T = TypeVar("T")

Outcome = Literal["open", "refused", "timeout", "unreachable", "untried"]

#: How a login went: nobody wanted one, it worked, it was refused, or it was not sent (``Visit.login_detail`` says why).
LoginState = Literal["none", "ok", "refused", "withheld"]


#: What a visit tells of a server that hangs, or of somebody who is none and waits.
SILENT = "accepts connections and says nothing"
#: And of those who answer, and not as a server does.
BREAKS_OFF, NOT_THIS_PROTOCOL = "breaks off in the middle of its answers", "not this protocol"


class Certificate(Value):
    """What a server presented. ``trusted``: a given CA, or the system's, vouches for it under the name we used."""

    names: tuple[str, ...]
    not_after: datetime
    issuer: str
    sha256: str
    trusted: bool = False


class Visit(Value):
    """What came of connecting to an address from the vantage point, before and after a login.

    ``ping`` and ``anonymous_info`` are a stranger's: the reply to PING without a password (``PONG``, or the error), and
    whether INFO was answered. ``run_id`` is that of whoever answers there; empty where it did not say.
    """

    outcome: Outcome
    detail: str = ""
    run_id: str = ""
    tls: bool = False
    certificate: Certificate | None = None
    ping: str = ""
    anonymous_info: bool = False
    login: LoginState = "none"
    login_detail: str = ""
    #: what is weak about the password that was accepted here: ``6 characters long``
    weakness: str = ""
    #: the IP address that was connected to, where the node is known by a name
    ip: str = ""

    @property
    def connects(self) -> bool:
        return self.outcome == "open"

    @property
    def silent(self) -> bool:
        return self.connects and self.detail == SILENT

    @property
    def lets_strangers_in(self) -> bool:
        """Whatever they may do then: PING may be renamed, or refused to a user whom nobody asks for a password."""
        return self.ping == "PONG" or self.anonymous_info


class SlotOwner(Value):
    """A server as CLUSTER SLOTS names it to clients. ``unnamed``: by nothing, because clients shall go on using the address
    that they came by (``cluster-preferred-endpoint-type unknown-endpoint``)."""

    address: Address
    node_id: str
    unnamed: bool = False


class Sample(Value):
    """The beginning of a small string value that looks like something that does not belong into a database."""

    key: str
    text: str


class Greeting(Value):
    """What a Sentinel says of itself through a server that it watches (``__sentinel__:hello``)."""

    address: Address
    sentinel_id: str


class Details(Value):
    """What is asked beyond ``NodeView``. ``refused``: commands that we may not use here, with the server's words."""

    slot_owners: tuple[SlotOwner, ...] = ()
    modules: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    sentinel_id: str = ""
    #: of the commands that no application needs, those that exist here under their own name; ``None`` where unknown
    commands: frozenset[str] | None = None
    #: event -> the longest time in milliseconds that the server stood still for it, as it noted (LATENCY LATEST)
    stalls: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    #: slot -> keys, of the slots that an own line of CLUSTER NODES shows as migrating or importing
    open_keys: Mapping[int, int] = field(default_factory=dict)
    #: INFO replication a moment later, and how many seconds later, for rates; empty where it was not asked.
    later: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    #: of Sentinels, heard through this server; only asked for where no Sentinel was known
    greetings: tuple[Greeting, ...] = ()


class Disk(Value):
    """The file system that a server's folder is on; ``id`` tells whether two are the same. Sizes in bytes."""

    id: str
    folder: str
    size: int
    free: int


class Package(Value):
    """The distribution's package that a program is from. ``fixes``: CVE numbers of its changelog, where that is there."""

    name: str
    version: str
    vendor: str
    fixes: frozenset[str] | None = None


class ProcessFacts(Value):
    """A server's process and files as its host shows them. What could not be read is empty or ``None``.

    ``settings``: directives of the file it was started with, includes resolved; a directive may stand several times.
    ``rewritten``: those that the server wrote there itself; ``file_changed``: when, in seconds since 1970 by the host's
    clock; ``options``: names that the command line sets as well.
    ``supervisor``: the unit or container that its process belongs to; ``restart``: what that does after a crash, and
    ``restart_seconds`` how soon. ``gate``: Redkeep's start gate, where it stands before every start.
    ``swapped``: bytes of it that are swapped out; ``huge_pages``: whether the kernel may give it huge pages.
    """

    pid: int = 0
    config_file: str = ""
    settings: Mapping[str, tuple[str, ...]] | None = field(default=None, repr=False)
    open_files: int | None = None
    supervisor: str = ""
    restart: str = ""
    starts_at_boot: bool | None = None
    restart_seconds: float | None = None
    gate: str = ""
    rewritten: frozenset[str] = frozenset()
    file_changed: float | None = None
    options: frozenset[str] = frozenset()
    swapped: int | None = None
    huge_pages: bool | None = None
    disk: Disk | None = None
    package: Package | None = None


class Node(Value):
    """One server or Sentinel. ``address`` is where it was asked, or where it is handed out to clients.

    ``name`` is for people: that of the deployment file, else the address. ``host`` is a key of ``Checkup.hosts`` where
    the host is known, else the address without the port. ``wanted``: settings that the deployment file asks for.
    """

    name: str
    address: Address
    host: str
    view: NodeView | Unreachable
    details: Details = field(default_factory=Details)
    process: ProcessFacts | None = None
    wanted: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def seen(self) -> NodeView | None:
        return self.view if isinstance(self.view, NodeView) else None

    def setting(self, name: str) -> str | None:
        """A running setting; ``None`` where it could not be read or the version has none."""
        return self.view.config.get(name) if isinstance(self.view, NodeView) else None

    def __str__(self) -> str:
        return self.name


class HostView(Value):
    """A machine: its facts; ``zone`` from the deployment file; ``here``: it is this one, known by its addresses only.

    ``login``: the name of the session that it was seen by, where the user gave one for this look.
    """

    facts: HostFacts | Unreachable
    zone: str = ""
    here: bool = False
    login: str = ""

    @property
    def seen(self) -> HostFacts | None:
        return self.facts if isinstance(self.facts, HostFacts) else None


class Vantage(Value):
    """What came of connecting from one place; ``buses`` as in ``Checkup``."""

    visits: Mapping[Address, Visit] = field(default_factory=dict)
    buses: Mapping[Address, Visit] = field(default_factory=dict)


class LeftOut(Value):
    """A host that the user named and that was of no use: as a place to look from, or as one to look at."""

    name: str
    need: Literal["vantage", "host"]
    reason: str
    next: str


class Checkup(Value):
    """One look. ``vantage`` is where visits started: ``here``, or a host's name.

    ``elsewhere``: by name, the places that the user wants reachability to be judged from instead.
    """

    target: str
    time: datetime
    nodes: tuple[Node, ...]
    visits: Mapping[Address, Visit] = field(default_factory=dict)
    #: address and bus port -> what came of connecting there, with ``tls`` told
    buses: Mapping[Address, Visit] = field(default_factory=dict)
    #: (host, node's name): the node's bus, tried from that host
    paths: Mapping[tuple[str, str], Visit] = field(default_factory=dict)
    hosts: Mapping[str, HostView] = field(default_factory=dict)
    spec: Spec | None = None
    vantage: str = "here"
    #: addresses at which nobody was asked -> the name of the node that others mean by them
    known_as: Mapping[Address, str] = field(default_factory=dict)
    elsewhere: Mapping[str, Vantage] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    #: so many more addresses were told of than are asked
    unasked: int = 0

    @cached_property
    def vantages(self) -> Mapping[str, Vantage]:
        """The places from which reachability is judged, by name."""
        return self.elsewhere or {self.vantage: Vantage(self.visits, self.buses)}

    @cached_property
    def _derived(self) -> dict[Callable[[Checkup], Any], Any]:
        return {}

    def once(self, derive: Callable[[Checkup], T]) -> T:
        """What several rules derive from it: worked out by the first one that asks."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        found: T = self._derived[derive]
        return found

    @cached_property
    def seen(self) -> tuple[tuple[Node, NodeView], ...]:
        """The nodes that answered, with their views."""
        return tuple((n, n.view) for n in self.nodes if isinstance(n.view, NodeView))

    @cached_property
    def servers(self) -> tuple[tuple[Node, NodeView], ...]:
        return tuple((n, v) for n, v in self.seen if v.role != "sentinel")

    @cached_property
    def sentinels(self) -> tuple[tuple[Node, NodeView], ...]:
        return tuple((n, v) for n, v in self.seen if v.role == "sentinel")

    @cached_property
    def primaries(self) -> tuple[tuple[Node, NodeView], ...]:
        return tuple((n, v) for n, v in self.servers if v.role == "primary")

    @cached_property
    def replicas(self) -> tuple[tuple[Node, NodeView], ...]:
        return tuple((n, v) for n, v in self.servers if v.role == "replica")

    @cached_property
    def _by_id(self) -> Mapping[str, Node]:
        found: dict[str, Node] = {}
        for node, view in self.seen:
            cluster = view.cluster.my_id if view.cluster else ""
            for identity in (view.run_id, cluster, node.details.sentinel_id):
                if identity:
                    found.setdefault(identity, node)
        return found

    def by_id(self, identity: str) -> Node | None:
        """The node with this run ID, Cluster node ID or Sentinel ID."""
        return self._by_id.get(identity)

    def at(self, address: Address) -> Node | None:
        """The node that is asked there, that told its run ID when that address was visited, or that is meant by it."""
        for node in self.nodes:
            if node.address == address:
                return node
        visit, meant = self.visits.get(address), self.known_as.get(address)
        found = self.by_id(visit.run_id) if visit and visit.run_id else None
        return found or next((n for n in self.nodes if n.name == meant), None)

    def visit(self, node: Node) -> Visit | None:
        return self.visits.get(node.address)

    def ip_of(self, node: Node) -> str:
        """The IP address at which it was asked; its name where that is not known."""
        visit = self.visit(node)
        return (visit.ip if visit else "") or node.address.host

    def primary_of(self, node: Node) -> Node | None:
        """The node that a replica follows, where it is among those that were found."""
        view = node.seen
        if view is None or view.primary is None:
            return None
        if view.cluster and (me := view.cluster.by_id(view.cluster.my_id)) and me.primary_id:
            return self.by_id(me.primary_id)
        replid = view.info.get("master_replid", "")
        found = self.at(view.primary)
        if found is None and view.link_up and replid:
            same = [n for n, v in self.primaries if v.info.get("master_replid") == replid]
            found = same[0] if len(same) == 1 else None
        return found

    @cached_property
    def _followers(self) -> Mapping[str, list[tuple[Node, NodeView]]]:
        found: dict[str, list[tuple[Node, NodeView]]] = {}
        for node, view in self.replicas:
            if primary := self.primary_of(node):
                found.setdefault(primary.name, []).append((node, view))
        return found

    def replicas_of(self, node: Node) -> Iterator[tuple[Node, NodeView]]:
        return iter(self._followers.get(node.name, ()))
