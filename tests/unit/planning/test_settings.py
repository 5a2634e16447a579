"""What a running server is told, and when it has to be started anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import Setup, World, bare, carry_out_all, desired_of, observe

from redkeep.model.engine import Engine, Version
from redkeep.model.plan import Step
from redkeep.model.spec import Spec
from redkeep.planning.settings import settings

HOSTS = [{"name": f"h{i}", "private": f"10.0.0.{i}", "public": f"203.0.113.{i}"} for i in range(1, 4)]


def setup_of(engine: Engine, mode: str = "standalone", **keys: Any) -> Setup:
    source = {"flavor": engine.flavor, "source": "package"}
    return Setup.of(Spec.model_validate({"mode": mode, "hosts": HOSTS, "engine": source, **keys}), engine)


REDIS_6 = Engine("redis", Version(6, 2, 14))
REDIS_7 = Engine("redis", Version(7, 0, 15))
VALKEY_9 = Engine("valkey", Version(9, 1, 2))
ENGINES = {"6": REDIS_6, "7": REDIS_7, "9": VALKEY_9}
NAME = "h1:6379"


def steps(setup: Setup, world: World) -> list[Step]:
    return list(settings(desired_of(setup, world), observe(setup, world)))


def running(setup: Setup, config: Mapping[str, str]) -> World:
    """A deployment whose first server runs with other settings."""
    world = carry_out_all(setup, bare(setup))
    return world.having(NAME, config={**world.servers[NAME].config, **config})


@pytest.mark.parametrize(
    ("engine", "config", "expected"),
    [
        ("7", {}, []),
        ("7", {"maxmemory": "1"}, ["set:h1:6379:settings=maxmemory"]),
        (
            "7",
            {"maxmemory-policy": "x", "appendonly": "yes"},
            ["set:h1:6379:settings=appendonly maxmemory-policy"],
        ),
        ("7", {"save": "900 1"}, ["set:h1:6379:settings=save"]),
        ("7", {"bind": "127.0.0.1  10.0.0.1"}, ["set:h1:6379:settings=bind"]),
        ("7", {"port": "7000"}, ["set:h1:6379:settings=port"]),
        ("6", {"port": "7000"}, ["restart:h1:6379"]),
        ("6", {"bind": "127.0.0.1"}, ["restart:h1:6379"]),
        ("7", {"dir": "/tmp"}, ["restart:h1:6379"]),
        ("7", {"aclfile": ""}, ["restart:h1:6379"]),
        ("9", {"aclfile": "", "maxmemory": "1"}, ["set:h1:6379:settings=maxmemory", "restart:h1:6379"]),
        ("9", {"hz": "100", "unknown": "x"}, ["set:h1:6379:settings=hz"]),
        ("7", {"tcp-backlog": "32"}, ["restart:h1:6379"]),
    ],
)
def test_what_differs(engine: str, config: dict[str, str], expected: list[str]) -> None:
    setup = setup_of(ENGINES[engine])
    assert [s.id for s in steps(setup, running(setup, config))] == expected


def test_a_setting_that_the_server_does_not_show_is_left_alone() -> None:
    setup = setup_of(REDIS_7)
    world = carry_out_all(setup, bare(setup))
    config = {k: v for k, v in world.servers[NAME].config.items() if k != "maxmemory"}
    assert steps(setup, world.having(NAME, config=config)) == []


def test_passwords_are_not_shown() -> None:
    setup = setup_of(REDIS_7)
    (step,) = steps(setup, running(setup, {"masterauth": "old-secret", "maxmemory": "5"}))
    assert "masterauth" in step.why
    assert "old-secret" not in step.why
    assert "replication-pw" not in step.why
    assert "maxmemory 5 -> 0" in step.why


def test_users() -> None:
    setup = setup_of(REDIS_7)
    world = carry_out_all(setup, bare(setup))
    intruder = (*world.servers[NAME].acl, "user intruder on nopass ~* &* +@all")
    assert [s.id for s in steps(setup, world.having(NAME, acl=intruder))] == [f"set-users:{NAME}"]


def test_replicas_are_restarted_first_and_the_primary_last() -> None:
    setup = setup_of(REDIS_7, replicas=2)
    world = carry_out_all(setup, bare(setup))
    for name, server in world.servers.items():
        world = world.having(name, config={**server.config, "dir": "/tmp"})
    order = [s.node for s in steps(setup, world)]
    assert len(order) == 3
    assert order[-1] == NAME


def test_an_older_certificate() -> None:
    """A server reads it when told; a Sentinel has no such command, and is started anew."""
    setup = setup_of(REDIS_7, "sentinel", clients="public", replicas=1)
    world = carry_out_all(setup, bare(setup))
    renewed = replace(setup, certificate=2)
    found = {s.id for s in steps(renewed, world)}
    servers = [n.name for n in setup.placement.servers]
    sentinels = [n.name for n in setup.placement.sentinels]
    assert found == {f"reload-tls:{n}" for n in servers} | {f"restart:{n}" for n in sentinels}


@pytest.mark.parametrize(
    ("pin", "restarts"),
    [
        ("8.0.2", True),
        ("7.0", False),
        ("7.0.15", False),
        ("7.0.1", True),
        ("5:7.0.15-1~deb12u1", False),
        (None, False),
    ],
)
def test_another_version_is_about_to_be_installed(pin: str | None, restarts: bool) -> None:
    """Known from the pin alone, so that the plan says at once that servers will be restarted."""
    setup = setup_of(REDIS_7)
    world = carry_out_all(setup, bare(setup))
    source = {"flavor": "redis", "source": "package", "version": pin}
    pinned = replace(setup, spec=Spec.model_validate(setup.spec.model_dump() | {"engine": source}))
    gone = world.with_machine("h1", engine=None)
    assert [s.id for s in steps(pinned, gone)] == ([f"restart:{NAME}"] if restarts else [])


def test_an_upgraded_server_is_not_told_what_the_old_one_may_not_understand() -> None:
    setup = setup_of(REDIS_7)
    world = running(setup, {"maxmemory": "5"}).with_machine("h1", engine=Engine("redis", Version(7, 2, 5)))
    (step,) = steps(setup, world)
    assert step.id == f"restart:{NAME}"
    assert step.why.startswith("it runs redis 7.0.15, and redis 7.2.5 is wanted; it has no replica")


def test_short_timeouts_of_a_creation_come_back_with_whatever_else_differs() -> None:
    setup = setup_of(REDIS_7, "cluster", replicas=0, accept_risk=True)
    fresh = bare(setup)
    promised = {s.id for s in steps(setup, fresh)}
    names = [n.name for n in setup.placement.servers]
    assert promised == {f"set:{n}:settings=cluster-node-timeout" for n in names}
    world = carry_out_all(setup, fresh)
    for name, server in world.servers.items():
        world = world.having(name, knows=frozenset({server.id}), config={**server.config, "maxmemory": "5"})
    assert {s.id for s in steps(setup, world)} == {
        f"set:{n}:settings=cluster-node-timeout maxmemory" for n in names
    }
