"""The process that holds a lab up, run as a program: python keeper.py OWNER_PIDFD DIRECTORY CGROUP...

It makes the namespaces in which everything of a lab lives, and its one child is their first process. Whichever
of the three ends, and however, the lab goes with it: the kernel kills a process namespace with its first
process, and the mounts and network namespaces, known only there, vanish with the last process.

- The owner (pytest) ends, even by kill -9: its pidfd becomes readable here.
- The keeper is killed: the child asked the kernel to be killed with its parent.
- The child is killed: its pidfd becomes readable here.

What the kernel does not remove, empty control groups and one directory, the keeper does. It imports nothing of
the package, to start quickly.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    owner, directory, groups = int(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    os.setsid()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    _unshare(_CLONE_NEWNS)
    _mount("--make-rprivate", "/")
    # A private /run is the place for the names of network namespaces, for systemd-nspawn's own litter, and for
    # the hosts' disks: all of it is memory that goes away with the mount.
    _mount("-t", "tmpfs", "-o", "mode=0755,size=90%", "tmpfs", "/run")
    for place in ("/run/netns", "/run/lock", "/run/hosts"):
        Path(place).mkdir()
    _unshare(_CLONE_NEWPID)
    ready, told = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(ready)
        _be_first_process(told)
    os.close(told)
    if os.read(ready, 1):
        print(first, flush=True)
        _wait_for_any(owner, os.pidfd_open(first), sys.stdin.fileno())
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    remove_leftovers(directory, groups)


def _be_first_process(told: int) -> None:
    """Reap whatever is orphaned in here, for ever."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _mount("-t", "proc", "proc", "/proc")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(told, b"!")
    os.close(told)
    while True:
        signal.pause()


def _wait_for_any(*descriptors: int) -> None:
    """Return when one of them is readable: a process ended, or the owner closed its end of the pipe."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll()


def remove_leftovers(directory: Path, groups: list[Path]) -> None:
    """Remove the lab's directory and its control groups, children first, once their processes are gone."""
    shutil.rmtree(directory, ignore_errors=True)
    remove_groups(groups)


def remove_groups(groups: Sequence[Path]) -> None:
    """Remove control groups, children first, once their processes are gone."""
    deadline = time.monotonic() + 5
    for group in groups:
        for path in (*sorted(group.rglob("*/"), reverse=True), group):
            while path.is_dir() and time.monotonic() < deadline:
                try:
                    path.rmdir()
                except OSError:
                    time.sleep(0.01)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
