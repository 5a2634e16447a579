"""Who may reach which port: the rules that a cloud's console needs, and the host's own firewall."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redkeep.planning.placing.networks import LOOPBACK, cidr, private_range

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.placing.addresses import AddressPlan
    from redkeep.planning.placing.placement import Placement

_Range = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Rule:
    """Inbound TCP to a range of ports of some hosts, from one source (a CIDR)."""

    hosts: tuple[str, ...]
    first: int
    last: int
    source: str
    why: str
    protocol: str = "tcp"

    @property
    def ports(self) -> str:
        return _port_range(self.first, self.last)

    def as_json(self) -> dict[str, Any]:
        return {
            "hosts": list(self.hosts),
            "protocol": self.protocol,
            "ports": self.ports,
            "source": self.source,
            "why": self.why,
        }


@dataclass(frozen=True)
class _Open:
    """One port of one host, open to one source: an address, or a range."""

    host: str
    port: int
    source: str
    why: str
    bus: bool = False


def security_group_rules(spec: Spec, placement: Placement, plan: AddressPlan) -> tuple[Rule, ...]:
    """Inbound rules beyond SSH, which is the operator's own. Nothing that another rule lets in anyway is repeated.

    Rules that several hosts need are told once. None for a deployment on this machine alone.
    """
    hosts = list(dict.fromkeys(node.host for node in placement.nodes))
    if all(plan[host].announce.startswith("127.") for host in hosts):
        return ()
    applications = {host: _client_sources(spec, plan[host].for_clients) for host in hosts}
    let_in = {
        host: [ipaddress.ip_network(source) for source, _ in found] for host, found in applications.items()
    }
    for_applications = [
        _Open(node.host, node.port, source, why)
        for node in placement.nodes
        for source, why in applications[node.host]
    ]
    for_peers = [
        opening
        for opening in _for_peers(spec, placement, plan, hosts)
        if opening.bus
        or not any(ipaddress.ip_address(opening.source) in network for network in let_in[opening.host])
    ]
    return _merged([*for_applications, *for_peers])


def _client_sources(spec: Spec, address: str) -> list[tuple[str, str]]:
    if spec.allow_from:
        return [(source, "applications (allow_from)") for source in collapsed(spec.allow_from)]
    if (inside := private_range(address)) and spec.clients == "private":
        return [(inside, "applications; narrow it to their subnet, or set allow_from")]
    anywhere = "::/0" if ":" in address else "0.0.0.0/0"
    return [(anywhere, "applications, from anywhere; set allow_from to narrow it")]


def _for_peers(spec: Spec, placement: Placement, plan: AddressPlan, hosts: list[str]) -> Iterator[_Open]:
    """Servers and Sentinels of all hosts reach each other; a host reaches itself from outside only through a NAT."""
    serving = {node.host for node in placement.servers}
    traffic = "replication" if spec.mode != "sentinel" else "replication and Sentinels"
    for node in placement.nodes:
        for peer in hosts:
            if peer == node.host and not (plan.turns_round(peer) and len(placement.on(peer)) > 1):
                continue
            for address in plan.seen_as(peer, node.host):
                yield _Open(node.host, node.port, address, f"{traffic}, from {peer}")
                if spec.mode == "cluster" and peer in serving:
                    yield _Open(node.host, node.bus_port, address, f"Cluster bus, from {peer}", bus=True)


def _merged(openings: Iterable[_Open]) -> tuple[Rule, ...]:
    """Neighbouring ports become a range, and hosts that need the same rule share it."""
    ports: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for opening in openings:
        ports[opening.source, opening.why, opening.host].add(opening.port)
    shared: dict[tuple[int, int, str, str], list[str]] = defaultdict(list)
    for (source, why, host), numbers in ports.items():
        for first, last in _ranges(numbers):
            shared[first, last, source, why].append(host)
    rules = [
        Rule(tuple(hosts), first, last, cidr(source), why)
        for (first, last, source, why), hosts in shared.items()
    ]
    return tuple(sorted(rules, key=lambda rule: (rule.first, rule.why, rule.source)))


def firewall(spec: Spec, placement: Placement, plan: AddressPlan, host: str, *, tls: bool) -> str:
    """The host's own nftables table; empty where there is nothing to close.

    It concerns our ports only and replaces itself when loaded again. With ``allow_from`` all of them are closed to
    others. The Cluster bus knows no password: without TLS it is for the deployment's hosts alone in any case, since a
    stranger's MEET takes all slots (measured).
    """
    nodes = placement.on(host)
    guarded = bool(spec.allow_from) or (spec.mode == "cluster" and not tls)
    if not guarded or not nodes or set(plan[host].bind) <= {LOOPBACK}:
        return ""
    open_ports = {node.port for node in nodes} if spec.allow_from else set()
    bus = {node.bus_port for node in nodes} if spec.mode == "cluster" else set()
    peers = {a for h in plan.hosts.values() for a in (h.private, h.public) if a}
    table = f"redkeep_{spec.name.replace('-', '_')}"
    lines = [
        *_accept(peers, "", "the deployment's hosts"),
        *(_accept(spec.allow_from, f" tcp dport {_set(open_ports)}", "allow_from") if open_ports else ()),
    ]
    return "\n".join(
        (
            "# Written by Redkeep: who may reach the servers of this deployment. Loading it again replaces it.",
            f"table inet {table}",
            f"delete table inet {table}",
            f"table inet {table} {{",
            "\tchain ours {",
            '\t\tiifname "lo" accept',
            *(f"\t\t{line}" for line in lines),
            "\t\tdrop",
            "\t}",
            "\tchain input {",
            "\t\ttype filter hook input priority -10; policy accept;",
            f"\t\ttcp dport {_set(open_ports | bus)} jump ours",
            "\t}",
            "}",
            "",
        )
    )


def _accept(sources: Iterable[str], ports: str, comment: str) -> Iterator[str]:
    """One rule for each family of addresses."""
    found = collapsed(sources)
    for word, mine in (("ip", [s for s in found if ":" not in s]), ("ip6", [s for s in found if ":" in s])):
        if mine:
            yield f'{word} saddr {{ {", ".join(mine)} }}{ports} accept comment "{comment}"'


def collapsed(sources: Iterable[str]) -> list[str]:
    """The same addresses as the fewest ranges. nftables refuses ranges that overlap."""
    networks = [ipaddress.ip_network(source) for source in sources]
    fourth = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    sixth = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    found: list[_Range] = [*ipaddress.collapse_addresses(fourth), *ipaddress.collapse_addresses(sixth)]
    return [str(network) for network in found]


def _set(ports: Iterable[int]) -> str:
    return f"{{ {', '.join(_port_range(first, last) for first, last in _ranges(ports))} }}"


def _ranges(ports: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found


def _port_range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
