"""What is said about what was measured before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redkeep.model.engine import Engine, Version
from redkeep.model.finding import Finding
from redkeep.model.spec import Spec
from redkeep.model.topology import HostFacts, Listener, Unreachable
from redkeep.planning.placing.addresses import addresses
from redkeep.planning.placing.placement import place
from redkeep.planning.placing.preflight import HERE, Probe, ProbeWanted, preflight, wanted_probes

REDIS = Engine("redis", Version(7, 0, 15))
VALKEY = Engine("valkey", Version(8, 1, 1))
GIB = 1024**3

GOOD = HostFacts(
    system="debian",
    system_version="12",
    family="apt",
    architecture="x86_64",
    libc="glibc 2.36",
    systemd=True,
    root=True,
    memory=4 * GIB,
    disk_free=100 * GIB,
    clock=0.01,
    clock_uncertainty=0.02,
    addresses=(),
    outgoing="",
    kernel={"vm.overcommit_memory": "1", "net.core.somaxconn": "4096", "transparent_hugepage": "madvise"},
    listeners=(),
    commands=frozenset(),
    digests={},
    present=frozenset(),
    services={},
    enabled=frozenset(),
)


def spec_of(networks: str = "aaa", mode: str = "cluster", **keys: Any) -> Spec:
    hosts = tuple(
        {
            "name": f"h{i}",
            "private": f"10.0.{i // 250}.{i % 250}",
            "public": f"203.0.{i // 250}.{i % 250}",
            "network": network,
        }
        for i, network in enumerate(networks, start=1)
    )
    return Spec.model_validate({"mode": mode, "hosts": hosts, **keys})


def wanted(spec: Spec, engine: Engine = REDIS) -> tuple[ProbeWanted, ...]:
    return wanted_probes(spec, place(spec), addresses(spec, None, engine))


def judged(
    spec: Spec,
    outcome: Callable[[ProbeWanted], str] = lambda probe: "refused",
    engine: Engine = REDIS,
    **more: Any,
) -> list[Finding]:
    """Every host as GOOD, but for what ``more`` says of h1; all probes answered by ``outcome``."""
    running = more.pop("running", ())
    placement, plan = place(spec), addresses(spec, None, engine)
    probes = [probe.answered(outcome(probe)) for probe in wanted_probes(spec, placement, plan)]  # type: ignore[arg-type]
    facts: dict[str, HostFacts | Unreachable] = {host.name: GOOD for host in spec.hosts}
    facts["h1"] = replace(GOOD, **more)
    return preflight(spec, placement, plan, probes, facts, running=running)


def rules(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f.rule.removeprefix("preflight-"), f.severity, f.subject) for f in found]


def test_nothing_is_said_where_all_is_well() -> None:
    assert judged(spec_of("aab", clients="public")) == []
    assert judged(spec_of(), lambda probe: "open") == []


def test_the_whole_matrix_is_wanted() -> None:
    found = wanted(spec_of())
    assert len(found) == 3 * 2 * 2 * 2  # three hosts from two others, two nodes each, server and bus port
    assert {probe.address for probe in found} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert ProbeWanted("h2", "h1", "10.0.0.1", 16380, "bus") in found


def test_clients_outside_are_tried_from_here() -> None:
    outside = wanted(spec_of("aab", "sentinel", clients="public"))
    assert ProbeWanted(HERE, "h3", "203.0.0.3", 26379, "client") in outside
    assert ProbeWanted("h1", "h3", "203.0.0.3", 26379, "sentinel") in outside
    split = wanted(spec_of(clients="public"), VALKEY)
    assert {probe.address for probe in split if probe.source == HERE} == {
        "203.0.0.1",
        "203.0.0.2",
        "203.0.0.3",
    }
    assert ProbeWanted("h1", "h2", "10.0.0.2", 16379, "bus") in split
    assert not any(probe.purpose == "bus" for probe in split if probe.source == HERE)


def test_a_host_tries_itself_only_through_a_nat() -> None:
    assert any(probe.source == probe.target for probe in wanted(spec_of("aab")))
    assert not any(probe.source == probe.target for probe in wanted(spec_of("aaa")))
    assert not any(probe.source == probe.target for probe in wanted(spec_of("aaabbb"))), (
        "one node on each host"
    )


def test_this_machine_needs_no_probes() -> None:
    assert wanted(Spec.model_validate({"mode": "cluster", "hosts": ("local",)})) == ()


@settings(max_examples=15)
@given(st.integers(31, 120))
def test_a_large_fleet_is_tried_in_part(count: int) -> None:
    spec = spec_of("a" * (count - 1) + "b", shards=count, replicas=0)
    found = wanted(spec)
    assert len(found) < 2 * count * 12
    assert {probe.target for probe in found} == {host.name for host in spec.hosts}
    across = {probe.target for probe in found if probe.source == f"h{count}"}
    assert across == {host.name for host in spec.hosts[:-1]}, "the other network tries everybody"


def test_a_private_address_that_leads_nowhere() -> None:
    found = judged(spec_of(), lambda probe: "timeout" if "h3" in (probe.source, probe.target) else "refused")
    assert [r for r in rules(found) if r[2] == "h3"] == [("private-route", "error", "h3")]
    (finding,) = [f for f in found if f.subject == "h3"]
    assert finding.evidence == "h1, h2 cannot reach 10.0.0.3, ports 6379, 6380, 16379, 16380: timeout"
    assert "network:" in finding.fix
    assert "public:" in finding.fix


def test_one_closed_private_port_is_no_routing_problem() -> None:
    found = judged(
        spec_of(), lambda probe: "timeout" if (probe.target, probe.port) == ("h3", 16379) else "refused"
    )
    assert rules(found) == [("port-closed", "error", "h3:16379")]
    assert found[0].fix == (
        "add to the security group of h3: inbound, TCP, port 16379, source 10.0.0.1/32, 10.0.0.2/32"
    )


def test_a_closed_bus_port_names_the_missing_rule() -> None:
    spec = spec_of("aab", clients="public")
    found = judged(
        spec, lambda probe: "timeout" if (probe.target, probe.purpose) == ("h3", "bus") else "refused"
    )
    assert rules(found) == [("port-closed", "error", "h3:16379"), ("port-closed", "error", "h3:16380")]
    assert "inbound, TCP, port 16379, source 203.0.0.1/32, 203.0.0.2/32" in found[0].fix
    assert "bus port" in found[0].why


def test_a_port_closed_to_clients() -> None:
    def outcome(probe: ProbeWanted) -> str:
        return "unreachable" if probe.purpose == "client" and probe.target == "h2" else "open"

    spec = spec_of("a", "standalone", clients="public")
    assert judged(spec, outcome) == []
    pair = spec_of("aa", "standalone", replicas=1, clients="public")
    found = judged(pair, outcome)
    assert rules(found) == [("client-closed", "error", "h2:6379")]
    assert "port 6379, source 0.0.0.0/0" in found[0].fix
    limited = spec_of("aa", "standalone", replicas=1, clients="public", allow_from=("198.51.100.200",))
    found = judged(limited, outcome)
    assert rules(found) == [("client-closed", "warning", "h2:6379")]
    assert "source 198.51.100.200" in found[0].fix


def test_the_reason_of_a_failed_probe_is_shown() -> None:
    spec = spec_of()
    plan = addresses(spec, None, REDIS)
    probe = Probe("h1", "h2", "10.0.0.2", 6379, "server", "unreachable", "No route to host")
    (finding,) = preflight(spec, place(spec), plan, [probe], {})
    assert "unreachable (No route to host)" in finding.evidence


@pytest.mark.parametrize(
    ("listener", "rule", "subject"),
    [
        (Listener("0.0.0.0", 6379, "nginx", 812), "port-taken", "h1:6379"),
        (Listener("*", 6380, "redis-server", 9), "other-redis", "h1:6380"),
        (Listener("127.0.0.1", 16379, "valkey-server", 9), "other-redis", "h1:16379"),
        (Listener("::", 6379), "port-taken", "h1:6379"),
        (Listener("10.0.0.1", 6379, "java", 1), "port-taken", "h1:6379"),
    ],
)
def test_a_port_that_is_taken(listener: Listener, rule: str, subject: str) -> None:
    found = judged(spec_of(), listeners=(listener,))
    assert rules(found) == [(rule, "error", subject)]
    assert not listener.process or f"{listener.process}, pid {listener.pid}" in found[0].evidence


def test_a_port_that_is_rightly_taken() -> None:
    ours = (Listener("10.0.0.1", 6379, "redis-server", 1), Listener("10.0.0.1", 16379, "redis-server", 1))
    assert judged(spec_of(), listeners=ours, running=("h1:6379",)) == []
    assert len(judged(spec_of(), listeners=ours, running=("h2:6379",))) == 2
    assert judged(spec_of(), listeners=(Listener("172.17.0.1", 6379, "redis-server", 1),)) == []
    assert judged(spec_of(mode="sentinel"), listeners=(Listener("*", 16379, "nginx", 1),)) == []


@pytest.mark.parametrize(
    ("mode", "port", "reserved", "words"),
    [
        ("cluster", 6379, "", ()),
        ("cluster", 23500, "", ("port 33500, the Cluster bus of h1:23500, is", "ports=33500,")),
        ("cluster", 23500, "1,33500-33510", ()),
        ("cluster", 23500, "33501-33510", ("ports=33501-33510,33500,",)),
        ("cluster", 40000, "", ("port 40000 is", "so are 3 more", "ports=40000,40001,50000,50001,")),
        ("sentinel", 23500, "", ()),
        ("sentinel", 40000, "", ("port 40000 is",)),
    ],
)
def test_ports_of_outgoing_connections(mode: str, port: int, reserved: str, words: tuple[str, ...]) -> None:
    kernel = {**GOOD.kernel, "net.ipv4.ip_local_port_range": "32768\t60999"}
    kernel |= {"net.ipv4.ip_local_reserved_ports": reserved} if reserved else {}
    found = judged(spec_of(mode=mode, port=port), kernel=kernel)
    assert rules(found)[:1] == ([("outgoing-ports", "warning", "h1")] if words else [])
    for word in words:
        assert word in f"{found[0].evidence} {found[0].fix}"


@pytest.mark.parametrize(
    ("maxmemory", "severity"),
    [("1GiB", None), ("1536MiB", None), ("1537MiB", "warning"), ("2GiB", "warning"), ("2049MiB", "error")],
)
def test_memory(maxmemory: str, severity: str | None) -> None:
    """Two nodes on each host of 4 GiB."""
    found = judged(spec_of(maxmemory=maxmemory, persistence="none"))
    expected = [("memory", severity, f"h{i}") for i in (1, 2, 3)] if severity else []
    assert rules(found) == expected
    assert all("maxmemory: 1536MiB or less" in f.fix for f in found)


@pytest.mark.parametrize(
    ("persistence", "free", "running", "severity"),
    [
        ("rdb", 4.3, (), None),
        ("rdb", 4.2, (), "warning"),
        ("rdb", 2.2, (), "error"),
        ("rdb", 2.3, ("h1:6379", "h1:6380"), None),
        ("rdb", 0.2, ("h1:6379", "h1:6380"), "error"),
        ("aof", 6.2, (), "warning"),
        ("aof", 6.3, (), None),
        ("none", 0.3, (), None),
        ("none", 0.2, (), "error"),
    ],
)
def test_disk(persistence: str, free: float, running: tuple[str, ...], severity: str | None) -> None:
    spec = spec_of(maxmemory="1GiB", persistence=persistence)
    found = judged(spec, disk_free=int(free * GIB), running=running)
    assert rules(found) == ([("disk", severity, "h1")] if severity else [])


@pytest.mark.parametrize(
    ("clock", "unsure", "told"), [(0.5, 0.0, False), (0.6, 0.0, True), (-0.6, 0.0, True), (0.6, 0.2, False)]
)
def test_clocks(clock: float, unsure: float, told: bool) -> None:
    found = judged(spec_of(), clock=clock, clock_uncertainty=unsure)
    assert [f.rule for f in found] == ["preflight-clock"] * told
    assert all("h1" in f.subject + f.evidence for f in found)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, False),
        ({"root": False}, True),
        ({"systemd": False}, True),
        ({"kernel": {"vm.overcommit_memory": "0", "vm.overcommit_memory:read-only": "yes"}}, True),
        ({"root": False, "kernel": {"transparent_hugepage": "never"}}, False),
        ({"root": False, "kernel": {"net.core.somaxconn": "128"}}, True),
    ],
)
def test_kernel_settings_that_apply_cannot_mend(changes: dict[str, Any], told: bool) -> None:
    found = judged(spec_of(), **{"kernel": {"vm.overcommit_memory": "0"}, **changes})
    assert rules(found) == [("kernel", "warning", "h1")] * told


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"architecture": "aarch64"}, "architecture"),
        ({"libc": "glibc 2.17"}, "libc"),
        ({"libc": "musl"}, "libc"),
        ({"libc": ""}, "libc"),
        ({"libc": "glibc 2.28"}, None),
    ],
)
def test_the_bundled_server_does_not_run_everywhere(changes: dict[str, Any], rule: str | None) -> None:
    bundled = spec_of(engine={"source": "bundled"})
    assert rules(judged(bundled, **changes)) == ([(rule, "error", "h1")] if rule else [])
    assert judged(spec_of(engine={"source": "package"}), **changes) == []


def test_a_host_that_could_not_be_asked_is_left_to_others() -> None:
    spec = spec_of()
    assert (
        preflight(spec, place(spec), addresses(spec, None, REDIS), [], {"h1": Unreachable("timeout")}) == []
    )
