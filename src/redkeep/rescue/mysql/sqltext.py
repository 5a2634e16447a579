"""Names and values of a victim's database as SQL, as file names and as text: whatever is in them, they stay one word."""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from typing import Any


def quoted(*names: str) -> str:
    """``schema``, ``table``: as SQL names them."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def text(value: Any) -> str:
    """A value of ``rows`` as text that keeps every byte."""
    return (
        value.decode("utf-8", "surrogateescape")
        if isinstance(value, bytes)
        else ""
        if value is None
        else str(value)
    )


def shown(name: str) -> str:
    """A name as JSON and people can have it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def literal(value: str) -> str:
    """A string as SQL has it, whatever the modes say of backslashes."""
    if "\\" in value:
        return "CONVERT(X'" + value.encode("utf-8", "surrogateescape").hex() + "' USING utf8mb4)"
    return "'" + value.replace("'", "''") + "'"


def file_name(schema: str) -> str:
    """Of a schema: whatever its name is, it stays in its directory, and there is none like it."""
    name = urllib.parse.quote(schema.encode("utf-8", "surrogateescape"), safe="")
    name = name.replace(".", "%2E") if name.startswith(".") else name
    if len(name) > 180:
        name = name[:150] + "-" + hashlib.sha256(name.encode()).hexdigest()[:16]
    return name


def decoded(name: bytes) -> str:
    """A table's name as its file has it (``@0024`` for ``$``); those with MySQL's own short codes stay as they are."""
    found = name.decode("utf-8", "surrogateescape")
    return re.sub("@([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), found)


def contents_query(schema: str, table: str, columns: list[tuple[str, str]]) -> str:
    """Rows, and a sum over all values that does not depend on how and where a server stores them, nor on their order."""
    parts = [f"COALESCE(MD5({quoted(n)}{'+0' if t.lower() == 'bit' else ''}),'-')" for n, t in columns]
    row = f"CRC32(CONCAT_WS('/',{','.join(parts)}))"
    label = "'" + shown(f"{schema}.{table}").replace("\\", "\\\\").replace("'", "''") + "'"
    sums = f"CONCAT(BIT_XOR({row}),'-',COALESCE(SUM({row}),0))"
    return f"SELECT {label}, COUNT(*), {sums} FROM {quoted(schema, table)}"  # noqa: S608  all are quoted


def batch(value: str) -> str:
    """As the client prints it with --batch."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
