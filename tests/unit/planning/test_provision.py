"""From bare hosts to running processes: which steps, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import Setup, bare, carry_out_all, desired_of, observe, plan_of

from redkeep.model.plan import Step
from redkeep.model.spec import Spec
from redkeep.model.topology import HostFacts, Observed, Unreachable
from redkeep.planning.provision import kernel_reasons, provision

HOSTS = [{"name": f"h{i}", "private": f"10.0.0.{i}"} for i in range(1, 4)]


def setup_of(**keys: Any) -> Setup:
    return Setup.of(Spec.model_validate({"mode": "sentinel", "hosts": HOSTS, **keys}))


SETUP = setup_of()
UP = carry_out_all(SETUP, bare(SETUP))
DESIRED = desired_of(SETUP, UP)
NODE = DESIRED.node("h1:6379")


def facts_of(observed: Observed, host: str = "h1") -> HostFacts:
    found = observed.hosts[host]
    assert isinstance(found, HostFacts)
    return found


def steps(**changes: Any) -> list[Step]:
    """What is planned when the first host shows something else."""
    observed = observe(SETUP, UP)
    hosts = {**observed.hosts, "h1": replace(facts_of(observed), **changes)}
    return list(provision(DESIRED, replace(observed, hosts=hosts)))


def test_a_bare_host() -> None:
    world = bare(SETUP)
    found = [s for s in provision(desired_of(SETUP, world), observe(SETUP, world)) if s.host == "h1"]
    assert [(s.stage, s.id) for s in found] == [
        ("engine", "install-engine:h1"),
        ("host", "prepare-host:h1"),
        ("files", "write-files:h1:6379"),
        ("start", "start:h1:6379"),
        ("files", "write-files:h1:26379"),
        ("monitor", "start:h1:26379"),
    ]
    assert found[0].why == "redis (package) is not installed"
    assert "vm.overcommit_memory is 0" in found[1].why
    assert "2 folders are missing" in found[1].why


def test_a_host_of_which_nothing_is_known_yet() -> None:
    observed = Observed({"h1": Unreachable("no route")}, {})
    found = {s.id: s.why for s in provision(DESIRED, observed) if s.host == "h1"}
    assert found["prepare-host:h1"] == "nothing is known of it yet"
    assert {"write-files:h1:6379", "start:h1:6379"} <= set(found)


def test_nothing_to_do() -> None:
    assert steps() == []


OTHER = "0" * 64
DIGESTS = facts_of(observe(SETUP, UP)).digests
SERVICES = facts_of(observe(SETUP, UP)).services
PRESENT = facts_of(observe(SETUP, UP)).present
LAYOUT = DESIRED.hosts["h1"].layout


@pytest.mark.parametrize(
    ("changes", "expected", "why"),
    [
        ({"digests": {**DIGESTS, NODE.paths.managed: OTHER}}, ["write-files:h1:6379"], "managed.conf"),
        (
            {"digests": {k: v for k, v in DIGESTS.items() if k != NODE.paths.acl}},
            ["write-files:h1:6379"],
            "users.acl",
        ),
        ({"digests": {**DIGESTS, LAYOUT.gate: OTHER}}, ["prepare-host:h1"], "files: gate"),
        ({"digests": {**DIGESTS, "/somebody/else": OTHER}}, [], ""),
        ({"present": PRESENT - {NODE.paths.data}}, ["prepare-host:h1"], "1 folders are missing"),
        ({"present": PRESENT - {NODE.paths.own}}, ["write-files:h1:6379"], "the node is new"),
        ({"services": {**SERVICES, NODE.paths.unit: "inactive"}}, ["start:h1:6379"], "does not run"),
        ({"services": {**SERVICES, NODE.paths.unit: "failed"}}, ["start:h1:6379"], "does not run"),
        ({"services": {**SERVICES, NODE.paths.unit: "activating"}}, [], ""),
        ({"services": {}}, ["start:h1:6379", "start:h1:26379"], "does not run"),
        ({"enabled": frozenset()}, ["start:h1:6379", "start:h1:26379"], "does not run"),
        (
            {"kernel": {"transparent_hugepage": "always"}},
            ["prepare-host:h1"],
            "transparent_hugepage is always",
        ),
        ({"kernel": {}}, [], ""),
    ],
)
def test_what_is_not_as_it_should_be(changes: dict[str, Any], expected: list[str], why: str) -> None:
    found = steps(**changes)
    assert [s.id for s in found] == expected
    assert all(why in s.why for s in found)


def test_an_engine_that_is_gone_does_not_rewrite_files_that_name_it_already() -> None:
    world = UP.with_machine("h1", engine=None)
    assert plan_of(SETUP, world).ids == {"install-engine:h1"}


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ({"vm.overcommit_memory": "1", "transparent_hugepage": "never", "net.core.somaxconn": "4096"}, []),
        ({"vm.overcommit_memory": "2"}, ["vm.overcommit_memory is 2"]),
        ({"vm.overcommit_memory": "0", "vm.overcommit_memory:read-only": "yes"}, []),
        ({"net.core.somaxconn": "128"}, ["net.core.somaxconn is 128"]),
        ({"net.core.somaxconn": "128", "net.core.somaxconn:read-only": "yes"}, []),
        ({"transparent_hugepage": "always"}, ["transparent_hugepage is always"]),
    ],
)
def test_the_kernel(kernel: dict[str, str], expected: list[str]) -> None:
    assert kernel_reasons(replace(facts_of(observe(SETUP, UP)), kernel=kernel)) == expected


def test_a_firewall_comes_and_goes() -> None:
    """Who took allow_from out of the file would otherwise still be shut out."""
    guarded = setup_of(allow_from=["198.51.100.0/24"])
    world = carry_out_all(SETUP, bare(SETUP))
    assert plan_of(guarded, world).ids == {"prepare-host:h1", "prepare-host:h2", "prepare-host:h3"}
    closed = carry_out_all(guarded, world)
    assert closed.machines["h1"].firewall
    plan = plan_of(SETUP, closed)
    assert plan.ids == {"prepare-host:h1", "prepare-host:h2", "prepare-host:h3"}
    assert all(s.why == "the firewall is no longer wanted" for s in plan)
    opened = carry_out_all(SETUP, closed)
    assert not opened.machines["h1"].firewall
    stopped = closed.with_machine("h1", firewall=False)
    assert "the firewall is not loaded" in next(s.why for s in plan_of(guarded, stopped))


def test_without_systemd_folders_stand_for_units() -> None:
    local = Setup.of(Spec.model_validate({"mode": "standalone", "hosts": ["local"], "replicas": 1}))
    world = carry_out_all(local, bare(local))
    facts = facts_of(observe(local, world), "local")
    assert set(facts.services) == {n.paths.folder for n in desired_of(local, world).nodes}
    assert plan_of(local, world.having("local:6379", runs=False)).ids == {"start:local:6379"}
