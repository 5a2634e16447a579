"""A read-only mount by this host's kernel, for those who ask for it on a host that they will throw away.

It lives in a mount namespace of this process, so that it ends with the process however that ends.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redkeep.errors import EvidenceError, RefusedError

_CLONE_NEWNS = 0x20000
_SAFE = "ro,noexec,nodev,nosuid"
#: No replay of a journal, which would write; XFS also refuses a copy of a file system that is mounted here already.
_NO_REPLAY = {"xfs": "norecovery,nouuid", "ext2": "", "ext3": "noload", "ext4": "noload"}


@contextmanager
def mounted(where: Path, kind: str, begin: int, size: int) -> Iterator[Path]:
    """The directory. Raises ``RefusedError`` without root, ``EvidenceError`` where the kernel does not want it."""
    if os.geteuid() != 0:
        raise RefusedError(
            "only root may mount", where=str(where), next="leave out --mount: reading needs none"
        )
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise EvidenceError(
            "no mount namespace: " + os.strerror(ctypes.get_errno()),
            where=str(where),
            next="leave out --mount",
        )
    _run(["mount", "--make-rprivate", "/"], where)
    with tempfile.TemporaryDirectory(prefix="redkeep-rescue-") as directory:
        options = ",".join(filter(None, [_SAFE, _NO_REPLAY[kind], f"loop,offset={begin},sizelimit={size}"]))
        _run(["mount", "-t", kind, "-o", options, str(where), directory], where)
        try:
            yield Path(directory)
        finally:
            _run(["umount", "--lazy", directory], where)


def _run(command: list[str], where: Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no word of why"]
        raise EvidenceError(f"{command[0]}: {said[0]}", where=str(where), next="leave out --mount")
