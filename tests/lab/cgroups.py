"""Control groups of a lab: one directory in each hierarchy that systemd keeps its books in.

They are made below the group that this process is in, so that a limit on the whole test run also holds for
the lab. Only the unified hierarchy is used to freeze and kill; where a machine has systemd's named hierarchy as
well, hosts would collide there without a directory of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .errors import LabUnavailable
from .keeper import remove_leftovers

_PREFIX = "redkeep-lab-"


def lab_groups(instance: str) -> list[Path]:
    """Where the groups of this lab are, the unified hierarchy first."""
    found = dict(_hierarchies())
    if "" not in found:
        raise LabUnavailable("no unified control group hierarchy (cgroup2) is mounted")
    return [found[kind] / f"{_PREFIX}{instance}" for kind in sorted(found)]


def sweep() -> None:
    """Remove the empty groups of labs whose owner is gone and whose keeper was killed before it could."""
    for _, parent in _hierarchies():
        for group in parent.glob(f"{_PREFIX}*-*"):
            owner = group.name.removeprefix(_PREFIX).split("-")[0]
            if owner.isdigit() and not Path("/proc", owner).exists():
                remove_leftovers(Path(os.devnull), [group])


def _hierarchies() -> Iterator[tuple[str, Path]]:
    """("", unified) and ("name=systemd", legacy): the directories that stand for the group we are in."""
    ours = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kind, path = line.split(":", 2)
        ours[kind] = path
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, where = before.split()[3:5]
        system, _, options = after.split()[:3]
        kind = "" if system == "cgroup2" else "name=systemd"
        if kind not in ours or (kind and (system != "cgroup" or kind not in options.split(","))):
            continue
        inside = ours[kind].removeprefix(root if root != "/" else "").lstrip("/")
        yield kind, Path(where) / inside
