"""From the deployment file and what is known of the hosts to the deployment as it shall be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from redkeep.model.engine import Engine, EngineWant, Installed
from redkeep.model.files import RemoteFile
from redkeep.model.topology import Address
from redkeep.planning.desired import Desired, DesiredHost, DesiredNode
from redkeep.planning.hostfiles import acl, config, units
from redkeep.planning.hostfiles.gate import (
    GateSettings,
    TlsFiles,
    crashed_script,
    gate_acl_rules,
    gate_env,
    gate_script,
    leave_script,
    supervise_script,
)
from redkeep.planning.placing.lineup import Lineup
from redkeep.planning.placing.placement import Placement
from redkeep.planning.placing.secgroup import firewall

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.hostfiles.layout import Layout, NodePaths
    from redkeep.planning.identity import Identity
    from redkeep.planning.placing.addresses import AddressPlan, HostAddresses
    from redkeep.planning.placing.placement import PlacedNode


@dataclass(frozen=True)
class HostCertificate:
    """A host's certificate and key with the CA's certificate, all PEM, and the certificate's SHA-256 (DER)."""

    ca: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    digest: str


@dataclass(frozen=True)
class Parts:
    """What a deployment is composed of. ``installed`` and ``certificates`` are by host; what is missing is not there yet."""

    spec: Spec
    lineup: Lineup
    addresses: AddressPlan
    tls: bool
    secrets: acl.Secrets
    identity: Identity
    layout: Layout
    want: EngineWant
    expected: Engine
    installed: Mapping[str, Installed]
    certificates: Mapping[str, HostCertificate]
    systemd: bool
    #: host and port that the current primary announces; before the first start, the placement's
    primary: tuple[str, int] | None
    secrets_file: bytes = field(repr=False)
    #: node -> the engine that it goes on with for now, although another is installed
    running: Mapping[str, Engine] = field(default_factory=dict)
    #: node -> the run ID of the process that somebody wants restarted
    renew: Mapping[str, str] = field(default_factory=dict)
    #: hosts that the file does not name and whose nodes leave, with their addresses
    leavers: Mapping[str, HostAddresses] = field(default_factory=dict)
    #: host -> net.core.somaxconn now
    backlog: Mapping[str, int] = field(default_factory=dict)

    @property
    def placement(self) -> Placement:
        return self.lineup.placement

    @property
    def everywhere(self) -> AddressPlan:
        """The addresses of all hosts, those that leave among them."""
        return replace(self.addresses, hosts={**self.leavers, **self.addresses.hosts})

    @property
    def present(self) -> Placement:
        """All nodes, those that leave among them."""
        return Placement(self.lineup.nodes)


def compose(parts: Parts) -> Desired:
    """While nodes leave or shards join, also what it will be without them, as ``settled``."""
    lineup = parts.lineup
    desired = _composed(parts)
    if not lineup.leaving and not lineup.joining:
        return desired
    identity = replace(
        parts.identity,
        leaving={},
        joining=frozenset(),
        hosts={h: e for h, e in parts.identity.hosts.items() if lineup.placement.on(h)},
    )
    settled = _composed(replace(parts, lineup=Lineup(lineup.placement), identity=identity, leavers={}))
    return replace(desired, settled=settled)


def _composed(parts: Parts) -> Desired:
    hosts = {h: _host(parts, h) for h in (*(h.name for h in parts.spec.hosts), *parts.leavers)}
    nodes = tuple(_node(parts, placed) for placed in parts.lineup.placement.nodes)
    leaving = tuple(_node(parts, placed) for placed in parts.lineup.leaving)
    return Desired(parts.spec, hosts, nodes, parts.renew, leaving, parts.lineup.joining)


def _host(parts: Parts, name: str) -> DesiredHost:
    layout, installed = parts.layout, parts.installed.get(name)
    owner = layout.user or "root"
    files = [
        RemoteFile(layout.identity, (parts.identity.text() + "\n").encode(), 0o600),
        RemoteFile(layout.gate, gate_script().encode(), 0o755),
        RemoteFile(layout.leave, leave_script().encode(), 0o755),
        RemoteFile(layout.crashed, crashed_script().encode(), 0o755),
        RemoteFile(layout.secrets, parts.secrets_file, 0o600),
    ]
    if not parts.systemd:
        files.append(RemoteFile(layout.supervise, supervise_script().encode(), 0o755))
    else:
        files.append(RemoteFile(layout.sysctl, units.sysctl(parts.backlog.get(name, 0)).encode(), 0o644))
        files.append(RemoteFile(layout.tmpfiles, units.TMPFILES.encode(), 0o644))
        files.append(RemoteFile(layout.logrotate, units.logrotate(layout).encode(), 0o644))
    certificate = parts.certificates.get(name) if parts.tls else None
    if certificate:
        files.append(RemoteFile(layout.ca, certificate.ca, 0o644))
        files.append(RemoteFile(layout.certificate, certificate.certificate, 0o644))
        files.append(RemoteFile(layout.key, certificate.key, 0o400, owner))
    rules = firewall(parts.spec, parts.present, parts.everywhere, name, tls=parts.tls)
    if rules and parts.systemd:
        files.append(RemoteFile(layout.firewall, rules.encode(), 0o644))
        files.append(
            RemoteFile(
                f"/etc/systemd/system/{layout.firewall_unit}", units.firewall_unit(layout).encode(), 0o644
            )
        )
    return DesiredHost(
        name=name,
        layout=layout,
        want=parts.want,
        engine=installed.engine if installed else None,
        systemd=parts.systemd,
        files=tuple(files),
        certificate=certificate.digest if certificate else "",
    )


def _node(parts: Parts, placed: PlacedNode) -> DesiredNode:
    sentinel = placed.kind == "sentinel"
    paths = parts.layout.node(placed.port, sentinel=sentinel)
    installed = parts.installed.get(placed.host) or _coming(parts)
    engine = parts.running.get(placed.name) or (installed.engine if installed else parts.expected)
    host = parts.everywhere[placed.host]
    wire = config.Wire(placed.port, host.bind, host.announce, host.client_announce, parts.tls)
    server = installed.server if installed else f"/usr/bin/{engine.server}"
    if sentinel:
        users = acl.sentinel_users(engine, parts.secrets, gate_rules=gate_acl_rules(engine, sentinel=True))
        settings: dict[str, str] = {}
        seed = config.sentinel_file(
            parts.spec,
            wire,
            parts.layout,
            paths,
            primary=parts.primary or _placed_primary(parts),
            server_password=parts.secrets.sentinel,
            peer_password=parts.secrets.sentinel,
            engine=engine,
        )
        command: tuple[str, ...] = (server, paths.own, "--sentinel")
    else:
        users = acl.server_users(
            engine,
            parts.secrets,
            cluster=parts.spec.mode == "cluster",
            gate_rules=gate_acl_rules(engine, watched=parts.spec.mode == "sentinel"),
        )
        settings = config.server_settings(
            parts.spec, wire, engine, parts.layout, paths, replication_password=parts.secrets.replication
        )
        seed = _server_seed(parts, placed)
        command = (server, paths.own, "--include", paths.managed)
    owner = parts.layout.user or "root"
    return DesiredNode(
        name=placed.name,
        host=placed.host,
        port=placed.port,
        sentinel=sentinel,
        shard=placed.shard or 0,
        initial_role=placed.initial_role,
        paths=paths,
        wire=wire,
        engine=engine,
        settings=settings,
        files=tuple(_node_files(parts, placed, paths, installed, settings, users, server, owner)),
        seed=RemoteFile(paths.own, seed.encode(), 0o600, owner),
        acl=users,
        command=command,
        peer_password=acl.digest(parts.secrets.sentinel) if sentinel and users else "",
    )


def _coming(parts: Parts) -> Installed | None:
    """What a package will bring, whose paths are known before; so an upgrade's plan is what is done then."""
    if parts.want.source != "package":
        return None
    return Installed(f"/usr/bin/{parts.expected.server}", f"/usr/bin/{parts.expected.cli}", parts.expected)


def _node_files(
    parts: Parts,
    placed: PlacedNode,
    paths: NodePaths,
    installed: Installed | None,
    settings: Mapping[str, str],
    users: tuple[str, ...],
    server: str,
    owner: str,
) -> list[RemoteFile]:
    files = []
    if users:
        files.append(RemoteFile(paths.acl, acl.aclfile(users).encode(), 0o400, owner))
    if placed.kind == "server":
        files.append(RemoteFile(paths.managed, config.server_file(settings).encode(), 0o400, owner))
        files.append(RemoteFile(paths.gate_env, gate_env(_gate(parts, placed, installed)).encode(), 0o600))
    if parts.systemd:
        kind = "Sentinel" if placed.kind == "sentinel" else "server"
        title = f"{parts.expected.flavor.capitalize()} {kind} {placed.name} of {parts.spec.name}"
        watched = parts.spec.mode == "sentinel" and placed.kind == "server"
        unit = units.node_unit(parts.layout, paths, server, title, watched=watched)
        files.append(RemoteFile(paths.unit_file, unit.encode(), 0o644))
    return files


def _server_seed(parts: Parts, placed: PlacedNode) -> str:
    """node.conf, the server's own: at first it holds whom to follow, and nothing else."""
    first = "# The server's own file: it keeps its replication state here.\n"
    if parts.spec.mode == "cluster":
        return first
    primary = parts.primary or _placed_primary(parts)
    mine = (parts.everywhere[placed.host].announce, placed.port)
    return first if mine == primary else f"{first}replicaof {primary[0]} {primary[1]}\n"


def _placed_primary(parts: Parts) -> tuple[str, int]:
    placed = next(n for n in parts.placement.servers if n.initial_role == "primary")
    return parts.addresses[placed.host].announce, placed.port


def _gate(parts: Parts, placed: PlacedNode, installed: Installed | None) -> GateSettings:
    spec, layout = parts.spec, parts.layout

    def announced(nodes: Iterable[PlacedNode]) -> tuple[Address, ...]:
        return tuple(Address(parts.everywhere[n.host].announce, n.port) for n in nodes)

    cli = installed.cli if installed else None
    tls = TlsFiles(layout.ca, layout.certificate, layout.key) if parts.tls and cli else None
    me = parts.everywhere[placed.host]
    names = {me.private, me.public, me.client_announce} - {me.announce, ""}
    return GateSettings(
        mode=spec.mode,
        address=me.announce,
        port=placed.port,
        # in an order of their own: that of the placement changes when a node turns out to be in another shard
        peers=tuple(
            sorted(announced(n for n in parts.present.servers if n != placed), key=attrgetter("host", "port"))
        ),
        server=installed.server if installed else f"/usr/bin/{parts.expected.server}",
        aliases=tuple(sorted(names)),
        sentinels=announced(parts.present.sentinels),
        primary_name=spec.name,
        user=acl.GATE,
        password=parts.secrets.gate,
        cli=cli,
        tls=tls,
        crash_failover=spec.crash_failover,
        persistence=spec.persistence,
        appendfsync=spec.appendfsync,
    )
