"""Blocks of free ports on this machine, for servers that stand side by side."""

from __future__ import annotations

import random
import socket

BUS = 10_000


def free_block(count: int, *, bus: bool = True) -> int:
    """The first of ``count`` free neighbouring ports whose bus ports are free too, below the ephemeral ones."""
    for _ in range(500):
        first = random.randrange(11_000, 22_000)
        wanted = [p + offset for p in range(first, first + count) for offset in ((0, BUS) if bus else (0,))]
        if all(map(_is_free, wanted)):
            return first
    raise AssertionError("no free ports on this machine")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
