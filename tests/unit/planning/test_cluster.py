"""A Cluster's own steps, case by case: what is planned for what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import (
    Setup,
    World,
    bare,
    carry_out,
    carry_out_all,
    desired_of,
    fail_over,
    lose_disk,
    observe,
    plan_of,
    stop,
)

from redkeep.model.slots import SLOTS, SlotRange
from redkeep.model.spec import Spec
from redkeep.model.topology import Address, Observed, Unreachable
from redkeep.planning.cluster import FULL_MESH, cluster, in_creation, introductions


def setup_of(**keys: Any) -> Setup:
    hosts = [{"name": f"h{i}", "private": f"10.0.0.{i}"} for i in range(1, 7)]
    return Setup.of(Spec.model_validate({"mode": "cluster", "hosts": hosts, **keys}))


SETUP = setup_of()
UP = carry_out_all(SETUP, bare(SETUP))
PRIMARIES = [n.name for n in SETUP.placement.servers if n.initial_role == "primary"]
REPLICAS = {n.shard: n.name for n in SETUP.placement.servers if n.initial_role == "replica"}


def ids(world: World, observed: Observed | None = None) -> set[str]:
    desired = desired_of(SETUP, world)
    return {s.id for s in cluster(desired, observed or observe(SETUP, world))}


def replica_of(name: str) -> str:
    shard = next(n.shard for n in SETUP.placement.servers if n.name == name)
    return REPLICAS[shard]


def test_a_creation() -> None:
    found = ids(bare(SETUP))
    assert {i for i in found if i.startswith("assign-slots")} == {
        f"assign-slots:{PRIMARIES[0]}:epoch=1,slots=0-5460",
        f"assign-slots:{PRIMARIES[1]}:epoch=2,slots=5461-10922",
        f"assign-slots:{PRIMARIES[2]}:epoch=3,slots=10923-16383",
    }
    assert {i for i in found if i.startswith("replicate")} == {
        f"replicate:{replica_of(p)}:primary={p}" for p in PRIMARIES
    }
    assert "meet" in found
    assert len(found) == 7


def test_a_cluster_that_stands() -> None:
    assert ids(UP) == set()
    assert not in_creation(desired_of(SETUP, UP), observe(SETUP, UP))


def test_what_the_engine_decided_stays() -> None:
    assert ids(fail_over(SETUP, UP, PRIMARIES[0])) == set()


def test_slots_that_were_moved_stay() -> None:
    one, two = PRIMARIES[:2]
    moved = UP.having(one, slots=(SlotRange(0, 99),)).having(two, slots=(SlotRange(100, 10922),))
    assert ids(moved) == set()
    emptied = UP.having(one, slots=()).having(two, slots=(SlotRange(0, 10922),))
    assert ids(emptied) == set()


def test_slots_that_nobody_owns_go_to_a_primary_without_any() -> None:
    one = PRIMARIES[0]
    assert ids(UP.having(one, slots=())) == {f"assign-slots:{one}:epoch=1,slots=0-5460"}
    taken = UP.having(one, slots=()).having(PRIMARIES[1], slots=(SlotRange(5000, 10922),))
    assert ids(taken) == {f"assign-slots:{one}:epoch=1,slots=0-4999"}


def test_a_stopped_node_is_waited_for() -> None:
    """It knows its place itself; nothing is planned around it, and nobody gets short timeouts for it."""
    for name in (PRIMARIES[0], replica_of(PRIMARIES[0])):
        world = stop(UP, name)
        assert ids(world) == set()
        assert not in_creation(desired_of(SETUP, world), observe(SETUP, world))


def test_everything_stopped() -> None:
    world = UP
    for name in UP.servers:
        world = stop(world, name)
    assert ids(world) == set()


def test_nobody_takes_slots_while_their_owners_may_be_asleep() -> None:
    world = UP
    for name in UP.servers:
        world = stop(world, name)
    world = lose_disk(SETUP, world, PRIMARIES[0])
    assert not any(i.startswith("assign-slots") for i in ids(world))


def test_a_node_that_answers_nobody_is_not_replaced() -> None:
    observed = observe(SETUP, UP)
    silent = replace(observed, nodes={**observed.nodes, PRIMARIES[0]: Unreachable("no answer in time")})
    assert ids(UP, silent) == set()


def test_a_replica_with_an_empty_disk() -> None:
    """Met, made a replica again, and its old identity forgotten: planned before it runs, and the same when it does."""
    primary = PRIMARIES[0]
    lost = replica_of(primary)
    old = UP.servers[lost].id
    world = lose_disk(SETUP, stop(UP, lost), lost)
    wanted = {"meet", f"replicate:{lost}:primary={primary}", f"forget:id={old}"}
    assert ids(world) == wanted
    for action in ("prepare-host", "write-files", "start"):
        step = next(s for s in plan_of(SETUP, world) if s.action == action)
        world = carry_out(SETUP, world, step)
        assert ids(world) == wanted, action
    assert world.servers[lost].id != old
    assert not in_creation(desired_of(SETUP, world), observe(SETUP, world)), (
        "a Cluster that serves keeps its timeouts"
    )
    assert plan_of(SETUP, carry_out_all(SETUP, world)).ids == set()


def test_a_former_primary_with_an_empty_disk_follows_its_heir() -> None:
    lost, heir = PRIMARIES[0], replica_of(PRIMARIES[0])
    world = lose_disk(SETUP, stop(fail_over(SETUP, UP, lost), lost), lost)
    assert f"replicate:{lost}:primary={heir}" in ids(world)
    world = carry_out_all(SETUP, world)
    assert world.servers[lost].follows == world.servers[heir].id
    # and the same while the heir is away, which the others remember
    world = lose_disk(SETUP, stop(fail_over(SETUP, UP, lost), lost), lost)
    assert f"replicate:{lost}:primary={heir}" in ids(stop(world, heir))


def test_an_owner_that_lost_its_disk_without_a_replica_is_not_forgotten() -> None:
    """Its slots still stand under the old identity: to take them is a decision for a person."""
    lost = PRIMARIES[0]
    observed = observe(SETUP, UP)
    view = observed.nodes[PRIMARIES[1]]
    assert not isinstance(view, Unreachable)
    assert view.cluster is not None
    old = UP.servers[lost].id
    stale = replace(view.cluster.by_id(old), id="f" * 40)  # type: ignore[type-var]
    assert stale is not None
    cluster_view = replace(view.cluster, nodes=(*view.cluster.nodes, stale))
    changed = {**observed.nodes, PRIMARIES[1]: replace(view, cluster=cluster_view)}
    assert ids(UP, replace(observed, nodes=changed)) == set()


@pytest.mark.parametrize(
    ("flags", "address", "forgotten"),
    [
        ({"slave", "fail"}, "own", True),
        ({"slave", "fail", "noaddr"}, "none", True),
        ({"master", "noaddr"}, "none", True),
        ({"handshake"}, "own", False),
        ({"handshake", "noaddr"}, "none", False),
        ({"slave"}, "foreign", False),
        ({"slave", "fail"}, "foreign", False),
    ],
)
def test_who_is_forgotten(flags: set[str], address: str, forgotten: bool) -> None:
    """Only who cannot be anybody: a stranger's node that has an address of its own is not ours to forget."""
    observed = observe(SETUP, UP)
    view = observed.nodes[PRIMARIES[0]]
    assert not isinstance(view, Unreachable)
    assert view.cluster is not None
    where = {
        "own": Address(*desired_of(SETUP, UP).node(PRIMARIES[1]).announced),
        "none": Address("", 0),
        "foreign": Address("10.9.9.9", 6379),
    }[address]
    ghost = replace(view.cluster.nodes[1], id="f" * 40, flags=frozenset(flags), address=where, slots=())
    cluster_view = replace(view.cluster, nodes=(*view.cluster.nodes, ghost))
    nodes = {**observed.nodes, PRIMARIES[0]: replace(view, cluster=cluster_view)}
    assert ids(UP, replace(observed, nodes=nodes)) == ({f"forget:id={'f' * 40}"} if forgotten else set())


def test_nameless_entries_are_nobody_only_when_everybody_answers() -> None:
    observed = observe(SETUP, stop(UP, PRIMARIES[1]))
    view = observed.nodes[PRIMARIES[0]]
    assert not isinstance(view, Unreachable)
    assert view.cluster is not None
    ghost = replace(
        view.cluster.nodes[1], id="f" * 40, flags=frozenset({"noaddr"}), address=Address("", 0), slots=()
    )
    cluster_view = replace(view.cluster, nodes=(*view.cluster.nodes, ghost))
    nodes = {**observed.nodes, PRIMARIES[0]: replace(view, cluster=cluster_view)}
    assert not any(i.startswith("forget") for i in ids(UP, replace(observed, nodes=nodes)))


@pytest.mark.parametrize("count", [2, 6, FULL_MESH, FULL_MESH + 1, 100, 200])
def test_everybody_is_introduced(count: int) -> None:
    """Whom one knows one learns to know others from: the introductions hang together, and nobody meets himself."""
    pairs = introductions(count)
    assert all(a != b for a, b in pairs)
    reached, edge = {0}, {0}
    while edge:
        edge = {b for a, b in pairs if a in edge} | {a for a, b in pairs if b in edge}
        edge -= reached
        reached |= edge
    assert reached == set(range(count))
    assert len(pairs) == len(set(pairs))
    if count > FULL_MESH:
        assert len(pairs) <= count * 6


def test_shares_cover_all_slots_once() -> None:
    for shards in (3, 4, 7, 16):
        setup = setup_of(shards=shards, replicas=0, accept_risk=True)
        taken: list[int] = []
        for step in cluster(desired_of(setup, bare(setup)), observe(setup, bare(setup))):
            if step.action == "assign-slots":
                taken += [s for r in str(step.args["slots"]).split() for s in SlotRange.parse(r)]
        assert sorted(taken) == list(range(SLOTS))
