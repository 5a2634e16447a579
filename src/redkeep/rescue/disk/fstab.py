"""Which of a victim's file systems were mounted where, as its own fstab(5) says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from redkeep.rescue.disk.tree import Tree, read_text

#: The first disk, under the names that hypervisors give it.
_FIRST_DISK = re.compile(r"/dev/(?:[vsxh]+da|nvme0n1p|mmcblk0p)(\d+)$")
#: As Ubuntu's installer writes volumes of LVM.
_BY_VOLUME = "/dev/disk/by-id/dm-uuid-LVM-"


@dataclass(frozen=True)
class Place:
    name: str
    uuid: str
    label: str
    volume: str = ""


def mounts(root: Tree, others: Sequence[Place]) -> dict[bytes, str]:
    """Mount point to the name of the partition there, for those that are here."""
    try:
        lines = read_text(root, b"/etc/fstab").splitlines()
    except OSError:
        return {}
    found: dict[bytes, str] = {}
    for line in lines:
        fields = line.split("#")[0].split()
        if len(fields) < 2 or not fields[1].startswith("/") or fields[1] == "/":
            continue
        for place in others:
            if _names(fields[0], place) and place.name not in found.values():
                path = fields[1].replace("\\040", " ").rstrip("/")
                found[path.encode("utf-8", "surrogateescape")] = place.name
    return found


def _names(spec: str, place: Place) -> bool:
    kind, _, value = spec.partition("=")
    for name, directory in (("UUID", "/dev/disk/by-uuid/"), ("LABEL", "/dev/disk/by-label/")):
        if spec.startswith(directory):
            kind, value = name, spec.removeprefix(directory)
    value = value.strip("\"'")
    if kind == "UUID":
        return bool(value) and value.lower() == place.uuid.lower()
    if kind == "LABEL":
        return bool(value) and value == place.label
    if spec.startswith(_BY_VOLUME):
        return bool(place.volume) and spec.removeprefix(_BY_VOLUME) == place.volume
    if "/" in place.name:
        group, _, volume = place.name.partition("/")
        mapped = "-".join(part.replace("-", "--") for part in (group, volume))
        return spec in (f"/dev/mapper/{mapped}", f"/dev/{place.name}")
    by_number = _FIRST_DISK.match(spec)
    return by_number is not None and by_number[1] == place.name
