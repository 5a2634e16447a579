"""The folder with the passwords is lost, and the deployment runs: what the hosts hold is read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import HostError, RedkeepError
from redkeep.model.events import Approve, Emit, Note
from redkeep.run.opening import opened
from redkeep.run.pki import Pki
from redkeep.run.sessions import key_question
from redkeep.run.vault import recover as read_back

if TYPE_CHECKING:
    from redkeep.model.spec import Spec


@dataclass(frozen=True)
class Recovered:
    host: str
    deployment_id: str
    folder: str
    new_authority: bool

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


async def recover(spec: Spec, file: Path, *, approve: Approve, emit: Emit) -> Recovered:
    """Takes the secrets from the first host that has them.

    The CA's key is never on a host: with TLS, the next apply makes a new CA, and the old one stays trusted beside it
    until every host has a new certificate. Raises ``HostError`` where no host has secrets, ``RefusedError`` where the
    folder already holds another deployment's.
    """
    async with opened(spec, file, keep=False, accept_key=key_question(approve)) as deployment:
        reasons: list[RedkeepError] = list(deployment.fleet.failed.values())
        for name, host in deployment.fleet.hosts.items():
            if name in deployment.fleet.failed:
                continue
            try:
                contents = await read_back(host, deployment.layout.secrets)
            except HostError as error:
                reasons.append(error)
                continue
            deployment.vault.adopt(contents)
            old = await host.read(deployment.layout.ca)
            lost = old is not None and deployment.vault.read("pki/ca.key") is None
            if old is not None and lost:
                Pki(deployment.vault).trust_also(old)
                emit(Note("the CA's key is gone: the next apply issues new certificates from a new CA"))
            return Recovered(name, contents.deployment_id, str(deployment.vault.folder), lost)
        first = reasons[0]
        raise HostError(
            f"no host gave the secrets back: {first.what}",
            where=first.where or str(file),
            next="is this the right file, and was it applied before? if the hosts are gone too, start anew",
        )
