"""Sessions with all hosts of a deployment, opened at the same time.

Little is imported here, so that hosts can be greeted while the rest of the program is still being loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import HostError, HostUnreachable, RedkeepError, RefusedError
from redkeep.hosts.hostkeys import Accept, HostKeys, refuse
from redkeep.hosts.local import LocalHost
from redkeep.model.events import Approval, Approve

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.hosts.ssh import SshHost
    from redkeep.model.hostspec import HostSpec
    from redkeep.model.spec import Spec


@dataclass
class Sessions:
    """By host name. ``failed`` could not be reached, with the reason; ``refused`` have host keys that nobody accepted."""

    hosts: dict[str, Host] = field(default_factory=dict)
    failed: dict[str, RedkeepError] = field(default_factory=dict)
    refused: list[RefusedError] = field(default_factory=list)
    #: when the first host was called; monotonic
    begun: float = field(default_factory=time.monotonic)

    async def close(self) -> None:
        await asyncio.gather(*(h.close() for h in self.hosts.values()), return_exceptions=True)


def refuse_adopted(spec: Spec, file: Path) -> None:
    """Raises ``RefusedError`` for a deployment that was made by somebody else: its hosts are theirs."""
    if spec.adopted:
        raise RefusedError(
            "not done: Redkeep did not make this deployment (adopted: true)",
            where=str(file),
            next="redkeep status and redkeep check look at it; redkeep check --fix mends what is safe",
        )


async def connect(spec: Spec, folder: Path, accept: Accept) -> Sessions:
    """``folder`` is the deployment's own, where accepted host keys are kept."""
    return await _open(spec.hosts, HostKeys(folder / "known_hosts", accept))


async def reach(entries: Mapping[str, Mapping[str, Any]], folder: Path) -> Sessions:
    """Hosts that the file does not name any more, by what is remembered of them. Nobody is asked about their keys."""
    from redkeep.model.hostspec import HostSpec

    hosts = [HostSpec.model_validate(e["entry"]) for e in entries.values() if e.get("entry")]
    return await _open(hosts, HostKeys(folder / "known_hosts", refuse), refused_counts=False)


async def _open(hosts: Sequence[HostSpec], keys: HostKeys, *, refused_counts: bool = True) -> Sessions:
    sessions = Sessions()
    bastions: dict[str, SshHost] = {}

    async def one(host: HostSpec) -> None:
        if host.is_local:
            sessions.hosts[host.name] = LocalHost(host.name, sudo=False)
            return
        from redkeep.hosts.ssh import SshHost

        remote = SshHost(host.name, host.ssh, keys, fingerprint=host.fingerprint, bastions=bastions)
        sessions.hosts[host.name] = remote
        try:
            await remote.open()
        except HostError as error:
            sessions.failed[host.name] = error
        except RefusedError as error:
            if refused_counts:
                sessions.refused.append(error)
            else:
                sessions.failed[host.name] = HostUnreachable(error.what, where=error.where, next=error.next)

    try:
        await asyncio.gather(*(one(host) for host in hosts))
    except BaseException:
        await sessions.close()
        raise
    return sessions


def key_question(approve: Approve) -> Accept:
    """Asks for a host key at its first use; ``--yes`` does not answer that."""

    async def accept(host: str, fingerprint: str) -> bool:
        return await approve(
            Approval(
                "host-key",
                f"trust this key of {host} from now on?",
                f"{host} presents the host key {fingerprint}",
                "check it on the host (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then write "
                f'fingerprint: "{fingerprint}" into the file',
            )
        )

    return accept
