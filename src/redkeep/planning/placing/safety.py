"""What must not be deployed although every single part of it could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.topology import HostFacts, Unreachable

if TYPE_CHECKING:
    from redkeep.model.engine import Engine
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
    for name, host in desired.hosts.items():
        found = facts.get(name)
        needed = any(f.path == host.layout.firewall for f in host.files)
        if not needed or not isinstance(found, HostFacts) or "nft" in found.commands:
            continue
        if spec.allow_from or plan.way in ("public", "hairpin"):
            what = "allow_from" if spec.allow_from else "the Cluster bus, which knows no password,"
            raise RefusedError(
                f"{what} needs a firewall on the host, and nft is not installed there",
                where=f"host {name}",
                next="install nftables there (apt-get install nftables), or use an engine with TLS",
            )
