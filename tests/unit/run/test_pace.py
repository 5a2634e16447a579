"""How many keys a batch may have: by what it took, and by what a key costs where batches are late for other reasons."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from redkeep.run.moving.pace import Pace

LIMIT = 0.005


def batches(seconds_of: Callable[[int], float]) -> list[int]:
    """The keys of two hundred batches, when it has got used to what they take."""
    pace = Pace(LIMIT)
    found = []
    for _ in range(300):
        found.append(pace.keys)
        pace.took(pace.keys, seconds_of(pace.keys))
    return found[100:]


def test_as_many_as_fit_into_a_fifth_of_the_limit() -> None:
    found = batches(lambda keys: keys * 25e-6)
    assert 30 <= min(found) <= max(found) <= 40


def test_one_at_a_time_where_each_is_large() -> None:
    assert set(batches(lambda keys: keys * 0.0012)) == {1}


def test_a_late_machine_does_not_make_batches_of_one() -> None:
    """Two milliseconds, whatever a batch has, are more than may be, and would be paid for every single key."""
    assert mean(batches(lambda keys: 0.002 + keys * 25e-6)) > 4
