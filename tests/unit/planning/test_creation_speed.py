"""What makes a creation quick: who is introduced to whom, and the timeouts of its first moments."""

from __future__ import annotations

import pytest

from redkeep.planning.cluster import FULL_MESH, introductions
from redkeep.planning.hostfiles.config import HASTE, haste


@pytest.mark.parametrize("count", [1, 2, 6, FULL_MESH, FULL_MESH + 1, 100, 1000])
def test_introductions_reach_everybody_and_never_oneself(count: int) -> None:
    pairs = introductions(count)
    assert all(a != b and 0 <= a < count and 0 <= b < count for a, b in pairs)
    known, new = {0}, {0}
    while new:
        new = {b for a, b in pairs if a in new} - known
        known |= new
    assert known == set(range(count))


def test_a_large_fleet_is_not_introduced_all_to_all() -> None:
    assert len(introductions(FULL_MESH)) == FULL_MESH * (FULL_MESH - 1)
    assert len(introductions(1000)) <= 1000 * 5


def test_haste_is_what_differs_from_the_settings() -> None:
    assert haste({"cluster-node-timeout": "2000", **{k: v for k, v in HASTE.items() if "node" not in k}}) == {
        "cluster-node-timeout": "500"
    }


@pytest.mark.parametrize(("nodes", "timeout"), [(6, "500"), (100, "3000"), (1000, None)])
def test_the_short_timeout_grows_with_the_fleet_and_never_beyond_the_usual_one(
    nodes: int, timeout: str | None
) -> None:
    assert haste({"cluster-node-timeout": "15000"}, nodes).get("cluster-node-timeout") == timeout
