"""What the plan says about losses, against a simulation of what the engines do."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.spec import Spec
from redkeep.model.topology import Role
from redkeep.planning.placing.placement import PlacedNode, Placement, place
from redkeep.planning.placing.survival import refusal, survives


def spec_of(mode: str, hosts: int, zones: str = "", **keys: Any) -> Spec:
    listed = tuple(
        {"name": f"h{i}", "private": f"10.0.0.{i + 1}", "zone": zones[i] if zones else None}
        for i in range(hosts)
    )
    return Spec.model_validate({"mode": mode, "hosts": listed, **keys})


def server(host: str, port: int, shard: int, role: Role, index: int = 0) -> PlacedNode:
    return PlacedNode(f"{host}:{port}", host, port, "server", shard, role, index)


def sentinel(host: str, port: int = 26379) -> PlacedNode:
    return PlacedNode(f"{host}:{port}", host, port, "sentinel", None, "sentinel", 0)


class Simulation:
    """Nodes that vote, one election after the other, until nothing changes. Written without a look at the real thing."""

    def __init__(self, mode: str, nodes: tuple[PlacedNode, ...], lost: set[str]) -> None:
        self.mode = mode
        self.nodes = nodes
        self.alive = {n.name for n in nodes if n.host not in lost}
        self.leads = {n.name for n in nodes if n.initial_role == "primary"}
        self.shards = {n.shard for n in nodes if n.shard is not None}
        self.voters = [
            n.name for n in nodes if n.initial_role == ("sentinel" if mode == "sentinel" else "primary")
        ]
        while self.elect():
            pass

    def served(self, shard: int | None) -> bool:
        return any(n.shard == shard and n.name in self.leads & self.alive for n in self.nodes)

    def elect(self) -> bool:
        votes = sum(name in self.alive for name in self.voters)
        if self.mode == "standalone" or not 2 * votes > len(self.voters):
            return False
        for node in self.nodes:
            if node.initial_role == "replica" and node.name in self.alive and not self.served(node.shard):
                self.leads.add(node.name)
                return True
        return False

    @property
    def writes(self) -> bool:
        return all(self.served(shard) for shard in self.shards)

    @property
    def data(self) -> bool:
        return all(
            any(n.shard == shard and n.name in self.alive for n in self.nodes) for shard in self.shards
        )


@st.composite
def deployments(draw: st.DrawFn) -> tuple[Spec, Placement]:
    """Any arrangement, also those that Redkeep would never choose."""
    mode = draw(st.sampled_from(["cluster", "sentinel", "standalone"]))
    count = draw(st.integers(2, 6))
    zones = "".join(draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count)))
    hosts = st.sampled_from([f"h{i}" for i in range(count)])
    shards = draw(st.integers(3, 6)) if mode == "cluster" else 1
    replicas = draw(st.integers(1 if mode == "sentinel" else 0, min(2, count - 1)))
    keys = {"shards": shards, "replicas": replicas}
    nodes: list[PlacedNode] = []
    for shard in range(shards):
        for copy in range(1 + replicas):
            port = 6379 + len(nodes)
            nodes.append(server(draw(hosts), port, shard, "replica" if copy else "primary"))
    if mode == "sentinel":
        nodes += [sentinel(draw(hosts), 26379 + i) for i in range(draw(st.integers(1, 5)))]
    return spec_of(mode, count, zones, sentinels=1, **keys), Placement(tuple(nodes))


@given(deployments())
def test_agrees_with_the_simulation(deployment: tuple[Spec, Placement]) -> None:
    spec, placement = deployment
    losses = {f"host {h.name}": {h.name} for h in spec.hosts}
    for zone in {h.zone for h in spec.hosts}:
        losses[f"zone {zone}"] = {h.name for h in spec.hosts if h.zone == zone}
    for one, other in combinations([h.name for h in spec.hosts], 2):
        losses[f"hosts {one} + {other}"] = {one, other}
    found = survives(spec, placement)
    assert {s.loss for s in found} == set(losses)
    for survival in found:
        simulated = Simulation(spec.mode, placement.nodes, losses[survival.loss])
        assert (survival.writes, survival.data) == (simulated.writes, simulated.data), survival


@given(deployments())
def test_nothing_accepts_writes_without_data(deployment: tuple[Spec, Placement]) -> None:
    assert all(s.data or not s.writes for s in survives(*deployment))


@pytest.mark.parametrize("hosts", [3, 4, 5, 6, 9])
def test_a_placed_cluster_survives_every_single_host(hosts: int) -> None:
    spec = spec_of("cluster", hosts)
    singles = [s for s in survives(spec, place(spec)) if s.loss.startswith("host ")]
    assert len(singles) == hosts
    assert all(s.writes and s.data for s in singles)


def test_a_placed_cluster_survives_every_one_of_three_zones() -> None:
    spec = spec_of("cluster", 6, "aabbcc")
    assert all(s.writes and s.data for s in survives(spec, place(spec)) if s.loss.startswith("zone "))


def test_sentinels_of_two_zones_survive_both() -> None:
    spec = spec_of("sentinel", 4, "aabb", replicas=1)
    assert all(s.writes and s.data for s in survives(spec, place(spec)) if s.loss.startswith("zone "))


def _why(
    spec: Spec, placement: Placement, loss: str, roles: dict[str, Role] | None = None
) -> tuple[bool, bool, str]:
    found = next(s for s in survives(spec, placement, roles) if s.loss == loss)
    return found.writes, found.data, found.why


def test_reasons_of_a_cluster() -> None:
    spec = spec_of("cluster", 3)
    placement = place(spec)
    assert _why(spec, placement, "host h0") == (
        True,
        True,
        "failover of shard 1 to h1:6380: 2 of 3 primaries are left to vote",
    )
    assert _why(spec, placement, "hosts h0 + h1") == (
        False,
        False,
        "no copy of shard 1 is left until h0 or h1 is back",
    )
    four = spec_of("cluster", 4, shards=3)
    spread = Placement(
        tuple(server(f"h{i}", 6379, i, "primary") for i in range(3))
        + tuple(server("h3", 6379 + i, i, "replica") for i in range(3))
    )
    writes, data, why = _why(four, spread, "hosts h0 + h1")
    assert (writes, data) == (False, True)
    assert "1 of 3 primaries are left, 2 must agree" in why


def test_reasons_of_standalone() -> None:
    spec = spec_of("standalone", 2, replicas=1)
    writes, data, why = _why(spec, place(spec), "host h0")
    assert (writes, data) == (False, True)
    assert "h1:6379 has the data" in why
    assert _why(spec, place(spec), "host h1")[:2] == (True, True)


def test_the_observed_roles_count() -> None:
    spec = spec_of("standalone", 2, replicas=1)
    roles: dict[str, Role] = {"h0:6379": "replica", "h1:6379": "primary"}
    assert _why(spec, place(spec), "host h0", roles)[:2] == (True, True)
    assert _why(spec, place(spec), "host h1", roles)[:2] == (False, True)


def test_a_node_that_is_down_helps_nobody() -> None:
    """h0 is down and was failed over; the loss of h1 now takes the last copy of shard 0."""
    spec = spec_of("cluster", 3)
    placement = place(spec)
    roles: dict[str, Role] = {n.name: n.initial_role for n in placement.nodes if n.host != "h0"}
    roles["h1:6380"] = "primary"
    assert _why(spec, placement, "host h1", roles)[:2] == (False, False)


def test_an_idle_host_is_no_loss() -> None:
    spec = spec_of("standalone", 2)
    assert _why(spec, place(spec), "host h1") == (True, True, "nothing of this deployment runs there")


def test_pairs_of_many_hosts_are_told_by_outcome() -> None:
    spec = spec_of("cluster", 20, shards=10)
    pairs = [s for s in survives(spec, place(spec)) if "two hosts" in s.loss]
    assert [(s.writes, s.data) for s in pairs] == [(True, True), (False, False)]
    assert [s.loss for s in pairs] == ["two hosts, 180 of 190 pairs", "two hosts, 10 of 190 pairs"]
    assert len(survives(spec, place(spec))) == 22


@pytest.mark.parametrize(
    ("mode", "hosts", "keys", "words"),
    [
        ("cluster", 2, {}, "a Cluster on 2 hosts"),
        ("cluster", 1, {"replicas": 0}, "a Cluster on 1 host"),
        ("cluster", 3, {"shards": 4}, "2 of 4 primaries are left, 3 must agree"),
        ("sentinel", 3, {"sentinels": 2}, "2 Sentinels"),
        ("sentinel", 2, {"sentinels": 1, "replicas": 1}, "1 Sentinel:"),
    ],
)
def test_what_is_refused(mode: str, hosts: int, keys: dict[str, Any], words: str) -> None:
    spec = spec_of(mode, hosts, **keys)
    text = refusal(spec, place(spec))
    assert text is not None
    lines = text.split("\n")
    assert len(lines) == 3
    assert words in lines[0]
    assert "accept_risk: true" in lines[2]
    accepted = spec_of(mode, hosts, accept_risk=True, **keys)
    assert refusal(accepted, place(accepted)) is None


@pytest.mark.parametrize(
    ("mode", "hosts", "keys"),
    [
        ("cluster", 3, {}),
        ("cluster", 4, {"shards": 4}),
        ("cluster", 3, {"replicas": 0, "shards": 4}),
        ("sentinel", 3, {}),
        ("sentinel", 5, {"sentinels": 5}),
        ("standalone", 1, {}),
        ("standalone", 2, {"replicas": 1}),
    ],
)
def test_what_is_not_refused(mode: str, hosts: int, keys: dict[str, Any]) -> None:
    spec = spec_of(mode, hosts, **keys)
    assert refusal(spec, place(spec)) is None


def test_sentinels_and_copies_together_on_one_host_are_refused() -> None:
    spec = spec_of("sentinel", 3)
    servers = (server("h0", 6379, 0, "primary"), server("h1", 6379, 0, "replica"))
    crowded = Placement((*servers, sentinel("h0"), sentinel("h0", 26380), sentinel("h1")))
    assert "3 Sentinels on 2 hosts" in (refusal(spec, crowded) or "")
    alone = Placement((server("h0", 6379, 0, "primary"), server("h0", 6380, 0, "replica")))
    assert "a primary and all its replicas are on one host" in (
        refusal(spec_of("standalone", 2, replicas=1), alone) or ""
    )


def test_this_machine_alone_is_for_development() -> None:
    spec = Spec.model_validate({"mode": "cluster", "hosts": ("local",)})
    assert refusal(spec, place(spec)) is None
