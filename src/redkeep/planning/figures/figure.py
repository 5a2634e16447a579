"""One computed statement of a page: which sentence, and the numbers in it. Sentences are in ``pages/LANG/figures.txt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """``key`` names the sentence; ``values`` fill it in."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)


def figure(key: str, /, **values: object) -> Figure:
    return Figure(key, values)


def percent(fraction: float) -> str:
    return f"{fraction:.1%}".replace("%", " %")
