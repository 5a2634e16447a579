"""What must not be deployed although every single part of it could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.topology import HostFacts, Unreachable
from redkeep.planning.placing.networks import LOOPBACK, is_private

if TYPE_CHECKING:
    from redkeep.model.engine import Engine
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import Desired
    from redkeep.planning.placing.addresses import AddressPlan


def one_way_failover(engines: Mapping[str, Engine]) -> str | None:
    """Three lines, where one host's server cannot load what another's sends.

    After a failover to the newer one, the older can never rejoin: redundancy is gone for good, at night.
    """
    for host, engine in engines.items():
        for other, newer in engines.items():
            if not engine.loads_from(newer):
                return (
                    f"{engine} cannot load a copy from {newer}: after a failover to {other}, {host} could not rejoin\n"
                    f"hosts: {host} ({engine}), {other} ({newer})\n"
                    "use one version on all hosts (engine: version or source), or write accept_risk: true"
                )
    return None


def check_firewall(desired: Desired, facts: Mapping[str, HostFacts | Unreachable], plan: AddressPlan) -> None:
    """Raises ``RefusedError`` where a host needs a firewall of ours and cannot have one.

    A bus that is only announced privately is left to the cloud's security group there.
    """
    spec = desired.spec
    tls = any(node.wire.tls for node in desired.nodes)
    for name, host in desired.hosts.items():
        found = facts.get(name)
        if name not in plan.hosts or not isinstance(found, HostFacts):
            continue
        bus = spec.mode == "cluster" and not tls and _outside(plan, name)
        if set(plan[name].bind) <= {LOOPBACK} or not (spec.allow_from or bus):
            continue
        what = "allow_from" if spec.allow_from else "the Cluster bus, which knows no password,"
        if not host.systemd:
            raise RefusedError(
                f"{what} needs a firewall on this machine, and only root can have one, where systemd runs",
                where=f"host {name}",
                next="run it as root on a machine with systemd, or leave private: and public: out of the file",
            )
        if "nft" not in found.commands:
            raise RefusedError(
                f"{what} needs a firewall on the host, and nft is not installed there",
                where=f"host {name}",
                next="install nftables there (apt-get install nftables), or use an engine with TLS",
            )


def _outside(plan: AddressPlan, host: str) -> bool:
    """The host's servers answer on an address that is reached from beyond its network."""
    its = plan[host]
    return plan.way in ("public", "hairpin") or (bool(its.public) and its.public in its.bind)


def check_passwordless(spec: Spec, plan: AddressPlan) -> None:
    """Raises ``RefusedError`` where servers that ask for no password would answer on public addresses."""
    if spec.auth != "none":
        return
    shown = {
        host: its.for_clients
        for host, its in plan.hosts.items()
        if its.announce != LOOPBACK and (_outside(plan, host) or not is_private(its.for_clients))
    }
    if shown:
        raise RefusedError(
            "auth: none is for private addresses only, and servers would answer on public ones",
            where=", ".join(f"{host} ({address})" for host, address in list(shown.items())[:4]),
            next="write auth: password; or, where private addresses are routed between all hosts, give all of them "
            "the same network:",
        )
