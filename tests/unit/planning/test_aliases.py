"""Addresses under which others know a node that was asked elsewhere."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.planning.test_repairs import checkup, node

from redkeep.model.checkup import Checkup
from redkeep.model.topology import Address, ReplicaLine, SentinelEntry, Unreachable, Watched
from redkeep.planning.evidence.aliases import line_of, recognised

PRIVATE = Address("10.0.0.2", 6379)
OTHER = Address("203.0.113.3", 6379)


def shop(*more: Address, sentinel_knows: str = "") -> Checkup:
    """A primary and a replica asked at public addresses; the primary lists the replica by its private one."""
    lines = tuple(ReplicaLine(a, "online", 0, 0) for a in (PRIVATE, *more))
    same = {"master_replid": "f" * 40}
    primary = node("203.0.113.1", replicas=lines, info=same)
    replica = node("203.0.113.2", role="replica", primary=Address("10.0.0.1", 6379), link_up=True, info=same)
    unseen = [replace(node(a.host, a.port), view=Unreachable("no route")) for a in (PRIVATE, *more)]
    nodes = [primary, replica, *unseen, replace(node("10.0.0.1"), view=Unreachable("no route"))]
    if sentinel_knows:
        watched = Watched(PRIVATE, sentinel_knows, frozenset({"slave"}), {})
        entry = SentinelEntry("shop", primary.address, frozenset(), 2, 0, (), (), {}, (watched,))
        nodes.append(node("203.0.113.9", 26379, role="sentinel", monitored=(entry,)))
    return checkup(*nodes)


def names(found: Checkup) -> set[str]:
    return {n.name for n in found.nodes}


def test_the_only_line_at_its_port_is_its_own() -> None:
    found = recognised(shop(), ())
    assert names(found) == {"203.0.113.1:6379", "203.0.113.2:6379"}
    assert found.at(PRIVATE) is found.nodes[1]
    assert found.primary_of(found.nodes[1]) is found.nodes[0]


def test_of_two_lines_none_is_taken_without_proof() -> None:
    found = recognised(shop(OTHER), ())
    assert str(PRIVATE) in names(found)
    assert line_of(found, found.nodes[0], found.nodes[1]) is None


def test_a_run_id_is_proof() -> None:
    found = recognised(shop(OTHER, sentinel_knows="run-203.0.113.2-6379"), ())
    assert names(found) == {"203.0.113.1:6379", "203.0.113.2:6379", str(OTHER), "203.0.113.9:26379"}


def test_another_run_id_is_proof_of_the_contrary() -> None:
    found = recognised(shop(sentinel_knows="somebody-else"), ())
    assert str(PRIVATE) in names(found)


def test_what_was_named_is_shown_as_what_it_is() -> None:
    assert str(PRIVATE) in names(recognised(shop(), {PRIVATE}))
