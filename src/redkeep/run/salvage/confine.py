"""Becomes a server that can do nothing but serve its directory: no root, no network, no more privileges, bounded memory.

It ends with whoever started it. A process of its own, because a multi-threaded one cannot change itself safely:

    python -m redkeep.run.salvage.confine PARENT UID MEMORY SERVER-DESCRIPTOR NAME ARGUMENT...

The server is an open file, and the directory is the one that we are in: the way to both may be closed to that user.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWNET = 0x40000000


def main(parent: int, user: int, memory: int, server: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform.startswith("linux")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    _first_to_be_killed()
    if user:
        if linux and libc.unshare(_CLONE_NEWNET):  # some containers do not let even root
            sys.stderr.write("no network namespace of its own; it listens on nothing but its socket\n")
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if linux:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # last: a change of user would undo it
        if os.getppid() != parent:
            return
    os.execve(server, command, {"LC_ALL": "C", "PATH": "/usr/bin:/bin"})  # noqa: S606


def _first_to_be_killed() -> None:
    """Where memory runs out, the kernel is to take this, and not the host's own services."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write("1000")
    except OSError:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
