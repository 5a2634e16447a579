"""Whether the keys fit where a change brings them, and below a smaller ``maxmemory``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planning.simulate import Setup, _observed, bare, carry_out_all, desired_of, joined_by

from redkeep.errors import RefusedError
from redkeep.model.slots import to_ranges
from redkeep.model.spec import Spec
from redkeep.model.topology import NodeView, Observed
from redkeep.planning.desired import Desired
from redkeep.planning.reshard import Move
from redkeep.planning.room import check_room, evictions, tight, tight_for

MIB = 1024**2


def changed(before: Mapping[str, Any], after: Mapping[str, Any], data: int) -> tuple[Desired, Observed]:
    """A deployment whose primaries have so many bytes of data each, and a file that says something else by now."""
    common: dict[str, Any] = {"hosts": ("local",), "accept_risk": True}
    first, then = (Setup.of(Spec.model_validate(common | dict(keys))) for keys in (before, after))
    world = joined_by(then, carry_out_all(first, bare(first)))
    desired = desired_of(then, world)
    found = _observed(then, world, desired)
    info = {
        "used_memory": str(data + MIB),
        "used_memory_dataset": str(data),
        "mem_not_counted_for_evict": "0",
    }
    views = {
        name: replace(view, info={**view.info, **info}, keys=1000) if isinstance(view, NodeView) else view
        for name, view in found.nodes.items()
    }
    return desired, replace(found, nodes=views)


CLUSTER = {"mode": "cluster", "replicas": 0, "maxmemory": 64 * MIB}


def test_fewer_shards_have_no_room_for_all_of_it() -> None:
    desired, observed = changed(CLUSTER | {"shards": 4}, CLUSTER | {"shards": 3}, 55 * MIB)
    found = tight(desired, observed)
    assert len(found) == 3
    assert all(t.held == 56 * MIB and t.coming > 18 * MIB for t in found)
    with pytest.raises(RefusedError, match="would not fit") as refused:
        check_room(found, where="redkeep.yaml", instead="more shards")
    assert "maxmemory: 90MiB or more, or more shards" in refused.value.next


def test_with_eviction_it_is_a_question() -> None:
    cache = CLUSTER | {"eviction": "allkeys-lru"}
    desired, observed = changed(cache | {"shards": 4}, cache | {"shards": 3}, 55 * MIB)
    found = tight(desired, observed)
    check_room(found, where="", instead="")
    assert "would be evicted (allkeys-lru)" in evictions(found)


@pytest.mark.parametrize(
    ("before", "after", "data"),
    [
        (CLUSTER | {"shards": 4}, CLUSTER | {"shards": 3}, 40 * MIB),
        (CLUSTER | {"shards": 4}, CLUSTER | {"shards": 3, "maxmemory": 128 * MIB}, 55 * MIB),
        (CLUSTER | {"shards": 4, "maxmemory": None}, CLUSTER | {"shards": 3, "maxmemory": None}, 55 * MIB),
        (CLUSTER | {"shards": 3}, CLUSTER | {"shards": 5}, 63 * MIB),
        (CLUSTER | {"shards": 3}, CLUSTER | {"shards": 3}, 70 * MIB),
    ],
    ids=["small data", "raised at the same time", "no limit", "more shards", "full, and nothing changes"],
)
def test_what_fits(before: Mapping[str, Any], after: Mapping[str, Any], data: int) -> None:
    assert tight(*changed(before, after, data)) == ()


def test_a_smaller_limit_than_what_is_held() -> None:
    alone = {"mode": "standalone", "replicas": 1}
    desired, observed = changed(alone, alone | {"maxmemory": 32 * MIB}, 40 * MIB)
    (found,) = tight(desired, observed)
    assert (found.held, found.coming, found.limit) == (41 * MIB, 0, 32 * MIB)


def test_more_shards_and_smaller_ones_at_once() -> None:
    """The limit comes first, and nothing has moved by then."""
    desired, observed = changed(
        CLUSTER | {"shards": 3}, CLUSTER | {"shards": 6, "maxmemory": 40 * MIB}, 55 * MIB
    )
    assert len(tight(desired, observed)) == 3


def test_moves_that_somebody_asked_for() -> None:
    desired, observed = changed(CLUSTER | {"shards": 3}, CLUSTER | {"shards": 3}, 40 * MIB)
    source, target = (n.name for n in desired.servers[:2])
    move = Move(source, target, to_ranges(range(1000)))
    assert tight_for(desired, observed, [(move, 1000, 5 * MIB)]) == ()
    (found,) = tight_for(desired, observed, [(move, 1000, 30 * MIB)])
    assert found.node == target
