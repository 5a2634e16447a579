"""What each node listens on, announces, and to whom; and what that sends over public networks.

A server announces one address, for its peers and for clients alike; only newer engines in Cluster mode tell the two
apart. So where anybody is outside, public addresses are what everybody uses, and hosts of one network meet through
the provider's NAT, which turns such a connection round (the hairpin).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from redkeep.errors import SpecError
from redkeep.model.engine import Capability, Engine
from redkeep.model.topology import HostFacts, Unreachable
from redkeep.planning.placing.networks import LOOPBACK, Found, find, is_private

if TYPE_CHECKING:
    from redkeep.model.spec import Spec

Way = Literal["private", "public", "hairpin", "client-address"]


@dataclass(frozen=True)
class HostAddresses:
    """One host's addresses. ``private`` and ``public`` are empty where they are neither known nor needed."""

    host: str
    network: str
    private: str
    public: str
    #: What servers and Sentinels hand out, and what the Cluster bus uses.
    announce: str
    #: What clients get instead, where the engine tells the two apart; else empty.
    client_announce: str
    #: The first one is also the source of outgoing connections (Redis 6.2).
    bind: tuple[str, ...]
    #: The public address is on an interface: no NAT in between.
    direct: bool

    @property
    def for_clients(self) -> str:
        return self.client_announce or self.announce


@dataclass(frozen=True)
class Crossing:
    """Something that is sent over public addresses: between whom, what, and over which network."""

    kind: Literal["server-server", "server-client"]
    between: str
    what: str
    network: str

    def __str__(self) -> str:
        return f"{self.between}: {self.what}, over {self.network}"


@dataclass(frozen=True)
class AddressPlan:
    """All hosts' addresses, and the reason for them. ``notes`` tell what was found out on the hosts."""

    hosts: Mapping[str, HostAddresses]
    way: Way
    why: str
    crossings: tuple[Crossing, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, host: str) -> HostAddresses:
        return self.hosts[host]

    def seen_as(self, source: str, target: str) -> tuple[str, ...]:
        """The addresses that a connection from one host may have at the other, which it reaches where that announces.

        Through a hairpin it may keep its private address or get its public one; clouds differ.
        """
        here, there = self.hosts[source], self.hosts[target]
        near = here.private if here.network == there.network else ""
        through = "" if there.announce == there.private != there.public else here.public
        return tuple(dict.fromkeys(address for address in (through, near) if address))

    def turns_round(self, host: str) -> bool:
        """What the host sends to its own announced address leaves it, and comes back through a NAT."""
        its = self.hosts[host]
        return its.announce == its.public != its.private and not its.direct


@dataclass(frozen=True)
class TlsDecision:
    """``clear_text``: what travels unencrypted over public addresses. Somebody has to accept it, if it is not empty."""

    on: bool
    why: str
    clear_text: tuple[str, ...] = ()


def addresses(
    spec: Spec,
    facts: Mapping[str, HostFacts | Unreachable] | None = None,
    engine: Engine | None = None,
    announced: Mapping[str, str] | None = None,
) -> AddressPlan:
    """Decides for all hosts at once. Without ``engine`` no separate client address is counted on.

    ``announced``: host -> what its servers hand out until now, where they do. A Cluster that announced public addresses goes
    on with them: while one engine takes another's place, node by node, those that do not know a separate one for clients
    would hand out the private address of those that do (measured: 16 s without writes for a client that was told one).

    Raises ``SpecError`` where an address that is needed is neither in the file nor found on the host. One that could
    not be asked is left without.
    """
    only = spec.hosts[0]
    if spec.is_local and not (only.private or only.public):
        here = HostAddresses(only.name, "", LOOPBACK, "", LOOPBACK, "", (LOOPBACK,), direct=False)
        return AddressPlan(
            {only.name: here}, "private", "everything is on this machine, and announces 127.0.0.1", ()
        )
    known = {name: found for name, found in (facts or {}).items() if isinstance(found, HostFacts)}
    found = {host.name: find(host, known.get(host.name)) for host in spec.hosts}
    way, why = _way(spec, found, engine, announced or {})
    for host, its in found.items():
        if not isinstance((facts or {}).get(host), Unreachable):  # what it has is not known just now
            _require(spec, host, its, way)
    plan = {host: _host(host, its, way) for host, its in found.items()}
    notes = tuple(its.note for its in found.values() if its.note)
    return AddressPlan(plan, way, why, tuple(_crossings(spec, plan, way)), notes)


def remembered(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, HostAddresses]:
    """Of hosts that the file does not name any more: what their nodes hand out was written down with the others."""
    found = {}
    for name, its in entries.items():
        entry, announce = its.get("entry", {}), str(its.get("announce", ""))
        private, public = str(entry.get("private", "")), str(entry.get("public", ""))
        bind = tuple(dict.fromkeys(a for a in (private, announce, LOOPBACK) if a))
        found[name] = HostAddresses(name, "", private, public, announce, "", bind, direct=False)
    return found


def decide_tls(spec: Spec, plan: AddressPlan, engine: Engine) -> TlsDecision:
    """Encryption for all traffic or for none; a mixture would hide which is which."""
    crossing = tuple(str(c) for c in plan.crossings)
    if spec.tls is True and not engine.tls:
        raise SpecError(
            f"tls: true, and {engine} was built without TLS",
            where=f"engine: source: {spec.engine.source}",
            next="take the distribution's package or a tarball, or write tls: false",
        )
    if spec.tls is True:
        return TlsDecision(True, "the file says tls: true")
    if spec.tls is False:
        return TlsDecision(False, "the file says tls: false", crossing)
    if not crossing:
        return TlsDecision(False, "nothing crosses public addresses")
    if engine.tls:
        return TlsDecision(True, f"crosses public addresses: {'; '.join(crossing)}")
    return TlsDecision(False, f"{engine} was built without TLS", crossing)


def _networks(hosts: Mapping[str, Found] | Mapping[str, HostAddresses]) -> Counter[str]:
    """How many hosts each network has. A host of which nothing is known is taken to be among the others."""
    return Counter(host.network for host in hosts.values() if host.network)


def _way(
    spec: Spec, found: Mapping[str, Found], engine: Engine | None, announced: Mapping[str, str]
) -> tuple[Way, str]:
    networks = _networks(found)
    several = len(networks) > 1
    outside = spec.clients == "public"
    if not several and not outside:
        return "private", "applications and servers are in one network: everybody uses private addresses"
    if several:
        who = (
            "applications are outside"
            if outside
            else "applications are inside, but hosts are not all in one network"
        )
        why = f"{who}, and hosts are in {len(networks)} networks: everybody uses public addresses"
        near = [name for name, count in networks.items() if count > 1]
        hairpin = (
            f"; hosts within {', '.join(near[:4])} reach each other through their provider's NAT (hairpin)"
        )
        return "public", why + (hairpin if near and not _all_direct(found) else "")
    apart = spec.mode == "cluster" and engine and engine.supports(Capability.CLIENT_ADDRESS)
    public = any(announced.get(host) == its.public != its.private for host, its in found.items())
    if apart and not public:
        return (
            "client-address",
            f"servers talk privately, and {engine} tells clients a public address of its own",
        )
    if _all_direct(found) or spec.nodes_total + spec.sentinels == 1:
        return "public", "applications are outside: servers announce their public addresses"
    lacks = f", as {engine} has no separate one for clients" if spec.mode == "cluster" and engine else ""
    if apart:
        lacks = ", as they did when it was made"
    why = f"applications are outside: servers announce public addresses, to each other as well{lacks}"
    return "hairpin", f"{why}; hosts reach each other through their provider's NAT (hairpin)"


def _all_direct(found: Mapping[str, Found]) -> bool:
    return all(host.direct for host in found.values())


def _require(spec: Spec, host: str, found: Found, way: Way) -> None:
    if way in ("private", "client-address") and not found.private:
        raise SpecError(
            f"the private address of {host} is not known: it could not be found on the host",
            where=f"hosts: {host}",
            next="add private: its address inside the network",
        )
    if way != "private" and not found.public:
        reason = (
            "applications are outside" if spec.clients == "public" else "other hosts are in another network"
        )
        ssh = spec.host(host).ssh_host
        guess = f" (ssh uses {ssh})" if ssh not in (host, "local") else ""
        raise SpecError(
            f"{host} has no public address, and {reason}",
            where=f"hosts: {host}",
            next=f"add public: the address at which it is reached from there{guess}; or, if private addresses "
            "are routed between all hosts, give all of them the same network:",
        )


def _host(host: str, found: Found, way: Way) -> HostAddresses:
    inside = way in ("private", "client-address")
    return HostAddresses(
        host=host,
        network=found.network,
        private=found.private,
        public=found.public,
        announce=found.private if inside else found.public,
        client_announce=found.public if way == "client-address" else "",
        bind=_bind(found, way),
        direct=found.direct,
    )


def _bind(found: Found, way: Way) -> tuple[str, ...]:
    """Loopback is for Redkeep, which comes through SSH. Behind a NAT the public address is on no interface."""
    wanted = [found.private] if found.private else []
    if way != "private" and found.direct:
        wanted.append(found.public)
    if way in ("public", "hairpin"):
        # peers are out there: what goes to them has to leave with an address that the default route takes
        wanted.sort(key=lambda address: address != found.outgoing)
    return tuple(dict.fromkeys((*wanted, LOOPBACK)))


def _crossings(spec: Spec, hosts: Mapping[str, HostAddresses], way: Way) -> Iterator[Crossing]:
    outside = spec.clients == "public"
    announced = [
        host
        for host in hosts.values()
        if host.announce and (way in ("public", "hairpin") or not is_private(host.announce))
    ]
    if announced and len(hosts) > 1:
        yield from _between_servers(spec, hosts)
    if outside or announced:
        where = _listed([host.host for host in (hosts.values() if outside else announced)])
        network = "the internet" if outside or way == "public" else "their network, by public addresses"
        yield Crossing(
            "server-client", f"applications and {where}", "commands, replies and passwords", network
        )


def _between_servers(spec: Spec, hosts: Mapping[str, HostAddresses]) -> Iterator[Crossing]:
    traffic = {"cluster": "the Cluster bus and replication", "sentinel": "replication and what Sentinels say"}
    what = traffic.get(spec.mode, "replication")
    if spec.nodes_total + spec.sentinels < 2:
        return
    networks = _networks(hosts)
    if len(networks) > 1:
        yield Crossing("server-server", f"hosts of {_listed(sorted(networks))}", what, "the internet")
    near = sorted(name for name, count in networks.items() if count > 1)
    if near or not networks:
        within = f"hosts within {_listed(near)}" if near else "hosts"
        direct = all(host.direct for host in hosts.values())
        network = (
            "their network, by public addresses" if direct else "their provider's NAT, by public addresses"
        )
        yield Crossing("server-server", within, what, network)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
