"""Which packages were installed: dpkg's status, and rpm's three databases, none of which is run or locked.

Headers of rpm: https://rpm-software-management.github.io/rpm/manual/format_header.html. Berkeley DB's hash pages as in its
``dbinc/db_page.h`` (hash metadata, hash pages, overflow pages).
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redkeep.rescue.disk.tree import read_all, text_of
from redkeep.rescue.inspection.looking import Look

_MOST = 20_000
_MOST_BYTES = 512 << 20
_DIRECTORIES = (b"/var/lib/rpm", b"/usr/lib/sysimage/rpm")
_NAME, _VERSION, _RELEASE, _INSTALLED, _VENDOR = 1000, 1001, 1002, 1008, 1011


def packages(look: Look) -> dict[str, Any]:
    """``manager``, ``count``, and the names with their versions; ``note`` where they could not be read."""
    status = look.text(b"/var/lib/dpkg/status", 64 << 20)
    if status:
        found = sorted(_of_dpkg(status))
        return {"manager": "dpkg", "count": len(found), "installed": found, "note": ""}
    for directory in _DIRECTORIES:
        for name, read in (
            (b"rpmdb.sqlite", _of_sqlite),
            (b"Packages", _of_berkeley),
            (b"Packages.db", _of_ndb),
        ):
            try:
                raw = read_all(look.tree, directory + b"/" + name, _MOST_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                return _unread(look, text_of(directory + b"/" + name), str(error.strerror))
            look.want("system", directory + b"/" + name)
            try:
                found = sorted({_named(header) for header in read(raw)} - {""})[:_MOST]
            except Exception as error:
                return _unread(look, text_of(directory + b"/" + name), f"{type(error).__name__}: {error}")
            return {"manager": "rpm", "count": len(found), "installed": found, "note": ""}
    return {"manager": "", "count": 0, "installed": [], "note": "no database of dpkg or rpm"}


def _unread(look: Look, path: str, why: str) -> dict[str, Any]:
    look.unseen.append(f"{path}: {why}")
    return {"manager": "rpm", "count": 0, "installed": [], "note": f"{path} cannot be read: {why}"}


def _of_dpkg(status: str) -> Iterator[str]:
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            yield f"{fields.get('Package', '?')} {fields.get('Version', '')}".strip()


def _named(header: bytes) -> str:
    """``name version-release`` of a header blob; empty for what is none."""
    if len(header) < 8:
        return ""
    count, size = struct.unpack_from(">II", header)
    begin = 8 + count * 16
    if count > 65_536 or begin + size > len(header):
        return ""
    found: dict[int, str] = {}
    for i in range(count):
        tag, kind, offset, _ = struct.unpack_from(">IIII", header, 8 + i * 16)
        if tag in (_NAME, _VERSION, _RELEASE) and kind == 6 and offset < size:
            found[tag] = text_of(header[begin + offset : begin + size].split(b"\0", 1)[0][:200])
    if _NAME not in found:
        return ""
    return f"{found[_NAME]} {found.get(_VERSION, '')}-{found.get(_RELEASE, '')}"


def _of_sqlite(raw: bytes) -> Iterator[bytes]:
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="redkeep-rescue-") as directory:
        copy = Path(directory) / "rpmdb.sqlite"
        copy.write_bytes(raw)
        connection = sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            for (blob,) in connection.execute("SELECT blob FROM Packages LIMIT ?", (_MOST,)):
                if isinstance(blob, bytes):
                    yield blob
        finally:
            connection.close()


def _of_berkeley(raw: bytes) -> Iterator[bytes]:
    """The big values of a hash database: each lies on a chain of overflow pages."""
    order = "<" if raw[12:16] == b"\x61\x15\x06\x00" else ">"
    magic, _, size = struct.unpack_from(order + "III", raw, 12)
    if magic != 0x061561 or not 512 <= size <= 65536:
        raise ValueError("not a Berkeley DB hash")
    for page in range(1, len(raw) // size):
        at = page * size
        entries, kind = struct.unpack_from(order + "H", raw, at + 20)[0], raw[at + 25]
        if kind not in (2, 13) or entries > size // 2:
            continue
        for i in range(1, entries, 2):  # keys and values take turns
            (offset,) = struct.unpack_from(order + "H", raw, at + 26 + i * 2)
            if offset + 12 > size:
                continue
            if raw[at + offset] == 3:  # on pages of its own
                first, length = struct.unpack_from(order + "II", raw, at + offset + 4)
                yield _overflow(raw, size, order, first, length)
            elif raw[at + offset] == 1:  # here, up to the entry before
                (end,) = struct.unpack_from(order + "H", raw, at + 26 + (i - 1) * 2)
                yield raw[at + offset + 1 : at + max(offset + 1, min(end, size))]


def _overflow(raw: bytes, size: int, order: str, page: int, length: int) -> bytes:
    found = bytearray()
    pages = 0
    while page and len(found) < length and pages <= len(raw) // size:
        at = page * size
        if at + size > len(raw) or raw[at + 25] != 7:
            break
        (following,) = struct.unpack_from(order + "I", raw, at + 16)
        found += raw[at + 26 : at + size]
        page, pages = following, pages + 1
    return bytes(found[:length])


def _of_ndb(raw: bytes) -> Iterator[bytes]:
    """rpm's own format: slots of 16 bytes, then blobs behind a header of 16 bytes (``rpmpkg.c``)."""
    if raw[:4] != b"RpmP":
        raise ValueError("not an ndb database")
    (pages,) = struct.unpack_from("<I", raw, 12)
    for at in range(32, min(pages * 4096, len(raw)) - 15, 16):
        magic, number, block, _ = struct.unpack_from("<4sIII", raw, at)
        if magic != b"Slot" or not number:
            continue
        begin = block * 16
        head = raw[begin : begin + 16]
        if head[:4] == b"BlbS":
            (length,) = struct.unpack_from("<I", head, 12)
            yield raw[begin + 16 : begin + 16 + length]
