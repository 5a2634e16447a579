"""Opens a deployment for work: its vault, its passwords, and sessions with its hosts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.hosts.hostkeys import Accept, refuse
from redkeep.planning.placing.lineup import lineup
from redkeep.run.deployment import Deployment
from redkeep.run.fleet import Fleet, layout_for
from redkeep.run.sessions import Sessions, connect, refuse_adopted
from redkeep.run.vault import Contents, Vault, resolve, secrets_of, with_given

if TYPE_CHECKING:
    from redkeep.model.spec import Spec


def _uses_systemd(spec: Spec, base: str | None) -> bool:
    """Remote hosts need it; this machine may do without."""
    if not spec.is_local:
        return True
    return base is None and os.geteuid() == 0 and Path("/run/systemd/system").is_dir()


@contextlib.asynccontextmanager
async def opened(
    spec: Spec,
    file: Path,
    *,
    keep: bool,
    accept_key: Accept = refuse,
    sessions: Sessions | None = None,
    base: str | None = None,
) -> AsyncIterator[Deployment]:
    """Opens sessions with all hosts, where they are not open yet. Hosts that fail are kept in ``fleet.failed``.

    ``keep``: certificates that are missing are made and kept; else they exist for this run only. A first run keeps
    nothing before ``remember``: hosts may turn out to be of a deployment whose folder was lost.
    """
    refuse_adopted(spec, file)
    vault = Vault(file, spec.name)
    async with contextlib.AsyncExitStack() as stack:
        if sessions is not None:
            stack.push_async_callback(sessions.close)
        known = vault.contents()
        keep = keep and known is not None
        contents = vault.ensure() if keep else known or Contents.fresh(spec.name)
        sources = {k: v.model_dump(exclude_none=True) for k, v in spec.passwords if v is not None}
        given = resolve(sources, file=str(file))
        contents = with_given(contents, given, fresh=known is None, file=str(file))
        secrets = secrets_of(contents, auth=spec.auth == "password")
        systemd = _uses_systemd(spec, base)
        layout = layout_for(spec, base=base, systemd=systemd)
        found = sessions or await connect(spec, vault.root, accept_key)
        fleet = Fleet(spec, layout, systemd, found.hosts, found.failed)
        stack.push_async_callback(fleet.close)
        if found.refused:
            raise _unknown_keys(found.refused)
        yield Deployment(
            spec,
            file,
            vault,
            contents,
            secrets,
            lineup(spec, None),
            layout,
            fleet,
            systemd,
            keep,
            base is not None,
        )


def _unknown_keys(refused: list[RefusedError]) -> RefusedError:
    """All of them at once, so that one look at the hosts is enough."""
    if len(refused) == 1:
        return refused[0]
    return RefusedError(
        f"the SSH host keys of {len(refused)} hosts are not known here, and nobody to ask",
        where="; ".join(error.where for error in refused),
        next="check each on its host (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
        "then write them as fingerprint: into the file",
    )
