"""Who runs where: the wishes in their order, and that what exists stays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.spec import Spec
from redkeep.planning.placing.placement import Placement, place


def spec_of(mode: str, zones: Sequence[str | None], **keys: Any) -> Spec:
    hosts = tuple(
        {"name": f"h{i}", "private": f"10.0.{i // 200}.{i % 200 + 1}", "zone": zone}
        for i, zone in enumerate(zones)
    )
    return Spec.model_validate({"mode": mode, "hosts": hosts, **keys})


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    count = draw(st.integers(1, 12))
    names = draw(st.sampled_from([(None,), ("a", "b"), ("a", "b", "c"), (None, "a", "b")]))
    zones = draw(st.lists(st.sampled_from(names), min_size=count, max_size=count))
    mode = draw(st.sampled_from(["cluster", "sentinel", "standalone"]))
    if mode == "sentinel" and count < 2:
        mode = "standalone"
    least = 1 if mode == "sentinel" else 0
    keys: dict[str, Any] = {"replicas": draw(st.integers(least, max(least, min(3, count - 1))))}
    if mode == "cluster":
        keys["shards"] = draw(st.integers(3, 20))
    if mode == "sentinel":
        keys["sentinels"] = draw(st.integers(1, min(count, 7)))
    return spec_of(mode, list(zones), **keys)


def as_existing(placement: Placement) -> dict[str, tuple[int | None, Any]]:
    return {node.name: (node.shard, node.initial_role) for node in placement.nodes}


def hosts_of(placement: Placement, role: str) -> list[str]:
    return [node.host for node in placement.nodes if node.initial_role == role]


@given(specs())
def test_every_copy_of_a_shard_has_its_own_host(spec: Spec) -> None:
    for shard in place(spec).shards:
        assert len({node.host for node in shard}) == 1 + spec.replicas
        assert [node.initial_role for node in shard] == ["primary"] + ["replica"] * spec.replicas


@given(specs())
def test_counts_names_and_ports(spec: Spec) -> None:
    placement = place(spec)
    assert len(placement.servers) == spec.nodes_total
    assert len(placement.sentinels) == spec.sentinels
    assert len({node.name for node in placement.nodes}) == len(placement.nodes)
    assert len({node.host for node in placement.sentinels}) == spec.sentinels
    assert all(node.port == spec.sentinel_port for node in placement.sentinels)
    for host in spec.hosts:
        ports = [node.port for node in placement.on(host.name) if node.kind == "server"]
        assert sorted(ports) == list(range(spec.port, spec.port + len(ports)))


@given(specs())
def test_load_is_even_unless_zones_ask_for_one_more(spec: Spec) -> None:
    load = Counter(node.host for node in place(spec).servers)
    share = -(-spec.nodes_total // len(spec.hosts))
    limit = share if len({host.zone or host.name for host in spec.hosts}) == len(spec.hosts) else share + 1
    assert max(load.values()) <= limit


@given(specs())
def test_placing_again_changes_nothing(spec: Spec) -> None:
    placement = place(spec)
    assert place(spec) == placement
    assert place(spec, as_existing(placement)) == placement


@given(specs(), st.data())
def test_an_interrupted_creation_ends_as_it_began(spec: Spec, data: st.DataObject) -> None:
    placement = place(spec)
    names = data.draw(st.sets(st.sampled_from(sorted(as_existing(placement)))))
    begun = {name: found for name, found in as_existing(placement).items() if name in names}
    assert place(spec, begun) == placement


@given(specs(), st.sampled_from(["a", "z", None]))
def test_another_host_moves_nothing(spec: Spec, zone: str | None) -> None:
    before = as_existing(place(spec))
    host = {"name": "new", "private": "10.0.9.9", "zone": zone}
    hosts = (host, *(h.model_dump() for h in spec.hosts))
    wider = Spec.model_validate({**spec.model_dump(exclude={"hosts"}), "hosts": hosts})
    assert as_existing(place(wider, before)) == before


@given(specs(), st.integers(1, 2))
def test_growth_leaves_what_is_there_and_keeps_copies_apart(spec: Spec, more: int) -> None:
    before = as_existing(place(spec))
    hosts = (
        *(h.model_dump() for h in spec.hosts),
        *({"name": f"n{i}", "private": f"10.0.9.{i}"} for i in range(more)),
    )
    keys = {**spec.model_dump(exclude={"hosts"}), "hosts": hosts, "replicas": spec.replicas + 1}
    if spec.mode == "cluster":
        keys["shards"] = spec.shards + 1
    after = place(Spec.model_validate(keys), before)
    assert {name: found for name, found in as_existing(after).items() if name in before} == before
    assert all(len({node.host for node in shard}) == 2 + spec.replicas for shard in after.shards)


@pytest.mark.parametrize(
    ("hosts", "shards", "replicas"), [(3, 3, 1), (3, 3, 2), (4, 8, 1), (6, 3, 1), (5, 5, 2), (7, 7, 1)]
)
def test_without_zones_load_is_exactly_even(hosts: int, shards: int, replicas: int) -> None:
    placement = place(spec_of("cluster", [None] * hosts, shards=shards, replicas=replicas))
    load = Counter(node.host for node in placement.servers)
    assert max(load.values()) - min(load[f"h{i}"] for i in range(hosts)) <= 1
    primaries = Counter(hosts_of(placement, "primary"))
    assert max(primaries.values()) == -(-shards // hosts)


def test_three_hosts_form_a_ring() -> None:
    placement = place(spec_of("cluster", [None] * 3))
    assert [(n.name, n.shard, n.initial_role) for n in placement.nodes] == [
        ("h0:6379", 0, "primary"),
        ("h1:6380", 0, "replica"),
        ("h1:6379", 1, "primary"),
        ("h2:6380", 1, "replica"),
        ("h2:6379", 2, "primary"),
        ("h0:6380", 2, "replica"),
    ]


def test_replicas_of_one_hosts_primaries_are_spread() -> None:
    placement = place(spec_of("cluster", [None] * 4, shards=8))
    partners = Counter((shard[0].host, shard[1].host) for shard in placement.shards)
    assert set(partners.values()) == {1}


@pytest.mark.parametrize(
    "zones",
    [
        ["a", "a", "b", "b", "c", "c"],
        ["a", "a", "a", "b", "b", "c"],
        ["a", "a", "a", "a", "b", "c"],
        ["a", "b", "c"],
        ["a", "a", "b", "c"],
    ],
)
def test_copies_and_votes_are_spread_over_three_zones(zones: list[str | None]) -> None:
    placement = place(spec_of("cluster", zones))
    zone = {f"h{i}": name for i, name in enumerate(zones)}
    assert all(len({zone[node.host] for node in shard}) == 2 for shard in placement.shards)
    assert max(Counter(zone[host] for host in hosts_of(placement, "primary")).values()) == 1


def test_two_zones_hold_a_copy_each() -> None:
    zones = ["a", "a", "a", "b", "b", "b"]
    placement = place(spec_of("cluster", zones))
    assert all(zones[int(x.host[1])] != zones[int(y.host[1])] for x, y in placement.shards)


def test_a_large_zone_does_not_hold_the_majority_of_votes() -> None:
    placement = place(spec_of("cluster", ["a", "a", "a", "a", "b", "c"], shards=6))
    assert len([host for host in hosts_of(placement, "primary") if host in ("h0", "h1", "h2", "h3")]) == 2


def test_copies_are_exchanged_where_one_by_one_leads_astray() -> None:
    """Put greedily, the last copy of one shard finds only a host in a zone that it has already."""
    zones = ["a", "c", "a", "b", "d", "b"]
    placement = place(spec_of("cluster", zones, shards=20, replicas=2))
    assert all(len({zones[int(node.host[1])] for node in shard}) == 3 for shard in placement.shards)


def test_load_is_evened_out_afterwards() -> None:
    placement = place(spec_of("cluster", ["d", "b", "c", "c"], shards=8, replicas=2))
    assert sorted(Counter(node.host for node in placement.servers).values()) == [5, 5, 7, 7]


def test_a_small_zone_is_not_overrun() -> None:
    """Five hosts in one zone and one in the other: the one does not carry a copy of everything."""
    placement = place(spec_of("cluster", ["a"] * 5 + ["b"], shards=6))
    assert len(placement.on("h5")) <= 3


def test_sentinels_prefer_hosts_without_servers() -> None:
    placement = place(spec_of("sentinel", [None] * 5))
    assert set(hosts_of(placement, "primary") + hosts_of(placement, "replica")) == {"h0", "h1", "h2"}
    assert {"h3", "h4"} < set(hosts_of(placement, "sentinel"))
    assert "h0" not in hosts_of(placement, "sentinel")


def test_of_two_zones_the_one_without_the_primary_has_the_sentinels() -> None:
    zones = ["a", "a", "a", "b", "b"]
    placement = place(spec_of("sentinel", zones, replicas=1))
    assert hosts_of(placement, "primary") == ["h0"]
    assert Counter(zones[int(host[1])] for host in hosts_of(placement, "sentinel")) == {"b": 2, "a": 1}


def test_a_sentinel_is_rather_beside_a_replica_than_beside_the_primary() -> None:
    placement = place(spec_of("sentinel", ["a", "a", "b", "b"]))
    assert hosts_of(placement, "primary") == ["h0"]
    assert "h0" not in hosts_of(placement, "sentinel")


def test_sentinels_of_three_zones_are_in_all_of_them() -> None:
    zones = ["a", "a", "a", "b", "c"]
    placement = place(spec_of("sentinel", zones, replicas=1))
    assert {zones[int(host[1])] for host in hosts_of(placement, "sentinel")} == {"a", "b", "c"}


def test_this_machine_takes_everything_on_consecutive_ports() -> None:
    cluster = place(Spec.model_validate({"mode": "cluster", "hosts": ("local",), "port": 7000}))
    assert sorted(node.name for node in cluster.nodes) == [f"local:{port}" for port in range(7000, 7006)]
    sentinel = place(Spec.model_validate({"mode": "sentinel", "hosts": ("local",)}))
    assert [node.port for node in sentinel.nodes] == [6379, 6380, 6381, 26379, 26380, 26381]


def test_after_a_failover_roles_are_the_observed_ones() -> None:
    spec = spec_of("cluster", [None] * 3)
    observed = as_existing(place(spec)) | {"h0:6379": (0, "replica"), "h1:6380": (0, "primary")}
    assert as_existing(place(spec, observed)) == observed


def test_a_lost_former_primary_comes_back_as_a_replica() -> None:
    spec = spec_of("cluster", [None] * 3)
    observed = as_existing(place(spec)) | {"h1:6380": (0, "primary")}
    del observed["h0:6379"]
    assert place(spec, observed).node("h0:6379").initial_role == "replica"


def test_nodes_on_a_host_that_left_the_file_are_replaced() -> None:
    before = as_existing(place(spec_of("cluster", [None] * 4)))
    after = place(spec_of("cluster", [None] * 3), before)
    stayed = {name for name in before if not name.startswith("h3:")}
    assert stayed < set(as_existing(after))
    assert len(after.servers) == 6
    assert not after.on("h3")


@pytest.mark.parametrize(
    "zones", [[None] * 100, ["a"] * 100, ["a"] * 98 + ["b", "c"], ["a", "b", "c", "d"] * 25]
)
def test_two_hundred_nodes_take_no_time(zones: list[str | None]) -> None:
    spec = spec_of("cluster", zones, shards=100)
    started = time.process_time()
    placement = place(spec)
    assert time.process_time() - started < 0.5  # measured: 0.03 to 0.05 s
    assert len(placement.nodes) == 200
