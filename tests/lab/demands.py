"""What the lab demands of the machine, tried before anything is started, so that tests can skip with a reason."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

from .cgroups import lab_groups
from .errors import LabError, LabUnavailable, output_of

_TOOLS = (
    "debootstrap",
    "dpkg-scanpackages",
    "ip",
    "nft",
    "nsenter",
    "ssh",
    "ssh-keygen",
    "sysctl",
    "systemd-nspawn",
    "unshare",
)

_TRIAL = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/low /mnt/up /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/mnt/low,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
ip link add one type veth peer name two
nft 'add table inet trial; add chain inet trial nat { type nat hook prerouting priority dstnat; }'
"""
"""A container is often root and may do none of this."""


@cache
def why_unavailable() -> str | None:
    """Why this machine cannot hold a lab, or nothing if it can."""
    if os.geteuid() != 0:
        return "the lab needs root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"the lab needs {', '.join(missing)}: install what tests/lab/packages.txt lists"
    try:
        groups = lab_groups("trial")
        output_of(["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", _TRIAL])
    except (LabError, LabUnavailable) as reason:
        return f"this machine cannot hold a lab: {reason}"
    if not all(os.access(group.parent, os.W_OK) for group in groups):
        return "the lab needs control groups that it may write to"
    _make_room()
    return None


#: Each host's systemd and its services hold several inotify instances; kernels allow root 128 in all by default.
_INOTIFY, _ENOUGH = Path("/proc/sys/fs/inotify/max_user_instances"), 1024


def _make_room() -> None:
    """Two labs at a time, with the session's own, do not fit into the default: the last host does not come up, and says
    nothing. It is left raised, since others may be using it by the end."""
    with suppress(OSError):
        if int(_INOTIFY.read_text()) < _ENOUGH:
            _INOTIFY.write_text(str(_ENOUGH))
