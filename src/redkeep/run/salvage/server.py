"""A clean engine for data that nobody trusts: unprivileged, on a Unix socket only, without the victim's configuration.

Its directory is its own, so what lies there is looked at as something that it may have forged: links are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, EvidenceError, NodeUnreachable, ReplyError
from redkeep.model.engine import Capability, Engine
from redkeep.model.events import Emit, Progress
from redkeep.run.engines import bundled
from redkeep.wire import replies
from redkeep.wire.client import Client

if TYPE_CHECKING:
    from redkeep.wire.client import Opener

_SOCKET, _LOG = "engine.sock", "log"
#: Seconds for one answer: SAVE of a large data set is one.
_PATIENCE = 6 * 3600.0
_MIB = 1 << 20
#: Where an engine stopped reading: its own check of the file, which it makes then, says so exactly; the loader itself only
#: to the last two megabytes (rdb.c: rdbReportError, redis-check-rdb.c: rdbCheckError).
_STOPPED = re.compile(r"--- RDB ERROR DETECTED ---\s*\[offset (\d+)\]")


@dataclass(frozen=True)
class Binary:
    """A server program of this machine."""

    path: Path
    engine: Engine


async def binary_at(path: Path | None) -> Binary:
    """The bundled one, or the one that the user names. Raises ``EngineError``."""
    if path is None:
        path, engine = await bundled.on_this_machine()
        return Binary(path, engine)
    path = path.expanduser().absolute()  # not resolved: what it is follows from its name (redis-check-rdb)
    if not path.is_file() or not os.access(path, os.X_OK):
        raise EngineError(
            "no program there that can be run", where=str(path), next="--server PATH of a redis-server"
        )
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(path), "--version"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(20):
            told, _ = await process.communicate()
        return Binary(path, Engine.from_banner(told.decode(errors="replace")))
    except (OSError, TimeoutError) as error:
        raise EngineError(f"it does not run: {error}", where=str(path), next="name another") from None
    except EngineError as error:
        raise EngineError(error.what, where=str(path), next="--server PATH of a redis-server") from None


@dataclass(frozen=True)
class Load:
    """What the engine is to load: ``aof`` or an RDB file. ``relaxed``: although its version is a later one."""

    aof: bool
    databases: int
    relaxed: bool = False
    checksum: bool = True


class ReadingFailed(EvidenceError):
    """The engine gave up on the data. ``offset``: where in its file, as far as it says; ``told``: its last words."""

    def __init__(self, what: str, *, where: str, next: str, offset: int | None, told: str) -> None:
        super().__init__(what, where=where, next=next)
        self.offset, self.told = offset, told


@dataclass
class CleanEngine:
    """A running engine. ``folder`` holds its files."""

    folder: Path
    binary: Binary
    process: asyncio.subprocess.Process
    descriptor: int
    clients: list[Client]
    logged_before: int = 0

    async def client(self) -> Client:
        """A connection of its own; closed with the engine."""
        found = await Client.open(self._opener(), where="the clean engine", timeout=_PATIENCE)
        self.clients.append(found)
        return found

    def _opener(self) -> Opener:
        # by the descriptor: the path may be longer than a socket's address can be
        path = f"/proc/self/fd/{self.descriptor}/{_SOCKET}" if sys.platform.startswith("linux") else ""

        async def open_() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_unix_connection(path or str(self.folder / _SOCKET), limit=_MIB)

        return open_

    @property
    def log(self) -> str:
        """The last of what it said; an engine before it may have written to the same file."""
        try:
            with os.fdopen(os.open(self.folder / _LOG, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                file.seek(max(self.logged_before, file.seek(0, os.SEEK_END) - 20_000))
                return file.read().decode("utf-8", "backslashreplace")
        except OSError:
            return ""

    def died(self) -> ReadingFailed:
        """Why, in its own words. Where it crashed, its report of the crash is in the log."""
        log = self.log
        status = self.process.returncode or 0
        words = last_words(log)
        stopped = _STOPPED.search(log)
        if status < 0:
            what = f"the engine died of {signal.Signals(-status).name}: {words}"
        elif "Out Of Memory" in log:
            what = f"the engine needed more memory than this machine has free: {words}"
        else:
            what = f"the engine refused the data: {words}"
        hint = "another copy or version of the data, or another engine (--server PATH)"
        return ReadingFailed(
            what,
            where=f"{self.binary.engine}, log in {self.folder / _LOG}",
            next=hint,
            offset=int(stopped[1]) if stopped else None,
            told=words,
        )


@contextlib.asynccontextmanager
async def loaded(folder: Path, binary: Binary, load: Load, emit: Emit) -> AsyncIterator[CleanEngine]:
    """The engine with the data in ``folder`` (``dump.rdb`` or ``appendonly.aof``), once everything is loaded.

    Raises ``ReadingFailed`` where it gives up on them, ``EngineError`` where it does not start at all.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        user = _user()
        _hand_over(folder, user)
        logged = (folder / _LOG).lstat().st_size if (folder / _LOG).exists() else 0
        process = await _start(folder, binary, user, _configuration(binary.engine, load))
        engine = CleanEngine(folder, binary, process, descriptor, [], logged)
        try:
            await _until_loaded(engine, emit)
            yield engine
        finally:
            for client in engine.clients:
                client.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            (folder / _SOCKET).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _user() -> int:
    """Whom the engine runs as: nobody, where we are root; else ourselves (0 stands for that)."""
    if os.geteuid() != 0:
        return 0
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def _configuration(engine: Engine, load: Load) -> str:
    lines = [
        "port 0",
        f"unixsocket ./{_SOCKET}",
        "unixsocketperm 700",
        "dir ./",
        "daemonize no",
        'logfile ""',
        'save ""',
        "dbfilename dump.rdb",
        f"appendonly {'yes' if load.aof else 'no'}",
        "appendfilename appendonly.aof",
        "aof-load-truncated yes",
        "auto-aof-rewrite-percentage 0",
        f"databases {load.databases}",
        f"rdbchecksum {'yes' if load.checksum else 'no'}",
        "maxmemory 0",
        "maxclients 32",
    ]
    if engine.supports(Capability.SANITIZE):
        lines.append("sanitize-dump-payload yes")
    if engine.supports(Capability.PROTECTED_CONFIGS):
        lines += ["enable-protected-configs no", "enable-debug-command no", "enable-module-command no"]
    if load.relaxed and engine.supports(Capability.RELAXED_RDB):
        lines.append("rdb-version-check relaxed")
    return "\n".join(lines) + "\n"


def _hand_over(folder: Path, user: int) -> None:
    """The engine's directory is its user's, who cannot leave it: what is above it is ours alone."""
    (folder / _SOCKET).unlink(missing_ok=True)
    if not user:
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, user, user, follow_symlinks=False)


async def _start(folder: Path, binary: Binary, user: int, configuration: str) -> asyncio.subprocess.Process:
    """The configuration goes in as standard input: the path to a file of it may be closed to that user."""
    program = os.open(binary.path, os.O_RDONLY)
    try:
        log = os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "redkeep.run.salvage.confine"),
                *(str(os.getpid()), str(user), str(_memory()), str(program)),
                *(binary.path.name, "-"),
                cwd=folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(program,),
                start_new_session=True,  # Ctrl-C is for us, who end it
            )
            assert process.stdin is not None
            process.stdin.write(configuration.encode())
            process.stdin.close()
            return process
        finally:
            os.close(log)
    finally:
        os.close(program)


def _memory() -> int:
    """Bytes of address space: what is free now, so that forged data cannot take the host with it."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 1 << 46
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 + 256 * _MIB if match else 1 << 46


async def _until_loaded(engine: CleanEngine, emit: Emit) -> None:
    while True:
        if engine.process.returncode is not None:
            raise engine.died()
        try:
            client = await engine.client()
            info = replies.info(await client.call("INFO"))
        except (NodeUnreachable, ReplyError):  # not there yet, or gone
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await engine.process.wait()
            continue
        try:
            while info.get("loading") == "1" or info.get("async_loading") == "1":
                _tell(info, emit)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await engine.process.wait()
                info = replies.info(await client.call("INFO"))
            return
        except (NodeUnreachable, ReplyError):
            await engine.process.wait()


def _tell(info: dict[str, str], emit: Emit) -> None:
    with contextlib.suppress(ValueError):
        done, total = int(info["loading_loaded_bytes"]), int(info["loading_total_bytes"])
        seconds = int(info.get("loading_eta_seconds", "0"))
        emit(
            Progress(
                "loading",
                round(done / _MIB, 1),
                round(max(done, total) / _MIB, 1),
                f"MiB  {max(0, seconds)} s left",
            )
        )


def last_words(log: str) -> str:
    """The line of a log that says why: the last warning before it gave up; never of the report of a crash."""
    lines = []
    for line in log.splitlines():
        if "=== " in line or "STACK TRACE" in line:
            break
        match = re.match(r"^\d+:\w \d\d \w{3} \d{4} [\d:.]+ [#*] (.*)", line)
        if match or line.startswith(("***", ">>>", "Fatal", "[offset")):
            lines.append(match[1] if match else line)
    quiet = re.compile(
        r"oO0|(Redis|Valkey) version=|Configuration loaded|Server initialized|Ready to accept|WARNING Memory overc|Loading |"
        r"Static Module|successfully loaded|Cleaning slot migration"
    )
    telling = [line for line in lines if not quiet.search(line) and re.search(_TELLING, line)]
    found = telling or [line for line in lines if not quiet.search(line)] or ["it said nothing"]
    return " ".join(found[0].split())[:300]


_TELLING = re.compile(
    r"error|can't|cannot|wrong|unknown|fatal|corrupt|fail|bad file|unexpected|short read|module|version|terminat|exiting|"
    r"abort|denied|memory",
    re.IGNORECASE,
)
