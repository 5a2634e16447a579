"""Server software on a host: is it there as wanted, and getting it there.

One module for each ``source`` of the deployment file. All of them work through ``Host`` alone, so this machine and
a distant one are the same code; what is installed twice is installed once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from redkeep.errors import HostError
from redkeep.model.engine import Engine, Version
from redkeep.model.topology import HostFacts
from redkeep.run.engines import binary, bundled, package, tarball
from redkeep.run.engines.carry import pack, unpack
from redkeep.run.engines.common import Ask, Note

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.engine import EngineWant, Installed
    from redkeep.model.topology import Unreachable

__all__ = [
    "Ask",
    "Note",
    "expected",
    "find",
    "find_all",
    "find_early",
    "install",
    "pack",
    "presumed",
    "unpack",
]


async def find(host: Host, facts: HostFacts, want: EngineWant) -> Installed | None:
    """The server, where it is there already and as wanted: one command, about 10 ms.

    Raises ``EngineError`` where the operator's side lacks something (no bundled server, no such archive).
    """
    match want.source:
        case "bundled":
            return await bundled.find(host, facts, want)
        case "package":
            return await package.find(host, want)
        case "tarball":
            return await tarball.find(host, facts, want)
        case "binary":
            return await binary.find(host, want)


async def find_all(
    hosts: Mapping[str, Host], facts: Mapping[str, HostFacts | Unreachable], want: EngineWant
) -> dict[str, Installed]:
    """By host, where it is there as wanted; hosts without facts are left out."""
    known = {name: f for name in hosts if isinstance(f := facts[name], HostFacts)}
    found = await asyncio.gather(*(find(hosts[name], f, want) for name, f in known.items()))
    return {name: its for name, its in zip(known, found, strict=True) if its is not None}


async def find_early(hosts: Mapping[str, Host], want: EngineWant) -> dict[str, Installed] | None:
    """The same for sources that need no facts for it, so that both can be asked for at once; ``None`` for the others."""
    look = {"package": package.find, "binary": binary.find}.get(want.source)
    if look is None or not hosts:
        return None

    async def one(host: Host) -> Installed | None:
        try:
            return await look(host, want)
        except HostError:
            return None  # the facts of this host tell the same

    found = await asyncio.gather(*map(one, hosts.values()))
    return {name: its for name, its in zip(hosts, found, strict=True) if its is not None}


async def install(
    host: Host, facts: HostFacts, want: EngineWant, note: Note, ask: Ask | None = None
) -> Installed:
    """Makes sure that it is there; safe to repeat, and to interrupt anywhere.

    ``note`` tells progress and what to know; ``ask`` (kind "ordinary") is asked before a compiler is installed.
    Raises ``EngineError`` for what cannot be had, built or run, and ``HostError``.
    """
    match want.source:
        case "bundled":
            return await bundled.install(host, facts, want, note)
        case "package":
            return await package.install(host, facts, want, note)
        case "tarball":
            return await tarball.install(host, facts, want, note, ask)
        case "binary":
            return await binary.install(host, want, note)


async def expected(want: EngineWant) -> Engine | None:
    """What will be there after an installation, as far as the operator's machine alone can tell.

    Known for ``bundled`` and ``tarball`` (TLS assumed for the latter), ``None`` for the others.
    """
    match want.source:
        case "bundled":
            return await bundled.expected()
        case "tarball":
            return await tarball.expected(want)
        case _:
            return None


def presumed(want: EngineWant) -> Engine:
    """What a plan counts on before a package is installed: what every version that we deploy has."""
    if want.version:
        text = want.version if "." in want.version else f"{want.version}.0"
        return Engine(want.flavor, Version.parse(text))
    return Engine(want.flavor, Version(7, 0) if want.flavor == "redis" else Version(7, 2))
