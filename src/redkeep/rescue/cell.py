"""Runs a program over a victim's data where it can reach nothing else: no network, no file of this host but programs.

    python -m redkeep.rescue.cell '{"box": ..., "uid": ..., "also": [...], "argv": [...]}' PARENT

It makes namespaces of its own, a root in memory with this host's programs and libraries (read-only) and ``box`` as
``/work``, becomes ``uid``, and turns into the program. Whatever paths the victim's data name, they lead to nothing. The
program dies with ``PARENT``, the process that started this.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: mount(2), unshare(2), prctl(2)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x40000000
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
#: Flags that a mount in a user namespace of its own has to keep (mount_namespaces(7)).
_KEPT = {os.ST_RDONLY: _RDONLY, os.ST_NOSUID: _NOSUID, os.ST_NODEV: _NODEV, os.ST_NOEXEC: _NOEXEC}
_KEPT |= {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
_DEVICES = ("null", "zero", "random", "urandom")
#: Ends this process before the program began; what it says on standard error is why.
NO_CELL = 125
NOT_RUN = "the program cannot be run by a user without rights"


def command(box: Path, uid: int, argv: Sequence[str], also: Iterable[Path] = ()) -> list[str]:
    """For ``subprocess.Popen``. ``box``: becomes ``/work``; ``also``: directories of programs beside the usual ones."""
    told = {"box": str(box), "uid": uid, "argv": list(argv), "also": [str(p) for p in also]}
    return [sys.executable, "-P", "-m", "redkeep.rescue.cell", json.dumps(told), str(os.getpid())]


def main(told: Mapping[str, Any], parent: int) -> None:
    try:
        _enter(Path(told["box"]), int(told["uid"]), [*_PROGRAMS, *told["also"]])
        _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
        _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user would have cleared it
        if os.getppid() != parent:
            os._exit(NO_CELL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/work", "TZ": "UTC"}
    except OSError as error:
        _end(f"no place of its own for the program: {error.filename or ''} {error.strerror}")
    try:
        os.execve(told["argv"][0], told["argv"], environment)  # noqa: S606  what this process is for
    except OSError as error:
        _end(f"{NOT_RUN}: {error.strerror}")


def _end(why: str) -> None:
    sys.stderr.write(why + "\n")
    sys.stderr.flush()
    os._exit(NO_CELL)


def _enter(box: Path, uid: int, programs: Sequence[str]) -> None:
    root = os.geteuid() == 0
    me, mine = os.geteuid(), os.getegid()
    _call("unshare", _NEWNS | _NEWNET | _NEWIPC | _NEWUTS | (0 if root else _NEWUSER))
    if not root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{me} {me} 1")
        Path("/proc/self/gid_map").write_text(f"{mine} {mine} 1")
    _mount(None, "/", None, _REC | _PRIVATE)
    held = os.open(box, os.O_PATH | os.O_DIRECTORY)
    top = "/tmp"  # any directory: what is mounted there is seen by this process alone
    programs = [p for p in dict.fromkeys(programs) if Path(p).is_dir()]
    places = [(p, os.open(p, os.O_PATH | os.O_DIRECTORY)) for p in programs if not Path(p).is_symlink()]
    links = [(p, str(Path(p).readlink())) for p in programs if Path(p).is_symlink()]
    _mount("tmpfs", top, "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    for path, descriptor in places:
        _bind(f"/proc/self/fd/{descriptor}", top + path, _RDONLY | _NOSUID | _NODEV)
    for path, target in links:
        (Path(top) / path.lstrip("/")).symlink_to(target)
    for name in _DEVICES:
        device = Path(top) / "dev" / name
        device.parent.mkdir(exist_ok=True)
        device.touch()
        _mount(f"/dev/{name}", str(device), None, _BIND)
    (Path(top) / "etc").mkdir()
    cache = Path("/etc/ld.so.cache")
    if cache.is_file():
        (Path(top) / "etc/ld.so.cache").write_bytes(cache.read_bytes())
    _bind(f"/proc/self/fd/{held}", f"{top}/work", _NOSUID | _NODEV | _NOEXEC)
    os.chroot(top)
    os.chdir("/work")
    os.closerange(3, 256)
    if root:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _bind(what: str, where: str, flags: int) -> None:
    Path(where).mkdir(parents=True, exist_ok=True)
    _mount(what, where, None, _BIND | _REC)
    has = os.statvfs(where).f_flag
    kept = sum(flag for bit, flag in _KEPT.items() if has & bit and not flags & flag)
    _mount(None, where, None, _BIND | _REMOUNT | flags | kept)


def _mount(what: str | None, where: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if w is None else os.fsencode(w) for w in (what, where, kind)]
    _call("mount", *words, ctypes.c_ulong(flags), None if options is None else options.encode(), named=where)


def _call(name: str, *arguments: Any, named: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), named or name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
