"""Data directories of MySQL and MariaDB: version, tables and sizes, and whether the server had ended cleanly.

Offsets: the table definition's ``MYSQL_VERSION_ID`` at 0x33 of a .frm (MySQL Internals, "The .FRM file"); the flushed LSN at
26 of ibdata1 and the checkpoints at 512 + 8 and 1536 + 8 of ib_logfile0 (``fil0fil.h`` and ``log0log.h`` of MySQL 5.1 to 5.7
and MariaDB to 10.4); the server version at 8 of a tablespace since MySQL 8.0 (``FIL_PAGE_SRV_VERSION``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from redkeep.rescue.disk.tree import Tree, is_directory, is_file, names, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.settings import from_lines, shown

_CONFIGS = (
    b"/etc/my.cnf",
    b"/etc/mysql/my.cnf",
    b"/etc/my.cnf.d",
    b"/etc/mysql/conf.d",
    b"/etc/mysql/mysql.conf.d",
    b"/etc/mysql/mariadb.conf.d",
)
_MOST_TABLES = 5_000
#: The engine by its number in a .frm (``handler.h``, legacy_db_type): partitions have files of other names.
_FRM_ENGINES = {6: "MEMORY", 9: "MyISAM", 12: "InnoDB", 20: "CSV", 42: "Aria"}
#: Files of a table that hold its rows, and what engine that means.
_ENGINES = {b".ibd": "InnoDB", b".MYD": "MyISAM", b".MAD": "Aria", b".CSV": "CSV", b".ARZ": "ARCHIVE"}


def databases(look: Look) -> list[dict[str, Any]]:
    found: dict[bytes, dict[str, Any]] = {}
    for path, _ in look.index.databases:
        directory, _, name = path.rpartition(b"/")
        if name == b"user.frm":
            directory, _, schema = directory.rpartition(b"/")
            if schema != b"mysql":
                continue
        if directory and directory not in found and holds_data(look.tree, directory):
            found[directory] = data_directory(look, directory)
            look.want("databases", directory)
    look.want("databases", *(p for p in _CONFIGS if is_directory(look.tree, p) or is_file(look.tree, p)))
    return list(found.values())


def holds_data(tree: Tree, directory: bytes) -> bool:
    return is_file(tree, directory + b"/ibdata1") or is_directory(tree, directory + b"/mysql")


def data_directory(look: Look, directory: bytes) -> dict[str, Any]:
    """What one says of itself; of a directory that is none, little."""
    tree = look.tree
    schemas = []
    tables_left = _MOST_TABLES
    frm_versions: set[int] = set()
    for name in names(tree, directory):
        path = directory + b"/" + name
        if is_directory(tree, path) and not name.startswith(b"#"):
            schema = _schema(tree, path, tables_left, frm_versions)
            tables_left -= len(schema["tables"])
            schemas.append(schema)
    state, why = _state(tree, directory)
    version, flavor = _version(look, directory, frm_versions)
    return {
        "path": text_of(directory),
        "flavor": flavor,
        "version": version,
        "state": state,
        "why": why,
        "bytes": sum(_size(tree, p) for p in _top(tree, directory)) + sum(s["bytes"] for s in schemas),
        "schemas": schemas,
        "settings": _settings(look),
    }


def _top(tree: Tree, directory: bytes) -> list[bytes]:
    return [
        directory + b"/" + n
        for n in names(tree, directory)
        if n.startswith((b"ib", b"undo", b"aria_log", b"mysql.ibd"))
    ]


def _schema(tree: Tree, path: bytes, most: int, frm_versions: set[int]) -> dict[str, Any]:
    tables: dict[bytes, dict[str, Any]] = {}
    others: dict[str, int] = {}
    for name in names(tree, path):
        base, dot, end = name.rpartition(b".")
        suffix = dot + end
        if suffix == b".frm" or suffix in _ENGINES:
            if base not in tables and len(tables) >= most:
                continue
            table = tables.setdefault(base, {"name": _named(base), "engine": "", "bytes": 0, "crashed": None})
            table["bytes"] += _size(tree, path + b"/" + name)
            table["engine"] = _ENGINES.get(suffix, table["engine"])
            if suffix == b".frm":
                head = _head(tree, path + b"/" + name, 64)
                if head[:2] == b"\xfe\x01":
                    frm_versions.add(int.from_bytes(head[0x33:0x37], "little"))
                    table["engine"] = table["engine"] or _FRM_ENGINES.get(head[3], "")
                elif head[:9] == b"TYPE=VIEW":
                    table["engine"] = "view"
        elif suffix == b".MYI" and base in tables:
            head = _head(tree, path + b"/" + name, 64)
            tables[base]["crashed"] = _myisam_crashed(head)
            tables[base]["bytes"] += _size(tree, path + b"/" + name)
        elif suffix in (b".TRG", b".TRN"):
            others["triggers"] = others.get("triggers", 0) + (suffix == b".TRN")
    return {
        "name": _named(path.rpartition(b"/")[2]),
        "tables": list(tables.values()),
        "bytes": sum(t["bytes"] for t in tables.values()),
        **others,
    }


def _myisam_crashed(head: bytes) -> bool | None:
    """Whether the server itself marked the table: STATE_CRASHED and STATE_CRASHED_ON_REPAIR (``myisamdef.h``).

    The count of openings before it says nothing: a clean shutdown leaves it as it is.
    """
    return bool(head[26] & 6) if head[:3] == b"\xfe\xfe\x07" and len(head) > 26 else None


def _named(raw: bytes) -> str:
    """A name of the file system: letters beyond ASCII are ``@0041``."""
    return re.sub(r"@([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text_of(raw))


def _state(tree: Tree, directory: bytes) -> tuple[str, str]:
    """``clean``, ``crashed`` or ``unknown``, and what says so."""
    ibdata, log = _head(tree, directory + b"/ibdata1", 64), _head(tree, directory + b"/ib_logfile0", 2048)
    pid = next((n for n in names(tree, directory) if n.endswith(b".pid")), b"")
    if pid:
        return "crashed", f"{text_of(pid)} is still there: the server had not ended"
    if len(ibdata) < 64:
        return "unknown", "no ibdata1"
    if len(log) < 2048:
        return (
            "unknown",
            "the redo log is not ib_logfile0: a newer server, which says it in its own files only",
        )
    flushed = struct.unpack_from(">Q", ibdata, 26)[0]
    checkpoint = max(struct.unpack_from(">Q", log, at)[0] for at in (512 + 8, 1536 + 8))
    if log[:4] == b"Phys" or struct.unpack_from(">I", log, 0)[0] >= 103:
        return "unknown", "a redo log of MariaDB 10.5 or later, or MySQL 8"
    if flushed and flushed == checkpoint:
        return "clean", f"the redo log ends where the data does (LSN {flushed})"
    return "crashed", f"the redo log goes on to LSN {checkpoint} or beyond, the data was flushed at {flushed}"


def _version(look: Look, directory: bytes, frm_versions: set[int]) -> tuple[str, str]:
    for name in (b"mariadb_upgrade_info", b"mysql_upgrade_info"):
        text = look.text(directory + b"/" + name, 4096).strip("\0\n ")
        if text:
            return text.split("-")[0], "MariaDB" if "mariadb" in text.lower() else "MySQL"
    flavor = "MariaDB" if is_file(look.tree, directory + b"/aria_log_control") else "MySQL"
    head = _head(look.tree, directory + b"/mysql.ibd", 16)
    if len(head) == 16:
        return _dotted(int.from_bytes(head[8:12], "big")), flavor
    return _dotted(max(frm_versions, default=0)), flavor


def _dotted(number: int) -> str:
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}" if 30000 <= number < 200000 else ""


def _configurations(look: Look) -> Iterator[bytes]:
    """The files in which its settings may stand, in the order in which they are read."""
    for path in _CONFIGS:
        if look.is_directory(path):
            yield from (file for file in look.files(path) if file.endswith(b".cnf"))
        else:
            yield path


def _settings(look: Look) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in _configurations(look):
        for key, value in from_lines(look.text(path)).items():
            if key.startswith(("mysqld.", "server.", "mariadb.")):
                found.append(shown(key, value, reveal=look.reveal))
    return found[:100]


def _size(tree: Tree, path: bytes) -> int:
    try:
        return tree.stat(path).size
    except OSError:
        return 0


def _head(tree: Tree, path: bytes, count: int) -> bytes:
    try:
        with tree.open(path) as content:
            return content.read(0, count)
    except OSError:
        return b""
