"""Where to look, as people write it: ``redis://``, ``rediss://``, ``sentinel://host:port/name``, or ``host:port``."""

from __future__ import annotations

import re
from dataclasses import field
from urllib.parse import unquote, urlsplit

from redkeep.errors import UsageError
from redkeep.model.topology import Address
from redkeep.model.values import Value

_SCHEMES = {
    "redis": False,
    "rediss": True,
    "valkey": False,
    "valkeys": True,
    "sentinel": False,
    "sentinels": True,
}
_PORT, _SENTINEL_PORT = 6379, 26379
_WHERE = "redkeep check TARGET"
_ESCAPE = "write / as %2F, # as %23, ? as %3F, @ as %40 and % as %25 in it, or use REDKEEP_PASSWORD"
_HINT = "write redis://HOST:PORT, rediss://HOST:PORT, sentinel://HOST:PORT/NAME or HOST:PORT"


class Target(Value):
    """One address that the user named. ``user`` and ``password`` are empty where the URL has none.

    ``name`` is that of the primary which a Sentinel watches.
    """

    address: Address
    tls: bool = False
    sentinel: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    name: str = ""

    def __str__(self) -> str:
        """Without the password."""
        scheme = ("sentinel" if self.sentinel else "redis") + ("s" if self.tls else "")
        return f"{scheme}://{self.address}" + (f"/{self.name}" if self.name else "")


def parse_target(text: str) -> Target:
    """Raises ``UsageError``, which never shows the password."""
    scheme, separator, _ = text.partition("://")
    if separator and scheme not in _SCHEMES:
        raise UsageError(f"not a target: {scheme[:20]}://", where=_WHERE, next=_HINT)
    try:
        parts = urlsplit(text if separator else f"redis://{text}")
        if (
            "@" in f"{parts.path}{parts.query}{parts.fragment}"
        ):  # what follows would be taken for the host, or left out
            raise UsageError(
                "not a target: a character of its password ends the host", where=_WHERE, next=_ESCAPE
            )
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise UsageError("not a target: its host or port cannot be read", where=_WHERE, next=_HINT) from None
    if not host or not re.fullmatch(r"[\w.:-]+", host, re.ASCII) or (not separator and "@" in text):
        raise UsageError("not a target: it names no host", where=_WHERE, next=_HINT)
    sentinel = parts.scheme.startswith("sentinel")
    return Target(
        Address(host, port or (_SENTINEL_PORT if sentinel else _PORT)),
        tls=_SCHEMES[parts.scheme],
        sentinel=sentinel,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        name=unquote(parts.path.strip("/")) if sentinel else "",
    )
