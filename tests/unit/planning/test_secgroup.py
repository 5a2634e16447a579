"""Rules for the cloud's console, and the host's firewall."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.engine import Engine, Version
from redkeep.model.spec import Spec
from redkeep.planning.placing.addresses import addresses
from redkeep.planning.placing.placement import place
from redkeep.planning.placing.secgroup import Rule, collapsed, firewall, security_group_rules

REDIS = Engine("redis", Version(7, 0, 15))
VALKEY = Engine("valkey", Version(8, 1, 1))


def spec_of(networks: str = "aaa", mode: str = "cluster", **keys: Any) -> Spec:
    hosts = tuple(
        {"name": f"h{i}", "private": f"10.0.0.{i}", "public": f"203.0.113.{i}", "network": network}
        for i, network in enumerate(networks, start=1)
    )
    return Spec.model_validate({"mode": mode, "hosts": hosts, **keys})


def rules_of(spec: Spec, engine: Engine = REDIS) -> tuple[Rule, ...]:
    return security_group_rules(spec, place(spec), addresses(spec, None, engine))


def lets_in(rules: tuple[Rule, ...], host: str, port: int, source: str) -> bool:
    return any(
        host in rule.hosts
        and rule.first <= port <= rule.last
        and ipaddress.ip_address(source) in ipaddress.ip_network(rule.source)
        for rule in rules
    )


def test_clients_outside_in_two_networks() -> None:
    """Six nodes on three hosts: everybody on the servers' ports, and only the other hosts on the bus."""
    rules = rules_of(spec_of("aab", clients="public"))
    anyone = [rule for rule in rules if rule.source == "0.0.0.0/0"]
    assert [(rule.hosts, rule.ports) for rule in anyone] == [(("h1", "h2", "h3"), "6379-6380")]
    assert "set allow_from" in anyone[0].why
    bus = [rule for rule in rules if rule not in anyone]
    assert {rule.ports for rule in bus} == {"16379-16380"}
    assert lets_in(rules, "h1", 16379, "203.0.113.3")
    assert lets_in(rules, "h1", 16379, "203.0.113.2")
    assert lets_in(rules, "h1", 16379, "10.0.0.2")
    assert lets_in(rules, "h1", 16379, "203.0.113.1"), "two nodes of one host meet through the NAT"
    assert not lets_in(rules, "h1", 16379, "10.0.0.3"), "the private address of the other network"
    assert not lets_in(rules, "h1", 16379, "198.51.100.9")
    assert len(rules) == 7


def test_allow_from_narrows_clients_but_not_peers() -> None:
    rules = rules_of(spec_of(clients="public", allow_from=("198.51.100.200", "198.51.100.201")))
    assert lets_in(rules, "h1", 6379, "198.51.100.200")
    assert not lets_in(rules, "h1", 6379, "198.51.100.202")
    assert not lets_in(rules, "h1", 16379, "198.51.100.200")
    assert lets_in(rules, "h1", 6379, "203.0.113.2")
    assert [rule.source for rule in rules if "allow_from" in rule.why] == ["198.51.100.200/31"]


def test_private_clients_do_not_open_the_internet() -> None:
    rules = rules_of(spec_of())
    inside = ipaddress.IPv4Network("10.0.0.0/8")
    assert all(ipaddress.IPv4Network(rule.source).subnet_of(inside) for rule in rules)
    assert not any(rule.first >= 16379 and rule.source == "10.0.0.0/8" for rule in rules)


def test_a_separate_client_address_keeps_the_bus_private() -> None:
    rules = rules_of(spec_of(clients="public"), VALKEY)
    assert {rule.source for rule in rules if rule.first > 16000} == {
        "10.0.0.1/32",
        "10.0.0.2/32",
        "10.0.0.3/32",
    }


def test_sentinels_are_for_clients_and_peers() -> None:
    rules = rules_of(spec_of("aab", "sentinel", clients="public", allow_from=("198.51.100.200",)))
    assert lets_in(rules, "h3", 26379, "198.51.100.200")
    assert lets_in(rules, "h3", 26379, "203.0.113.1")
    assert not any(rule.last > 16000 and rule.first < 20000 for rule in rules)


def test_this_machine_needs_no_rules() -> None:
    assert rules_of(Spec.model_validate({"mode": "cluster", "hosts": ("local",)})) == ()


def test_rules_in_json() -> None:
    assert rules_of(spec_of("a", "standalone", clients="public"))[0].as_json() == {
        "hosts": ["h1"],
        "protocol": "tcp",
        "ports": "6379",
        "source": "0.0.0.0/0",
        "why": "applications, from anywhere; set allow_from to narrow it",
    }


@given(
    st.text("ab", min_size=3, max_size=7),
    st.sampled_from(["cluster", "sentinel"]),
    st.sampled_from(["private", "public"]),
)
def test_every_peer_is_let_in_and_nobody_else_on_the_bus(networks: str, mode: str, clients: str) -> None:
    spec = spec_of(networks, mode, clients=clients)
    placement, plan = place(spec), addresses(spec, None, REDIS)
    rules = security_group_rules(spec, placement, plan)
    used = {node.host for node in placement.nodes}
    for node in placement.nodes:
        for peer in used - {node.host}:
            ports = [node.port, node.bus_port] if mode == "cluster" else [node.port]
            assert all(lets_in(rules, node.host, p, a) for p in ports for a in plan.seen_as(peer, node.host))
        assert not lets_in(rules, node.host, node.bus_port, "198.51.100.9")
        assert not lets_in(rules, node.host, 22, "203.0.113.1")
    assert len({(r.hosts, r.first, r.source) for r in rules}) == len(rules)


def firewall_of(spec: Spec, host: str = "h1") -> str:
    return firewall(spec, place(spec), addresses(spec, None, REDIS), host, tls=True)


def test_firewall_text() -> None:
    assert firewall_of(
        spec_of(
            "ab", "standalone", replicas=1, clients="public", allow_from=("198.51.100.200", "2001:db8::/32")
        )
    ) == (
        "# Written by Redkeep: who may reach the servers of this deployment. Loading it again replaces it.\n"
        "table inet redkeep_main\n"
        "delete table inet redkeep_main\n"
        "table inet redkeep_main {\n"
        "\tchain ours {\n"
        '\t\tiifname "lo" accept\n'
        "\t\tip saddr { 10.0.0.1/32, 10.0.0.2/32, 203.0.113.1/32, 203.0.113.2/32 } accept"
        ' comment "the deployment\'s hosts"\n'
        '\t\tip saddr { 198.51.100.200/32 } tcp dport { 6379 } accept comment "allow_from"\n'
        '\t\tip6 saddr { 2001:db8::/32 } tcp dport { 6379 } accept comment "allow_from"\n'
        "\t\tdrop\n"
        "\t}\n"
        "\tchain input {\n"
        "\t\ttype filter hook input priority -10; policy accept;\n"
        "\t\ttcp dport { 6379 } jump ours\n"
        "\t}\n"
        "}\n"
    )


def test_the_bus_is_for_the_hosts_alone() -> None:
    text = firewall_of(spec_of(allow_from=("10.9.0.0/16",)))
    assert "ip saddr { 10.9.0.0/16 } tcp dport { 6379-6380 } accept" in text
    assert "tcp dport { 6379-6380, 16379-16380 } jump ours" in text


def test_no_firewall_without_allow_from_or_nodes() -> None:
    assert firewall_of(spec_of()) == ""
    idle = spec_of("aa", "standalone", allow_from=("10.9.0.0/16",))
    assert firewall_of(idle, "h1") != ""
    assert firewall_of(idle, "h2") == ""


@pytest.mark.skipif(
    not shutil.which("nft") or os.geteuid() != 0, reason="needs nft (package nftables) and root"
)
@pytest.mark.parametrize(
    "allowed",
    [
        ("198.51.100.200",),
        ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.3"),
        ("0.0.0.0/0", "::/0"),
        ("2001:db8::1", "198.51.100.0/24"),
    ],
)
@pytest.mark.parametrize("mode", ["cluster", "sentinel"])
def test_nft_accepts_the_text(mode: str, allowed: tuple[str, ...]) -> None:
    text = firewall_of(spec_of("aab", mode, name="shop-2", clients="public", allow_from=allowed))
    checked = subprocess.run(
        ["nft", "-c", "-f", "-"], input=text, text=True, capture_output=True, check=False
    )
    if "Operation not permitted" in checked.stderr:
        pytest.skip("nft may not ask the kernel here")
    assert (checked.returncode, checked.stderr) == (0, "")


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), min_size=1, max_size=8))
def test_collapsed_ranges_are_the_same_addresses_without_overlap(drawn: list[tuple[int, int]]) -> None:
    given_ranges = [ipaddress.IPv4Network((number, length), strict=False) for number, length in drawn]
    found = [ipaddress.IPv4Network(text) for text in collapsed(str(network) for network in given_ranges)]
    assert all(not a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    assert all(any(network.subnet_of(wide) for wide in found) for network in given_ranges)
    assert sum(n.num_addresses for n in found) <= sum(n.num_addresses for n in given_ranges)


def test_a_bus_without_tls_is_closed_to_strangers_in_any_case() -> None:
    spec = spec_of(clients="public")
    placement, plan = place(spec), addresses(spec, None, REDIS)
    text = firewall(spec, placement, plan, "h1", tls=False)
    assert "tcp dport { 16379-16380 } jump ours" in text
    assert "6379-6380 }" not in text.replace("16379-16380 }", "")
    assert firewall(spec, placement, plan, "h1", tls=True) == ""
    assert firewall(spec_of(mode="standalone"), place(spec), plan, "h1", tls=False) == ""
