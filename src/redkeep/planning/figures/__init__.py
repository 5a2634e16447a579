"""Figures for the pages on what the engine does, computed for one deployment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from redkeep.planning.figures.figure import Figure
from redkeep.planning.figures.losing import consistency
from redkeep.planning.figures.placing import hashing, slots
from redkeep.planning.figures.shape import Shape
from redkeep.planning.figures.voting import election, gossip, quorum

_PAGES: Final[Mapping[str, Callable[[Shape], Iterator[Figure]]]] = {
    "slots": slots,
    "consistent-hashing": hashing,
    "gossip": gossip,
    "election": election,
    "quorum": quorum,
}
#: The pages that have figures.
TOPICS: Final = (*_PAGES, "consistency")


def figures(topic: str, shape: Shape, drills: Sequence[Mapping[str, Any]] = ()) -> tuple[Figure, ...]:
    """``KeyError`` for a page without figures."""
    return tuple(consistency(shape, drills) if topic == "consistency" else _PAGES[topic](shape))
