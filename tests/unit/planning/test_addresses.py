"""What is announced, bound and sent over public networks, case by case."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import SpecError
from redkeep.model.engine import Engine, Version
from redkeep.model.spec import Spec
from redkeep.model.topology import HostFacts, Unreachable
from redkeep.planning.placing.addresses import AddressPlan, Way, addresses, decide_tls

REDIS = Engine("redis", Version(7, 0, 15))
VALKEY = Engine("valkey", Version(8, 1, 1))
BUNDLED = Engine("valkey", Version(9, 1, 2), tls=False)


def facts_of(*listed: str, outgoing: str = "") -> HostFacts:
    return HostFacts(
        system="debian",
        system_version="12",
        family="apt",
        architecture="x86_64",
        libc="glibc 2.36",
        systemd=True,
        root=True,
        memory=2**31,
        disk_free=2**34,
        clock=0.0,
        clock_uncertainty=0.0,
        addresses=listed,
        outgoing=outgoing,
        kernel={},
        listeners=(),
        commands=frozenset(),
        digests={},
        present=frozenset(),
        services={},
        enabled=frozenset(),
    )


def host(number: int, cloud: str = "aliyun", net: int = 0, **keys: Any) -> dict[str, Any]:
    return {
        "name": f"h{number}",
        "private": f"10.{net}.0.{number}",
        "public": f"203.0.113.{number}",
        "zone": f"{cloud}/z",
        **keys,
    }


ONE_NETWORK = tuple(host(i) for i in (1, 2, 3))
TWO_NETWORKS = (host(1), host(2), host(3, "tencent", 1))


def spec_of(hosts: tuple[dict[str, Any], ...], mode: str = "cluster", **keys: Any) -> Spec:
    return Spec.model_validate({"mode": mode, "hosts": hosts, **keys})


def kinds(plan: AddressPlan) -> list[str]:
    return [crossing.kind for crossing in plan.crossings]


@pytest.mark.parametrize(
    ("hosts", "mode", "clients", "engine", "way", "announce", "client", "crossing"),
    [
        (ONE_NETWORK, "cluster", "private", REDIS, "private", "10.0.0.1", "", []),
        (ONE_NETWORK, "sentinel", "private", REDIS, "private", "10.0.0.1", "", []),
        (ONE_NETWORK, "cluster", "private", VALKEY, "private", "10.0.0.1", "", []),
        (
            ONE_NETWORK,
            "cluster",
            "public",
            REDIS,
            "hairpin",
            "203.0.113.1",
            "",
            ["server-server", "server-client"],
        ),
        (
            ONE_NETWORK,
            "cluster",
            "public",
            None,
            "hairpin",
            "203.0.113.1",
            "",
            ["server-server", "server-client"],
        ),
        (
            ONE_NETWORK,
            "sentinel",
            "public",
            VALKEY,
            "hairpin",
            "203.0.113.1",
            "",
            ["server-server", "server-client"],
        ),
        (
            ONE_NETWORK,
            "cluster",
            "public",
            VALKEY,
            "client-address",
            "10.0.0.1",
            "203.0.113.1",
            ["server-client"],
        ),
        (ONE_NETWORK[:1], "standalone", "public", REDIS, "public", "203.0.113.1", "", ["server-client"]),
        (
            TWO_NETWORKS,
            "cluster",
            "public",
            VALKEY,
            "public",
            "203.0.113.1",
            "",
            ["server-server"] * 2 + ["server-client"],
        ),
        (
            TWO_NETWORKS,
            "sentinel",
            "private",
            REDIS,
            "public",
            "203.0.113.1",
            "",
            ["server-server"] * 2 + ["server-client"],
        ),
    ],
)
def test_ways(
    hosts: tuple[dict[str, Any], ...],
    mode: str,
    clients: str,
    engine: Engine | None,
    way: Way,
    announce: str,
    client: str,
    crossing: list[str],
) -> None:
    plan = addresses(spec_of(hosts, mode, clients=clients), None, engine)
    assert (plan.way, plan["h1"].announce, plan["h1"].client_announce) == (way, announce, client)
    assert plan["h1"].for_clients == (client or announce)
    assert plan["h1"].bind == ("10.0.0.1", "127.0.0.1")
    assert kinds(plan) == crossing
    assert plan.why


def test_a_cluster_keeps_public_addresses_when_its_engine_changes() -> None:
    """Redis 7.0 would tell clients the private address of a Valkey that has another one for them."""
    spec = spec_of(ONE_NETWORK, clients="public")
    before = addresses(spec, None, REDIS)
    kept = addresses(spec, None, VALKEY, {name: its.announce for name, its in before.hosts.items()})
    assert kept.hosts == before.hosts
    assert "as they did when it was made" in kept.why
    apart = addresses(spec, None, VALKEY)
    again = addresses(spec, None, VALKEY, {name: its.announce for name, its in apart.hosts.items()})
    assert (apart.way, again) == ("client-address", apart)


def test_the_way_is_told() -> None:
    assert "NAT (hairpin)" in addresses(spec_of(ONE_NETWORK, clients="public"), None, REDIS).why
    assert (
        "redis 7.0.15 has no separate one"
        in addresses(spec_of(ONE_NETWORK, clients="public"), None, REDIS).why
    )
    inside = addresses(spec_of(TWO_NETWORKS, "sentinel"), None, REDIS).why
    assert "applications are inside, but hosts are not all in one network" in inside
    assert "hosts within aliyun reach each other" in inside
    assert "hairpin" not in addresses(spec_of((host(1), host(2, "b", 1)), "standalone", replicas=1)).why


def test_this_machine_announces_loopback() -> None:
    spec = Spec.model_validate({"mode": "cluster", "hosts": ("local",)})
    plan = addresses(spec, {"local": facts_of("192.168.1.5", outgoing="192.168.1.5")}, VALKEY)
    assert plan["local"].announce == "127.0.0.1"
    assert plan["local"].bind == ("127.0.0.1",)
    assert not plan.crossings


def test_this_machine_with_an_address_is_a_host_like_any() -> None:
    plan = addresses(spec_of(({"name": "here", "ssh": "local", "private": "10.0.0.5"},), "standalone"))
    assert plan["here"].announce == "10.0.0.5"


@pytest.mark.parametrize(
    ("facts", "private"),
    [
        (facts_of("10.0.0.7", outgoing="10.0.0.7"), "10.0.0.7"),
        (facts_of("10.0.0.7", "10.0.1.7", outgoing="10.0.1.7"), "10.0.1.7"),
        (facts_of("203.0.113.7", "10.0.0.7", outgoing="203.0.113.7"), "10.0.0.7"),
        (facts_of("203.0.113.7", "172.17.0.1", outgoing="203.0.113.7"), "203.0.113.7"),
        (facts_of("203.0.113.7", "10.0.0.7", "10.9.0.7", outgoing="203.0.113.7"), "203.0.113.7"),
        (facts_of("10.0.0.7", outgoing="172.17.0.1"), "10.0.0.7"),
        (facts_of("10.0.0.7", "fe80::1", "169.254.1.1"), "10.0.0.7"),
        (facts_of("10.0.0.7", outgoing="127.0.0.1"), "10.0.0.7"),
    ],
)
def test_the_private_address_is_found_on_the_host(facts: HostFacts, private: str) -> None:
    plan = addresses(spec_of(({"name": "h1"},), "standalone"), {"h1": facts})
    assert plan["h1"].announce == private
    assert plan["h1"].bind[0] == private
    assert len(plan.notes) == 1
    assert f"h1: address {private} was found" in plan.notes[0]


def test_an_address_of_a_host_that_cannot_be_asked_is_left_open() -> None:
    plan = addresses(spec_of(({"name": "h1"},), "standalone"), {"h1": Unreachable("timeout")})
    assert plan["h1"].announce == ""


@pytest.mark.parametrize("facts", [{}, {"h1": facts_of("172.17.0.1", "127.0.0.1")}])
def test_an_address_that_nobody_knows_is_asked_for(facts: dict[str, HostFacts | Unreachable]) -> None:
    with pytest.raises(SpecError) as caught:
        addresses(spec_of(({"name": "h1"},), "standalone"), facts)
    assert str(caught.value).split("\n") == [
        "the private address of h1 is not known: it could not be found on the host",
        "hosts: h1",
        "add private: its address inside the network",
    ]


def test_an_address_that_the_host_does_not_have_is_refused() -> None:
    spec = spec_of(({"name": "h1", "private": "10.0.0.9"},), "standalone")
    with pytest.raises(SpecError, match=r"10\.0\.0\.9 is not an address of h1"):
        addresses(spec, {"h1": facts_of("10.0.0.7", outgoing="10.0.0.7")})


def test_several_networks_need_public_addresses() -> None:
    hosts = (host(1), host(2, "tencent", 1, public=None, ssh="ops@bastion.example"))
    with pytest.raises(
        SpecError, match="h2 has no public address, and other hosts are in another network"
    ) as caught:
        addresses(spec_of(hosts, "standalone", replicas=1))
    assert "network:" in caught.value.next
    assert "bastion.example" in caught.value.next


def test_networks_without_a_name_come_from_the_discovered_address() -> None:
    spec = spec_of(({"name": "a"}, {"name": "b"}), "standalone", replicas=1)
    near = {"a": facts_of("10.1.0.1", outgoing="10.1.0.1"), "b": facts_of("10.1.7.1", outgoing="10.1.7.1")}
    assert addresses(spec, near).way == "private"
    with pytest.raises(SpecError, match="a has no public address"):
        addresses(spec, near | {"b": facts_of("10.2.0.1", outgoing="10.2.0.1")})


def test_a_public_address_on_an_interface_is_bound() -> None:
    """A host with a card for each network: what goes out takes the card of the default route."""
    facts = {f"h{i}": facts_of(f"203.0.113.{i}", f"10.0.0.{i}", outgoing=f"203.0.113.{i}") for i in (1, 2, 3)}
    outside = addresses(spec_of(ONE_NETWORK, clients="public"), facts, REDIS)
    assert outside.way == "public"
    assert outside["h1"].bind == ("203.0.113.1", "10.0.0.1", "127.0.0.1")
    split = addresses(spec_of(ONE_NETWORK, clients="public"), facts, VALKEY)
    assert split["h1"].bind == ("10.0.0.1", "203.0.113.1", "127.0.0.1")
    inside = addresses(spec_of(ONE_NETWORK), facts, REDIS)
    assert inside["h1"].bind == ("10.0.0.1", "127.0.0.1")


def test_hosts_with_public_addresses_only_cross_the_internet() -> None:
    hosts = tuple({"name": f"h{i}", "network": "rented"} for i in (1, 2, 3))
    facts = {f"h{i}": facts_of(f"203.0.113.{i}", outgoing=f"203.0.113.{i}") for i in (1, 2, 3)}
    plan = addresses(spec_of(hosts), facts, REDIS)
    assert (plan.way, plan["h1"].announce) == ("private", "203.0.113.1")
    assert kinds(plan) == ["server-server", "server-client"]
    assert decide_tls(spec_of(hosts), plan, REDIS).on


@pytest.mark.parametrize(
    ("keys", "engine", "on", "clear"),
    [
        ({"clients": "public"}, REDIS, True, 0),
        ({"clients": "public"}, BUNDLED, False, 1),
        ({"clients": "public", "tls": False}, REDIS, False, 2),
        ({}, REDIS, False, 0),
        ({"tls": True}, REDIS, True, 0),
        ({"tls": False}, REDIS, False, 0),
    ],
)
def test_tls(keys: dict[str, Any], engine: Engine, on: bool, clear: int) -> None:
    spec = spec_of(ONE_NETWORK, **keys)
    decision = decide_tls(spec, addresses(spec, None, engine), engine)
    assert (decision.on, len(decision.clear_text)) == (on, clear)
    assert decision.why


def test_what_travels_in_clear_text_is_told() -> None:
    spec = spec_of(ONE_NETWORK, clients="public", tls=False)
    assert decide_tls(spec, addresses(spec, None, REDIS), REDIS).clear_text == (
        "hosts within aliyun: the Cluster bus and replication, over their provider's NAT, by public addresses",
        "applications and h1, h2, h3: commands, replies and passwords, over the internet",
    )


def test_tls_that_the_engine_does_not_have_is_refused() -> None:
    spec = spec_of(ONE_NETWORK, tls=True)
    with pytest.raises(SpecError, match="was built without TLS"):
        decide_tls(spec, addresses(spec, None, BUNDLED), BUNDLED)


def test_how_connections_appear_at_the_other_host() -> None:
    inside = addresses(spec_of(ONE_NETWORK), None, REDIS)
    assert inside.seen_as("h1", "h2") == ("10.0.0.1",)
    assert not inside.turns_round("h1")
    split = addresses(spec_of(ONE_NETWORK, clients="public"), None, VALKEY)
    assert split.seen_as("h1", "h2") == ("10.0.0.1",)
    outside = addresses(spec_of(TWO_NETWORKS, clients="public"), None, REDIS)
    assert outside.seen_as("h1", "h2") == ("203.0.113.1", "10.0.0.1")
    assert outside.seen_as("h1", "h3") == ("203.0.113.1",)
    assert outside.turns_round("h1")


@given(
    st.lists(st.sampled_from(["a", "b"]), min_size=3, max_size=6),
    st.sampled_from(["cluster", "sentinel", "standalone"]),
    st.sampled_from(["private", "public"]),
    st.sampled_from([REDIS, VALKEY, BUNDLED, None]),
)
def test_what_holds_for_every_plan(clouds: list[str], mode: str, clients: str, engine: Engine | None) -> None:
    hosts = tuple(host(i + 1, cloud, ord(cloud)) for i, cloud in enumerate(clouds))
    spec = spec_of(hosts, mode, clients=clients)
    plan = addresses(spec, None, engine)
    reached = {its.for_clients == its.public for its in plan.hosts.values()}
    assert reached == {clients == "public" or len(set(clouds)) > 1}
    if len(set(clouds)) > 1:
        assert all(its.announce == its.public for its in plan.hosts.values())
    assert bool(plan.crossings) == (plan.way != "private")
    assert all(its.bind == (its.private, "127.0.0.1") for its in plan.hosts.values())
    if engine:
        decision = decide_tls(spec, plan, engine)
        assert decision.on == (bool(plan.crossings) and engine.tls)
        assert bool(decision.clear_text) == (bool(plan.crossings) and not decision.on)
