"""A deployment that exists on paper only: what each step of a plan changes, and what a look at it then finds.

    setup = Setup.of(spec)
    world = bare(setup)
    for step in plan_of(setup, world): world = carry_out(setup, world, step)
    assert not plan_of(setup, world)

It knows of a server what planners ask about: its files, whether it runs, with which settings, whom it follows, which
hash slots it owns and whom it knows. Copies are instant, votes are won, and nothing fails unless a test says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from redkeep.model.engine import Engine, EngineWant, Installed, Version
from redkeep.model.plan import Plan, Step
from redkeep.model.slots import SLOTS, SlotRange, in_ranges, parse_ranges, to_ranges
from redkeep.model.spec import Spec
from redkeep.model.topology import (
    BUS_OFFSET,
    Address,
    ClusterNode,
    ClusterView,
    HostFacts,
    NodeView,
    Observed,
    SentinelEntry,
    Unreachable,
)
from redkeep.planning import whole
from redkeep.planning.cluster import in_creation
from redkeep.planning.compose import HostCertificate, Parts, compose
from redkeep.planning.desired import Desired, DesiredHost, DesiredNode
from redkeep.planning.hostfiles.acl import Secrets
from redkeep.planning.hostfiles.config import haste, sentinel_settings
from redkeep.planning.hostfiles.layout import Layout
from redkeep.planning.identity import Identity
from redkeep.planning.placing.addresses import addresses, decide_tls, remembered
from redkeep.planning.placing.lineup import Lineup, Memory, Seen, lineup
from redkeep.planning.placing.placement import Placement, place
from redkeep.planning.replication import current_primary

SECRETS = Secrets("app-pw", "admin-pw", "replication-pw", "sentinel-pw", "gate-pw")
REDIS_7 = Engine("redis", Version(7, 0, 15))

_UNTUNED = {"vm.overcommit_memory": "0", "transparent_hugepage": "always", "net.core.somaxconn": "128"}
_TUNED = {"vm.overcommit_memory": "1", "transparent_hugepage": "madvise", "net.core.somaxconn": "4096"}


@dataclass(frozen=True)
class Setup:
    """What somebody wants, and the engine that its source brings."""

    spec: Spec
    placement: Placement
    engine: Engine = REDIS_7
    secrets: Secrets = SECRETS
    #: counts renewals of the hosts' certificates
    certificate: int = 1
    #: what was composed before, by engines and primary: the tests plan very often
    _composed: dict[object, Desired] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, spec: Spec, engine: Engine = REDIS_7) -> Setup:
        return cls(spec, place(spec), engine)

    @property
    def systemd(self) -> bool:
        return not self.spec.is_local

    @property
    def layout(self) -> Layout:
        if self.systemd:
            return Layout(f"/var/lib/redkeep/{self.spec.name}", self.spec.name)
        return Layout(f"/home/u/.local/share/redkeep/{self.spec.name}", self.spec.name, "")


@dataclass(frozen=True)
class Machine:
    """A host: its engine, the files that its nodes share, and what else ``prepare-host`` sees to."""

    engine: Engine | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    folders: frozenset[str] = frozenset()
    kernel: Mapping[str, str] = field(default_factory=lambda: _UNTUNED)
    firewall: bool = False
    identity: str = ""
    certificate: str = ""
    #: nobody reaches it, and nothing runs there
    dead: bool = False


@dataclass(frozen=True)
class Server:
    """A node: its disk, and its process while it runs."""

    # the disk
    seeded: bool = False
    started_once: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    file_settings: Mapping[str, str] = field(default_factory=dict)
    file_acl: tuple[str, ...] = ()
    primary: tuple[str, int] | None = None
    id: str = ""
    slots: tuple[SlotRange, ...] = ()
    follows: str = ""
    epoch: int = 0
    knows: frozenset[str] = frozenset()
    watched: tuple[str, int] | None = None
    watch_settings: Mapping[str, str] = field(default_factory=dict)
    #: of a Sentinel: addresses of nodes that are gone, and that it still lists
    remembers: frozenset[tuple[str, int]] = frozenset()
    peer_password: str = ""
    # the process
    runs: bool = False
    enabled: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    acl: tuple[str, ...] = ()
    engine: Engine | None = None
    certificate: str = ""


@dataclass(frozen=True)
class World:
    machines: Mapping[str, Machine]
    servers: Mapping[str, Server]
    #: identities that no node has any more, and where the others believe them to be
    ghosts: Mapping[str, Address] = field(default_factory=dict)

    def having(self, name: str, **changes: object) -> World:
        """The same with another state of one node."""
        changed = replace(self.servers[name], **changes)  # type: ignore[arg-type]
        return replace(self, servers={**self.servers, name: changed})

    def with_machine(self, name: str, **changes: object) -> World:
        changed = replace(self.machines[name], **changes)  # type: ignore[arg-type]
        return replace(self, machines={**self.machines, name: changed})


def bare(setup: Setup) -> World:
    """Hosts on which nothing was ever done."""
    return World(
        {h.name: Machine() for h in setup.spec.hosts}, {n.name: Server() for n in setup.placement.nodes}
    )


def joined_by(setup: Setup, world: World) -> World:
    """With the bare hosts and nodes that this file adds."""
    machines = {h.name: Machine() for h in setup.spec.hosts} | dict(world.machines)
    world = replace(world, machines=machines)
    servers = {n.name: Server() for n in lineup_of(setup, world).nodes} | dict(world.servers)
    return replace(world, servers=servers)


# What is wanted -----------------------------------------------------------------------------------------------------


def desired_of(setup: Setup, world: World) -> Desired:
    """As a look composes it: from the engines that are installed, and the primary that is found."""
    desired = _composed(setup, world, None)
    if setup.spec.mode != "cluster" and any(s.runs for s in world.servers.values()):
        desired = _composed(
            setup, world, current_primary(desired, _observed(setup, world, desired)).announced
        )
    return desired


def lineup_of(setup: Setup, world: World) -> Lineup:
    """Who is to be there and who leaves, by what the hosts of the file remember."""
    if not any(s.started_once for s in world.servers.values()):
        return Lineup(setup.placement)
    found = {h.name: Identity.parse(world.machines[h.name].identity) for h in setup.spec.hosts}
    memory = Memory.of(i for i in found.values() if i)
    shards = {n: p[0] for n, p in memory.places.items()} if memory else {}
    ids = {s.id: n for n, s in world.servers.items() if s.id}
    seen = {
        n: Seen(
            "sentinel" if s.watched else "replica" if s.follows or s.primary else "primary",
            shards.get(ids.get(s.follows, n), shards.get(n)),
            bool(s.slots),
        )
        for n, s in world.servers.items()
        if n in shards and (s.runs or (memory and n in memory.leaving and not s.seeded))
    }
    return lineup(setup.spec, memory, seen)


def _composed(setup: Setup, world: World, primary: tuple[str, int] | None) -> Desired:
    found = lineup_of(setup, world)
    machines = tuple((name, m.engine, _backlog(m)) for name, m in sorted(world.machines.items()))
    key = (machines, primary, found.placement, found.leaving, found.joining, repr(found.entries))
    if key not in setup._composed:
        setup._composed[key] = compose(_parts(setup, world, primary, found))
    return setup._composed[key]


def _parts(setup: Setup, world: World, primary: tuple[str, int] | None, found_lineup: Lineup) -> Parts:
    spec, layout = setup.spec, setup.layout
    installed = {
        name: Installed(f"/usr/bin/{m.engine.server}", f"/usr/bin/{m.engine.cli}", m.engine)
        for name, m in world.machines.items()
        if m.engine is not None and _fits(setup, m.engine)
    }
    found = [i.engine for i in installed.values()]
    expected = min(found, key=lambda e: e.version) if found else _presumed(setup)
    plan = addresses(spec, None, expected)
    tls = decide_tls(spec, plan, expected).on
    return Parts(
        spec=spec,
        lineup=found_lineup,
        leavers=remembered(found_lineup.entries),
        addresses=plan,
        tls=tls,
        secrets=setup.secrets,
        identity=Identity.of(
            spec, found_lineup, "d-1", {h: a.announce for h, a in plan.hosts.items()}, tls=tls
        ),
        layout=layout,
        want=EngineWant(spec.engine.flavor, spec.engine.source, spec.engine.version),
        expected=expected,
        installed=installed,
        certificates={h.name: _certificate(h.name, setup.certificate) for h in spec.hosts} if tls else {},
        systemd=setup.systemd,
        primary=primary,
        backlog={name: _backlog(m) for name, m in world.machines.items()},
        secrets_file=repr(sorted(vars(setup.secrets).items(), key=str)).encode(),
    )


def _backlog(machine: Machine) -> int:
    return int(machine.kernel["net.core.somaxconn"])


def _fits(setup: Setup, engine: Engine) -> bool:
    pinned = setup.spec.engine.version
    return pinned is None or engine.version == Version.parse(pinned)


def _presumed(setup: Setup) -> Engine:
    pinned = setup.spec.engine.version
    if pinned:
        return Engine(setup.engine.flavor, Version.parse(pinned), setup.engine.tls)
    oldest = Version(7, 0) if setup.engine.flavor == "redis" else Version(7, 2)
    return Engine(setup.engine.flavor, oldest, setup.engine.tls)


def _certificate(host: str, number: int) -> HostCertificate:
    return HostCertificate(b"ca", f"{host} {number}".encode(), b"key", _digest(f"{host} {number}"))


# What is found ------------------------------------------------------------------------------------------------------


def observe(setup: Setup, world: World) -> Observed:
    return _observed(setup, world, desired_of(setup, world))


def _observed(setup: Setup, world: World, desired: Desired) -> Observed:
    hosts: dict[str, HostFacts | Unreachable] = {
        name: Unreachable("no route") if world.machines[name].dead else _facts(setup, world, desired, name)
        for name in world.machines
    }
    return Observed(hosts, {n.name: _view(setup, world, desired, n) for n in desired.everyone})


def _facts(setup: Setup, world: World, desired: Desired, name: str) -> HostFacts:
    machine, nodes = world.machines[name], [n for n in desired.everyone if n.host == name]
    present, services, enabled = set(machine.folders), {}, set()
    digests = dict(machine.files)
    for node in nodes:
        server = world.servers[node.name]
        digests |= server.files
        present |= {node.paths.own} if server.seeded else set()
        if server.started_once and setup.spec.mode == "cluster":
            present.add(node.paths.members)
        key = node.paths.unit if setup.systemd else node.paths.folder
        if server.runs:
            services[key] = "active"
        elif setup.systemd:
            services[key] = "inactive"
        if server.enabled or (server.runs and not setup.systemd):
            enabled.add(key)
    if machine.firewall:
        services[setup.layout.firewall_unit] = "active"
    return HostFacts(
        system="debian",
        system_version="12",
        family="apt",
        architecture="x86_64",
        libc="glibc 2.36",
        systemd=setup.systemd,
        root=setup.systemd,
        memory=4 * 1024**3,
        disk_free=40 * 1024**3,
        clock=0.0,
        clock_uncertainty=0.01,
        addresses=(),
        outgoing="",
        kernel=machine.kernel,
        listeners=(),
        commands=frozenset({"bash", "nft", "ss"}),
        digests=digests,
        present=frozenset(present),
        services=services,
        enabled=frozenset(enabled),
        identity=machine.identity,
        set_up=frozenset(n.paths.folder.rpartition("/")[2] for n in nodes if world.servers[n.name].seeded),
    )


def _view(setup: Setup, world: World, desired: Desired, node: DesiredNode) -> NodeView | Unreachable:
    server = world.servers[node.name]
    if not server.runs or server.engine is None:
        return Unreachable("nobody listens there (connection refused)", refused=True)
    if node.sentinel:
        return NodeView(
            "sentinel",
            server.engine,
            server.id,
            {},
            {},
            monitored=_monitored(setup, world, desired, server),
            acl=server.acl,
            certificate=server.certificate,
            peer_password=server.peer_password,
        )
    cluster = _cluster_view(world, desired, server) if setup.spec.mode == "cluster" else None
    follows = server.follows if cluster else server.primary
    return NodeView(
        "replica" if follows else "primary",
        server.engine,
        server.id,
        {},
        server.config,
        primary=_followed(world, desired, server) if follows else None,
        cluster=cluster,
        acl=server.acl,
        keys=1,
        certificate=server.certificate,
    )


def _followed(world: World, desired: Desired, server: Server) -> Address | None:
    if server.primary:
        return Address(*server.primary)
    by_id = {s.id: name for name, s in world.servers.items()}
    return Address(*desired.node(by_id[server.follows]).announced) if server.follows in by_id else None


def _monitored(setup: Setup, world: World, desired: Desired, server: Server) -> tuple[SentinelEntry, ...]:
    if server.watched is None:
        return ()
    others = tuple(
        Address(*n.announced)
        for n in desired.everyone
        if n.sentinel and world.servers[n.name].runs and world.servers[n.name].id != server.id
    ) + tuple(Address(*a) for a in server.remembers)
    settings = dict(server.watch_settings)
    quorum = int(settings.get("quorum", "0"))
    replicas = tuple(
        Address(*n.announced)
        for n in desired.present
        if world.servers[n.name].seeded and n.announced != server.watched
    )
    entry = SentinelEntry(
        setup.spec.name,
        Address(*server.watched),
        frozenset({"master"}),
        quorum,
        0,
        replicas,
        others,
        settings,
    )
    return (entry,)


def _cluster_view(world: World, desired: Desired, server: Server) -> ClusterView:
    lines = [_line(world, server.id, "myself", server)]
    for node in desired.present:
        other = world.servers[node.name]
        if other.id and other.id in server.knows and other.id != server.id:
            lines.append(
                _line(world, other.id, "" if other.runs else "fail", other, Address(*node.announced))
            )
    for ghost, address in world.ghosts.items():
        if ghost in server.knows:
            # Who answers there under another identity takes the address from the old one (Redis 7.0, Valkey 9.1).
            heir = desired.at(address.host, address.port)
            taken = heir is not None and world.servers[heir.name].runs
            lines.append(
                _line(world, ghost, "noaddr" if taken else "fail", Server(), None if taken else address)
            )
    owned = sum(line.slot_count for line in lines)
    return ClusterView(server.id, owned == SLOTS, owned, 1, tuple(lines))


def _line(
    world: World, node_id: str, flag: str, server: Server, address: Address | None = None
) -> ClusterNode:
    flags = {flag, "slave" if server.follows else "master"} - {""}
    if flag == "noaddr":
        flags.add("fail")
    where = address or Address("", 0)
    return ClusterNode(
        id=node_id,
        address=where,
        bus_port=where.port + BUS_OFFSET,
        flags=frozenset(flags),
        primary_id=server.follows,
        config_epoch=server.epoch,
        link_up="fail" not in flags,
        slots=server.slots,
    )


# What steps change --------------------------------------------------------------------------------------------------


def plan_of(setup: Setup, world: World) -> Plan:
    desired = desired_of(setup, world)
    plan = whole.plan(desired, _observed(setup, world, desired))
    assert len(list(plan)) == len(plan.ids), "two steps of one plan have the same identifier"
    return plan


def carry_out(setup: Setup, world: World, step: Step) -> World:
    return _ACTIONS[step.action](setup, world, desired_of(setup, world), step)


def carry_out_all(setup: Setup, world: World) -> World:
    """Until nothing is left to do, stage by stage as the loop does it."""
    for _ in range(20):
        plan = plan_of(setup, world)
        if not plan:
            return world
        for step in plan.stages[0].steps:
            world = carry_out(setup, world, step)
    raise AssertionError(f"there is always something left: {sorted(plan.ids)}")


def _install_engine(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    return world.with_machine(step.host, engine=setup.engine)


def _prepare_host(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    host: DesiredHost = desired.hosts[step.host]
    machine = world.machines[step.host]
    paths = {f.path for f in host.files}
    leftovers = {} if host.layout.firewall in paths else _firewall_files(host)
    files = {p: d for p, d in machine.files.items() if p not in leftovers}
    return world.with_machine(
        step.host,
        files=files | {f.path: f.digest for f in host.files},
        folders=machine.folders | {n.paths.data for n in desired.on(step.host)},
        kernel=_TUNED if host.systemd else machine.kernel,
        firewall=host.layout.firewall in paths,
        identity=next(f.content.decode() for f in host.files if f.path == host.layout.identity),
        certificate=host.certificate,
    )


def _firewall_files(host: DesiredHost) -> set[str]:
    return {host.layout.firewall, f"/etc/systemd/system/{host.layout.firewall_unit}"}


def _write_files(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    node, server = desired.node(step.node), world.servers[step.node]
    assert node.paths.data in world.machines[node.host].folders, "files before their folders"
    changes: dict[str, object] = {
        "files": {f.path: f.digest for f in node.files},
        "file_settings": dict(node.settings),
        "file_acl": node.acl,
    }
    if not server.seeded:
        changes["seeded"] = True
        seed = node.seed.content.decode()
        if node.sentinel:
            found = re.search(r"^sentinel monitor \S+ (\S+) (\d+)", seed, re.MULTILINE)
            changes["watch_settings"] = sentinel_settings(setup.spec)
            changes["peer_password"] = node.peer_password
        else:
            found = re.search(r"^replicaof (\S+) (\d+)", seed, re.MULTILINE)
        if found:
            changes["watched" if node.sentinel else "primary"] = (found[1], int(found[2]))
    return world.having(step.node, **changes)


def _start(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    node, server = desired.node(step.node), world.servers[step.node]
    machine = world.machines[node.host]
    assert server.seeded, "a server without its file"
    assert machine.engine, "a server without an engine"
    new = _digest(f"{node.name} {len(world.ghosts)}")[:40]
    return world.having(
        node.name,
        runs=True,
        enabled=True,
        started_once=True,
        id=server.id or new,
        knows=server.knows | {server.id or new},
        config=server.file_settings,
        acl=server.file_acl,
        engine=machine.engine,
        certificate=machine.certificate,
    )


def _restart(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    """Its files are written while it is down."""
    world = _write_files(setup, world.having(step.node, runs=False), desired, step)
    return _start(setup, world, desired, step)


def _assign_slots(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    server = world.servers[step.node]
    assert server.runs, "slots for a server that does not run"
    slots = tuple(SlotRange.parse(r) for r in str(step.args["slots"]).split())
    owned = {slot for s in world.servers.values() for r in s.slots for slot in r}
    assert not owned & {slot for r in slots for slot in r}, "slots that somebody owns"
    return world.having(step.node, slots=server.slots + slots, epoch=int(step.args["epoch"]))


def _meet(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    members = [*desired.servers, *(n for n in desired.leaving if world.servers[n.name].runs)]
    everyone = frozenset(world.servers[n.name].id for n in members)
    known = frozenset(i for n in members for i in world.servers[n.name].knows) | everyone
    hasty = in_creation(desired, _observed(setup, world, desired))
    for node in members:
        server = world.servers[node.name]
        assert server.runs, "a server that does not run meets nobody"
        short = haste(node.settings, len(desired.servers)) if hasty else {}
        world = world.having(node.name, knows=known, config={**server.config, **short})
    return world


def _replicate(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    primary = str(step.args["primary"])
    assert world.servers[step.node].runs
    assert world.servers[primary].runs
    if setup.spec.mode != "cluster":
        return world.having(step.node, primary=desired.node(primary).announced)
    assert not world.servers[step.node].slots, "an owner of slots becomes no replica"
    joins = desired.node(primary).shard in desired.joining
    assert world.servers[primary].slots or joins, "a replica of nobody's slots"
    assert world.servers[primary].id in world.servers[step.node].knows, "a stranger's replica"
    return world.having(step.node, follows=world.servers[primary].id)


def _set(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    node, server = desired.node(step.node), world.servers[step.node]
    wanted = {name: node.settings[name] for name in str(step.args["settings"]).split()}
    return world.having(step.node, config={**server.config, **wanted})


def _set_users(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    return world.having(step.node, acl=desired.node(step.node).acl)


def _reload_tls(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    node = desired.node(step.node)
    assert "tls-cert-file" in node.settings, "a Sentinel cannot be told to read its certificate again"
    return world.having(step.node, certificate=world.machines[node.host].certificate)


def _monitor(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    primary = desired.node(str(step.args["primary"])).announced
    return world.having(step.node, watched=primary, watch_settings=sentinel_settings(setup.spec))


def _watch_again(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    """All forget the primary and watch it at its new address, with nothing remembered from before."""
    for node in desired.everyone:
        if node.sentinel and world.servers[node.name].runs:
            world = _monitor(setup, world, desired, replace(step, node=node.name))
            world = world.having(node.name, remembers=frozenset())
    return world


def _set_sentinel(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    wanted = sentinel_settings(setup.spec)
    told = {name: wanted[name] for name in str(step.args["settings"]).split()}
    return world.having(step.node, watch_settings={**world.servers[step.node].watch_settings, **told})


def _set_sentinel_password(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    return world.having(step.node, peer_password=desired.node(step.node).peer_password)


def _forget(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    for name, server in world.servers.items():
        world = world.having(name, knows=server.knows - {str(step.args["id"])})
    return world


def _move_slots(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    """A primary that has given away its last slot follows who took it, and its replicas as well (both engines)."""
    source, target = str(step.args["from"]), str(step.args["to"])
    moved = set(in_ranges(parse_ranges(str(step.args["slots"]))))
    had, has = set(in_ranges(world.servers[source].slots)), set(in_ranges(world.servers[target].slots))
    assert moved <= had, "slots that the source does not own"
    assert world.servers[target].runs
    assert not world.servers[target].follows, "slots for a replica"
    assert world.servers[target].id in world.servers[source].knows
    epoch = max(s.epoch for s in world.servers.values()) + 1
    old, new = world.servers[source].id, world.servers[target].id
    world = world.having(source, slots=to_ranges(had - moved), follows="" if had - moved else new)
    world = world.having(target, slots=to_ranges(has | moved), epoch=epoch)
    for name, server in world.servers.items():
        if server.follows == old and not had - moved:
            world = world.having(name, follows=new)
    return world


def _hand_over(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    old, new = str(step.args["from"]), str(step.args["to"])
    assert world.servers[old].runs
    assert world.servers[new].runs
    if setup.spec.mode == "cluster":
        assert world.servers[new].follows == world.servers[old].id, "the heir is no replica"
        return hand_over(world, old, new)
    assert world.servers[new].primary == desired.node(old).announced, "the heir is no replica"
    return _promoted(world, desired, new)


def _remove_node(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    node, server = desired.node(step.node), world.servers[step.node]
    assert not server.slots, "an owner of slots is taken away"
    assert not (
        server.id and any(s.follows == server.id for s in world.servers.values() if s.runs and s.slots)
    )
    if not node.sentinel and setup.spec.mode != "cluster":
        assert server.primary or not server.runs, "the primary is taken away"
    ghosts = dict(world.ghosts)
    if server.id and setup.spec.mode == "cluster":
        ghosts[server.id] = Address(*node.announced)
    world = replace(world, servers={**world.servers, step.node: Server()}, ghosts=ghosts)
    for name, other in world.servers.items():
        if other.watched:
            world = world.having(name, remembers=other.remembers | {node.announced})
    folders = world.machines[node.host].folders - {node.paths.data}
    return world.with_machine(node.host, folders=folders)


def _reset_sentinel(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    return world.having(step.node, remembers=frozenset())


def _clean_host(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    left = [n for n in desired.everyone if n.host == step.host and world.servers[n.name].seeded]
    assert not left, "a host with nodes is cleaned"
    return world.with_machine(step.host, files={}, identity="", firewall=False)


def _tidy(setup: Setup, world: World, desired: Desired, step: Step) -> World:
    settled = desired.settled
    assert settled
    assert not [n for n in desired.leaving if world.servers[n.name].seeded and not _dead(world, n)]
    for node in settled.on(step.host):
        world = world.having(node.name, files={f.path: f.digest for f in node.files})
    return _prepare_host(setup, world, settled, step)


def _dead(world: World, node: DesiredNode) -> bool:
    return world.machines[node.host].dead


_ACTIONS: dict[str, Callable[[Setup, World, Desired, Step], World]] = {
    "install-engine": _install_engine,
    "prepare-host": _prepare_host,
    "write-files": _write_files,
    "start": _start,
    "restart": _restart,
    "assign-slots": _assign_slots,
    "meet": _meet,
    "replicate": _replicate,
    "set": _set,
    "set-users": _set_users,
    "reload-tls": _reload_tls,
    "monitor": _monitor,
    "watch-again": _watch_again,
    "set-sentinel": _set_sentinel,
    "set-sentinel-password": _set_sentinel_password,
    "forget": _forget,
    "move-slots": _move_slots,
    "hand-over": _hand_over,
    "remove-node": _remove_node,
    "reset-sentinel": _reset_sentinel,
    "clean-host": _clean_host,
    "tidy": _tidy,
}


# What happens by itself ---------------------------------------------------------------------------------------------


def hand_over(world: World, name: str, to: str = "") -> World:
    """A Cluster's primary becomes the replica of its first running replica (or of ``to``); alone, it stays what it is."""
    server = world.servers[name]
    heirs = [n for n, s in world.servers.items() if s.runs and s.follows == server.id and server.slots]
    if not heirs:
        return world
    heir, *others = sorted(heirs, key=lambda n: n != to)
    new = world.servers[heir].id
    epoch = max(s.epoch for s in world.servers.values()) + 1
    world = world.having(heir, slots=server.slots, follows="", epoch=epoch)
    for other in others:
        world = world.having(other, follows=new)
    return world.having(name, slots=(), follows=new)


def fail_over(setup: Setup, world: World, name: str) -> World:
    """The primary ``name`` is replaced by a replica of its own and comes back as that one's."""
    if setup.spec.mode == "cluster":
        return hand_over(world, name)
    desired = desired_of(setup, world)
    old = desired.node(name)
    heir = next(n for n in desired.servers if world.servers[n.name].primary == old.announced)
    return _promoted(world, desired, heir.name)


def _promoted(world: World, desired: Desired, name: str) -> World:
    """All others follow it, and Sentinels watch it."""
    heir = desired.node(name)
    for node in desired.everyone:
        server = world.servers[node.name]
        if node.sentinel and server.watched:
            world = world.having(node.name, watched=heir.announced)
        if not node.sentinel and server.seeded:
            world = world.having(node.name, primary=None if node == heir else heir.announced)
    return world


def stop(world: World, name: str) -> World:
    """The process is gone, its disk is as it was."""
    return world.having(name, runs=False)


def lose_disk(setup: Setup, world: World, name: str) -> World:
    """The node's folder is gone, and what it was in a Cluster with it."""
    desired = desired_of(setup, world)
    node, server = desired.node(name), world.servers[name]
    machine = world.machines[node.host]
    ghosts = dict(world.ghosts)
    if server.id and setup.spec.mode == "cluster":
        ghosts[server.id] = Address(*node.announced)
    world = replace(world, servers={**world.servers, name: Server()}, ghosts=ghosts)
    return world.with_machine(node.host, folders=machine.folders - {node.paths.data})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
