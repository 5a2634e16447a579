"""Which replica takes over, what stands against it, and when primaries should be spread anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import (
    Setup,
    World,
    bare,
    carry_out_all,
    desired_of,
    hand_over,
    observe,
    stop,
)

from redkeep.errors import RefusedError
from redkeep.model.engine import Engine, Version
from redkeep.model.spec import Spec
from redkeep.model.topology import NodeView, Observed
from redkeep.planning.reshard import merged
from redkeep.planning.switchover import (
    LAG_LIMIT,
    Move,
    check_known,
    choose,
    displaced,
    followers,
    hand_over_step,
    leads,
    obstacles,
    primary_of,
    suggestions,
)


def setup_of(mode: str, hosts: int = 3, **keys: Any) -> Setup:
    named = [{"name": f"h{i}", "private": f"10.0.0.{i}"} for i in range(1, hosts + 1)]
    return Setup.of(Spec.model_validate({"mode": mode, "hosts": named, **keys}))


PLAIN = setup_of("standalone", replicas=2)
WATCHED = setup_of("sentinel", replicas=2)
CLUSTER = setup_of("cluster", hosts=6, shards=3, replicas=1)
UP = {setup.spec.mode: carry_out_all(setup, bare(setup)) for setup in (PLAIN, WATCHED, CLUSTER)}
ONE, TWO, THREE = (n.name for n in PLAIN.placement.servers)


def look(setup: Setup, world: World | None = None, **changes: dict[str, Any]) -> Observed:
    """What is observed, with other values in the views of servers one, two and three."""
    observed = observe(setup, world or UP[setup.spec.mode])
    nodes = dict(observed.nodes)
    for key, values in changes.items():
        view = nodes[{"one": ONE, "two": TWO, "three": THREE}[key]]
        assert isinstance(view, NodeView)
        values = {k: {**getattr(view, k), **v} if k in ("info", "config") else v for k, v in values.items()}
        nodes[{"one": ONE, "two": TWO, "three": THREE}[key]] = replace(view, **values)
    return replace(observed, nodes=nodes)


def chosen(setup: Setup, observed: Observed, **options: Any) -> str:
    desired = desired_of(setup, UP[setup.spec.mode])
    primary = primary_of(desired, observed, 0)
    assert primary is not None
    return choose(desired, observed, primary, **options).name


@pytest.mark.parametrize("setup", [PLAIN, WATCHED], ids=["standalone", "sentinel"])
def test_the_replica_that_has_most(setup: Setup) -> None:
    ahead = look(setup, one={"offset": 9 << 20}, two={"offset": 5 << 20}, three={"offset": 9 << 20})
    assert chosen(setup, ahead) == THREE
    assert chosen(setup, ahead, to=TWO) == TWO
    assert chosen(setup, look(setup)) in (TWO, THREE)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"link_up": False}, "has no link to it"),
        ({"syncing": True, "link_up": False}, "is still copying"),
        ({"info": {"loading": "1"}}, "is still loading its data"),
        ({"config": {"replica-priority": "0"}}, "must not be promoted (replica-priority 0)"),
        ({"info": {"master_last_io_seconds_ago": "40"}}, "has heard nothing from it for 40 s"),
        (
            {"engine": Engine("valkey", Version(9, 1))},
            "runs valkey 9.1.0, from which redis 7.0.15 could not copy",
        ),
    ],
)
@pytest.mark.parametrize("setup", [PLAIN, WATCHED], ids=["standalone", "sentinel"])
def test_what_stands_against_a_replica(setup: Setup, change: dict[str, Any], reason: str) -> None:
    assert chosen(setup, look(setup, two=change)) == THREE
    with pytest.raises(RefusedError) as raised:
        chosen(setup, look(setup, two=change, three=change))
    assert reason in raised.value.what
    assert TWO in raised.value.what
    assert THREE in raised.value.what


def test_a_replica_too_far_behind() -> None:
    behind = look(
        PLAIN, one={"offset": LAG_LIMIT * 3}, two={"offset": LAG_LIMIT}, three={"offset": LAG_LIMIT}
    )
    with pytest.raises(RefusedError, match="is 32 MiB behind"):
        chosen(PLAIN, behind)


def test_a_one_way_upgrade_is_accepted_where_asked_for() -> None:
    newer = look(PLAIN, two={"engine": Engine("valkey", Version(9, 1))})
    assert chosen(PLAIN, newer, to=TWO, one_way=True) == TWO


def test_who_is_named_overrules_what_only_automatic_failovers_mind() -> None:
    barred = {"config": {"replica-priority": "0"}}
    assert chosen(PLAIN, look(PLAIN, two=barred), to=TWO) == TWO
    with pytest.raises(RefusedError, match="replica-priority 0"):
        chosen(WATCHED, look(WATCHED, two=barred), to=TWO)


def test_no_majority_of_sentinels() -> None:
    world = UP["sentinel"]
    for sentinel in WATCHED.placement.sentinels[:2]:
        world = stop(world, sentinel.name)
    desired = desired_of(WATCHED, world)
    observed = observe(WATCHED, world)
    primary = primary_of(desired, observed, 0)
    assert primary is not None
    with pytest.raises(RefusedError, match="1 of 3 Sentinels answer"):
        choose(desired, observed, primary)


def test_an_old_engine_cannot_hold_writes_alone() -> None:
    old = {"engine": Engine("redis", Version(6, 0, 20))}
    with pytest.raises(RefusedError, match="cannot hold writes alone"):
        chosen(PLAIN, look(PLAIN, one=old, two=old, three=old))


def test_a_dead_primary_is_no_planned_change() -> None:
    world = stop(UP["standalone"], ONE)
    assert primary_of(desired_of(PLAIN, world), observe(PLAIN, world), 0) is None


def test_a_silent_node_may_lead_for_all_we_know() -> None:
    """Unless somebody else leads in its place; a host whose primary hangs is not one without a primary."""
    world = UP["cluster"]
    desired = desired_of(CLUSTER, world)
    primary = next(n for n in desired.servers if leads(observe(CLUSTER, world), n))
    check_known(desired, observe(CLUSTER, world), [primary])
    silent = observe(CLUSTER, stop(world, primary.name))
    with pytest.raises(RefusedError, match=f"{primary.name} does not answer"):
        check_known(desired, silent, [primary])
    taken_over = observe(CLUSTER, stop(hand_over(world, primary.name), primary.name))
    check_known(desired, taken_over, [primary])


def test_a_named_replica_that_is_down_is_called_that() -> None:
    with pytest.raises(RefusedError, match=f"{TWO} does not answer"):
        chosen(PLAIN, observe(PLAIN, stop(UP["standalone"], TWO)), to=TWO)


def test_in_a_cluster_everybody_knows_the_own_replica() -> None:
    desired, observed = desired_of(CLUSTER, UP["cluster"]), look(CLUSTER)
    for shard in range(3):
        primary = primary_of(desired, observed, shard)
        assert primary is not None
        assert leads(observed, primary)
        (replica,) = followers(desired, observed, primary)
        assert replica.shard == shard
        assert choose(desired, observed, primary) == replica
        other = primary_of(desired, observed, (shard + 1) % 3)
        assert other is not None
        assert obstacles(desired, observed, other, replica) == (f"does not follow {other.name}",)
        with pytest.raises(RefusedError, match="is no replica of it"):
            choose(desired, observed, other, to=replica.name)


def test_elsewhere_is_another_host() -> None:
    single = Setup.of(Spec.model_validate({"mode": "standalone", "hosts": ["local"], "replicas": 1}))
    world = carry_out_all(single, bare(single))
    desired, observed = desired_of(single, world), observe(single, world)
    primary = primary_of(desired, observed, 0)
    assert primary is not None
    with pytest.raises(RefusedError, match="no replica on another host"):
        choose(desired, observed, primary, elsewhere=True)


def test_primaries_that_have_gathered_are_spread_again() -> None:
    spread = setup_of("cluster", hosts=3, shards=3, replicas=1)
    world = carry_out_all(spread, bare(spread))
    desired = desired_of(spread, world)
    assert suggestions(desired, observe(spread, world)) == ()
    led = {n.shard: n for n in desired.servers if n.initial_role == "primary"}
    moved = next(n for n in desired.servers if n.initial_role == "replica")
    world = hand_over(world, led[moved.shard].name)
    observed = observe(spread, world)
    assert displaced(desired, observed) == (Move(moved.shard, moved.name, led[moved.shard].name),)
    (line,) = suggestions(desired, observed)
    assert f"host {moved.host} has 2 of 3 primaries" in line
    assert "redkeep switchover --restore" in line


def test_a_shard_that_was_emptied_and_is_none_any_more_is_said() -> None:
    world = UP["cluster"]
    desired, observed = desired_of(CLUSTER, world), observe(CLUSTER, world)
    assert list(merged(desired, observed)) == []
    other = next(s.id for s in world.servers.values() if s.slots)
    last = [n.name for n in desired.servers if n.shard == 2]
    assert other not in {world.servers[n].id for n in last}
    for name in last:
        world = world.having(name, slots=(), follows=other)
    (line,) = merged(desired, observe(CLUSTER, world))
    assert line.startswith(f"shard 3 is none any more, since it was emptied: {', '.join(last)} follow ")
    assert list(merged(desired, observe(CLUSTER, stop(world, last[0])))) == [], "not seen is not known"


def test_what_was_cut_off_is_said() -> None:
    desired, observed = desired_of(PLAIN, UP["standalone"]), look(PLAIN)
    (line,) = suggestions(desired, observed, [Move(0, ONE, TWO)])
    assert (
        line
        == f"a switchover was cut off (shard 1: {ONE} hands over to {TWO}); redkeep switchover goes on with it"
    )


def test_the_step_names_both() -> None:
    step = hand_over_step(desired_of(PLAIN, UP["standalone"]), ONE, TWO, "asked for")
    assert (step.stage, step.action, step.node, dict(step.args)) == (
        "hand-over",
        "hand-over",
        ONE,
        {"from": ONE, "to": TWO},
    )
