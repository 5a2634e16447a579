"""From a data directory in the evidence to dumps, with what is known of each table. Runs in the cage."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redkeep.errors import EngineError, RedkeepError
from redkeep.model.events import Emit, Note
from redkeep.rescue.disk.source import opened
from redkeep.rescue.disk.tree import text_of
from redkeep.rescue.extracting import refuse_place
from redkeep.rescue.mysql.accounts import write_accounts
from redkeep.rescue.mysql.code import write_code
from redkeep.rescue.mysql.copying import DataCopy, find, require_space
from redkeep.rescue.mysql.output import BEGUN, FORMAT, RESULT, files, finished, held, write, write_json
from redkeep.rescue.mysql.redolog import NotUnderstood, Touched, touched
from redkeep.rescue.mysql.server import NotRead, NotStarted, Server, programs
from redkeep.rescue.mysql.sqltext import decoded, shown, text
from redkeep.rescue.mysql.tables import Dumping, Schema

#: Users that systemd gives to services for a while (systemd.exec(5), DynamicUser): nothing on a disk belongs to them.
_FIRST_UID, _UIDS = 61184, 4000
_OLD_LOG = "after a crash is not supported"
_HINT = (
    "run it again with --mysqld PATH of a MySQL 5.5 or 5.6 (its tar archive needs no installing): that recovers the copy, "
    "and then all of InnoDB is exact"
)
_HIGHEST = 6
#: Servers whose tables this machine's dump program does not ask for rightly, and whose files MariaDB reads.
_OLD = ("5.", "10.0.", "10.1.")
_VERIFY = "mariadb --batch --skip-column-names < verify.sql | diff verify.expected - && echo the same"


def job(
    source: str,
    datadir: str,
    out: str,
    partition: str,
    mount: bool,
    mysqld: str,
    patience: float,
    level: int,
    again: bool,
    emit: Emit,
) -> dict[str, Any]:
    """For the cage. ``level``: the ``innodb_force_recovery`` to begin with."""
    began = time.monotonic()
    programs(mysqld)
    into = Path(out).absolute()
    with opened(Path(source), partition=partition, mount=mount) as evidence:
        refuse_place(evidence, into, "dump")
        found = find(evidence, datadir, emit)
        identity = {
            "format": FORMAT,
            "source": str(evidence.where.resolve()),
            "datadir": text_of(found.path) or "/",
            "files_sha256": _identity(found),
        }
        with held(into):
            try:
                done = finished(into, identity, again)
                if done is not None:
                    return done
                _readable(found, mysqld)
                require_space(found, into, shutil.disk_usage(into).free)
                write_json(into / BEGUN, identity)
                document = _Rescue(into, found, mysqld, patience, emit).run(evidence.tree, level)
            except OSError as error:
                what = f"cannot write: {error.strerror or error}"
                hint = "make room and run it again: it begins anew"
                raise RedkeepError(what, where=str(into), next=hint) from None
            finally:
                shutil.rmtree(into / "work", ignore_errors=True)
            whole = {**identity, **document, "out": str(into), "again": False}
            whole["source"] = str(evidence.where)
            whole["seconds"] = round(time.monotonic() - began, 2)
            whole["files"] = files(into)
            write_json(into / RESULT, {**whole, "identity": identity})
            (into / BEGUN).unlink()
            return whole


def _readable(found: DataCopy, mysqld: str) -> None:
    version = str(found.about["version"])
    major = version.split(".")[0]
    if found.about["flavor"] == "MySQL" and major in ("8", "9") and not mysqld:
        raise EngineError(
            f"a data directory of MySQL {version}, which MariaDB does not read",
            where=text_of(found.path) or "/",
            next="--mysqld PATH with a MySQL server of that version (its tar archive needs no installing)",
        )


class _Rescue:
    def __init__(self, out: Path, found: DataCopy, mysqld: str, patience: float, emit: Emit) -> None:
        self._out, self._found, self._emit = out, found, emit
        self._box = out / "work"
        self._uid = _FIRST_UID + os.getpid() % _UIDS if os.geteuid() == 0 else os.geteuid()
        self._data = self._box / "data"
        self._mysqld, self._patience = mysqld, patience
        self._server = self._new_server(mysqld)
        self.recovered_by: dict[str, str] | None = None
        self._left = [{"what": text_of(s.path), "why": s.why} for s in found.left]

    def run(self, tree: Any, level: int) -> dict[str, Any]:
        for directory in (self._box, self._data, *(self._box / n for n in ("tmp", "plugins", "none"))):
            directory.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(directory, self._uid, self._uid)
        attempts: list[dict[str, Any]] = []
        proof: Touched | None = None
        not_proven = "the server's redo log was not applied"
        try:
            while True:
                self._found.copy(tree, self._data, self._uid, self._emit)
                if level >= 3:
                    proof, not_proven = self._proof()
                self._emit(Note(f"starting {self._server.program.name}, innodb_force_recovery {level}"))
                try:
                    self._server.start(level)
                    self._hand_over(level)
                    break
                except NotStarted as error:
                    attempts.append({"level": level, "why": error.why})
                    self._emit(Note(f"it does not start: {error.why}"))
                    level = _HIGHEST if _OLD_LOG in error.log and level < _HIGHEST else level + 1
                    if level > _HIGHEST:
                        raise self._hopeless(attempts) from None
            return self._dumped(attempts, proof, not_proven)
        finally:
            self._server.stop()

    def _hand_over(self, level: int) -> None:
        """An old server only recovers: this machine's dump program does not understand it, and MariaDB reads what it leaves.

        Raises ``EngineError`` and ``NotStarted``.
        """
        if not self._mysqld or self._server.dumps_itself or level > 1:
            return
        try:
            version = text(self._server.rows("SELECT VERSION() v")[0]["v"])
        except NotRead as error:
            raise NotStarted(error.why, "") from None
        if not version.startswith(_OLD):
            return
        self.recovered_by = {"program": str(self._server.program), "version": version}
        self._emit(
            Note(f"{self._server.program.name} {version} has recovered the copy; MariaDB reads it now")
        )
        try:
            self._server.end()
            self._server = self._new_server("")
            self._server.start(0)
        except NotStarted as error:
            raise EngineError(
                f"MariaDB does not read what {version} recovered: {error.why}",
                where=str(self._server.program),
                next="put the mysqldump of that version beside its mysqld, and the dump is made by it",
            ) from None

    def _new_server(self, mysqld: str) -> Server:
        files = {os.fsdecode(p.name): p.size for p in self._found.pieces if b"/" not in p.name}
        options = options_for(files, _settings(self._found))
        return Server(self._box, self._uid, mysqld, options, self._patience, self._emit)

    def _proof(self) -> tuple[Touched | None, str]:
        try:
            self._emit(Note("reading the redo log"))
            return touched(self._data), ""
        except (NotUnderstood, OSError) as error:
            return None, f"what was written after the last checkpoint is not known: {error}"

    def _hopeless(self, attempts: list[dict[str, Any]]) -> EngineError:
        about = self._found.about
        return EngineError(
            f"the server does not start on the copy, not with any innodb_force_recovery: {attempts[-1]['why']}",
            where=f"{about['path'] or '/'} ({about['flavor']} {about['version']}, {about['state']})",
            next="a server of its own version with --mysqld PATH may; the first attempt said: "
            + attempts[0]["why"],
        )

    def _dumped(
        self, attempts: list[dict[str, Any]], proof: Touched | None, not_proven: str
    ) -> dict[str, Any]:
        server = self._server
        sizes, spaces = self._files_of_tables()
        self._settle()
        ended = self._found.about["state"] == "clean" and not server.level
        unread = frozenset(
            _table_of(p.name) for p in self._found.pieces if p.path in self._found.unread and p.data
        )
        dumping = Dumping(
            server, self._out, sizes, spaces, proof, not_proven, ended, self._emit, unread=unread
        )
        version, schemas = self._asked_first(dumping)
        for schema in schemas:
            try:
                dumping.tables(schema)
            except NotRead as error:
                self._leave(f"schema {shown(schema.name)}", error.why)
        total = sum(len(s.tables) for s in schemas)
        number = 0
        for schema in schemas:
            dumping.dump(schema, number, total)
            number += len(schema.tables)
            write_code(dumping.ask, schema, self._out / "code", self._leave)
        self._unseen(schemas)
        accounts = write_accounts(dumping.ask, self._out / "accounts.sql", self._leave)
        _write_verify(self._out, schemas)
        return self._document(schemas, version, attempts, accounts)

    def _settle(self) -> None:
        """What the files did not say, the server said when it started on them."""
        about = self._found.about
        if about["state"] == "unknown" and self._server.level == 0:
            recovered = self._server.recovered()
            about["state"] = "crashed" if recovered else "clean"
            about["why"] = (
                "the server recovered it from its redo log" if recovered else "nothing was to be recovered"
            )

    def _asked_first(self, dumping: Dumping) -> tuple[str, list[Schema]]:
        """Its version and what there is. Asked twice, since nothing can be done without."""
        for last in (False, True):
            try:
                return text(dumping.ask("SELECT VERSION() v")[0]["v"]), dumping.schemas()
            except NotRead as error:
                if last or dumping.dead:
                    what = f"the server does not say what there is: {error.why}"
                    hint = "begin with another --force-recovery, or another server with --mysqld PATH"
                    raise EngineError(what, where=str(self._server.program), next=hint) from None
        raise AssertionError

    def _leave(self, what: str, why: str) -> None:
        self._left.append({"what": what, "why": why})

    def _files_of_tables(self) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], list[int]]]:
        """Bytes and tablespaces of each table, partitions together."""
        sizes: dict[tuple[str, str], int] = {}
        spaces: dict[tuple[str, str], list[int]] = {}
        for piece in self._found.pieces:
            table = _table_of(piece.name)
            if table is None:
                continue
            end = piece.name.rpartition(b".")[2]
            sizes[table] = sizes.get(table, 0) + piece.size
            if end == b"ibd":
                with (self._data / os.fsdecode(piece.name)).open("rb") as file:
                    head = file.read(38)
                spaces.setdefault(table, []).append(int.from_bytes(head[34:38], "big"))
        return sizes, spaces

    def _unseen(self, schemas: list[Schema]) -> None:
        """Tables whose definition is there and that the server did not name."""
        known = {(t.schema, t.name) for s in schemas for t in s.tables}
        for piece in self._found.pieces:
            schema, _, name = piece.name.partition(b"/")
            if not name.endswith((b".ibd", b".MYD", b".MAD")) or schema in (
                b"mysql",
                b"sys",
                b"performance_schema",
            ):
                continue
            base = name.rpartition(b".")[0].split(b"#P#")[0].split(b"#p#")[0]
            table = (decoded(schema), decoded(base))
            if table not in known and not base.startswith(b"#sql"):
                known.add(table)
                self._leave(text_of(self._found.path + b"/" + piece.name), "the server names no such table")

    def _document(
        self, schemas: list[Schema], version: str, attempts: list[dict[str, Any]], accounts: int
    ) -> dict[str, Any]:
        tables = [t for s in schemas for t in s.tables]
        count = {
            state: sum(t.state == state for t in tables)
            for state in ("exact", "uncertain", "incomplete", "lost")
        }
        about = self._found.about
        for path, lost in self._found.unread.items():
            self._leave(text_of(path), f"{lost:,} bytes of it cannot be read; they are zeros in the copy")
        return {
            "was": {key: about[key] for key in ("flavor", "version", "state", "why", "bytes")},
            "server": {"program": str(self._server.program), "version": version},
            "recovered_by": self.recovered_by,
            "innodb_force_recovery": self._server.level,
            "refused": attempts,
            "hint": _HINT if any(_OLD_LOG in a["why"] for a in attempts) else "",
            "complete": count["exact"] == len(tables) and not self._left,
            "tables": count,
            "schemas": [
                {
                    "name": shown(s.name),
                    "dump": _there(self._out, f"data/{s.file}.sql"),
                    "uncertain_dump": _there(self._out, f"uncertain/{s.file}.sql"),
                    "code": s.code,
                    "tables": [t.as_json() for t in s.tables],
                }
                for s in schemas
            ],
            "accounts": accounts,
            "left_out": self._left,
            "verify": _VERIFY,
        }


def _table_of(name: bytes) -> tuple[str, str] | None:
    """Schema and table that a file belongs to; None for what belongs to all of them."""
    schema, slash, file = name.partition(b"/")
    base = file.rpartition(b".")[0]
    return (decoded(schema), decoded(base.split(b"#P#")[0].split(b"#p#")[0])) if slash and base else None


def _settings(found: DataCopy) -> dict[str, str]:
    told = [s for s in found.about["settings"] if "value" in s]  # a secret's is not told
    return {s["key"].rpartition(".")[2].replace("-", "_"): s["value"] for s in told}


def _there(out: Path, name: str) -> str | None:
    return name if (out / name).exists() else None


def _write_verify(out: Path, schemas: list[Schema]) -> None:
    """Questions to a server that the dumps were loaded into, and what it must answer."""
    sums = [t.sums for s in schemas for t in s.tables if t.state == "exact" and t.sums]
    asked = [
        "SET NAMES utf8mb4",
        "SET SESSION time_zone = '+00:00', SESSION sql_mode = ''",
        *(q for q, _ in sums),
    ]
    write(out / "verify.sql", "".join(f"{q};\n" for q in asked))
    write(out / "verify.expected", "".join(f"{answer}\n" for _, answer in sums))


def _identity(found: DataCopy) -> str:
    whole = hashlib.sha256()
    for piece in found.pieces:
        whole.update(b"%d %d %b\0" % (piece.size, piece.mtime, piece.name))
    return whole.hexdigest()


def options_for(files: Mapping[str, int], settings: Mapping[str, str]) -> list[str]:
    """What a server must be told of this data directory: the files of its system tablespace and of an old redo log."""
    named = [part.split(":")[0].strip() for part in settings.get("innodb_data_file_path", "").split(";")]
    system = [n for n in named if n in files] or sorted(
        (n for n in files if n.startswith("ibdata") and n[6:].isdigit()), key=lambda n: int(n[6:])
    )
    found = []
    if system:
        parts = [f"{name}:{files[name] >> 20}M" for name in system]
        found.append("--innodb-data-file-path=" + ";".join(parts) + ":autoextend")
    logs = [n for n in files if n.startswith("ib_logfile") and n[10:].isdigit()]
    if logs:
        found.append(f"--loose-innodb-log-file-size={files[logs[0]]}")
        found.append(f"--loose-innodb-log-files-in-group={len(logs)}")
    undo = [n for n in files if n.startswith("undo") and n[4:].isdigit()]
    if undo:
        found.append(f"--loose-innodb-undo-tablespaces={len(undo)}")
    if page_size := settings.get("innodb_page_size", ""):
        found.append(f"--innodb-page-size={page_size}" if page_size.isalnum() else "--innodb-page-size=16k")
    return found
