"""Hosts that the user names on the command line: places to look from, and machines to look at.

SSH is set up as for ``apply``: the same aliases, keys and questions about host keys. A host that cannot be reached is no
reason to look at nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import HostError, RedkeepError, RefusedError, UsageError
from redkeep.model.checkup import LeftOut
from redkeep.model.values import Value
from redkeep.planning.placing.probes import HERE
from redkeep.run.visits import TIMEOUT, Visitor, resolved

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.hosts.hostkeys import Accept
    from redkeep.model.spec import Spec
    from redkeep.wire.client import Opener

#: ``[user@]host[:port]``, or an alias.
_LOGIN = re.compile(r"(?:[^\s@-][^\s@]*@)?(?:\[[0-9A-Fa-f:.]+\]|\w[\w.-]*)(?::\d{1,5})?", re.ASCII)


class Wanted(Value):
    """What the user asks for, as typed: ``[user@]host[:port]``, an alias of ~/.ssh/config, a host of the file.

    ``spec`` is the file of a deployment whose hosts may be meant, ``folder`` where accepted host keys are kept.
    ``described``: hosts that stand in the file with a login, and that nobody asked for by name.
    """

    vantages: Sequence[str] = ()
    machines: Sequence[str] = ()
    described: Sequence[str] = ()
    spec: Spec | None = None
    folder: Path | None = None


@dataclass
class Outposts:
    """Those that can be used, by name. ``errors``: of the others, what is told the user in three lines.

    ``names``: where reachability is to be judged from, this machine included where that was asked for.
    """

    vantages: dict[str, Host] = field(default_factory=dict)
    machines: dict[str, Host] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    errors: dict[str, RedkeepError] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    def visitors(self, visitor: Visitor) -> dict[str, Visitor]:
        """The same visitor, starting there. Whom it met already is known to all of them."""
        return {name: _from(host, visitor) for name, host in self.vantages.items()}


@contextlib.asynccontextmanager
async def outposts(
    wanted: Wanted,
    accept: Accept,
    ready: Mapping[str, Host] | None = None,
    failed: Mapping[str, RedkeepError] | None = None,
) -> AsyncIterator[Outposts]:
    """Open sessions, closed in the end. ``ready``: sessions of others, by host name, that are used and left open, but for
    those that ``failed``.

    Raises ``UsageError`` for what is no login.
    """
    logins = list(dict.fromkeys([*wanted.vantages, *wanted.machines, *wanted.described]))
    for login in logins:
        if not _LOGIN.fullmatch(login):
            hint = "write user@host, user@host:port, or a name from ~/.ssh/config"
            raise UsageError(f"not an SSH login: {login!r}", where="redkeep check", next=hint)
    names = _names([n for n in logins if n != HERE], wanted.spec)
    hosts, errors = dict(ready or {}), dict(failed or {})
    mine = _unopened([n for n in names if names[n] not in hosts], names, wanted, accept)
    try:
        ends = await asyncio.gather(*map(_opened, mine.values()))
        hosts |= mine
        errors |= {name: error for name, error in zip(mine, ends, strict=True) if error}
        yield _sorted(wanted, names, hosts, errors)
    finally:
        await asyncio.gather(*(h.close() for h in mine.values()), return_exceptions=True)


def _sorted(
    wanted: Wanted,
    names: Mapping[str, str],
    hosts: Mapping[str, Host],
    errors: Mapping[str, RedkeepError],
) -> Outposts:
    found = Outposts()
    asked = [names[n] for n in (*wanted.vantages, *wanted.machines) if n != HERE]
    found.errors = {n: errors[n] for n in dict.fromkeys(asked) if n in errors}
    places = [names.get(n, HERE) for n in wanted.vantages]
    found.names = tuple(n for n in dict.fromkeys(places) if n not in errors)
    found.vantages = {n: hosts[n] for n in found.names if n != HERE}
    machines = [names[n] for n in dict.fromkeys((*wanted.machines, *wanted.described))]
    found.machines = {n: hosts[n] for n in machines if n not in errors}
    found.left_out = (
        *(LeftOut(n, "vantage", errors[n].what, errors[n].next) for n in places if n in errors),
        *(LeftOut(n, "host", errors[n].what, errors[n].next) for n in machines if n in errors),
    )
    return found


def _names(every: Sequence[str], spec: Spec | None) -> dict[str, str]:
    """login -> the name for people: that of the file, else the host's part, else all of it."""
    hosts = {h.name for h in spec.hosts} if spec else set()
    short = {login: login.rpartition("@")[2] for login in every}
    counts = list(short.values())
    return {n: n if n in hosts or counts.count(short[n]) > 1 else short[n] for n in every}


def _unopened(
    logins: Sequence[str], names: Mapping[str, str], wanted: Wanted, accept: Accept
) -> dict[str, Host]:
    if not logins:
        return {}
    from redkeep.hosts.hostkeys import HostKeys
    from redkeep.hosts.local import LocalHost
    from redkeep.hosts.ssh import SshHost

    keys = HostKeys((wanted.folder or _own_folder()) / "known_hosts", accept)
    bastions: dict[str, SshHost] = {}
    hosts = {h.name: h for h in wanted.spec.hosts} if wanted.spec else {}
    found: dict[str, Host] = {}
    for login in logins:
        name, host = names[login], hosts.get(login)
        if host and host.is_local:
            found[name] = LocalHost(name)
            continue
        ssh, fingerprint = (host.ssh, host.fingerprint) if host else (login, None)
        found[name] = SshHost(name, ssh, keys, fingerprint=fingerprint, bastions=bastions)
    return found


def _own_folder() -> Path:
    """Where accepted host keys are kept when there is no deployment file (XDG Base Directory Specification 0.8)."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "redkeep"


async def _opened(host: Host) -> RedkeepError | None:
    from redkeep.hosts.ssh import SshHost

    try:
        if isinstance(host, SshHost):
            await host.open()
    except (HostError, RefusedError) as error:
        return error
    return None


def _from(host: Host, visitor: Visitor) -> Visitor:
    def way(ip: str, port: int) -> Opener:
        return lambda: host.connect(ip, port, timeout=TIMEOUT)

    cache: dict[str, asyncio.Task[list[str]]] = {}

    async def resolve(name: str) -> list[str]:
        if name not in cache:
            cache[name] = asyncio.create_task(_resolved_there(host, name))
        return await cache[name]

    away = not host.is_local
    return replace(visitor, way=way, resolve=resolve if away else resolved, away=away, meant=set())


async def _resolved_there(host: Host, name: str) -> list[str]:
    """As the host's own resolver knows the name (getent of glibc and musl); as ours does where it cannot be asked."""
    try:
        ipaddress.ip_address(name)
        return [name]
    except ValueError:
        pass
    try:
        told = await host.run(f"getent ahosts {shlex.quote(name)}", check=False, root=False, timeout=TIMEOUT)
    except HostError:
        return await resolved(name)
    if told.status not in (0, 2):  # 2: it knows no such name
        return await resolved(name)
    return list(dict.fromkeys(line.split()[0] for line in told.stdout.splitlines() if line.split()))
