"""The accounts of a rescued server and their rights, as statements to read, in a file that only its owner can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from redkeep.rescue.mysql.code import Ask, write_script
from redkeep.rescue.mysql.server import NotRead
from redkeep.rescue.mysql.sqltext import quoted, shown, text

_HEAD = (
    "-- The accounts of a server that may have been broken into, with the hashes of their passwords.\n"
    "-- Make new accounts with new passwords instead; this is to see what was there.\n"
)
#: Columns of the grant tables whose name, without ``_priv``, is not the right's own.
_NAMES = {
    "create_tmp_table": "CREATE TEMPORARY TABLES",
    "repl_slave": "REPLICATION SLAVE",
    "repl_client": "REPLICATION CLIENT",
    "show_db": "SHOW DATABASES",
    "create_view": "CREATE VIEW",
    "show_view": "SHOW VIEW",
    "lock_tables": "LOCK TABLES",
    "create_routine": "CREATE ROUTINE",
    "alter_routine": "ALTER ROUTINE",
    "create_user": "CREATE USER",
    "create_tablespace": "CREATE TABLESPACE",
    "delete_history": "DELETE HISTORY",
    "create_role": "CREATE ROLE",
    "drop_role": "DROP ROLE",
}
_ALL_GLOBAL = 20


def write_accounts(ask: Ask, file: Path, left: Callable[[str, str], None]) -> int:
    """How many there are."""
    try:
        rows = [{k.lower(): text(v) for k, v in row.items()} for row in ask("SELECT * FROM mysql.user")]
    except NotRead as error:
        left("accounts", error.why)
        return 0
    statements = []
    for row in rows:
        statements.append(_create(row))
        statements.append(_grant(row, "*.*"))
    for table, where in (("db", _of_schema), ("tables_priv", _of_table), ("procs_priv", _of_routine)):
        try:
            found = ask("SELECT * FROM " + quoted("mysql", table))  # noqa: S608
        except NotRead as error:
            left(f"rights in mysql.{table}", error.why)
            continue
        statements += [where({k.lower(): text(v) for k, v in row.items()}) for row in found]
    try:
        more = len(ask("SELECT 1 FROM mysql.columns_priv"))
        if more:
            left("rights of single columns", f"{more} in mysql.columns_priv, not written as statements")
    except NotRead:
        pass
    write_script(file, [s for s in statements if s], _HEAD)
    return len(rows)


def _create(row: dict[str, str]) -> str:
    if row.get("is_role") == "Y":
        return f"CREATE ROLE {quoted(row['user'])}"
    secret = row.get("authentication_string") or row.get("password") or ""
    plugin = row.get("plugin") or ("mysql_old_password" if len(secret) == 16 else "mysql_native_password")
    proof = f" IDENTIFIED WITH {_word(plugin)}"
    proof += f" AS {_quoted_secret(secret)}" if secret else ""
    locked = " ACCOUNT LOCK" if row.get("account_locked") == "Y" else ""
    return f"CREATE USER {_account(row)}{proof}{locked}"


def _quoted_secret(secret: str) -> str:
    return "'" + secret.replace("\\", "\\\\").replace("'", "''") + "'"


def _word(name: str) -> str:
    return name if name.replace("_", "").isalnum() else quoted(name)


def _account(row: dict[str, str]) -> str:
    return f"{quoted(row['user'])}@{quoted(row['host'])}"


def _grant(row: dict[str, str], where: str) -> str:
    rights = [k.removesuffix("_priv") for k, v in row.items() if k.endswith("_priv") and v == "Y"]
    option = " WITH GRANT OPTION" if "grant" in rights else ""
    names = [_NAMES.get(r, r.upper()) for r in rights if r != "grant"]
    if where == "*.*" and len(names) >= _ALL_GLOBAL and "SUPER" in names and "CREATE USER" in names:
        names = ["ALL PRIVILEGES"] if len(names) == sum(k.endswith("_priv") for k in row) - 1 else names
    if not names and not option:
        return ""
    to = quoted(row["user"]) if row.get("is_role") == "Y" else _account(row)
    return f"GRANT {', '.join(names) or 'USAGE'} ON {where} TO {to}{option}"


def _of_schema(row: dict[str, str]) -> str:
    return _grant(row, f"{quoted(row['db'])}.*")


def _of_table(row: dict[str, str]) -> str:
    return _listed(row, row.get("table_priv", ""), quoted(row["db"], row["table_name"]))


def _of_routine(row: dict[str, str]) -> str:
    kind = row.get("routine_type", "PROCEDURE")
    if kind not in ("PROCEDURE", "FUNCTION"):
        return f"-- rights on {shown(row['routine_name'])!r}, a {kind.lower()}: not written here"
    return _listed(row, row.get("proc_priv", ""), f"{kind} {quoted(row['db'], row['routine_name'])}")


def _listed(row: dict[str, str], rights: str, where: str) -> str:
    names = [r.strip().upper() for r in rights.split(",") if r.strip()]
    option = " WITH GRANT OPTION" if "GRANT" in names else ""
    names = [n for n in names if n != "GRANT"]
    return f"GRANT {', '.join(names)} ON {where} TO {_account(row)}{option}" if names else ""
