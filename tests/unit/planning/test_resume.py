"""The promise that everything else rests on: an interrupted plan, planned again, is the rest of that plan.

For every plan and every prefix of it (of the stage that was interrupted any subset of its steps may have been done),
planning from the state after that prefix gives the steps that are left, by their identifiers; and after all: none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.planning.simulate import (
    SECRETS,
    Setup,
    World,
    bare,
    carry_out,
    carry_out_all,
    desired_of,
    fail_over,
    lose_disk,
    plan_of,
    stop,
)

from redkeep.model.engine import Engine, Version
from redkeep.model.plan import Plan
from redkeep.model.spec import Spec
from redkeep.run.converge import ONE_BY_ONE

ENGINES = (
    Engine("redis", Version(6, 2, 14)),
    Engine("redis", Version(7, 0, 15)),
    Engine("redis", Version(8, 0, 2)),
    Engine("valkey", Version(7, 2, 5)),
    Engine("valkey", Version(9, 1, 2)),
)

many = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def hosts(count: int) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "name": f"h{i}",
            "private": f"10.{i % 2}.0.{i}",
            "public": f"203.0.113.{i}",
            "zone": f"cloud{i % 2}/z{i % 3}",
        }
        for i in range(1, count + 1)
    )


@st.composite
def specs(draw: st.DrawFn, flavor: str = "redis") -> Spec:
    mode = draw(st.sampled_from(("standalone", "sentinel", "cluster")))
    least = 2 if mode == "sentinel" else 1
    count = draw(st.integers(least, 8))
    local = draw(st.booleans()) and draw(st.booleans())
    machines: Any = ("local",) if local else hosts(count)
    most = 2 if local else min(2, count - 1)
    values: dict[str, Any] = {
        "name": draw(st.sampled_from(("main", "shop-1"))),
        "mode": mode,
        "hosts": machines,
        "engine": {"flavor": flavor, "source": "package"},
        "replicas": draw(st.integers(1 if mode == "sentinel" else 0, most)),
        "accept_risk": True,
        "clients": "private" if local else draw(st.sampled_from(("private", "public"))),
        **draw(changes(mode, local)),
    }
    if mode == "cluster":
        values["shards"] = draw(st.integers(3, 5))
    if mode == "sentinel":
        values["sentinels"] = draw(st.integers(1, 3 if local else min(5, count)))
    if values["clients"] == "public":
        values["auth"] = "password"
    return Spec.model_validate(values)


def changes(mode: str, local: bool) -> st.SearchStrategy[dict[str, Any]]:
    """What may be changed at any time, on a running deployment too."""
    return st.fixed_dictionaries(
        {
            "maxmemory": st.sampled_from((None, "1GiB", "300mb")),
            "persistence": st.sampled_from(("none", "rdb", "aof", "rdb+aof")),
            "appendfsync": st.sampled_from(("everysec", "always")),
            "eviction": st.sampled_from(("noeviction", "allkeys-lru")),
            "failover": st.sampled_from(("fast", "balanced", "patient", 500, 700)),
            "auth": st.sampled_from(("password", "none")),
            "allow_from": st.just(("198.51.100.0/24",)),
            "settings": st.dictionaries(
                st.sampled_from(("hz", "databases", "repl-diskless-sync-delay", "tcp-backlog")),
                st.integers(1, 9),
                max_size=2,
            ),
        }
    )


def setups(flavor: str | None = None) -> st.SearchStrategy[Setup]:
    engines = st.sampled_from(ENGINES) if flavor is None else st.just(ENGINES[1])
    return engines.flatmap(lambda e: specs(e.flavor).map(lambda spec: Setup.of(spec, e)))


def check_resume(setup: Setup, world: World, data: st.DataObject, *, unborn: bool = False) -> World:
    """Every prefix of the plan from here; of each stage, a drawn subset. Returns the world where nothing is left.

    ``unborn``: there may be primaries without replicas at first; restarts hand over as soon as there is anybody to.
    """

    def ids_of(plan: Plan) -> set[str]:
        return {i for i in plan.ids if not (unborn and i.startswith("hand-over:"))}

    plan = plan_of(setup, world)
    while plan:
        stage = plan.stages[0]
        ids = [s.id for s in stage.steps]
        if stage.name in ONE_BY_ONE:
            done = set(ids[: data.draw(st.integers(0, len(ids)), label=stage.name)])
        else:
            done = data.draw(st.sets(st.sampled_from(ids)), label=stage.name)
        half = world
        for step in stage.steps:
            if step.id in done:
                half = carry_out(setup, half, step)
            world = carry_out(setup, world, step)
        assert ids_of(plan_of(setup, half)) == ids_of(plan) - done, (
            f"interrupted in {stage.name} after {sorted(done)}"
        )
        rest = plan_of(setup, world)
        assert ids_of(rest) == ids_of(plan) - {s.id for s in stage.steps}, f"after {stage.name}"
        plan = rest
    return world


@many
@given(setups(), st.data())
def test_a_creation_interrupted_anywhere(setup: Setup, data: st.DataObject) -> None:
    world = check_resume(setup, bare(setup), data)
    assert all(s.runs for s in world.servers.values())


def changed(setup: Setup, **values: Any) -> Setup:
    """The same deployment with other words in its file."""
    return replace(setup, spec=Spec.model_validate(setup.spec.model_dump() | values))


def at_random(world: World, data: st.DataObject, kind: str) -> str:
    return data.draw(st.sampled_from(sorted(world.servers)), label=kind)


@many
@given(setups(), st.data())
def test_a_change_of_settings_interrupted_anywhere(setup: Setup, data: st.DataObject) -> None:
    world = carry_out_all(setup, bare(setup))
    values = data.draw(changes(setup.spec.mode, setup.spec.is_local), label="values")
    if setup.spec.clients == "public":
        values["auth"] = "password"
    check_resume(changed(setup, **values), world, data)


@many
@given(setups(), st.data())
def test_a_change_in_the_middle_of_a_creation(setup: Setup, data: st.DataObject) -> None:
    """Stopped before it was done, and then another file: the plan is again the plan to its end."""
    world = bare(setup)
    for _ in range(data.draw(st.integers(1, 8), label="stages")):
        if not (plan := plan_of(setup, world)):
            break
        for step in data.draw(st.sets(st.sampled_from(range(len(plan.stages[0].steps)))), label="some"):
            world = carry_out(setup, world, plan.stages[0].steps[step])
    values = data.draw(changes(setup.spec.mode, setup.spec.is_local), label="values")
    if setup.spec.clients == "public":
        values["auth"] = "password"
    if setup.spec.mode == "sentinel":
        values["failover"] = (
            setup.spec.failover
        )  # what a Sentinel was told that does not run yet is seen when it does
    check_resume(changed(setup, **values), world, data, unborn=True)


@many
@given(setups(), st.data())
def test_nothing_is_planned_after_a_failover(setup: Setup, data: st.DataObject) -> None:
    """Roles swapped, slots moved to the replica: the engine decides that, and the file does not put it back."""
    world = carry_out_all(setup, bare(setup))
    primaries = [n.name for n in setup.placement.servers if n.initial_role == "primary"]
    name = data.draw(st.sampled_from(primaries), label="primary")
    if setup.spec.replicas:
        after = fail_over(setup, world, name)
        assert after != world, "nothing happened"
        world = after
    assert plan_of(setup, world).ids == set()
    maxmemory = changed(setup, maxmemory="77mb")
    world = check_resume(maxmemory, world, data)
    assert plan_of(maxmemory, world).ids == set()


@many
@given(setups(), st.data())
def test_stopped_servers_are_only_started(setup: Setup, data: st.DataObject) -> None:
    world = carry_out_all(setup, bare(setup))
    names = data.draw(st.sets(st.sampled_from(sorted(world.servers)), min_size=1), label="stopped")
    for name in names:
        world = stop(world, name)
    assert plan_of(setup, world).ids == {f"start:{name}" for name in names}
    check_resume(setup, world, data)


@many
@given(setups(), st.data())
def test_a_lost_disk_is_filled_again(setup: Setup, data: st.DataObject) -> None:
    """Of any replica: what was primary has been replaced by then."""
    world = carry_out_all(setup, bare(setup))
    name = at_random(world, data, "lost")
    if name in {n.name for n in setup.placement.servers if n.initial_role == "primary"}:
        if not setup.spec.replicas:
            return  # its data are gone, and no plan brings them back
        world = fail_over(setup, world, name)
    before = world
    world = check_resume(setup, lose_disk(setup, stop(world, name), name), data)
    assert world.servers[name].runs
    assert not world.servers[name].slots
    assert bool(world.servers[name].follows or world.servers[name].primary) is bool(
        before.servers[name].follows or before.servers[name].primary
    )


@many
@given(setups(), st.data())
def test_an_upgrade_of_the_engine(setup: Setup, data: st.DataObject) -> None:
    """A version that the file names: installed, then shard by shard the replicas, a hand-over, the former primary."""
    world = carry_out_all(setup, bare(setup))
    newer = Engine(setup.engine.flavor, Version(9, 3, 2))
    source = {"flavor": newer.flavor, "source": "package", "version": str(newer.version)}
    wanted = replace(changed(setup, engine=source), engine=newer)
    plan = plan_of(wanted, world)
    assert {f"restart:{name}" for name in world.servers} <= plan.ids
    assert not any(s.action in ("write-files", "set", "set-users") for s in plan), "with the restart alone"
    turn = [s for s in plan if s.stage == "restart"]
    done: set[str] = set()
    for step in turn:
        server = world.servers[step.node]
        if step.action == "hand-over":
            followers = {n for n, s in world.servers.items() if _follows(wanted, world, n, step.node)}
            assert followers <= done, "the replicas first"
            assert step.args["to"] in followers
        elif server.slots or (not server.follows and not server.primary and not server.watched):
            alone = not any(_follows(wanted, world, n, step.node) for n in world.servers)
            in_place = alone or wanted.spec.mode == "standalone"
            assert in_place or turn[turn.index(step) - 1].action == "hand-over"
        done.add(step.node)
    world = check_resume(wanted, world, data)
    assert {s.engine for s in world.servers.values()} == {newer}


def _follows(setup: Setup, world: World, name: str, primary: str) -> bool:
    server, its = world.servers[name], world.servers[primary]
    if setup.spec.mode == "cluster":
        return bool(server.follows) and server.follows == its.id
    return server.primary == desired_of(setup, world).node(primary).announced


@many
@given(setups(), st.data())
def test_other_passwords_and_certificates(setup: Setup, data: st.DataObject) -> None:
    world = carry_out_all(setup, bare(setup))
    rotated = replace(
        SECRETS,
        app="another",
        replication="r-2",
        sentinel="s-2",
        previous={"app": "app-pw", "replication": "r-1"},
    )
    wanted = replace(setup, secrets=rotated, certificate=2)
    world = check_resume(wanted, world, data)
    assert plan_of(setup, world), "the way back is a change too"


@pytest.mark.parametrize("mode", ["sentinel", "cluster"])
def test_all_actions_were_seen(mode: str) -> None:
    """The simulator is exercised: one creation goes through every stage that its mode has."""
    setup = Setup.of(Spec.model_validate({"mode": mode, "hosts": hosts(4), "clients": "public"}))
    stages = [s.name for s in plan_of(setup, bare(setup)).stages]
    own = {"sentinel": ["monitor"], "cluster": ["slots", "meet", "replicate", "settings"]}[mode]
    assert stages == ["engine", "host", "files", "start", *own]
