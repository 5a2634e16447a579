"""Whose folder it is, and which changes of the file are refused before anything is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.planning.simulate import Setup, bare, carry_out_all, desired_of, observe

from redkeep.errors import RefusedError
from redkeep.model.spec import Spec
from redkeep.model.topology import HostFacts, Observed, Unreachable
from redkeep.planning.identity import Identity, check_identity, memory_of
from redkeep.planning.placing.lineup import Lineup, lineup

HOSTS = [{"name": f"h{i}", "private": f"10.0.0.{i}"} for i in range(1, 5)]


def spec_of(**keys: Any) -> Spec:
    return Spec.model_validate({"mode": "cluster", "hosts": HOSTS[:3], **keys})


SETUP = Setup.of(spec_of())
UP = carry_out_all(SETUP, bare(SETUP))
MINE = Identity.of(SETUP.spec, Lineup(SETUP.placement), "d-1")


def seen(**changes: Any) -> Observed:
    """All hosts set up; ``changes`` to what was read on the first."""
    observed = observe(SETUP, UP)
    hosts: dict[str, HostFacts | Unreachable] = {}
    for name, facts in observed.hosts.items():
        assert isinstance(facts, HostFacts)
        folders = frozenset(
            n.folder.rsplit("/", 1)[-1] for n in (d.paths for d in desired_of(SETUP, UP).on(name))
        )
        hosts[name] = replace(facts, set_up=folders, **(changes if name == "h1" else {}))
    return replace(observed, hosts=hosts)


def check(spec: Spec, observed: Observed, *, tls: bool = False, identity: str = "d-1") -> None:
    setup = Setup.of(spec)
    check_identity(
        desired_of(setup, bare(setup)),
        observed,
        Identity.of(spec, Lineup(setup.placement), identity, tls=tls),
    )


def test_text_and_back() -> None:
    assert Identity.parse(MINE.text()) == MINE
    assert Identity.parse(MINE.text() + "\n") == MINE
    assert "\n" not in MINE.text()


@given(st.one_of(st.text(), st.sampled_from(["{}", "[]", "null", "7", '{"id": 1}', '{"places": []}'])))
def test_garbage_is_no_identity(text: str) -> None:
    assert Identity.parse(text) is None


def test_its_own_folder_is_fine() -> None:
    check(SETUP.spec, seen())
    check(SETUP.spec, observe(SETUP, bare(SETUP)))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mode": "sentinel", "sentinels": 3, "replicas": 2}, "mode changed from cluster to sentinel"),
        ({"port": 7000}, "changed"),
    ],
)
def test_changes_that_apply_does_not_do(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError) as raised:
        check(spec_of(**keys), seen())
    assert said in raised.value.what
    assert "nothing was changed" in raised.value.next


@pytest.mark.parametrize(
    "keys",
    [
        {"maxmemory": "1gb"},
        {"failover": "fast"},
        {"persistence": "aof"},
        {"allow_from": ["10.0.0.0/8"]},
        {"drills": "allowed"},
        {"shards": 4},
        {"replicas": 2},
        {"hosts": HOSTS},
    ],
)
def test_changes_that_it_does(keys: dict[str, Any]) -> None:
    check(spec_of(**keys), seen())


def test_tls_is_not_turned_on_under_way() -> None:
    """Encrypted servers and plain ones do not talk with each other; what had been would be unreachable, node by node."""
    with pytest.raises(RefusedError, match="TLS would be turned on") as raised:
        check(SETUP.spec, seen(), tls=True)
    assert "tls: false" in raised.value.next


def test_before_the_first_start_the_file_may_change() -> None:
    observed = seen()
    unset = {n: replace(f, set_up=frozenset()) for n, f in observed.hosts.items() if isinstance(f, HostFacts)}
    check(spec_of(shards=4), replace(observed, hosts=unset))


def test_the_folder_of_another_deployment() -> None:
    with pytest.raises(RefusedError, match="another deployment") as raised:
        check(SETUP.spec, seen(), identity="d-2")
    assert "d-1" in raised.value.where


def test_somebody_elses_data() -> None:
    paths = desired_of(SETUP, UP).on("h1")[0].paths
    for changes in (
        {"foreign": (f"{paths.data}/dump.rdb",)},
        {"identity": "", "present": frozenset({paths.own})},
        {"identity": "not ours", "present": frozenset({paths.own})},
    ):
        with pytest.raises(RefusedError, match="did not make") as raised:
            check(SETUP.spec, seen(**changes))
        assert paths.data in raised.value.where


def test_data_in_a_place_that_we_do_not_need_are_left_alone() -> None:
    check(SETUP.spec, seen(foreign=("/var/lib/redkeep/main/9999/data/dump.rdb",)))


def test_a_server_that_does_not_let_us_in() -> None:
    observed = seen()
    nodes = {**observed.nodes, "h1:6379": Unreachable("WRONGPASS invalid username-password pair")}
    with pytest.raises(RefusedError, match="does not accept the password"):
        check(SETUP.spec, replace(observed, nodes=nodes))


def test_hosts_remember_who_was_placed_where() -> None:
    assert memory_of(observe(SETUP, bare(SETUP)).hosts) is None
    before = memory_of(seen().hosts)
    assert before is not None
    turned = spec_of(hosts=HOSTS[2::-1])
    assert {n.name: n.shard for n in lineup(turned, before).placement.nodes} == {
        n.name: n.shard for n in SETUP.placement.nodes
    }
