"""Where and how applications connect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from redkeep.errors import UsageError
from redkeep.model.topology import Address
from redkeep.planning.hostfiles.acl import ADMIN, APP
from redkeep.planning.hostfiles.quoting import redis_url
from redkeep.planning.identity import announced, identities
from redkeep.run.deployment import Deployment, Sight
from redkeep.run.opening import opened

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.placing.addresses import AddressPlan
    from redkeep.planning.placing.placement import Placement

User = Literal["app", "admin"]


@dataclass(frozen=True)
class Endpoint:
    """An address that clients are given: of a server, or of a Sentinel."""

    node: str
    kind: Literal["server", "sentinel"]
    address: Address

    def as_json(self) -> dict[str, Any]:
        return {"node": self.node, "kind": self.kind, "address": str(self.address)}


@dataclass(frozen=True)
class Urls:
    """Connection URLs for one user; the password only where it was asked for."""

    urls: tuple[str, ...]
    user: str
    password: str | None
    mode: str
    sentinels: tuple[str, ...]
    primary_name: str
    tls: bool
    ca: str
    revealed: bool
    servers: tuple[Address, ...] = ()
    sentinel_addresses: tuple[Address, ...] = ()

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"password": self.password} if self.revealed else {}
        return {
            "urls": list(self.urls),
            "user": self.user,
            **shown,
            "mode": self.mode,
            "sentinels": list(self.sentinels),
            "primary_name": self.primary_name,
            "tls": self.tls,
            "ca": self.ca,
        }


def endpoints(deployment: Deployment, sight: Sight) -> tuple[Endpoint, ...]:
    return tuple(_endpoints(deployment.placement, sight.addresses))


def _endpoints(placement: Placement, plan: AddressPlan) -> list[Endpoint]:
    return [Endpoint(n.name, n.kind, Address(plan[n.host].for_clients, n.port)) for n in placement.nodes]


def _while_hosts_are_lost(deployment: Deployment, sight: Sight) -> list[Endpoint]:
    """An outage is when somebody needs to know where to connect. What a host that does not answer hands out, the others
    remember, and they confirm that nothing else would be decided if it answered; else it is waited for."""
    found = _endpoints(deployment.placement, sight.addresses)
    told = identities(sight.observed.hosts)
    if len(told) == len(deployment.spec.hosts):
        return found
    handed = announced(sight.observed.hosts)
    as_before = all(i.tls == sight.tls.on for i in told.values()) and all(
        sight.addresses[host].announce == handed.get(host) for host in told
    )
    if not (told and as_before):
        deployment.require_all(sight)
    hosts = {n.name: n.host for n in deployment.placement.nodes}
    known = [
        e if e.address.host else replace(e, address=Address(handed.get(hosts[e.node], ""), e.address.port))
        for e in found
    ]
    return [e for e in known if e.address.host]


def application_lines(deployment: Deployment, sight: Sight) -> tuple[str, ...]:
    """What an application of this mode is configured with; the password is left out."""
    found = _endpoints(deployment.placement, sight.addresses)
    spec, tls = deployment.spec, sight.tls.on
    servers = [e for e in found if e.kind == "server"]
    password = "" if deployment.secrets.app is None else "PASSWORD"
    lines = []
    if spec.mode == "sentinel":
        lines.append(f"Sentinels: {','.join(str(e.address) for e in found if e.kind == 'sentinel')}")
        lines.append(f"name of the primary there: {spec.name}")
    elif spec.mode == "cluster":
        lines.append(f"Cluster nodes: {','.join(str(e.address) for e in servers)}")
    else:
        url = redis_url(servers[0].address, user=APP, password=password or None, tls=tls)
        lines.append(f"URL: {url}")
    if password:
        lines.append("user default, or none; the password: redkeep url --reveal")
    if tls:
        lines.append(f"TLS, with the CA file {deployment.vault.folder / 'pki/ca.crt'}")
    return tuple(lines)


async def url(spec: Spec, file: Path, *, user: User = "app", reveal: bool = False) -> Urls:
    """Raises ``UsageError`` before the first apply: there are no passwords yet."""
    async with opened(spec, file, keep=False) as deployment:
        if deployment.vault.contents() is None:
            raise UsageError("nothing was deployed from this file yet", where=str(file), next="redkeep apply")
        sight = await deployment.look()
        found = _while_hosts_are_lost(deployment, sight)
        password = deployment.secrets.app if user == "app" else deployment.secrets.admin
        login = APP if user == "app" else ADMIN
        shown = password if reveal else None if password is None else "PASSWORD"
        servers = [e for e in found if e.kind == "server"]
        return Urls(
            urls=tuple(redis_url(e.address, user=login, password=shown, tls=sight.tls.on) for e in servers),
            user=APP if user == "app" else ADMIN,
            password=password,
            mode=spec.mode,
            sentinels=tuple(str(e.address) for e in found if e.kind == "sentinel"),
            primary_name=spec.name if spec.mode == "sentinel" else "",
            tls=sight.tls.on,
            ca=str(deployment.vault.folder / "pki/ca.crt") if sight.tls.on else "",
            revealed=reveal,
            servers=tuple(e.address for e in servers),
            sentinel_addresses=tuple(e.address for e in found if e.kind == "sentinel"),
        )
