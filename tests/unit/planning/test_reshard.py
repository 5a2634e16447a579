"""Which hash slots go where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redkeep.model.slots import SLOTS, even_shares, in_ranges, parse_ranges, ranges_text, to_ranges
from redkeep.planning.reshard import Move, Shard, emptied, empty, goals, rebalance, take, towards


def evenly(count: int, *, keys: int = 0, spare: int = 0) -> list[Shard]:
    names = "abcdefghijklmnopqrstuvwxyz"
    served = [
        Shard(n, (share,), keys, keys * 100) for n, share in zip(names, even_shares(count), strict=False)
    ]
    return served + [Shard(names[count + i], ()) for i in range(spare)]


def after(found: list[Shard], moves: tuple[Move, ...]) -> list[Shard]:
    """What is where when they are done; each key is a slot's average."""
    own = {s.name: set(in_ranges(s.slots)) for s in found}
    for move in moves:
        slots = set(in_ranges(move.slots))
        assert slots
        assert slots <= own[move.source]
        own[move.source] -= slots
        own[move.target] |= slots
    total = sum(s.keys for s in found)
    return [
        Shard(s.name, to_ranges(own[s.name]), len(own[s.name]) * total // SLOTS, len(own[s.name]) * total)
        for s in found
    ]


def counts(found: list[Shard]) -> list[int]:
    return [s.count for s in found]


def test_a_new_shard_gets_its_share_from_all_others_in_one_range_each() -> None:
    found = evenly(3, spare=1)
    moves = rebalance(found)
    assert counts(after(found, moves)) == [4096] * 4
    assert all(len(m.slots) == 1 and m.target == "d" for m in moves)


@settings(max_examples=10)
@given(st.integers(1, 12), st.integers(0, 4), st.data())
def test_shares_follow_the_weights_and_a_second_time_moves_nothing(
    count: int, spare: int, data: st.DataObject
) -> None:
    found = evenly(count, spare=spare)
    weights = {s.name: data.draw(st.sampled_from([0.5, 1.0, 2.0])) for s in found}
    there = after(found, rebalance(found, weights=weights))
    total = sum(weights.values())
    assert sum(counts(there)) == SLOTS
    for shard in there:
        assert abs(shard.count - SLOTS * weights[shard.name] / total) < 1
    assert rebalance(there, weights=weights) == ()


@settings(max_examples=10)
@given(st.integers(2, 8), st.integers(0, 3))
def test_keys_are_spread_within_the_tolerance(count: int, spare: int) -> None:
    found = evenly(count, keys=100_000, spare=spare)
    there = after(found, rebalance(found, by="keys"))
    assert max(s.keys for s in there) <= 1.03 * count * 100_000 / (count + spare)
    assert rebalance(there, by="keys") == ()


def test_keys_of_single_slots_count_where_they_are_known() -> None:
    sizes = dict.fromkeys(range(5000, 5461), 10.0)
    found = [Shard("a", to_ranges(range(5461)), 4610, 4610, sizes), *evenly(3)[1:]]
    moved = in_ranges(r for m in rebalance(found, by="keys") for r in m.slots)
    assert set(moved) <= set(sizes)
    assert 2 * 461 / 3 - 2 <= len(moved) <= 2 * 461 / 3 + 2


def test_without_any_key_slots_are_what_is_spread() -> None:
    assert rebalance(evenly(2, spare=1), by="memory") == rebalance(evenly(2, spare=1))


@settings(max_examples=10)
@given(st.integers(2, 10), st.integers(0, 9))
def test_an_emptied_shard_has_nothing_left_and_the_others_give_nothing(count: int, which: int) -> None:
    found = evenly(count)
    name = found[which % count].name
    moves = empty(found, name)
    assert {m.source for m in moves} == {name}
    there = after(found, moves)
    rest = [s.count for s in there if s.name != name]
    assert sum(rest) == SLOTS
    assert max(rest) - min(rest) <= 2


def test_weight_nothing_empties_too() -> None:
    for by in ("slots", "keys", "memory"):
        found = evenly(3, keys=90)
        assert counts(after(found, rebalance(found, by=by, weights={"b": 0})))[1] == 0


@settings(max_examples=10)
@given(st.integers(1, 9000))
def test_so_many_slots_come_from_the_sources_in_proportion(count: int) -> None:
    found = evenly(3, spare=1)
    there = after(found, take(found, ["a", "b"], "d", count))
    assert there[3].count == count
    assert there[2].count == found[2].count
    assert abs(there[0].count - there[1].count) <= 2


def test_who_has_nothing_left() -> None:
    found = evenly(3, spare=1)
    assert emptied(found, empty(found, "b")) == ("b",)
    assert emptied(found, rebalance(found)) == ()
    assert emptied(found, take(found, ["a", "c"], "d", found[0].count + found[2].count)) == ("a", "c")
    assert emptied(found, ()) == (), "one that had none before is not emptied"


def test_more_slots_than_there_are() -> None:
    with pytest.raises(ValueError, match="same shard, that of a"):
        take(evenly(3), ["a"], "a", 1)
    with pytest.raises(ValueError, match="only 5461 slots there"):
        take(evenly(3, spare=1), ["a", "d"], "d", 5462)


@settings(max_examples=10)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 100))
def test_what_is_left_of_a_goal_leads_to_the_same_end(count: int, spare: int, share: int) -> None:
    """Whatever part of it was done before, and whoever did it."""
    found = evenly(count, spare=spare)
    moves = rebalance(found)
    goal = {name: in_ranges(ranges) for name, ranges in goals(moves).items()}
    part = tuple(
        Move(m.source, m.target, to_ranges(in_ranges(m.slots)[: m.count * share // 100]))
        for m in moves
        if m.count * share // 100
    )
    half = after(found, part)
    there = after(half, towards(half, goal))
    assert counts(there) == counts(after(found, moves))
    assert towards(there, goal) == ()


@settings(max_examples=10)
@given(st.sets(st.integers(0, SLOTS - 1), min_size=1))
def test_ranges_are_written_and_read(slots: set[int]) -> None:
    assert in_ranges(parse_ranges(ranges_text(slots))) == sorted(slots)


@pytest.mark.parametrize("text", ["x", "5-3", "16384", "0-99999999999", "-1"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  int's own words, or ours
        parse_ranges(text)
