"""A clean MySQL or MariaDB server over a copy of a victim's data: no network, accounts, plugins or settings.

It runs in a cell (``cell.py``) and is watched: one that neither reads, writes nor tells anything for ``patience`` seconds
hangs, and is ended. It always ends with this process.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from redkeep.errors import EngineError
from redkeep.model.events import Emit, Note
from redkeep.rescue.cell import NO_CELL, NOT_RUN, command
from redkeep.rescue.mysql.sqltext import text

_PLACES = "/usr/sbin:/usr/bin:/usr/libexec:/usr/local/sbin:/usr/local/bin:/sbin:/bin"
#: Understood by every version; ``loose-`` is for what some do not know.
_SAFE = [
    "--no-defaults",
    "--datadir=/work/data",
    "--tmpdir=/work/tmp",
    "--socket=/work/s",
    "--pid-file=/work/pid",
    "--plugin-dir=/work/plugins",
    "--secure-file-priv=/work/none",
    "--skip-networking",
    "--skip-grant-tables",
    "--skip-symbolic-links",
    "--skip-slave-start",
    "--skip-external-locking",
    "--local-infile=0",
    "--skip-name-resolve",
    "--lower-case-table-names=0",
    "--sql-mode=",
    "--max-allowed-packet=1G",
    "--net-write-timeout=86400",
    "--wait-timeout=2000000",
    "--character-set-server=utf8",
    "--default-time-zone=+00:00",
    "--loose-event-scheduler=DISABLED",
    "--loose-skip-log-bin",
    "--loose-performance-schema=0",
    "--loose-innodb-buffer-pool-load-at-startup=0",
    "--loose-mysqlx=0",
    "--loose-innodb-buffer-pool-dump-at-shutdown=0",
    "--loose-innodb-use-native-aio=0",
    "--loose-feedback=OFF",
    "--loose-persisted-globals-load=0",
    "--loose-log-error-verbosity=3",
]
_DUMP = [
    "--no-defaults",
    "--user=root",
    "--socket=/work/s",
    "--skip-comments",
    "--skip-triggers",
    "--skip-add-drop-table",
    "--hex-blob",
    "--quick",
    "--skip-lock-tables",
    "--no-tablespaces",
    "--tz-utc",
    "--max-allowed-packet=1G",
    "--default-character-set=utf8mb4",
]
#: The first line of MariaDB's dumps, which MySQL's client takes for a command.
_SANDBOX = b"/*M!999999"
#: No decoders: values come as they are sent.
_AS_SENT: dict[Any, Any] = dict(pymysql.converters.encoders)
#: What comes of an answer that is none.
_NO_ANSWER = (OSError, ValueError, LookupError, TypeError, AssertionError, struct.error)
CHUNK = 1 << 20


class NotStarted(Exception):
    """The server ended, or hung, before it answered. The message is its own last word."""

    def __init__(self, why: str, log: str) -> None:
        super().__init__(why)
        self.why, self.log = why, log


class NotRead(Exception):
    """One thing could not be read. ``gone``: the server went with it."""

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.why, self.gone = why, gone


def programs(mysqld: str) -> tuple[Path, Path]:
    """The server and the dump program, that of its own version where it is. Raises ``EngineError`` where one is missing."""
    install = "apt-get install mariadb-server-core mariadb-client (without a service), or --mysqld PATH"
    if mysqld:
        server = Path(mysqld).resolve()
        if not server.is_file() or not os.access(server, os.X_OK):
            raise EngineError(
                "no program there", where=mysqld, next="--mysqld wants the path of a mysqld or mariadbd"
            )
    else:
        server = _program("mariadbd", "mysqld", missing="no MariaDB server on this machine", next=install)
    beside = server.with_name("mysqldump")
    if mysqld and beside.is_file() and os.access(beside, os.X_OK):
        return server, beside
    install = "apt-get install mariadb-client"
    return server, _program(
        "mariadb-dump", "mysqldump", missing="no mariadb-dump on this machine", next=install
    )


def _program(*names: str, missing: str, next: str) -> Path:
    for name in names:
        if found := shutil.which(name, path=_PLACES):
            return Path(found)
    raise EngineError(missing, where=" or ".join(names), next=next)


class Server:
    """``box`` is its working directory, ``uid`` whose it is; ``options`` are those that the data directory needs."""

    def __init__(
        self, box: Path, uid: int, mysqld: str, options: Sequence[str], patience: float, emit: Emit
    ) -> None:
        self._box, self._uid, self._patience, self._emit = box, uid, patience, emit
        self.program, self._dump_program = programs(mysqld)
        base = self.program.parent.parent
        self._also = [] if str(base) in ("/", "/usr", "/usr/local") else [base]
        self._options = [*_SAFE, *options, *([f"--basedir={base}"] if self._also else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        self._told = 0  # bytes that clients took
        self.dumps_itself = self._dump_program.parent == self.program.parent  # with what came with it
        self.level = 0
        self.hung = False

    def start(self, level: int) -> None:
        """``level``: ``innodb_force_recovery``. Raises ``NotStarted``, and ``EngineError`` where it never could."""
        self.stop()
        self.level, self.hung = level, False
        log = self._box / "error.log"
        for name in ("s", "s.lock", "pid"):
            (self._box / name).unlink(missing_ok=True)
        argv = [str(self.program), *self._options, f"--innodb-force-recovery={level}"]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command(self._box, self._uid, argv, self._also),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with self._watched():
            self._until_it_answers(log)

    def _until_it_answers(self, log: Path) -> None:
        said = time.monotonic()
        while True:
            status = self._alive().poll()
            if status is not None:
                text = _tail(log)
                if status == NO_CELL:
                    hint = "as root: sudo redkeep rescue mysql ..., on a host that allows namespaces"
                    if NOT_RUN in text:
                        hint = "a program for this machine, in a directory open to everybody (chmod -R a+rX)"
                    raise EngineError(_last(text), where=str(self.program), next=hint)
                if re.search(r"\[ERROR\].* unknown (option|variable) ", text):
                    raise EngineError(
                        _last(text), where=str(self.program), next="another server with --mysqld PATH"
                    )
                raise NotStarted(self._why(_reason(text, status)), text)
            try:
                self._connection = self._connect()
            except (pymysql.MySQLError, OSError):
                time.sleep(0.05)
            else:
                return
            if time.monotonic() - said > 5:
                said = time.monotonic()
                self._emit(Note(f"the server starts: {_last(_tail(log), 'it says nothing yet')}"))

    def recovered(self) -> bool:
        """Whether it began with a recovery from its redo log."""
        return "crash recovery" in _tail(self._box / "error.log")

    def _why(self, otherwise: str) -> str:
        return f"it did nothing for {self._patience:.0f} s and was ended" if self.hung else otherwise

    def _connect(self) -> Any:
        """By way of /proc, because the path of a socket may be 107 bytes long (unix(7))."""
        held = os.open(self._box, os.O_PATH | os.O_DIRECTORY)
        try:
            return pymysql.connect(
                unix_socket=f"/proc/self/fd/{held}/s",
                user="root",
                charset="utf8mb4",
                use_unicode=False,
                conv=_AS_SENT,
                autocommit=True,
                connect_timeout=5,
                init_command="SET SESSION time_zone='+00:00', SESSION sql_mode=''",
            )
        finally:
            os.close(held)

    def rows(self, query: str, *arguments: str) -> list[dict[str, Any]]:
        """What a query gives; text as bytes. Raises ``NotRead``."""
        try:
            with self._watched():
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection.cursor(pymysql.cursors.DictCursor) as cursor:
                    words = tuple(a.encode("utf-8", "surrogateescape") for a in arguments)
                    cursor.execute(query.encode("utf-8", "surrogateescape") % tuple(map(_literal, words)))
                    return list(cursor.fetchall())
        except (pymysql.MySQLError, *_NO_ANSWER) as error:
            gone = self._gone()
            raise NotRead(
                self._why("the server died of it" if gone else _message(error)), gone=gone
            ) from None

    def dump(
        self, schema: str, table: str, options: Sequence[str], write: Callable[[bytes], None], most: int
    ) -> None:
        """A table's definition and rows as SQL. Raises ``NotRead``; what came until then was written."""
        words = [
            w.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") for w in (schema, table)
        ]
        argv = [str(self._dump_program), *_DUMP, *options, "--", *words]
        errors = self._box / "dump.log"
        with errors.open("wb") as said, self._watched():
            process = subprocess.Popen(
                command(self._box, self._uid, argv, self._also),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            try:
                over = not self._taken(process, write, most)
            finally:
                process.kill()
                status = process.wait()
        if over:
            raise NotRead("it goes on without an end: many times more rows than its file can hold")
        if status != 0:
            gone = self._gone()
            text = _last(_tail(errors)).removeprefix("mariadb-dump: ")
            raise NotRead(self._why("the server died of it" if gone else text), gone=gone)

    def _taken(self, process: subprocess.Popen[bytes], write: Callable[[bytes], None], most: int) -> bool:
        assert process.stdout is not None
        count, first = 0, b""
        with process.stdout as pipe:
            while data := os.read(pipe.fileno(), CHUNK):
                count += len(data)
                self._told += len(data)
                if count > most:
                    return False
                if first is not None:
                    first += data
                    if b"\n" not in first:
                        continue
                    data, first = _without_sandbox(first), None  # type: ignore[assignment]
                write(data)
        if first:
            write(_without_sandbox(first))
        process.wait()
        return True

    def _gone(self) -> bool:
        """Whether the server is dead; a connection that broke for another reason is made anew."""
        try:
            self._alive().wait(0.5)
        except subprocess.TimeoutExpired:
            if self._connection is not None and not self._connection.open:
                self._connection = None
            return False
        self._connection = None
        return True

    def _alive(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Ends a server that does nothing meanwhile."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(self._alive(), over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, process: subprocess.Popen[bytes], over: threading.Event) -> None:
        before, since = self._signs(process.pid), time.monotonic()
        while not over.wait(min(1.0, self._patience / 4)):
            now = self._signs(process.pid)
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > self._patience:
                self.hung = True
                process.send_signal(signal.SIGKILL)
                return

    def _signs(self, pid: int) -> tuple[Any, ...]:
        """What changes while a server works: its reading and writing, and what clients got. Computing alone is no sign."""
        try:
            counters = Path(f"/proc/{pid}/io").read_bytes()
        except OSError:
            counters = b""
        return counters, self._told

    def end(self) -> None:
        """As an administrator does it, so that another server can go on with the files. Raises ``NotStarted``."""
        process = self._alive()
        self._disconnect()
        with self._watched():
            process.terminate()
            status = process.wait()
        if status != 0:
            log = _tail(self._box / "error.log")
            raise NotStarted(self._why(_reason(log, status)), log)
        self._process = None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection._force_close()
            self._connection = None

    def stop(self) -> None:
        """At once: the copy is not needed any more."""
        self._disconnect()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _literal(value: bytes) -> bytes:
    return b"X'" + value.hex().encode() + b"'" if value else b"''"


def _without_sandbox(data: bytes) -> bytes:
    return data.split(b"\n", 1)[1] if data.startswith(_SANDBOX) and b"\n" in data else data


def _message(error: Exception) -> str:
    if isinstance(error, pymysql.MySQLError) and len(error.args) > 1:
        return " ".join(text(error.args[1]).split())[:300]
    return f"the answer was not understood ({type(error).__name__})"


def _tail(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - 65536))
        return opened.read().decode(errors="replace")


def _last(text: str, nothing: str = "no word of why") -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:300] if lines else nothing


def _reason(log: str, status: int) -> str:
    """The first line of an error log that says what went wrong, without its date."""
    for line in log.splitlines():
        if "[ERROR]" in line:
            return " ".join(line.partition("[ERROR]")[2].split())[:300]
    if status < 0:
        return f"it died of {signal.Signals(-status).name}"
    return _last(log)
