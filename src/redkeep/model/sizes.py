"""Sizes in bytes, as people write them.

Units mean what they mean in ``redis.conf``: ``1k`` is 1000 bytes and ``1kb`` is 1024, and so on for m, g and t;
``KiB``, ``MiB``, ``GiB`` and ``TiB`` are the unmistakable spelling of the latter. Upper and lower case are the same.
"""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1000**_power, _letter + "b": 1024**_power, _letter + "ib": 1024**_power}

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)", re.ASCII)


def parse_size(value: str | int) -> int:
    """Bytes. ``ValueError`` where it is not a size."""
    match = _SIZE.fullmatch(str(value).strip().lower())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"not a size: {value}")
    from decimal import Decimal  # only here: it is slow to load

    return int(Decimal(match[1]) * _UNITS[match[2]])


def format_size(size: int) -> str:
    """The shortest exact spelling in binary units, or plain bytes: ``2GiB``, ``1536MiB``, ``1000000``."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def human(count: int) -> str:
    """Bytes as people read them: ``1.5 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
