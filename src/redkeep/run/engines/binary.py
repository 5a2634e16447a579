"""``source: binary``: a server that is on the host already, at the path that the deployment file names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redkeep.errors import EngineError
from redkeep.run.engines.common import Note, fits, identify, judge

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.engine import EngineWant, Installed


async def find(host: Host, want: EngineWant) -> Installed | None:
    """The server at ``want.path`` where it runs and is of the flavor and version asked for."""
    found = await identify(host, _path(host, want))
    if found is None or not fits(want, found.engine) or found.engine.refusal(from_source=False):
        return None
    return found


async def install(host: Host, want: EngineWant, note: Note) -> Installed:
    """Installs nothing: says why the server is not usable, or returns it."""
    path, where = _path(host, want), f"host {host.name}"
    found = await identify(host, path)
    if found is None:
        raise EngineError(
            f"there is no server at {path}",
            where=where,
            next="correct path: under engine:, or put an executable server there, on every host",
        )
    judge(host, want, found.engine, note)
    if not fits(want, found.engine):
        raise EngineError(
            f"{path} is {found.engine}, and version {want.version} was asked for",
            where=where,
            next="correct version: or path: under engine:",
        )
    return found


def _path(host: Host, want: EngineWant) -> str:
    if not want.path or not want.path.startswith("/"):
        raise EngineError(
            f"source: binary needs the absolute path of a server, not {want.path!r}",
            where=f"engine.path, for host {host.name}",
            next="write path: /usr/local/bin/redis-server under engine:",
        )
    return want.path
