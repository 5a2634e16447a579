"""What a database would run by itself (views, triggers, routines, events), each kind in a file of its own.

A back door comes back by these, so nothing here is loaded by default. Routines and events are read from the server's own
tables as they are: a newer server refuses to show those of an older one before it has rewritten them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redkeep.rescue.mysql.server import NotRead
from redkeep.rescue.mysql.sqltext import literal, quoted, shown, text
from redkeep.rescue.mysql.tables import Schema

#: Asks a server, as ``Server.rows`` does.
Ask = Callable[..., list[dict[str, Any]]]
KINDS = ("views", "triggers", "routines", "events")
_WARNING = (
    "-- From a server that may have been broken into: read it before anything here is run.\n"
    "-- Each statement has the DEFINER with whose rights it would act.\n"
)


def write_code(ask: Ask, schema: Schema, folder: Path, left: Callable[[str, str], None]) -> None:
    """``left`` hears what could not be read, and why."""
    for kind, find in zip(KINDS, (_views, _triggers, _routines, _events), strict=True):
        try:
            statements = find(ask, schema.name, left)
        except NotRead as error:
            left(f"{kind} of {shown(schema.name)}", error.why)
            continue
        if statements:
            schema.code[kind] = sum(not s.startswith("SET ") for s in statements)
            write_script(folder / f"{schema.file}.{kind}.sql", [f"USE {quoted(schema.name)}", *statements])


def write_script(file: Path, statements: Sequence[str], head: str = _WARNING) -> None:
    """Statements between delimiters that none of them holds."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    whole = "\n".join(statements)
    delimiter = ";;"
    while delimiter in whole:
        delimiter += ";" if delimiter.endswith("$") else "$"
    lines = [f"{s}\n{delimiter}\n" for s in statements]
    document = f"{head}/*!40101 SET NAMES utf8mb4 */;\nDELIMITER {delimiter}\n{''.join(lines)}DELIMITER ;\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(document.encode("utf-8", "surrogateescape"))


def _views(ask: Ask, schema: str, left: Callable[[str, str], None]) -> list[str]:
    """Those that others are made of come first."""
    query = "SHOW FULL TABLES FROM " + quoted(schema).replace("%", "%%")
    names = [text(v[0]) for v in (list(r.values()) for r in ask(query)) if text(v[1]) == "VIEW"]
    made: dict[str, str] = {}
    for name in names:
        try:
            (row,) = ask("SHOW CREATE VIEW " + quoted(schema, name).replace("%", "%%"))
            made[name] = text(row["Create View"])
        except (NotRead, ValueError, KeyError) as error:
            left(f"view {shown(schema)}.{shown(name)}", getattr(error, "why", "not there"))
    ordered: list[str] = []
    waiting = sorted(made)
    while waiting:
        ready = [
            n for n in waiting if not any(o != n and f"{quoted(o)}" in made[n] for o in waiting)
        ] or waiting
        ordered += ready
        waiting = [n for n in waiting if n not in ready]
    return [made[name] for name in ordered]


def _triggers(ask: Ask, schema: str, left: Callable[[str, str], None]) -> list[str]:
    found = []
    query = "SELECT trigger_name n FROM information_schema.triggers WHERE trigger_schema = %s"
    for name in [text(r["n"]) for r in ask(query, schema)]:
        try:
            (row,) = ask("SHOW CREATE TRIGGER " + quoted(schema, name).replace("%", "%%"))
            found += [_mode(row["sql_mode"]), text(row["SQL Original Statement"])]
        except (NotRead, ValueError, KeyError) as error:
            left(f"trigger {shown(schema)}.{shown(name)}", getattr(error, "why", "not there"))
    return found


def _routines(ask: Ask, schema: str, left: Callable[[str, str], None]) -> list[str]:
    found = []
    for row in ask("SELECT * FROM mysql.proc WHERE db = %s ORDER BY type, name", schema):
        value = {k.lower(): text(v) for k, v in row.items()}
        kind, parameters = value["type"], f"({value['param_list']})"
        if kind not in ("PROCEDURE", "FUNCTION"):
            left(f"{kind.lower()} {shown(schema)}.{shown(value['name'])}", "not written as SQL here")
            continue
        parts = [
            f"CREATE DEFINER={_account(value['definer'])} {kind} {quoted(value['name'])}{parameters}",
            f"RETURNS {value['returns']}" if kind == "FUNCTION" else "",
            value["sql_data_access"].replace("_", " "),
            "DETERMINISTIC" if value["is_deterministic"] == "YES" else "",
            f"SQL SECURITY {value['security_type']}",
            f"COMMENT {literal(value['comment'])}" if value["comment"] else "",
            value.get("body_utf8") or value["body"],
        ]
        found += [_mode(value["sql_mode"]), "\n".join(filter(None, parts))]
    return found


def _events(ask: Ask, schema: str, left: Callable[[str, str], None]) -> list[str]:
    """Their times are UTC, as they are stored."""
    found = []
    for row in ask("SELECT * FROM mysql.event WHERE db = %s ORDER BY name", schema):
        value = {k.lower(): text(v) for k, v in row.items()}
        if value["interval_value"]:
            unit = value["interval_field"]
            when = f"EVERY {literal(value['interval_value'])} {unit}"
            when += f" STARTS {literal(value['starts'])}" if value["starts"] else ""
            when += f" ENDS {literal(value['ends'])}" if value["ends"] else ""
        else:
            when = f"AT {literal(value['execute_at'])}"
        parts = [
            f"CREATE DEFINER={_account(value['definer'])} EVENT {quoted(value['name'])} ON SCHEDULE {when}",
            "ON COMPLETION PRESERVE" if value["on_completion"] == "PRESERVE" else "",
            "DISABLE",  # as long as nobody has read it; it was: below
            f"COMMENT {literal((value['comment'] + ' ' if value['comment'] else '') + 'was ' + value['status'])}",
            "DO " + (value.get("body_utf8") or value["body"]),
        ]
        found += [_mode(value["sql_mode"]), "SET time_zone = '+00:00'", "\n".join(filter(None, parts))]
    return found


def _mode(value: Any) -> str:
    return f"SET sql_mode = {literal(text(value))}"


def _account(definer: str) -> str:
    user, _, host = definer.rpartition("@")
    return f"{quoted(user)}@{quoted(host)}"
