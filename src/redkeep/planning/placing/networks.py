"""Which addresses a host has, as far as the deployment file and the host itself tell."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from redkeep.errors import SpecError
from redkeep.model.values import Value

if TYPE_CHECKING:
    from redkeep.model.hostspec import HostSpec
    from redkeep.model.topology import HostFacts

LOOPBACK = "127.0.0.1"

#: Not routed on the internet: RFC 1918, shared address space (overlay networks use it), unique local IPv6. Python's own
#: ``is_private`` counts more than that, such as the networks of documentation, which laboratories use as public ones.
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
#: Docker's default bridge, the same on every host that has it.
_BRIDGE = "172.17.0.1"


class Found(Value):
    """A host's addresses; empty where they are not known. ``outgoing``: the source of what it sends to the internet."""

    private: str
    public: str
    network: str
    direct: bool
    outgoing: str
    note: str = ""


def is_private(address: str) -> bool:
    """No address of the internet."""
    return private_range(address) is not None


def private_range(address: str) -> str | None:
    """The range of private addresses that this one belongs to."""
    parsed = ipaddress.ip_address(address)
    return next((str(network) for network in _PRIVATE if parsed in network), None)


def cidr(address: str) -> str:
    """One address, or a range as it is, in the notation of firewalls."""
    return str(ipaddress.ip_network(address))


def find(host: HostSpec, facts: HostFacts | None) -> Found:
    """What the file says, and else what the host shows."""
    # here, because the doctor starts faster without the parser of deployment files
    from redkeep.model.hostspec import network_of

    private, note = host.private or "", ""
    if facts:
        if private and facts.addresses and private not in (*facts.addresses, facts.outgoing):
            raise SpecError(
                f"{private} is not an address of {host.name}",
                where=f"hosts: {host.name}: private",
                next=f"it has {', '.join(facts.addresses)}: write one of these, or leave private out",
            )
        if not private and (private := _discovered(facts)):
            source = (
                "the source of its default route"
                if private == facts.outgoing
                else "the only private one it has"
            )
            note = f"{host.name}: address {private} was found on the host, {source}"
    on_interfaces = [a for a in facts.addresses if _usable(a) and not is_private(a)] if facts else []
    public = host.public or (private if private and not is_private(private) else "")
    if not public and len(on_interfaces) == 1:
        public = on_interfaces[0]
    return Found(
        private=private,
        public=public,
        network=host.network_name or (network_of(private) if private else ""),
        direct=bool(public) and public in (private, *on_interfaces),
        outgoing=facts.outgoing if facts else "",
        note=note,
    )


def _discovered(facts: HostFacts) -> str:
    """The address at which hosts beside it reach it.

    Usually the source of the default route. Where that is a public address and there is exactly one private one, the
    host has a second card for the private network.
    """
    usable = [address for address in facts.addresses if _usable(address)]
    outgoing = facts.outgoing if facts.outgoing in usable else ""
    privates = [address for address in usable if is_private(address)]
    if outgoing and (is_private(outgoing) or len(privates) != 1):
        return outgoing
    return privates[0] if len(privates) == 1 else ""


def _usable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or address == _BRIDGE)
