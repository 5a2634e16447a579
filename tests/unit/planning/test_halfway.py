"""Who owns a hash slot in the middle of a move, and where it shall be."""

from __future__ import annotations

from collections.abc import Mapping

from redkeep.model.slots import to_ranges
from redkeep.model.topology import Address, ClusterNode, ClusterView
from redkeep.planning.halfway import Lost, Verdict, verdicts
from redkeep.planning.reshard import unsettled

SLOT = 7


def view(
    me: str,
    owners: Mapping[str, tuple[int, bool]],
    *,
    migrating: str = "",
    importing: str = "",
    replicas: Mapping[str, str] | None = None,
) -> ClusterView:
    """``owners``: node -> config epoch, and whether this view says that it has the slot."""
    nodes = [
        ClusterNode(
            id=f"id-{name}",
            address=Address("10.0.0.1", 7000),
            bus_port=17000,
            flags=frozenset({"myself", "master"} if name == me else {"master"}),
            primary_id="",
            config_epoch=epoch,
            link_up=True,
            slots=to_ranges([SLOT]) if has else (),
            migrating={SLOT: f"id-{migrating}"} if name == me and migrating else {},
            importing={SLOT: f"id-{importing}"} if name == me and importing else {},
        )
        for name, (epoch, has) in owners.items()
    ]
    nodes += [
        ClusterNode(
            f"id-{name}", Address("10.0.0.2", 7000), 17000, frozenset({"slave"}), f"id-{primary}", 0, True, ()
        )
        for name, primary in (replicas or {}).items()
    ]
    return ClusterView(f"id-{me}", True, 16384, 9, tuple(nodes))


def judged(**views: ClusterView) -> Verdict | Lost:
    assert unsettled(views) == (SLOT,)
    return verdicts(views, frozenset({SLOT}))[SLOT]


A_HAS = {"a": (1, True), "b": (2, False)}
B_HAS = {"a": (1, False), "b": (3, True)}


def test_a_move_that_both_sides_know_goes_on() -> None:
    found = judged(a=view("a", A_HAS, migrating="b"), b=view("b", A_HAS, importing="a"))
    assert found == Verdict("a", "b")


def test_marked_at_the_source_alone_it_goes_on() -> None:
    assert judged(a=view("a", A_HAS, migrating="b"), b=view("b", A_HAS)) == Verdict("a", "b")


def test_marked_at_the_target_alone_it_stays() -> None:
    assert judged(a=view("a", A_HAS), b=view("b", A_HAS, importing="a")) == Verdict("a", "a")


def test_of_two_that_claim_it_the_newer_one_has_it() -> None:
    both = {"a": (1, True), "b": (3, True)}
    assert judged(a=view("a", A_HAS, migrating="b"), b=view("b", both)) == Verdict("b", "b")


def test_given_away_to_one_that_does_not_know_it_yet() -> None:
    seen = {"a": view("a", B_HAS), "b": view("b", {"a": (1, True), "b": (2, False)}, importing="a")}
    assert judged(**seen) == Verdict("b", "b")


def test_a_mark_that_points_at_a_node_that_failed_over_leads_to_its_successor() -> None:
    """The target was ``old``, which now follows ``b``."""
    after = {"old": "b"}
    found = judged(a=view("a", A_HAS, migrating="old", replicas=after), b=view("b", A_HAS, replicas=after))
    assert found == Verdict("a", "b")


def test_a_mark_that_points_at_a_node_that_is_silent_is_not_guessed_at() -> None:
    three = {**A_HAS, "c": (4, False)}
    found = judged(a=view("a", three, migrating="c"), b=view("b", three))
    assert isinstance(found, Lost)
    assert "does not answer" in found.reason


def test_a_mark_that_points_at_a_node_that_nobody_knows_any_more_is_withdrawn() -> None:
    assert judged(a=view("a", A_HAS, migrating="gone"), b=view("b", A_HAS)) == Verdict("a", "a")


def test_a_slot_of_nobody_is_said_to_be_one() -> None:
    none = {"a": (1, False), "b": (2, False)}
    found = judged(a=view("a", none), b=view("b", none, importing="a"))
    assert found == Lost("nobody owns it")
