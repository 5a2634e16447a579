"""How rules are run: what the deployment file accepts, what could not be looked at; and views that are hard to build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from redkeep.model.checkup import Checkup, Details, HostView, Node, ProcessFacts, Visit
from redkeep.model.engine import Engine, Version
from redkeep.model.spec import Spec, load
from redkeep.model.topology import (
    Address,
    ClusterNode,
    ClusterView,
    HostFacts,
    NodeView,
    ReplicaLine,
    SentinelEntry,
    Unreachable,
    Watched,
)
from redkeep.planning.rules import RULES, Found, judge
from redkeep.planning.rules.registry import Rule

ENGINE = Engine("redis", Version(7, 0, 15))
OPEN = Visit("open", ping="PONG", anonymous_info=True)


def node(port: int, *, config: dict[str, str] | None = None, host: str = "203.0.113.11", **more: Any) -> Node:
    view = NodeView(
        "primary", ENGINE, f"run-{port}", {}, config if config is not None else {"port": str(port)}
    )
    return Node(f"{host}:{port}", Address(host, port), host, replace(view, **more))


def checkup(*nodes: Node, spec: Spec | None = None, visit: Visit = OPEN) -> Checkup:
    visits = {n.address: replace(visit, run_id=n.seen.run_id if n.seen else "") for n in nodes}
    return Checkup("test", datetime(2026, 1, 1, tzinfo=UTC), nodes, visits, spec=spec)


def spec(more: str = "") -> Spec:
    return load(f"mode: standalone\nhosts: [local]\n{more}")


def rules(found: Checkup) -> dict[str, str]:
    return {f.rule: f.severity for f in judge(found).report.findings}


def test_what_the_file_accepts_is_information_with_the_reason() -> None:
    exposed = node(6379)
    assert rules(checkup(exposed))["public-exposure"] == "warning"
    accepted = judge(checkup(exposed, spec=spec("tls: false\n"))).report.findings
    (finding,) = (f for f in accepted if f.rule == "public-exposure")
    assert finding.severity == "info"
    assert finding.why.startswith("Accepted: the deployment file says tls: false. ")


def test_suppressed_findings_keep_their_reason() -> None:
    suppress = 'suppress: [{rule: no-password, subject: "203.0.113.11:*", because: a test server}]\n'
    judged = judge(checkup(node(6379), node(6380, host="203.0.113.12"), spec=spec(suppress)))
    assert [(f.subject, because) for f, because in judged.suppressed] == [
        ("203.0.113.11:6379", "a test server")
    ]
    assert [f.subject for f in judged.report.findings if f.rule == "no-password"] == ["203.0.113.12:6380"]


def test_a_server_in_the_folder_of_its_own_program_was_started_by_hand() -> None:
    """Many recipes end with ``cd /usr/local/bin && redis-server``: untidy, and no sign of an intrusion."""

    def told(folder: str, file: str, program: str) -> bool:
        one = node(6379, config={"dir": folder, "dbfilename": file}, info={"executable": program})
        return "signs-of-intrusion" in rules(checkup(one))

    program = "/usr/local/bin/redis-server"
    assert not told("/usr/local/bin", "dump.rdb", program)
    assert told("/usr/local/bin", "redis.so", program)
    assert told("/usr/lib", "dump.rdb", program)
    assert told("/var/spool/cron", "dump.rdb", program)
    assert told("/usr/local/bin", "dump.rdb", "")


def test_what_was_refused_is_said_once_for_all_nodes() -> None:
    refused = [
        replace(node(p, config={}), details=Details(refused={"config": "NOPERM no"})) for p in (6379, 6380)
    ]
    told = [f for f in judge(checkup(*refused)).report.findings if f.rule == "not-checked"]
    (config,) = (f for f in told if f.evidence.startswith("CONFIG GET"))
    assert config.evidence == "CONFIG GET: NOPERM no"
    assert config.subject == "203.0.113.11:6379, 203.0.113.11:6380"
    assert "keepalive-off" in config.why


#: What is no number, or none that a server has.
NONSENSE = (
    "\u00b2",
    "9" * 5000,
    "-1",
    "nan",
    "inf",
    "",
    "x",
    "1_0",
    "{0}",
    "%s",
    "[::1",
    "99999999999999999999999",
)
NUMBERS = (
    *(
        "used_memory",
        "repl_backlog_size",
        "uptime_in_seconds",
        "rdb_last_save_time",
        "master_link_down_since_seconds",
    ),
    *("latest_fork_usec", "instantaneous_output_repl_kbps", "maxmemory", "executable"),
)
SETTINGS = (
    "maxmemory",
    "tcp-backlog",
    "maxclients",
    "replica-announce-port",
    "cluster-node-timeout",
    "bind",
    "save",
    "dir",
)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_in_place_of_numbers_is_no_reason_to_fail(nonsense: str) -> None:
    """No rule fails, which would be told as ``not-checked``."""
    replicas = (ReplicaLine(Address("203.0.113.12", 6379), "online", 1, 1),)
    fields: dict[str, Any] = dict.fromkeys(HostFacts.__annotations__, ()) | {
        "system": "debian",
        "system_version": "12",
        "memory": 1 << 30,
        "clock": 0.0,
        "clock_uncertainty": 0.1,
        "kernel": {"net.core.somaxconn": "128"},
    }
    facts = HostFacts(**fields)
    hosts = {"203.0.113.11": HostView(facts)}
    details = Details(later={"master_repl_offset": nonsense}, seconds=1.0)
    process = ProcessFacts(
        pid=1, settings={"maxclients": (nonsense,)}, open_files=1024, restart="always", file_changed=1.0
    )
    for name in (*NUMBERS, ""):
        info = {"repl_backlog_size": "1", "rdb_last_bgsave_status": "err"} | (
            {name: nonsense} if name else {}
        )
        for setting in SETTINGS if not name else ("port",):
            one = node(
                6379,
                config={"save": "60 1", "appendonly": "no", setting: nonsense},
                info=info,
                replicas=replicas,
            )
            found = judge(
                replace(checkup(replace(one, details=details, process=process)), hosts=hosts)
            ).report.findings
            assert not [f for f in found if "makes no sense" in f.evidence], (name, setting, found)


def test_a_rule_that_fails_is_told_and_the_others_look() -> None:
    def broken(_: Checkup) -> Iterator[Found]:
        yield Found("a", "b", "c", "d" * int("what is this?"))

    RULES["broken"] = Rule("broken", "error", (), broken)
    try:
        findings = judge(checkup(node(6379))).report.findings
    finally:
        del RULES["broken"]
    (found,) = (f for f in findings if "broken" in f.evidence)
    assert (found.rule, found.severity) == ("not-checked", "info")
    assert "what is this?" in found.evidence, found
    assert "public-exposure" in {f.rule for f in findings}


def test_a_primary_that_would_refuse_its_own_login() -> None:
    """Its replicas were not asked, and mostly have the same password as it has."""
    replicas = (ReplicaLine(Address("10.0.0.2", 6379), "online", 1, 1),)
    for login, wrong in (("", True), ("another", True), ("secret", False)):
        one = node(6379, config={"requirepass": "secret", "masterauth": login}, replicas=replicas)
        found = [f for f in judge(checkup(one)).report.findings if f.rule == "primary-cannot-rejoin"]
        assert bool(found) is wrong
        assert all("its replicas could not be asked" in f.evidence for f in found)
    alone = node(6379, config={"requirepass": "secret", "masterauth": ""})
    assert "primary-cannot-rejoin" not in rules(checkup(alone))


def test_what_restarts_a_container_is_not_known() -> None:
    def told(supervisor: str) -> list[str]:
        one = replace(node(6379), process=ProcessFacts(pid=1, supervisor=supervisor))
        every = judge(checkup(one)).report.findings
        return [f.why for f in every if f.evidence.startswith("what starts the server again")]

    (why,) = told("container")
    assert all(rule in why for rule in ("restart-rollback", "empty-restart-wipe", "not-supervised"))
    assert not told("redis.service")


def test_a_replica_whose_unit_says_whom_it_follows() -> None:
    """``ExecStart=... --replicaof``: it is the same after every start."""
    view: dict[str, Any] = {
        "role": "replica",
        "primary": Address("203.0.113.12", 6379),
        "info": {"role": "slave"},
    }
    for options, wrong in (
        (frozenset[str](), True),
        (frozenset({"replicaof"}), False),
        (frozenset({"slaveof"}), False),
    ):
        process = ProcessFacts(
            pid=1, config_file="/etc/redis.conf", settings={}, supervisor="redis.service", options=options
        )
        one = replace(node(6379, **view), process=process)
        assert ("replication-not-persisted" in rules(checkup(one))) is wrong


def test_an_unreachable_node_is_named() -> None:
    lost = Node("b", Address("203.0.113.12", 6379), "203.0.113.12", Unreachable("no answer in time"))
    told = [f for f in judge(checkup(node(6379), lost)).report.findings if f.rule == "not-checked"]
    assert any(f.subject == "b" and f.evidence == "no answer in time" for f in told)


def test_sentinels_that_do_not_tell_their_id_are_not_taken_for_others() -> None:
    """Redis 5.0 and 6.0 have no SENTINEL MYID."""

    def sentinel(host: str, other: str, sentinel_id: str) -> Node:
        address = Address(other, 26379)
        watched = Watched(address, "d" * 40, frozenset({"sentinel"}), {})
        primary = Address("10.0.0.9", 6379)
        entry = SentinelEntry("shop", primary, frozenset(), 2, 0, (), (address,), {}, (), (watched,))
        view = NodeView(
            "sentinel", Engine("redis", Version(5, 0, 6)), f"run-{host}", {}, {}, monitored=(entry,)
        )
        return Node(f"{host}:26379", Address(host, 26379), host, view, Details(sentinel_id=sentinel_id))

    for sentinel_id, alarmed in (("", False), ("e" * 40, True)):
        nodes = [sentinel(a, b, sentinel_id) for a, b in (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"))]
        assert ("announce-unroutable" in rules(checkup(*nodes))) is alarmed


def line(node_id: str, address: Address, *flags: str) -> ClusterNode:
    return ClusterNode(node_id, address, address.port + 10_000, frozenset(flags), "", 1, True, ())


def test_nodes_of_a_cluster_that_disagree_are_one_finding_for_each_node() -> None:
    """200 views, half of which have another address for one node."""
    right, wrong = Address("203.0.113.11", 7000), Address("10.0.0.11", 7000)
    nodes = []
    for number in range(200):
        me = Address("203.0.113.11", 7000 + number)
        others = (line("node-0", wrong if number % 2 else right, "master"),) if number else ()
        lines = (line(f"node-{number}", me, "myself", "master"), *others)
        nodes.append(node(7000 + number, cluster=ClusterView(f"node-{number}", True, 16384, 1, lines)))
    found = [f for f in judge(checkup(*nodes)).report.findings if f.rule == "announce-differs"]
    assert len(found) == 1
    assert found[0].subject == "203.0.113.11:7000"
    assert "10.0.0.11:7000 by " in found[0].evidence
    assert "and 94 more" in found[0].evidence
    assert len(found[0].evidence) < 400
