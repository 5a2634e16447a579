"""What every host with a POSIX shell does the same way: run, write, read and upload.

A subclass says only how a script gets to the machine (``_execute``). Files of one ``write`` travel as one tar
stream on standard input, so that they cost one round trip and their contents never stand in an argument.
Needed on the host: sh, tar and the coreutils (``mv -T``, ``sync FILE``, ``sha256sum``, ``timeout``).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from redkeep.errors import CommandFailed
from redkeep.hosts.base import DEFAULT_TIMEOUT, RemoteFile, Result
from redkeep.model.values import Value

#: Seconds between the polite end of a command that took too long and the forced one.
GRACE = 2.0
#: Exit status of our own scripts for "there is no such file" (EX_NOINPUT of sysexits.h).
_MISSING = 66

#: ``folder PATH OWNER`` makes what is missing of PATH, mode 0750, for OWNER; ``own OWNER FILE...`` as root only.
_FUNCTIONS = """\
set -eu
trap 'exit 130' HUP INT TERM
umask 027
own() { [ "$1" = root ] || [ "$(id -u)" != 0 ] || { o=$1; shift; chown -- "$o:" "$@"; }; }
folder() { [ -z "$1" ] || [ -d "$1" ] || { folder "${1%/*}" "$2"; mkdir -p -- "$1"; own "$2" "$1"; }; }
"""


class Raw(Value):
    """How a command ended, in bytes. ``expired``: it was ended because its time was over."""

    status: int
    stdout: bytes
    stderr: bytes
    expired: bool = False


def limited(script: str, timeout: float) -> list[str]:
    """The command for a script whose time limit (seconds) holds on the machine itself, for its children too."""
    return ["timeout", "-k", f"{GRACE:g}", f"{timeout:g}", "sh", "-c", script]


def ran_out(status: int, seconds: float, timeout: float) -> bool:
    """Whether ``timeout`` ended it: 124, or 137 where that took force; a script may end so by itself, but earlier."""
    return status in (124, 137) and seconds >= timeout


class ShellHost(ABC):
    """A ``Host`` on top of one primitive."""

    name: str

    @abstractmethod
    async def _execute(self, script: str, *, stdin: bytes | Path, timeout: float, root: bool) -> Raw:
        """Runs ``sh -c script`` with bytes or a local file on standard input, for ``timeout`` seconds at most."""

    async def run(
        self,
        script: str,
        *,
        stdin: bytes = b"",
        timeout: float = DEFAULT_TIMEOUT,
        check: bool = True,
        root: bool = True,
    ) -> Result:
        """See ``Host.run``. Standard output and error are decoded as UTF-8."""
        raw = await self._finished(script, script, stdin=stdin, timeout=timeout, check=check, root=root)
        return Result(raw.status, raw.stdout.decode(errors="replace"), raw.stderr.decode(errors="replace"))

    async def write(self, files: Sequence[RemoteFile], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        """See ``Host.write``. New folders are 0750 and belong to the owner of the file that needed them.

        Owners are set only where we are root. A file is never readable by more than its mode says, not even
        for a moment; killed in between, every file is either the old or the new one.
        """
        if not files:
            return
        script, archive = _unpack(files)
        title = f"writing {files[0].path}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        await self._finished(script, title, stdin=archive, timeout=timeout, check=True, root=True)

    async def read(self, path: str, *, timeout: float = DEFAULT_TIMEOUT) -> bytes | None:
        """See ``Host.read``. A folder, or a file that may not be read, is ``CommandFailed``."""
        quoted = shlex.quote(path)
        script = f"[ -e {quoted} ] || exit {_MISSING}; exec cat -- {quoted}"
        title = f"reading {path}"
        raw = await self._finished(script, title, stdin=b"", timeout=timeout, check=False, root=True)
        if raw.status not in (0, _MISSING):
            raise self._failure(title, raw, timeout)
        return raw.stdout if raw.status == 0 else None

    async def upload(self, source: str, path: str, *, mode: int = 0o755, timeout: float = 600.0) -> None:
        """See ``Host.upload``. The copy's SHA-256 is verified on the host before it takes the file's place."""
        digest = await asyncio.to_thread(_sha256, Path(source))
        folder = shlex.quote(str(Path(path).parent))
        part = shlex.quote(f"{Path(path).parent}/.redkeep-{os.urandom(4).hex()}")
        script = (
            f"{_FUNCTIONS}folder {folder} root\n"
            f"trap {shlex.quote(f'rm -f -- {part}')} EXIT\n"
            f"(umask 077; cat > {part})\n"
            f"set -- $(sha256sum < {part})\n"
            f'[ "$1" = {digest} ] || {{ echo "the copy differs from the original (SHA-256)" >&2; exit 1; }}\n'
            f"chmod {mode:o} {part}\nsync {part}\nmv -fT -- {part} {shlex.quote(path)}\n"
        )
        title = f"copying {Path(source).name} to {path}"
        await self._finished(script, title, stdin=Path(source), timeout=timeout, check=True, root=True)

    async def _finished(
        self, script: str, title: str, *, stdin: bytes | Path, timeout: float, check: bool, root: bool
    ) -> Raw:
        raw = await self._execute(script, stdin=stdin, timeout=timeout, root=root)
        if raw.expired or (check and raw.status != 0):
            raise self._failure(title, raw, timeout)
        return raw

    def _failure(self, title: str, raw: Raw, timeout: float) -> CommandFailed:
        first = next((line.strip() for line in title.splitlines() if line.strip()), "command")
        subject = first if len(first) <= 100 else first[:97] + "..."
        output = raw.stderr.decode(errors="replace").strip()[-4000:]
        if raw.expired:
            what = f"took longer than {timeout:g} s and was ended: {subject}"
            advice = "see what keeps the host busy, then run it again"
        else:
            reason = output.splitlines()[-1] if output else "it printed no error"
            what = f"failed with status {raw.status}: {subject}: {reason}"
            advice = _advice(output)
        return CommandFailed(what, where=f"host {self.name}", next=advice, status=raw.status, output=output)


def _advice(output: str) -> str:
    """What to do about an error text of the system."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return "free space on the host's disk, then run it again: it goes on where it stopped"
    if "Read-only file system" in output:
        return "the host's disk is mounted read-only: look for disk errors with dmesg"
    if "Permission denied" in output or "Operation not permitted" in output:
        return "log in as root, or as a user that may use sudo without a password"
    return "mend what it says, then run it again: it goes on where it stopped"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unpack(files: Sequence[RemoteFile]) -> tuple[str, bytes]:
    """A script, and the tar stream that it reads: all files into a folder of their own beside their targets.

    That folder is 0700 and on the targets' file system, so the move is atomic; one ``mv`` serves a whole folder.
    """
    import tarfile  # only here: looking needs none, and it is slow to load

    stage = f".redkeep-{os.urandom(4).hex()}"
    owned: dict[str, list[str]] = {}
    moved: dict[str, list[str]] = {}
    folder_owner: dict[str, str] = {}
    buffer = io.BytesIO()
    now = int(time.time())
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for file in files:
            folder, slash, base = file.path.rpartition("/")
            if not slash or not file.path.startswith("/") or base in ("", ".", ".."):
                raise ValueError(f"not an absolute path of a file: {file.path!r}")
            member = tarfile.TarInfo(f"{folder}/{stage}/{base}".lstrip("/"))
            member.size, member.mode, member.mtime = len(file.content), file.mode, now
            archive.addfile(member, io.BytesIO(file.content))
            part = shlex.quote(f"{folder}/{stage}/{base}")
            owned.setdefault(file.owner, []).append(part)
            moved.setdefault(folder, []).append(part)
            folder_owner.setdefault(folder, file.owner)
    stages = " ".join(shlex.quote(f"{folder}/{stage}") for folder in moved)
    lines = [
        _FUNCTIONS + f"trap {shlex.quote(f'rm -rf -- {stages}')} EXIT",
        *(f"folder {shlex.quote(folder)} {shlex.quote(owner)}" for folder, owner in folder_owner.items()),
        "umask 077",
        "tar -xpof - -C /",
        *(f"own {shlex.quote(owner)} {' '.join(parts)}" for owner, parts in owned.items()),
        f"sync -- {' '.join(part for parts in moved.values() for part in parts)}",
        *(f"mv -f -- {' '.join(parts)} {shlex.quote(folder + '/')}" for folder, parts in moved.items()),
        f"sync -- {' '.join(shlex.quote(folder + '/') for folder in moved)}",
    ]
    return "\n".join(lines), buffer.getvalue()
