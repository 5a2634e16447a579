"""Interrupted anywhere and planned again: also where nodes, shards and hosts come and go (see ``test_resume``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.planning.simulate import (
    Setup,
    World,
    bare,
    carry_out,
    carry_out_all,
    fail_over,
    joined_by,
    lineup_of,
    plan_of,
    stop,
)
from tests.unit.planning.test_resume import ENGINES, check_resume, hosts, many

from redkeep.model.slots import SLOTS, even_shares
from redkeep.model.spec import Spec

MODES = ("standalone", "sentinel", "cluster")


@st.composite
def sizes(draw: st.DrawFn, mode: str, *, local: bool) -> dict[str, Any]:
    """Which hosts, out of eight, and how many of everything on them."""
    picked = draw(st.lists(st.sampled_from(range(8)), min_size=3, max_size=6, unique=True), label="hosts")
    machines: Any = ("local",) if local else tuple(hosts(8)[i] for i in sorted(picked))
    values: dict[str, Any] = {"hosts": machines, "replicas": draw(st.integers(int(mode == "sentinel"), 2))}
    if mode == "cluster":
        values["shards"] = draw(st.integers(3, 6))
    if mode == "sentinel":
        values["sentinels"] = draw(st.integers(1, 3))
    return values


@st.composite
def scalings(draw: st.DrawFn) -> tuple[Setup, Setup]:
    """A deployment, and what its file says next."""
    mode, engine = draw(st.sampled_from(MODES)), draw(st.sampled_from(ENGINES))
    local = draw(st.booleans()) and draw(st.booleans())
    common = {"mode": mode, "accept_risk": True, "engine": {"flavor": engine.flavor, "source": "package"}}
    before, after = (
        Setup.of(Spec.model_validate(common | draw(sizes(mode, local=local))), engine) for _ in range(2)
    )
    shared = {h.name for h in before.spec.hosts} & {h.name for h in after.spec.hosts}
    if not shared:  # nothing would remember the deployment: the file keeps one of its hosts
        kept = (*after.spec.hosts, before.spec.hosts[0])
        after = Setup.of(Spec.model_validate(after.spec.model_dump() | {"hosts": kept}), engine)
    return before, after


def remembering(before: Setup, after: Setup) -> bool:
    """A host of the new file has nodes of the old one on it."""
    return bool({n.host for n in before.placement.nodes} & {h.name for h in after.spec.hosts})


@many
@given(scalings(), st.data())
def test_a_change_of_size_interrupted_anywhere(pair: tuple[Setup, Setup], data: st.DataObject) -> None:
    before, after = pair
    if not remembering(before, after):
        return
    world = joined_by(after, carry_out_all(before, bare(before)))
    world = check_resume(after, world, data)
    assert_scaled(after, world)


def assert_scaled(setup: Setup, world: World) -> None:
    """As many of everything as the file says, all of them running, and nobody knows of anyone else."""
    found = lineup_of(setup, world)
    assert not found.leaving
    assert not found.joining
    wanted = {n.name for n in found.placement.nodes}
    assert {n for n, s in world.servers.items() if s.runs} == wanted
    assert len(found.placement.servers) == setup.spec.nodes_total
    assert len(found.placement.sentinels) == setup.spec.sentinels
    ids = {world.servers[n].id for n in wanted}
    if setup.spec.mode == "cluster":
        assert all(world.servers[n].knows <= ids for n in wanted)
        owned = [sum(r.size for r in s.slots) for s in world.servers.values() if s.slots]
        assert sum(owned) == SLOTS
        assert len(owned) == setup.spec.shards
        for primary in (s for s in world.servers.values() if s.slots):
            followers = [s for s in world.servers.values() if s.follows == primary.id]
            assert len(followers) == setup.spec.replicas
    else:
        assert sum(world.servers[n.name].primary is None for n in found.placement.servers) == 1
    for machine in world.machines.values():
        assert "leaving" not in machine.identity
        assert "joining" not in machine.identity
    assert {n for n, m in world.machines.items() if m.identity} == {n.host for n in found.placement.nodes}


@many
@given(scalings(), st.data())
def test_after_a_failover_the_old_primary_is_a_replica_that_may_go(
    pair: tuple[Setup, Setup], data: st.DataObject
) -> None:
    before, after = pair
    if not remembering(before, after):
        return
    world = carry_out_all(before, bare(before))
    if before.spec.replicas:
        primaries = [n.name for n in before.placement.servers if n.initial_role == "primary"]
        world = fail_over(before, world, data.draw(st.sampled_from(primaries), label="failed over"))
    world = check_resume(after, joined_by(after, world), data)
    assert_scaled(after, world)


@many
@given(scalings(), st.integers(0, 40))
def test_overtaken_by_another_change(pair: tuple[Setup, Setup], steps: int) -> None:
    """Stopped in the middle, and then the old file again: it ends as that file says, if not on the same ports."""
    before, after = pair
    if not remembering(before, after):
        return
    world = joined_by(after, carry_out_all(before, bare(before)))
    for _ in range(steps):
        if not (plan := plan_of(after, world)):
            break
        world = carry_out(after, world, plan.stages[0].steps[0])
    if not any(world.machines[h.name].identity for h in before.spec.hosts):
        return
    # a folder that was made, and nothing in it yet: on a host of which nobody in the old file has heard, it stays
    used = {name.partition(":")[0] for name, server in world.servers.items() if server.files or server.runs}
    prepared = {n for n, m in world.machines.items() if m.identity and n not in used}
    world = carry_out_all(before, joined_by(before, world))
    for name in prepared - {h.name for h in before.spec.hosts}:
        world = world.with_machine(name, identity="")
    assert_scaled(before, world)


def cluster(names: str, **values: Any) -> Setup:
    """On hosts h1 to h8 by their numbers."""
    every = {h["name"]: h for h in hosts(8)}
    machines = tuple(every[f"h{n}"] for n in names)
    return Setup.of(
        Spec.model_validate({"mode": "cluster", "hosts": machines, "accept_risk": True, **values})
    )


def test_a_new_shard_gets_its_share_and_the_others_keep_theirs() -> None:
    before, after = cluster("1234"), cluster("1234", shards=4)
    world = joined_by(after, carry_out_all(before, bare(before)))
    moves = [s for s in plan_of(after, world) if s.action == "move-slots"]
    assert len(moves) == 3
    world = carry_out_all(after, world)
    sizes = sorted(sum(r.size for r in s.slots) for s in world.servers.values() if s.slots)
    assert sizes == [share.size for share in even_shares(4)]


def test_a_replaced_host_moves_no_slots() -> None:
    """New nodes copy from the old ones, the role is handed over, and then the old ones go."""
    before, after = cluster("123"), cluster("124")
    world = joined_by(after, carry_out_all(before, bare(before)))
    plan = plan_of(after, world)
    assert not [s for s in plan if s.action in ("move-slots", "assign-slots")]
    left = [n.name for n in before.placement.servers if n.host == "h3"]
    assert {s.node for s in plan if s.action == "remove-node"} == set(left)
    assert {s.node for s in plan if s.action == "hand-over"} == {
        n.name for n in before.placement.servers if n.host == "h3" and n.initial_role == "primary"
    }
    assert [s.host for s in plan if s.action == "clean-host"] == ["h3"]
    assert {s.destructive for s in plan if s.action == "remove-node"} == {True}
    assert_scaled(after, carry_out_all(after, world))


def test_a_dead_host_is_replaced_without_being_asked() -> None:
    before, after = cluster("123"), cluster("124")
    world = carry_out_all(before, bare(before))
    for node in before.placement.on("h3"):
        if world.servers[node.name].slots:
            world = fail_over(before, world, node.name)
        world = stop(world, node.name)
    world = joined_by(after, world.with_machine("h3", dead=True))
    plan = plan_of(after, world)
    assert not [s for s in plan if s.host == "h3"]
    assert [s for s in plan if s.action == "forget"]
    world = carry_out_all(after, world)
    known = frozenset().union(*(s.knows for n, s in world.servers.items() if s.runs))
    assert known == {s.id for s in world.servers.values() if s.runs}


@pytest.mark.parametrize("failed", ["h1:6379", "h2:6380", "h5:6379"])
def test_a_node_that_changed_its_shard_is_in_nobodys_files_by_its_shard(failed: str) -> None:
    """The engine moves replicas where they are needed; the hosts' files name peers in an order that this leaves alone."""
    before, after = cluster("125", shards=6), cluster("146", shards=3, replicas=2)
    world = fail_over(before, carry_out_all(before, bare(before)), failed)
    world = joined_by(after, world)
    plan = plan_of(after, world)
    while plan:
        stage = plan.stages[0]
        for step in stage.steps:
            world = carry_out(after, world, step)
        rest = plan_of(after, world)
        assert rest.ids == plan.ids - {s.id for s in stage.steps}, f"after {stage.name}"
        plan = rest
    assert_scaled(after, world)


@pytest.mark.parametrize("mode", ["standalone", "sentinel"])
def test_a_primary_that_leaves_hands_over_first(mode: str) -> None:
    values: dict[str, Any] = {"mode": mode, "replicas": 1, "accept_risk": True}
    before = Setup.of(Spec.model_validate(values | {"hosts": hosts(3)}))
    world = carry_out_all(before, bare(before))
    leader = next(n.host for n in before.placement.servers if n.initial_role == "primary")
    rest = tuple(h for h in hosts(4) if h["name"] != leader)
    after = Setup.of(Spec.model_validate(values | {"hosts": rest}))
    world = joined_by(after, world)
    stages = [s.name for s in plan_of(after, world).stages]
    assert stages.index("hand-over") < stages.index("remove")
    assert_scaled(after, carry_out_all(after, world))


def test_more_memory_is_no_change_of_who_is_there() -> None:
    before = cluster("123")
    world = carry_out_all(before, bare(before))
    after = replace(before, spec=Spec.model_validate(before.spec.model_dump() | {"maxmemory": "1gb"}))
    assert {s.action for s in plan_of(after, world)} == {"write-files", "set"}
