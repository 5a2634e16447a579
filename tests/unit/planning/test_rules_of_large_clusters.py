"""The doctor's rules on 200 nodes whose views differ: every difference is named, and once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from redkeep.model.checkup import Checkup, Node
from redkeep.model.engine import Engine, Version
from redkeep.model.finding import Finding
from redkeep.model.slots import SlotRange, even_shares
from redkeep.model.topology import Address, ClusterNode, ClusterView, NodeView
from redkeep.planning.rules import judge

PRIMARIES = 100
ENGINE = Engine("valkey", Version(9, 1, 2))


def lines() -> list[ClusterNode]:
    """100 primaries and a replica of each, as a healthy node lists them."""
    found = []
    for i in range(2 * PRIMARIES):
        primary = i < PRIMARIES
        found.append(
            ClusterNode(
                id=f"{i:040x}",
                address=Address(f"192.0.2.{i % 20 + 1}", 7000 + i),
                bus_port=17000 + i,
                flags=frozenset({"master"} if primary else {"slave"}),
                primary_id="" if primary else f"{i - PRIMARIES:040x}",
                config_epoch=i % PRIMARIES + 1,
                link_up=True,
                slots=(even_shares(PRIMARIES)[i],) if primary else (),
            )
        )
    return found


def seen(known: Iterable[ClusterNode], number: int) -> Node:
    """The node of that number, with what it knows."""
    own = f"{number:040x}"
    told = tuple(replace(n, flags=n.flags | {"myself"}) if n.id == own else n for n in known)
    me = next(n for n in told if n.id == own)
    view = NodeView(
        "primary" if me.is_primary else "replica",
        ENGINE,
        f"run-{number}",
        {},
        {"port": "7000"},
        primary=None if me.is_primary else Address("192.0.2.1", 7000),
        cluster=ClusterView(own, True, 16384, 200, told),
    )
    return Node(str(me.address), me.address, me.address.host, view)


def found(nodes: list[Node]) -> dict[str, list[Finding]]:
    rules = ("slots-disputed", "slots-uncovered", "slots-open", "node-", "foreign-node", "epoch-collision")
    by_rule: dict[str, list[Finding]] = {}
    for finding in judge(Checkup("test", datetime(2026, 1, 1, tzinfo=UTC), tuple(nodes))).report.findings:
        if finding.rule.startswith(rules):
            by_rule.setdefault(finding.rule, []).append(finding)
    return by_rule


def test_nothing_where_all_agree() -> None:
    healthy = lines()
    assert found([seen(healthy, i) for i in range(200)]) == {}


@pytest.mark.timeout(60)
def test_every_difference_once() -> None:
    """75 of 200 views differ, in four ways: 15,000 lines, and the findings are five."""
    healthy = lines()
    nodes = [seen(healthy, i) for i in range(200)]
    for i in range(100, 130):  # have not heard that slot 0 went to the second primary
        nodes[i] = seen([_slots(n, 0, 1, i) for n in healthy], i)
    for i in range(130, 150):  # hold two of the nodes for failing
        nodes[i] = seen([_marked(n, {5, 6}) for n in healthy], i)
    for i in range(150, 170):  # have forgotten three
        nodes[i] = seen([n for n in healthy if int(n.id, 16) not in (7, 8, 190)], i)
    for i in range(170, 175):  # try somebody who is not there
        nodes[i] = seen([*healthy, _handshake(i)], i)
    started = time.monotonic()
    by_rule = found(nodes)
    took = time.monotonic() - started
    assert {rule: len(findings) for rule, findings in by_rule.items()} == {
        "slots-disputed": 2,
        "node-failing": 1,
        "node-stale": 2,
    }
    forgotten, disputed = sorted(by_rule["slots-disputed"], key=lambda f: f.subject, reverse=True)
    assert disputed.subject == "slot 0"
    assert "192.0.2.2:7001 owns them for 192.0.2.1:7100," in disputed.evidence
    assert "and 24 more" in disputed.evidence  # 30 of them, six named
    assert forgotten.subject == "slots 1147-1474"
    assert "192.0.2.8:7007, 192.0.2.9:7008 owns them for" in forgotten.evidence
    assert "nobody owns them for 192.0.2.11:7150" in forgotten.evidence
    assert by_rule["node-failing"][0].subject == "192.0.2.6:7005, 192.0.2.7:7006"
    forgotten = next(f for f in by_rule["node-stale"] if "not known to" in f.evidence)
    assert forgotten.subject == "192.0.2.8:7007, 192.0.2.9:7008, 192.0.2.11:7190"
    assert "known to others of 200" in forgotten.evidence
    assert "in handshake for" in next(f for f in by_rule["node-stale"] if f is not forgotten).evidence
    assert took < 10


def _slots(line: ClusterNode, slot: int, owner: int, _: int) -> ClusterNode:
    """Slot 0, the first one of the first primary, belongs to another one."""
    if line.id == f"{0:040x}":
        return replace(line, slots=(SlotRange(slot + 1, line.slots[0].last),))
    return replace(line, slots=(SlotRange(slot, slot), *line.slots)) if line.id == f"{owner:040x}" else line


def _marked(line: ClusterNode, numbers: set[int]) -> ClusterNode:
    return replace(line, flags=line.flags | {"fail?"}) if int(line.id, 16) in numbers else line


def _handshake(number: int) -> ClusterNode:
    return ClusterNode(
        f"{1000 + number:040x}",
        Address("192.0.2.99", 7999),
        17999,
        frozenset({"handshake"}),
        "",
        0,
        False,
        (),
    )
