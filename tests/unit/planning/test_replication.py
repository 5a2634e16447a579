"""Who is the primary, who has to follow it, and what Sentinels are told."""

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
    fail_over,
    observe,
    plan_of,
    stop,
)

from redkeep.errors import RefusedError
from redkeep.model.spec import Spec
from redkeep.model.topology import Address, NodeView, Observed
from redkeep.planning.replication import current_primary, monitoring, replication


def setup_of(mode: str, **keys: Any) -> Setup:
    hosts = [{"name": f"h{i}", "private": f"10.0.0.{i}"} for i in range(1, 4)]
    return Setup.of(Spec.model_validate({"mode": mode, "hosts": hosts, "replicas": 2, **keys}))


PLAIN, WATCHED = setup_of("standalone"), setup_of("sentinel")
PLAIN_UP, WATCHED_UP = carry_out_all(PLAIN, bare(PLAIN)), carry_out_all(WATCHED, bare(WATCHED))
ONE, TWO, THREE = (n.name for n in PLAIN.placement.servers)
SENTINELS = [n.name for n in WATCHED.placement.sentinels]


def view_of(observed: Observed, name: str) -> NodeView:
    view = observed.nodes[name]
    assert isinstance(view, NodeView)
    return view


def seen(setup: Setup, world: World, **changes: dict[str, Any]) -> Observed:
    """What is observed, with other values in some views."""
    observed = observe(setup, world)
    names = {"one": ONE, "two": TWO, "three": THREE}
    changed = {names[k]: replace(view_of(observed, names[k]), **v) for k, v in changes.items()}
    return replace(observed, nodes={**observed.nodes, **changed})


def primary(setup: Setup, world: World, observed: Observed | None = None) -> str:
    return current_primary(desired_of(setup, world), observed or observe(setup, world)).name


@pytest.mark.parametrize("setup", [PLAIN, WATCHED], ids=["standalone", "sentinel"])
def test_the_primary_is_who_leads(setup: Setup) -> None:
    up = carry_out_all(setup, bare(setup))
    assert primary(setup, bare(setup)) == ONE
    assert primary(setup, up) == ONE
    after = fail_over(setup, up, ONE)
    heir = primary(setup, after)
    assert heir != ONE
    assert primary(setup, stop(after, heir)) == heir, "it is away, and all others follow it"
    assert primary(setup, stop(after, ONE)) == heir


def test_the_sentinels_decide() -> None:
    """A former primary came back and believes in itself; the Sentinels do not."""
    world = fail_over(WATCHED, WATCHED_UP, ONE).having(ONE, primary=None)
    assert primary(WATCHED, world) != ONE
    assert list(replication(desired_of(WATCHED, world), observe(WATCHED, world))) == []


def test_two_primaries_with_data_and_nobody_to_decide() -> None:
    world = PLAIN_UP.having(TWO, primary=None).having(THREE, primary=None)
    observed = observe(PLAIN, PLAIN_UP)
    split = replace(
        observed,
        nodes={
            name: replace(view_of(observed, name), role="primary", primary=None) for name in world.servers
        },
    )
    with pytest.raises(RefusedError, match="more than one") as raised:
        current_primary(desired_of(PLAIN, PLAIN_UP), split)
    assert set(raised.value.where.split(", ")) == {ONE, TWO, THREE}


def test_of_two_primaries_the_one_that_is_followed_counts() -> None:
    observed = seen(PLAIN, PLAIN_UP, two={"role": "primary", "primary": None})
    assert primary(PLAIN, PLAIN_UP, observed) == ONE


def test_of_two_primaries_the_one_with_data_counts() -> None:
    lonely = {"role": "primary", "primary": None}
    observed = seen(PLAIN, PLAIN_UP, one={"keys": 0}, two={**lonely, "keys": 5}, three={**lonely, "keys": 0})
    assert primary(PLAIN, PLAIN_UP, observed) == TWO


@pytest.mark.parametrize(
    ("changes", "expected", "why"),
    [
        ({}, set(), ""),
        ({"role": "primary", "primary": None, "keys": 0}, {"replicate:{}:primary={}"}, "it follows nobody"),
        ({"primary": Address("10.9.9.9", 6379)}, {"replicate:{}:primary={}"}, "10.9.9.9:6379"),
        (
            {"primary": Address("10.0.0.3", 6379)},
            set(),
            "a chain within the deployment is somebody's decision",
        ),
    ],
)
def test_who_follows_nobody_or_a_stranger(changes: dict[str, Any], expected: set[str], why: str) -> None:
    steps = list(replication(desired_of(PLAIN, PLAIN_UP), seen(PLAIN, PLAIN_UP, two=changes)))
    assert {s.id for s in steps} == {e.format(TWO, ONE) for e in expected}
    assert all(why in s.why for s in steps)


def test_sentinels_that_watch_nothing() -> None:
    world = WATCHED_UP.having(SENTINELS[0], watched=None, watch_settings={})
    assert plan_of(WATCHED, world).ids == {f"monitor:{SENTINELS[0]}:primary={ONE}"}
    assert plan_of(WATCHED, carry_out_all(WATCHED, world)).ids == set()


def test_sentinels_with_other_settings() -> None:
    told = {**WATCHED_UP.servers[SENTINELS[0]].watch_settings, "quorum": "1", "failover-timeout": "180000"}
    world = WATCHED_UP.having(SENTINELS[0], watch_settings=told)
    (step,) = monitoring(desired_of(WATCHED, world), observe(WATCHED, world))
    assert step.id == f"set-sentinel:{SENTINELS[0]}:settings=failover-timeout quorum"
    assert "quorum 1 -> 2" in step.why


def test_a_new_sentinel_is_seeded_with_the_primary_of_now() -> None:
    world = fail_over(WATCHED, WATCHED_UP, ONE)
    heir = desired_of(WATCHED, world).node(primary(WATCHED, world))
    seed = desired_of(WATCHED, world).node(SENTINELS[0]).seed.content.decode()
    assert f"sentinel monitor main {heir.announced[0]} {heir.port} 2\n" in seed
