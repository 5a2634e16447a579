"""Who is restarted when, who hands over to whom, and which engine is not brought in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import Setup, World, bare, carry_out_all, desired_of, observe, plan_of

from redkeep.errors import RefusedError
from redkeep.model.engine import Engine, EngineWant, Installed, Version
from redkeep.model.spec import Spec
from redkeep.planning.identity import check_identity
from redkeep.planning.rolling import rolling
from redkeep.planning.upgrade import check_upgrade, runs_for_now, suggested_restarts

HOSTS = [{"name": f"h{i}", "private": f"10.0.0.{i}", "zone": f"c/{'ab'[i % 2]}"} for i in range(1, 5)]
REDIS_62, REDIS_7 = Engine("redis", Version(6, 2, 14)), Engine("redis", Version(7, 0, 15))
REDIS_74 = Engine("redis", Version(7, 4, 1))
VALKEY_8, VALKEY_9 = Engine("valkey", Version(8, 1, 1)), Engine("valkey", Version(9, 1, 2))


def setup_of(engine: Engine = REDIS_7, **keys: Any) -> Setup:
    source = {
        "flavor": engine.flavor,
        "source": "binary",
        "path": f"/opt/{engine.flavor}/bin/{engine.server}",
    }
    return Setup.of(
        Spec.model_validate({"hosts": HOSTS, "engine": source, "accept_risk": True, **keys}), engine
    )


def turn(setup: Setup, world: World) -> list[str]:
    """All nodes in turn, as ``ACTION NODE``."""
    desired = desired_of(setup, world)
    reasons = {n.name: "because" for n in desired.nodes}
    return [f"{s.action} {s.node}" for s in rolling(desired, observe(setup, world), reasons)]


def test_shard_by_shard() -> None:
    setup = setup_of(mode="cluster", shards=3, replicas=1)
    world = carry_out_all(setup, bare(setup))
    steps = turn(setup, world)
    assert len(steps) == 9
    servers = {n.name: n for n in setup.placement.servers}
    for at in (0, 3, 6):
        replica, hand_over, primary = (step.split() for step in steps[at : at + 3])
        assert (replica[0], hand_over[0], primary[0]) == ("restart", "hand-over", "restart")
        assert hand_over[1] == primary[1]
        assert servers[replica[1]].shard == servers[primary[1]].shard


def test_sentinels_come_last_and_the_heir_is_a_replica() -> None:
    setup = setup_of(mode="sentinel", replicas=2, sentinels=3)
    world = carry_out_all(setup, bare(setup))
    steps = turn(setup, world)
    assert [s.split()[0] for s in steps] == ["restart", "restart", "hand-over", *["restart"] * 4]
    assert {s.split()[1] for s in steps[-3:]} == {n.name for n in setup.placement.sentinels}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mode": "standalone"}, "it has no replica"),
        ({"mode": "standalone", "replicas": 1}, "applications know its address"),
        ({"mode": "cluster", "shards": 3, "replicas": 0}, "it has no replica"),
    ],
)
def test_in_place_and_said_so(keys: dict[str, Any], said: str) -> None:
    setup = setup_of(**keys)
    world = carry_out_all(setup, bare(setup))
    desired = desired_of(setup, world)
    steps = list(rolling(desired, observe(setup, world), {n.name: "because" for n in desired.servers}))
    assert {s.action for s in steps} == {"restart"}
    assert said in steps[-1].why


def test_a_restart_that_was_asked_for_ends_with_the_process() -> None:
    setup = setup_of(mode="sentinel", replicas=1, sentinels=3)
    world = carry_out_all(setup, bare(setup))
    desired = desired_of(setup, world)
    observed = observe(setup, world)
    name = setup.placement.servers[1].name
    from redkeep.planning.settings import settings

    def steps(run_id: str) -> list[str]:
        return [s.id for s in settings(replace(desired, renew={name: run_id}), observed)]

    assert steps(world.servers[name].id) == [f"restart:{name}"]
    assert steps("another") == []


@pytest.mark.parametrize(
    ("running", "wanted", "refused"),
    [
        (REDIS_62, REDIS_7, ""),
        (REDIS_7, VALKEY_9, ""),
        (REDIS_62, VALKEY_8, ""),
        (VALKEY_8, VALKEY_9, ""),
        (VALKEY_9, REDIS_7, "up to RDB version 10, and these are of version 80"),
        (VALKEY_9, VALKEY_8, "up to RDB version 11, and these are of version 80"),
        (REDIS_7, REDIS_62, "up to RDB version 9, and these are of version 10"),
        (REDIS_74, VALKEY_9, "up to RDB version 11, and these are of version 12"),
        (REDIS_7, REDIS_74, ""),
    ],
)
def test_what_could_not_load_the_data_is_refused(running: Engine, wanted: Engine, refused: str) -> None:
    before = setup_of(running, mode="sentinel", replicas=1, sentinels=3)
    world = carry_out_all(before, bare(before))
    for host in world.machines:
        world = world.with_machine(host, engine=wanted)
    after = setup_of(wanted, mode="sentinel", replicas=1, sentinels=3)
    desired, observed = desired_of(after, world), observe(after, world)
    if refused:
        with pytest.raises(RefusedError, match=refused):
            check_upgrade(desired, observed)
        return
    check_upgrade(desired, observed)
    assert [s.action for s in plan_of(after, world) if s.stage == "restart"].count("restart") == 5
    world = carry_out_all(after, world)
    assert {s.engine for s in world.servers.values()} == {wanted}


def test_one_way_is_said_to_the_step_that_hands_over() -> None:
    before = setup_of(REDIS_7, mode="sentinel", replicas=1, sentinels=3)
    world = carry_out_all(before, bare(before))
    for host in world.machines:
        world = world.with_machine(host, engine=VALKEY_9)
    after = setup_of(VALKEY_9, mode="sentinel", replicas=1, sentinels=3)
    (step,) = [s for s in plan_of(after, world) if s.action == "hand-over"]
    assert step.args["one_way"] is True


def test_a_package_upgraded_beneath_is_suggested_and_leaves_the_files_alone() -> None:
    want = EngineWant("redis", "package")
    setup = Setup.of(Spec.model_validate({"hosts": HOSTS[:1], "mode": "standalone"}), REDIS_7)
    world = carry_out_all(setup, bare(setup))
    observed = observe(setup, world)
    newer = Installed("/usr/bin/redis-server", None, REDIS_74)
    found = runs_for_now(want, {"h1": newer}, observed)
    assert found == {"h1:6379": REDIS_7}
    assert runs_for_now(replace(want, version="7.4.1"), {"h1": newer}, observed) == {}
    assert (
        runs_for_now(replace(want, flavor="valkey"), {"h1": Installed("x", None, VALKEY_9)}, observed) == {}
    )
    desired = desired_of(setup, world)
    kept = replace(desired, hosts={"h1": replace(desired.hosts["h1"], engine=REDIS_74)})
    (said,) = suggested_restarts(kept, observed)
    assert "redis 7.0.15 runs, and redis 7.4.1 is installed: h1:6379" in said
    assert list(suggested_restarts(desired, observed)) == []


def test_the_identity_of_the_engine_may_change() -> None:
    before = setup_of(REDIS_7, mode="sentinel", replicas=1, sentinels=3)
    world = carry_out_all(before, bare(before))
    after = setup_of(VALKEY_9, mode="sentinel", replicas=1, sentinels=3)
    from redkeep.planning.identity import Identity
    from redkeep.planning.placing.lineup import Lineup

    wanted = Identity.of(after.spec, Lineup(after.placement), "d-1")
    check_identity(desired_of(after, world), observe(after, world), wanted)
