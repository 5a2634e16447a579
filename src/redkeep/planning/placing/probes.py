"""Which paths must be open between hosts, and for clients; and what it means where one is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

from redkeep.model.finding import Finding, Severity
from redkeep.model.values import Value
from redkeep.planning.placing.networks import cidr

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.placing.addresses import AddressPlan
    from redkeep.planning.placing.placement import PlacedNode, Placement

Purpose = Literal["server", "bus", "sentinel", "client"]
Outcome = Literal["open", "refused", "timeout", "unreachable"]

#: The source of probes from the operator's machine.
HERE = "here"

#: Up to so many hosts everybody tries everybody.
_MATRIX_UP_TO = 30
#: Hosts that are named in one finding, at most.
_NAMED = 6


class Probe(Value):
    """How a TCP connection went. ``refused`` is good news: the path is open, and nobody listens there yet."""

    source: str
    target: str
    address: str
    port: int
    purpose: Purpose
    outcome: Outcome
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.outcome in ("open", "refused")


class ProbeWanted(Value):
    """A TCP connection to try: from a host, or from ``here``, to an address of a host."""

    source: str
    target: str
    address: str
    port: int
    purpose: Purpose

    def answered(self, outcome: Outcome, detail: str = "") -> Probe:
        return Probe(self.source, self.target, self.address, self.port, self.purpose, outcome, detail)


def wanted_probes(spec: Spec, placement: Placement, plan: AddressPlan) -> tuple[ProbeWanted, ...]:
    """From every host to every node's ports, at the address that it will use; and from here, where clients are outside.

    In a large fleet each host is tried from its neighbours at distances 1, 2, 4, ... and from one host of each network.
    """
    hosts = list(dict.fromkeys(node.host for node in placement.nodes))
    if all(plan[host].announce.startswith("127.") for host in hosts):
        return ()
    wanted = [
        ProbeWanted(source, node.host, plan[node.host].announce, port, purpose)
        for node in placement.nodes
        for source in _sources(node.host, hosts, placement, plan)
        for port, purpose in _ports(spec, node)
    ]
    if spec.clients == "public":
        wanted += [
            ProbeWanted(HERE, n.host, plan[n.host].for_clients, n.port, "client") for n in placement.nodes
        ]
    return tuple(wanted)


def _ports(spec: Spec, node: PlacedNode) -> Iterator[tuple[int, Purpose]]:
    yield node.port, node.kind
    if spec.mode == "cluster":
        yield node.bus_port, "bus"


def _sources(target: str, hosts: list[str], placement: Placement, plan: AddressPlan) -> list[str]:
    itself = [target] if plan.turns_round(target) and len(placement.on(target)) > 1 else []
    if len(hosts) <= _MATRIX_UP_TO:
        return [host for host in hosts if host != target] + itself
    place = hosts.index(target)
    near = [hosts[(place + (1 << power)) % len(hosts)] for power in range((len(hosts) - 1).bit_length())]
    networks = {plan[host].network: host for host in reversed(hosts)}
    return [host for host in dict.fromkeys((*near, *networks.values())) if host != target] + itself


def blocked_paths(spec: Spec, plan: AddressPlan, probes: Collection[Probe]) -> Iterator[Finding]:
    """One finding for each port that somebody needs and cannot reach, or for each host where that is all of them."""
    passing = {(p.source, p.target, p.address) for p in probes if p.passed}
    unrouted: dict[str, list[Probe]] = defaultdict(list)
    closed: dict[tuple[str, int, Purpose], list[Probe]] = defaultdict(list)
    for probe in probes:
        if probe.passed:
            continue
        inside = probe.address == plan[probe.target].private != plan[probe.target].public
        if inside and (probe.source, probe.target, probe.address) not in passing:
            unrouted[probe.target].append(probe)
        else:
            closed[probe.target, probe.port, probe.purpose].append(probe)
    for found in unrouted.values():
        yield _unrouted(found)
    for _, found in sorted(closed.items()):
        yield _closed_to_clients(spec, found) if found[0].purpose == "client" else _closed(plan, found)


def _unrouted(probes: list[Probe]) -> Finding:
    """Nothing at all gets through by the private address."""
    target, address = probes[0].target, probes[0].address
    ports = sorted({probe.port for probe in probes})
    return Finding(
        rule="preflight-private-route",
        severity="error",
        subject=target,
        evidence=f"{_named(p.source for p in probes)} cannot reach {address}, ports {', '.join(map(str, ports))}: "
        f"{_outcome(probes[0])}",
        why="hosts of one network talk to each other by private addresses, and this one is not reached by its own",
        fix=f"if {target} is in another network than these, give each of both its own network: and a public: address; "
        "else let its security group and firewall accept these ports from the hosts beside it",
    )


def _closed(plan: AddressPlan, probes: list[Probe]) -> Finding:
    """A port that other hosts of the deployment need."""
    first = probes[0]
    sources = list(dict.fromkeys(probe.source for probe in probes))
    allow = [cidr(a) for source in sources[:_NAMED] for a in plan.seen_as(source, first.target)]
    reasons = {
        "bus": "without the bus port (port + 10000) the nodes never become one Cluster",
        "sentinel": "Sentinels that cannot hear each other never agree on a failover",
    }
    return Finding(
        rule="preflight-port-closed",
        severity="error",
        subject=f"{first.target}:{first.port}",
        evidence=f"{_named(sources)} cannot reach {first.address} port {first.port} ({first.purpose}): {_outcome(first)}",
        why=reasons.get(first.purpose, "servers replicate from each other through this port"),
        fix=_missing(first.target, first.port, allow) + _rest(sources),
    )


def _closed_to_clients(spec: Spec, probes: list[Probe]) -> Finding:
    """Seen from here. Where ``allow_from`` limits clients, that proves nothing, as we may not be one of them."""
    first = probes[0]
    limited = bool(spec.allow_from)
    severity: Severity = "warning" if limited else "error"
    anywhere = "::/0" if ":" in first.address else "0.0.0.0/0"
    why = "applications are outside, and this is the address that they are told"
    return Finding(
        rule="preflight-client-closed",
        severity=severity,
        subject=f"{first.target}:{first.port}",
        evidence=f"this machine cannot reach {first.address} port {first.port}: {_outcome(first)}",
        why=f"{why}; as allow_from limits them, it matters only if this machine is among them"
        if limited
        else why,
        fix=_missing(first.target, first.port, spec.allow_from or (anywhere,)),
    )


def _missing(target: str, port: int, sources: Collection[str]) -> str:
    listed = ", ".join(dict.fromkeys(sources))
    return f"add to the security group of {target}: inbound, TCP, port {port}, source {listed}"


def _rest(sources: list[str]) -> str:
    more = len(sources) - _NAMED
    return f", and {more} more, as the plan lists them" if more > 0 else ""


def _outcome(probe: Probe) -> str:
    return f"{probe.outcome} ({probe.detail})" if probe.detail else probe.outcome


def _named(sources: Collection[str] | Iterator[str]) -> str:
    names = list(dict.fromkeys(sources))
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
