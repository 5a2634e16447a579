"""Who may be shown a password. A rogue node that somebody hands out must not collect it.

A password goes to the addresses that the user named. A node that those reveal gets it when one of these proves that it
belongs: it is on the same machine as a named one; its address is a private one beside that of a named one, and somebody
who had the password tells of it; a CA that the user gave vouches for its certificate; or the user trusts whatever is
found. And never in clear text to a public address, unless the user agrees.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import field
from functools import lru_cache

from redkeep.model.values import Value
from redkeep.planning.placing.networks import is_private

#: Neighbours: the last part of an IPv4 address, or of an IPv6 prefix, may differ.
_NEIGHBOURS = {4: 24, 6: 64}


class Peer(Value):
    """Somebody who could be shown a password. ``address`` is an IP address (names are resolved before).

    ``named``: by the user. ``vouched``: somebody who was shown the password told of it. ``encrypted``: over TLS, with a
    certificate that was verified. ``own_ca``: by a CA that the user gave, which nobody else's server has.
    """

    address: str
    named: bool = False
    vouched: bool = False
    encrypted: bool = False
    own_ca: bool = False


class Policy(Value):
    """``named``: the IP addresses that the user named."""

    named: frozenset[str] = field(default_factory=frozenset)
    trust_discovered: bool = False
    allow_clear_text: bool = False

    def withheld(self, peer: Peer) -> str:
        """Why this peer is not shown the password; empty where it is."""
        if not self._belongs(peer):
            return "the password was not sent: others name this address, you did not (--trust-discovered)"
        if not peer.encrypted and is_public(peer.address) and not self.allow_clear_text:
            return "the password was not sent: in clear text over a public address (rediss://, or --allow-clear-text)"
        return ""

    def _belongs(self, peer: Peer) -> bool:
        if peer.named or self.trust_discovered or (peer.own_ca and peer.encrypted):
            return True
        return peer.vouched and (peer.address in self.named or _beside(peer.address, self.named))


def _beside(address: str, named: Iterable[str]) -> bool:
    if not is_private(address):
        return False
    parsed = ipaddress.ip_address(address)
    network = ipaddress.ip_network((parsed, _NEIGHBOURS[parsed.version]), strict=False)
    return any(ipaddress.ip_address(other) in network for other in named)


@lru_cache(maxsize=4096)
def is_public(address: str) -> bool:
    """An address of the internet (or a laboratory's); neither private nor of this machine alone. Names are not."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or is_private(address))


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Of this machine alone, or no address at all: useless to anybody else."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address in ("", "?", "localhost", "localhost.localdomain")
    return parsed.is_loopback or parsed.is_unspecified
