"""An engine that was built on one host, carried to others of the same kind: built once, copied to the rest."""

from __future__ import annotations

import os
import secrets
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import EngineError
from redkeep.run.engines.common import identify, prefix

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.engine import Installed
    from redkeep.model.topology import HostFacts


def alike(one: HostFacts, other: HostFacts) -> bool:
    """Whether what was built on one machine runs on the other: same processor, C library and distribution."""
    return (one.architecture, one.libc, one.system, one.system_version) == (
        other.architecture,
        other.libc,
        other.system,
        other.system_version,
    )


async def pack(host: Host, installed: Installed) -> Path:
    """Fetches an engine's folder as a compressed archive; the caller removes that local file.

    Only for engines of ours (``tarball``, ``bundled``), which stand in a folder of their own.
    """
    folder = Path(installed.server).parent.parent
    if (
        not installed.server.startswith(f"{folder}/bin/")
        or str(folder.parent).rsplit("/", 1)[-1] != "engines"
    ):
        raise EngineError(
            f"{installed.server} does not stand in a folder of its own", where=f"host {host.name}"
        )
    remote = f"/var/tmp/redkeep-{secrets.token_hex(8)}.tar.gz"
    quoted = shlex.quote(remote)
    try:
        where, name = shlex.quote(str(folder.parent)), shlex.quote(folder.name)
        await host.run(f"umask 077; tar -czf {quoted} -C {where} -- {name}", timeout=120)
        content = await host.read(remote, timeout=300)
    finally:
        await host.run(f"rm -f {quoted}")
    handle, local = tempfile.mkstemp(prefix="redkeep-engine-", suffix=".tar.gz")
    with os.fdopen(handle, "wb") as stream:
        stream.write(content or b"")
    return Path(local)


async def unpack(host: Host, facts: HostFacts, archive: Path, installed: Installed) -> Installed:
    """Puts what ``pack`` fetched into the same place on another host, and asks it who it is."""
    base = prefix(host, facts)
    name = Path(installed.server).parent.parent.name
    server = f"{base}/{name}/bin/{Path(installed.server).name}"
    stage = f"{base}/.{name}.{secrets.token_hex(4)}"
    packed = f"{stage}/archive"
    await host.run(f"umask 022; mkdir -p {shlex.quote(stage)}")
    try:
        await host.upload(str(archive), packed, mode=0o600)
        await host.run(
            f"set -e; cd {shlex.quote(stage)}; tar -xzpf archive; "
            f"[ -e ../{shlex.quote(name)} ] || mv -T -- {shlex.quote(name)} ../{shlex.quote(name)}",
            timeout=120,
        )
    finally:
        await host.run(f"rm -rf -- {shlex.quote(stage)}")
    found = await identify(host, server)
    if found is None or found.engine != installed.engine:
        raise EngineError(
            f"the copy of {installed.engine} does not run there",
            where=f"host {host.name}",
            next="are both hosts of the same distribution and processor? build it there instead",
        )
    return found
