"""A deployment as it shall be: which files, whose, and with which secrets in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import SECRETS, Setup, World, bare, carry_out_all, desired_of

from redkeep.model.engine import Engine, Version
from redkeep.model.files import RemoteFile
from redkeep.model.spec import Spec
from redkeep.planning.desired import Desired, DesiredNode

HOSTS = [{"name": f"h{i}", "private": f"10.0.0.{i}", "public": f"203.0.113.{i}"} for i in range(1, 4)]


def setup_of(mode: str = "cluster", engine: Engine | None = None, **keys: Any) -> Setup:
    spec = Spec.model_validate({"mode": mode, "hosts": HOSTS, **keys})
    return Setup.of(spec, engine) if engine else Setup.of(spec)


def installed(setup: Setup) -> World:
    world = bare(setup)
    for name in world.machines:
        world = world.with_machine(name, engine=setup.engine)
    return world


def desired(setup: Setup) -> Desired:
    return desired_of(setup, installed(setup))


def files(node: DesiredNode) -> dict[str, RemoteFile]:
    return {f.path.rsplit("/", 1)[-1]: f for f in (*node.files, node.seed)}


def test_paths_are_unique_and_absolute() -> None:
    found = desired(setup_of("sentinel", clients="public", allow_from=["198.51.100.0/24"]))
    for host in found.hosts.values():
        paths = [f.path for f in host.files]
        paths += [f.path for n in found.on(host.name) for f in (*n.files, n.seed)]
        assert len(paths) == len(set(paths))
        assert all(p.startswith("/") for p in paths)


def test_secrets_are_nobody_elses_to_read() -> None:
    found = desired(setup_of("sentinel", clients="public"))
    secret = (SECRETS.app, SECRETS.admin, SECRETS.replication, SECRETS.sentinel, SECRETS.gate)
    for host in found.hosts.values():
        for file in (*host.files, *(f for n in found.on(host.name) for f in (*n.files, n.seed))):
            holds = any(word is not None and word.encode() in file.content for word in secret)
            if holds or file.path.endswith((".key", "users.acl", "secrets.json")):
                assert file.mode & 0o077 == 0, file.path


def test_a_server() -> None:
    node = desired(setup_of()).node("h1:6379")
    found = files(node)
    assert set(found) == {"managed.conf", "users.acl", "gate.env", "redkeep-main-6379.service", "node.conf"}
    assert found["managed.conf"].owner == "redkeep"
    assert found["gate.env"].owner == "root"
    assert node.command == ("/usr/bin/redis-server", node.paths.own, "--include", node.paths.managed)
    assert " ".join(node.command) in found["redkeep-main-6379.service"].content.decode()
    peers = next(
        line for line in found["gate.env"].content.decode().splitlines() if line.startswith("PEERS=")
    )
    assert "10.0.0.1,6379" not in peers.split("'")[1].split()
    assert len(peers.split("'")[1].split()) == 5


def test_a_sentinel() -> None:
    node = desired(setup_of("sentinel")).sentinels[0]
    assert node.command == ("/usr/bin/redis-server", node.paths.own, "--sentinel")
    assert node.settings == {}
    assert set(files(node)) == {"users.acl", f"redkeep-main-sentinel-{node.port}.service", "sentinel.conf"}


def test_seeds_of_replicas_follow_the_primary_of_now() -> None:
    setup = setup_of("standalone", replicas=2)
    seeds = {n.name: n.seed.content.decode() for n in desired(setup).nodes}
    assert "replicaof" not in seeds["h1:6379"]
    assert seeds["h2:6379"].endswith("replicaof 10.0.0.1 6379\n")
    world = carry_out_all(setup, bare(setup))
    moved = world.having("h1:6379", primary=("10.0.0.2", 6379)).having("h2:6379", primary=None)
    moved = moved.having("h3:6379", primary=("10.0.0.2", 6379))
    seeds = {n.name: n.seed.content.decode() for n in desired_of(setup, moved).nodes}
    assert "replicaof" not in seeds["h2:6379"]
    assert seeds["h1:6379"].endswith("replicaof 10.0.0.2 6379\n")


def test_seeds_of_a_cluster_follow_nobody() -> None:
    assert all("replicaof" not in n.seed.content.decode() for n in desired(setup_of()).nodes)


def test_who_leads_now_changes_no_file_of_ours() -> None:
    """Else a failover would be followed by a plan."""
    for mode in ("standalone", "sentinel"):
        setup = setup_of(mode, replicas=2)
        world = carry_out_all(setup, bare(setup))
        moved = world
        for name in ("h1:6379", "h3:6379"):
            moved = moved.having(name, primary=("10.0.0.2", 6379))
        moved = moved.having("h2:6379", primary=None)
        for sentinel in setup.placement.sentinels:
            moved = moved.having(sentinel.name, watched=("10.0.0.2", 6379))
        before, after = desired_of(setup, world), desired_of(setup, moved)
        assert [n.files for n in before.nodes] == [n.files for n in after.nodes]
        assert {n: h.files for n, h in before.hosts.items()} == {n: h.files for n, h in after.hosts.items()}


@pytest.mark.parametrize(("clients", "tls"), [("public", True), ("private", False)])
def test_certificates_where_there_is_tls(clients: str, tls: bool) -> None:
    found = desired(setup_of(clients=clients))
    names = {f.path.rsplit("/", 1)[-1]: f for f in found.hosts["h1"].files}
    assert ({"ca.crt", "node.crt", "node.key"} <= set(names)) is tls
    assert bool(found.hosts["h1"].certificate) is tls
    if tls:
        assert (names["node.key"].mode, names["node.key"].owner) == (0o400, "redkeep")
        assert (
            f"TLS_CA='{found.hosts['h1'].layout.ca}'"
            in files(found.node("h1:6379"))["gate.env"].content.decode()
        )


def test_this_machine_needs_no_units_and_changes_no_kernel() -> None:
    local = Setup.of(Spec.model_validate({"mode": "cluster", "hosts": ["local"], "accept_risk": True}))
    found = desired(local)
    paths = [f.path for h in found.hosts.values() for f in h.files] + [
        f.path for n in found.nodes for f in n.files
    ]
    assert not any(p.startswith("/etc") for p in paths)
    assert any(p.endswith("/bin/supervise") for p in paths)
    assert sorted(n.port for n in found.nodes) == list(range(6379, 6385))


def test_addresses_find_their_nodes() -> None:
    found = desired(setup_of(engine=Engine("valkey", Version(9, 1, 2)), clients="public"))
    node = found.node("h2:6379")
    for address in {node.wire.announce, node.wire.client_announce} - {""}:
        assert found.at(address, 6379) == node
    assert found.at("10.9.9.9", 6379) is None
    assert found.at(node.wire.announce, 1) is None


def test_files_before_a_package_is_installed_are_those_after() -> None:
    """So that an upgrade's plan says before what is done after."""
    setup = setup_of(engine=Engine("redis", Version(7, 0, 0)))
    before, after = desired_of(setup, bare(setup)), desired(setup)
    assert [n.files for n in before.nodes] == [n.files for n in after.nodes]
    assert before.hosts["h1"].engine is None
    assert after.hosts["h1"].engine == setup.engine


def test_rotated_passwords_change_the_files_that_hold_them() -> None:
    setup = setup_of("sentinel")
    rotated = replace(setup, secrets=replace(SECRETS, replication="another"))
    before, after = desired(setup).node("h1:6379"), desired(rotated).node("h1:6379")
    changed = {name for name, f in files(after).items() if f.digest != files(before)[name].digest}
    assert changed == {"managed.conf", "users.acl"}
