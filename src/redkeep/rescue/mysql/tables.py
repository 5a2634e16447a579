"""Dumps the tables of a rescued server, a file a schema, and says of each table whether all of it is there.

What is proven goes to ``data/SCHEMA.sql``. What is not (rows of transactions that never ended may be in it, or changes
missing), and what could be read in part only, goes to ``uncertain/SCHEMA.sql``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from redkeep.model.events import Emit, Progress
from redkeep.rescue.extracting import Pace
from redkeep.rescue.mysql.redolog import Touched
from redkeep.rescue.mysql.server import NotRead, NotStarted, Server
from redkeep.rescue.mysql.sqltext import batch, contents_query, file_name, quoted, shown, text

SYSTEM = {"mysql", "information_schema", "performance_schema", "sys"}
State = Literal["exact", "uncertain", "incomplete", "lost"]
_CHECKED = {"MYISAM", "ARIA", "CSV", "ARCHIVE"}
#: A table's dump is not larger than this many times its file: what goes on then is a circle of pages.
_MOST_TIMES, _MOST_MORE = 60, 256 << 20
_OPEN = "client is using or hasn't closed the table properly"
_HEAD = (
    "/*!40101 SET NAMES utf8mb4 */;\n"
    "CREATE DATABASE IF NOT EXISTS {schema} /*!40100 DEFAULT CHARACTER SET {charset} COLLATE {collation} */;\n"
    "USE {schema};\n"
)


@dataclass
class Table:
    """``sums``: rows and what they hold, as ``verify.sql`` asks for them; None where nothing is to be compared."""

    schema: str
    name: str
    engine: str
    state: State = "lost"
    why: str = ""
    rows: int | None = None
    checksum: int | None = None
    sums: tuple[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": shown(self.name),
            "engine": self.engine,
            "state": self.state,
            "why": self.why,
            "rows": self.rows,
            "checksum_table": self.checksum,
            "contents": self.sums and self.sums[1].rpartition("\t")[2],
        }


@dataclass
class Schema:
    name: str
    charset: str = "utf8mb4"
    collation: str = "utf8mb4_general_ci"
    tables: list[Table] = field(default_factory=list)
    code: dict[str, int] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return file_name(self.name)


@dataclass
class Dumping:
    """``sizes``: bytes of the files of a table, by schema and table. ``touched``: see ``redolog``. ``ended``: cleanly."""

    server: Server
    out: Path
    sizes: dict[tuple[str, str], int]
    spaces: dict[tuple[str, str], list[int]]
    touched: Touched | None
    not_proven: str
    ended: bool
    emit: Emit
    #: tables of whose files a part could not be read; None among them: of what they all need
    unread: frozenset[tuple[str, str] | None] = frozenset()
    dead: str = ""

    def schemas(self) -> list[Schema]:
        """All but the server's own. Raises ``NotRead``."""
        what = "schema_name n, default_character_set_name c, default_collation_name l"
        query = f"SELECT {what} FROM information_schema.schemata"  # noqa: S608  no words of others
        found = [Schema(text(r["n"]), text(r["c"]), text(r["l"])) for r in self.ask(query)]
        return sorted((s for s in found if s.name.lower() not in SYSTEM), key=lambda s: s.name)

    def tables(self, schema: Schema) -> None:
        query = "SHOW FULL TABLES FROM " + quoted(schema.name)
        for row in self.ask(query.replace("%", "%%")):
            name, kind = (text(v) for v in row.values())
            if kind != "VIEW":
                schema.tables.append(Table(schema.name, name, ""))
        engines = "SELECT table_name n, engine e FROM information_schema.tables WHERE table_schema = %s"
        try:
            known = {text(r["n"]): text(r["e"]) for r in self.ask(engines, schema.name)}
        except NotRead:
            known = {}
        for table in schema.tables:
            table.engine = known.get(table.name, "")

    def dump(self, schema: Schema, number: int, total: int) -> None:
        """``number`` tables of ``total`` came before."""
        for table in schema.tables:
            self.emit(Progress(f"dumping {shown(schema.name)}.{shown(table.name)}", number, total, "tables"))
            number += 1
            if self.dead:
                table.why = self.dead
                continue
            try:
                self._judge(table)
                if table.state == "exact" and self.unread & {(table.schema, table.name), None}:
                    table.state, table.why = (
                        "uncertain",
                        "part of its files cannot be read; the rest reads as whole",
                    )
                self._sum(table)
                self._write(schema, table)
            except NotRead as error:
                table.state, table.why = "lost", error.why

    def _judge(self, table: Table) -> None:
        """What can be said before it is read to its end."""
        table.state, table.why = "exact", ""
        if table.engine.upper() in _CHECKED:
            self._check(table)
        elif self.server.level >= 3:
            why = self._unproven(table)
            if why:
                table.state, table.why = "uncertain", why
        elif self.server.level:
            self._check(table)

    def _check(self, table: Table) -> None:
        """A damaged table is repaired on the copy, and then not called exact any more."""
        name = quoted(table.schema, table.name).replace("%", "%%")
        said = _complaints(self.ask(f"CHECK TABLE {name}"))
        if self.ended:
            said = [s for s in said if _OPEN not in s]
        if all(_OPEN in s for s in said):
            if said:
                table.state = "uncertain"
                table.why = (
                    "it was open when the server ended; it reads as whole, and last writes may be missing"
                )
            return
        table.state, table.why = "uncertain", f"damaged, and repaired on the copy: {'; '.join(said)[:300]}"
        said = _complaints(self.ask(f"REPAIR TABLE {name}"))
        if said:
            table.why = f"damaged: {'; '.join(said)[:300]}"

    def _unproven(self, table: Table) -> str:
        """Why an InnoDB table, whose redo log was not applied, may differ from what it was; empty where it is proven."""
        if self.touched is None:
            return self.not_proven
        spaces = self.spaces.get((table.schema, table.name), [])
        if not spaces or 0 in spaces:
            return "it has no file of its own, so nothing is known of it"
        if self.touched.spaces.intersection(spaces):
            return "written after the last checkpoint: changes are missing or were never committed"
        try:
            numbers = ",".join(map(str, spaces))
            query = "SELECT table_id i FROM information_schema.innodb_sys_tables WHERE space IN "
            rows = self.ask(f"{query}({numbers})")
        except NotRead as error:
            return f"its number is not known: {error.why}"
        if len(rows) < len(spaces):
            return "its number is not known"
        if self.touched.tables & {int(text(r["i"])) for r in rows}:
            return "a transaction that never ended had written to it"
        return ""

    def _write(self, schema: Schema, table: Table) -> None:
        folder = "data" if table.state == "exact" else "uncertain"
        size = self.sizes.get((table.schema, table.name), 1 << 40)
        options = ["--order-by-primary"] if table.engine == "InnoDB" else []
        with _opened(self.out / folder / f"{schema.file}.sql", schema) as out:
            begin = out.seek(0, os.SEEK_END)
            pace = Pace(f"dumping {shown(table.schema)}.{shown(table.name)}", size, self.emit)

            def write(data: bytes) -> None:
                out.write(data)
                pace.add(len(data))

            try:
                most = size * _MOST_TIMES + _MOST_MORE
                self.server.dump(table.schema, table.name, options, write, most)
                return
            except NotRead as error:
                table.rows = table.sums = table.checksum = None
                table.why = "; ".join(dict.fromkeys(filter(None, (table.why, error.why))))
                gone = error.gone
            table.state = "incomplete" if _mended(out, begin) else "lost"
            if folder == "data":
                if table.state == "incomplete":
                    with _opened(self.out / "uncertain" / f"{schema.file}.sql", schema) as other:
                        other.seek(0, os.SEEK_END)
                        _move(out, begin, other)
                out.truncate(begin)
            elif table.state == "lost":
                out.truncate(begin)
        if gone:
            self._restart()

    def _sum(self, table: Table) -> None:
        """Rows and checksums. An exact table where that fails is none, and goes to the others."""
        name = quoted(table.schema, table.name).replace("%", "%%")
        try:
            (row,) = self.ask(f"CHECKSUM TABLE {name}")
            table.checksum = None if row["Checksum"] is None else int(row["Checksum"])
            question = contents_query(table.schema, table.name, self._columns(table))
            (row,) = self.ask(question.replace("%", "%%"))
            values = list(row.values())
            answer = [shown(f"{table.schema}.{table.name}"), text(values[1]), text(values[2])]
            table.rows, table.sums = int(answer[1]), (question, "\t".join(map(batch, answer)))
        except (NotRead, ValueError) as error:
            why = getattr(error, "why", "the answer to a checksum was not understood")
            table.state, table.why = "uncertain", f"{table.why}; {why}" if table.why else why

    def _columns(self, table: Table) -> list[tuple[str, str]]:
        query = (
            "SELECT column_name n, data_type t FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
        )
        return [(text(r["n"]), text(r["t"])) for r in self.ask(query, table.schema, table.name)]

    def ask(self, query: str, *arguments: str) -> list[dict[str, Any]]:
        """A server that died of a question is there again for the next one."""
        if self.dead:
            raise NotRead(self.dead)
        try:
            return self.server.rows(query, *arguments)
        except NotRead as error:
            if error.gone:
                self._restart()
            raise

    def _restart(self) -> None:
        try:
            self.server.start(self.server.level)
        except NotStarted as error:
            self.dead = f"the server, once it had died, did not start again: {error.why}"


def _complaints(rows: list[dict[str, Any]]) -> list[str]:
    """What CHECK or REPAIR TABLE said that is not well. An engine that cannot be checked is no complaint."""
    said = [text(r["Msg_text"]) for r in rows if text(r["Msg_type"]).lower() not in ("note", "info")]
    bad = [" ".join(s.split()) for s in said if s not in ("OK", "Table is already up to date")]
    return [b for b in bad if "support" not in b]


def _opened(file: Path, schema: Schema) -> Any:
    """For its owner only; begins with what makes the schema."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    out = os.fdopen(descriptor, "r+b")
    if new:
        head = _HEAD.format(schema=quoted(schema.name), charset=schema.charset, collation=schema.collation)
        out.write(head.encode("utf-8", "surrogateescape"))
    return out


#: A row that is cut off is within so many bytes of the end.
_LAST = 64 << 20


def _mended(file: Any, begin: int) -> bool:
    """Ends the last statement of a dump that broke off, behind its last whole row. False where there is no row."""
    if not _has_rows(file, begin):
        return False
    end = file.seek(0, os.SEEK_END)
    at = max(begin, end - _LAST)
    file.seek(at)
    last = file.read()
    if not last.rstrip().endswith(b";"):
        row = last.rfind(b"),\n")
        if row < 0:
            return False
        file.truncate(at + row)
        file.seek(0, os.SEEK_END)
        file.write(b");\n")
    file.seek(0, os.SEEK_END)
    file.write(b"\nUNLOCK TABLES;\n-- the table before this is not whole\n\n")
    return True


def _has_rows(file: Any, begin: int) -> bool:
    file.seek(begin)
    before = b""
    while data := file.read(1 << 20):
        if b"\n(" in before + data or b" VALUES (" in before + data:
            return True
        before = data[-16:]
    return False


def _move(source: Any, begin: int, into: Any) -> None:
    source.seek(begin)
    while data := source.read(1 << 20):
        into.write(data)
