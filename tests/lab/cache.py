"""Things that are built once and kept: whole or not there at all, whoever builds at the same time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def cache_directory() -> Path:
    """Where bases and packages are kept between runs."""
    named = os.environ.get("REDKEEP_LAB_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "redkeep-lab"


def built_once(key: str, build: Callable[[Path], None]) -> Path:
    """The directory of this key, built now if nobody did.

    It is built beside its place and renamed, under a lock for the key: a second process waits instead of
    building too, and what a killed one left half done is thrown away.
    """
    cache = cache_directory()
    place, half = cache / key, cache / f"{key}.building"
    if place.is_dir():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            build(half)
            half.rename(place)
    return place
