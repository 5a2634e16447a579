"""Logins of servers without ACL, and rates that a single burst must not fake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from redkeep.model.checkup import Checkup, Details, Node
from redkeep.model.engine import Engine, Version
from redkeep.model.topology import Address, NodeView, ReplicaLine
from redkeep.planning.rules import judge
from redkeep.planning.rules.logins import Login, refusal
from redkeep.planning.rules.pace import write_rate

OLD = Engine("redis", Version(5, 0, 14))
MIB = 1024**2


def server(config: dict[str, str], **more: object) -> Node:
    view = NodeView("primary", OLD, "run", {}, config)
    return Node("a", Address("192.0.2.1", 6379), "192.0.2.1", replace(view, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("required", "password", "words"),
    [
        ("", "", ""),
        ("secret", "secret", ""),
        ("secret", "", "it asks for a password"),
        ("secret", "other", "it takes another password"),
        ("", "other", "an AUTH is an error"),
    ],
)
def test_login_before_acl(required: str, password: str, words: str) -> None:
    said = refusal(server({"requirepass": required}), Login("", password))
    assert words in said
    assert bool(words) == bool(said)


def test_nothing_is_said_of_what_could_not_be_read() -> None:
    assert refusal(server({}), Login("", "secret")) == ""


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (Login("copy", "secret"), ""),
        (Login("copy", "other"), "it takes another password (ACL LIST)"),
        (Login("nobody", "secret"), "it has no user nobody"),
        (Login("off", "secret"), "it has switched off the user off"),
        (Login("", "secret"), "its default user has no password"),
        (Login("", ""), ""),
        (Login("default", "secret"), ""),
    ],
)
def test_login_with_acl(login: Login, words: str) -> None:
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    acl = (
        "user default on nopass ~* &* +@all",
        f"user copy on #{digest} -@all +psync +replconf +ping",
        f"user off off #{digest} +@all",
    )
    said = refusal(server({}, acl=acl), login)
    assert words in said
    assert bool(words) == bool(said)


def replicating(later: int, average: str, *, offset: int = MIB, acked: int = MIB, lag: int = 0) -> Checkup:
    info = {
        "role": "master",
        "repl_backlog_size": str(MIB),
        "instantaneous_output_repl_kbps": average,
    }
    line = ReplicaLine(Address("192.0.2.2", 6379), "online", acked, lag)
    view = NodeView("primary", OLD, "run", info, {}, offset=offset, replicas=(line,))
    details = Details(later={"master_repl_offset": str(later)}, seconds=0.1)
    node = Node("a", Address("192.0.2.1", 6379), "192.0.2.1", view, details)
    return Checkup("test", datetime(2026, 1, 1, tzinfo=UTC), (node,))


def rules(checkup: Checkup) -> set[str]:
    return {f.rule for f in judge(checkup).report.findings}


def test_a_burst_between_two_looks_is_no_rate() -> None:
    burst = replicating(2 * MIB, "30.5")
    node = burst.nodes[0]
    assert node.seen is not None
    assert write_rate(node, node.seen) == 30.5 * 1024
    assert "backlog-too-small" in rules(burst)
    assert "backlog-too-small" not in rules(replicating(2 * MIB, "0.01"))
    assert "backlog-too-small" not in rules(replicating(MIB, "30.5"))


def test_what_is_on_its_way_is_no_lag() -> None:
    assert "replication-lag" not in rules(replicating(MIB, "0", offset=9 * MIB, lag=1))
    assert "replication-lag" in rules(replicating(MIB, "0", offset=9 * MIB, lag=2))
    assert "replication-lag" in rules(replicating(MIB, "0", lag=11))


@pytest.mark.parametrize("nonsense", ["", "x", "²", "9" * 5000, "-1"])
def test_nonsense_of_servers_is_no_number(nonsense: str) -> None:
    info = {
        "master_link_down_since_seconds": nonsense,
        "slave_priority": nonsense,
        "latest_fork_usec": nonsense,
    }
    info |= {"instantaneous_output_repl_kbps": nonsense, "repl_backlog_size": nonsense}
    view = NodeView("replica", OLD, "r", info, {}, primary=Address("192.0.2.1", 6379), link_up=False)
    replica = Node("b", Address("192.0.2.2", 6379), "192.0.2.2", view)
    primary = replicating(2 * MIB, nonsense).nodes[0]
    assert "replication-broken" in rules(
        Checkup("test", datetime(2026, 1, 1, tzinfo=UTC), (primary, replica))
    )
