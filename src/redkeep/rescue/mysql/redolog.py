"""What a crashed InnoDB had changed since its last checkpoint, read from its redo log (MySQL 5.0 to 5.6, MariaDB to 10.1).

A server of another generation cannot replay that log. It can still open the data files as they are, and whatever table was
neither written after the checkpoint nor by a transaction without an end is there exactly: all that came before a checkpoint
is on disk. This module tells which tables that are, and says nothing where the log is not understood to its last byte.

Formats: blocks of 512 bytes (``log0log.h``), records and their bodies (``mtr0mtr.h`` and the parsers that ``log0recv.c``
calls), transactions and their undo records (``trx0sys.h``, ``trx0rseg.h``, ``trx0undo.h``, ``trx0rec.c``). Each block says
where its first group of records begins; that must be where we are, or nothing is proven.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_BLOCK, _HEADER, _TRAILER, _FILE_HEADER, _PAGE = 512, 12, 4, 2048, 16384
#: Larger logs are not read: a checkpoint's offset in them has more than 32 bits.
MOST_LOG = 4 << 30
_SINGLE, _END_OF_GROUP, _DUMMY = 0x80, 31, 32
#: Records whose index is described before the body.
_COMPACT = {38, 39, 40, 41, 42, 43, 44, 45, 46}
_NO_BODY = {18, 19, 21, 23, 27, 29, 37, 46}
_TWO_BYTES = {14, 15, 16, 26, 36, 42, 43, 44}
_NULL, _NO_PAGE = 0xFFFFFFFF, 0xFFFFFFFF
_ACTIVE, _PREPARED = 1, 5


@dataclass(frozen=True)
class Touched:
    """``spaces`` written since the checkpoint, and ``tables`` (their IDs) of transactions that had not ended by then."""

    spaces: frozenset[int]
    tables: frozenset[int]


class NotUnderstood(ValueError):
    """Nothing can be said; the message is why."""


def touched(directory: Path) -> Touched:
    """Of a data directory with ``ibdata1`` and ``ib_logfile0`` on. Raises ``NotUnderstood`` and ``OSError``."""
    try:
        records, begins = _log(directory)
        return Touched(_spaces(records, begins), _unfinished(directory / "ibdata1"))
    except (IndexError, struct.error):
        raise NotUnderstood("the redo log or the undo log ends too early") from None


def _log(directory: Path) -> tuple[bytes, list[int]]:
    """The records from the checkpoint on, and where groups are said to begin in them."""
    files: list[Path] = []
    while (file := directory / f"ib_logfile{len(files)}").is_file():
        files.append(file)
    sizes = {file.stat().st_size for file in files}
    if len(sizes) != 1 or not _FILE_HEADER < min(sizes) <= MOST_LOG // len(files):
        raise NotUnderstood("the redo log's files are not all there, or of different sizes")
    size = sizes.pop()
    head = _read(files[0], 0, _FILE_HEADER)
    if struct.unpack_from(">I", head, 0)[0] != 0 or (directory / "ib_logfile101").exists():
        raise NotUnderstood("the redo log is of a server whose format is not known here")
    _, lsn, offset = max(struct.unpack_from(">QQI", head, at) for at in (512, 1536))
    file, within = divmod(offset, size)
    if within < _FILE_HEADER or file >= len(files):
        raise NotUnderstood("the redo log's checkpoint points nowhere")
    data = b"".join(_read(f, _FILE_HEADER, size - _FILE_HEADER) for f in files)
    return _joined(data, lsn, file * (size - _FILE_HEADER) + within - _FILE_HEADER)


def _joined(data: bytes, lsn: int, offset: int) -> tuple[bytes, list[int]]:
    begin = lsn % _BLOCK
    at, number = offset - begin, lsn // _BLOCK
    found, begins = bytearray(), []
    for _ in range(len(data) // _BLOCK):
        place = at % len(data)
        block = data[place : place + _BLOCK]
        said, count, first = struct.unpack_from(">IHH", block)
        if said & 0x7FFFFFFF != (number & 0x3FFFFFFF) + 1 or not _sound(block):
            break
        if first >= max(begin, _HEADER):
            begins.append(len(found) + first - max(begin, _HEADER))
        found += block[max(begin, _HEADER) : min(count, _BLOCK - _TRAILER)]
        if count < _BLOCK:
            break
        at, number, begin = at + _BLOCK, number + 1, 0
    return bytes(found), begins


def _sound(block: bytes) -> bool:
    """The checksum of a block (``log_block_calc_checksum``)."""
    last = _BLOCK - _TRAILER - 1
    total = 1 + sum(block[:last]) + sum(sum(block[shift:last:25]) << shift for shift in range(25))
    total = (total & 0x7FFFFFFF) + block[last] + (block[last] << last % 25)
    return total & 0xFFFFFFFF == int(struct.unpack_from(">I", block, _BLOCK - _TRAILER)[0])


def _spaces(log: bytes, begins: list[int]) -> frozenset[int]:
    """Goes through every record. A last group that is cut short was never applied by anybody."""
    spaces: set[int] = set()
    waiting = iter(begins)
    expected = next(waiting, None)
    at = 0
    while at < len(log):
        if expected is not None and at >= expected:
            if at != expected:
                raise NotUnderstood(f"a record of the redo log is not understood, before byte {at}")
            expected = next(waiting, None)
        try:
            at = _group(log, at, spaces)
        except IndexError:
            break
    if expected is not None:
        raise NotUnderstood("the redo log ends in the middle")
    return frozenset(spaces)


def _group(log: bytes, at: int, spaces: set[int]) -> int:
    met = set()
    while True:
        kind = log[at] & 0x7F
        if kind in (_END_OF_GROUP, _DUMMY):
            at += 1
            break
        space, after = _number(log, at + 1)
        _, after = _number(log, after)
        met.add(space)
        single = log[at] & _SINGLE
        at = _body(log, kind, after)
        if at > len(log):
            raise IndexError
        if single:
            break
    spaces |= met
    return at


def _body(log: bytes, kind: int, at: int) -> int:
    """Where a record ends."""
    if kind in _COMPACT:
        at += 4 + 2 * _two(log, at)
    if kind in _NO_BODY:
        return at
    if kind in _TWO_BYTES:
        return at + 2
    match kind:
        case 1 | 2 | 4:
            return _number(log, at + 2)[1]
        case 8:
            return _number(log, at + 2)[1] + 4
        case 9 | 38:
            return _insert(log, at)
        case 10 | 39:
            return _system(log, at + 2) + 2
        case 11 | 40:
            return at + 3
        case 13 | 41:
            return _update(log, at)
        case 17 | 45:
            return at + 4 + int.from_bytes(log[at : at + 4], "big")
        case 20:
            return at + 2 + _two(log, at)
        case 22:
            return _number(log, at)[1]
        case 24 | 25:
            return _number(log, at)[1] + 4
        case 30:
            return at + 4 + _two(log, at + 2)
        case 33 | 35 | 47:
            at += 4 if kind == 47 else 0
            return at + 2 + _two(log, at)
        case 34:
            at += 2 + _two(log, at)
            return at + 2 + _two(log, at)
        case 48:
            return at + 8
        case 49:
            return at + 24
        case 50:
            return at + 2 + log[at + 1]
    raise NotUnderstood(f"a record of kind {kind} in the redo log is not known here")


def _insert(log: bytes, at: int) -> int:
    length, at = _number(log, at + 2)
    if length & 1:
        at = _number(log, _number(log, at + 1)[1])[1]
    return at + (length >> 1)


def _system(log: bytes, at: int) -> int:
    """Position, roll pointer and transaction ID."""
    return _number(log, _number(log, at)[1] + 7)[1] + 4


def _update(log: bytes, at: int) -> int:
    at = _system(log, at + 1) + 2
    fields, at = _number(log, at + 1)
    for _ in range(fields):
        length, at = _number(log, _number(log, at)[1])
        at += 0 if length == _NULL else length
    return at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """``mach_read_compressed``: its value, and where it ends."""
    first = data[at]
    if first < 0x80:
        return first, at + 1
    for length, mark in ((2, 0x80), (3, 0xC0), (4, 0xE0)):
        if first < (mark | mark >> 1):
            return int.from_bytes(data[at : at + length], "big") & ~(mark << 8 * (length - 1)), at + length
    return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5


def _two(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _unfinished(file: Path) -> frozenset[int]:
    """The IDs of tables in undo logs of transactions that are active or prepared, as ibdata1 has them."""
    tables: set[int] = set()
    system = _page(file, 5)
    for slot in range(128):
        space, number = struct.unpack_from(">II", system, 38 + 18 + 8 * slot)
        if number == _NO_PAGE:
            continue
        if space:
            raise NotUnderstood("undo logs in files of their own are not read here")
        for first in struct.unpack_from(">1024I", _page(file, number), 38 + 34):
            if first != _NO_PAGE:
                tables |= _tables(file, first)
    return frozenset(tables)


def _tables(file: Path, first: int) -> set[int]:
    page = _page(file, first)
    if _two(page, 38 + 18) not in (_ACTIVE, _PREPARED):
        return set()
    found: set[int] = set()
    seen: set[int] = set()
    number = first
    while number != _NO_PAGE:
        if number in seen:
            raise NotUnderstood("an undo log goes round in circles")
        seen.add(number)
        page = _read(file, number * _PAGE, _PAGE)
        if not any(page):
            break  # added to the list after the checkpoint, and so is all behind it: the redo log tells of it
        page = _page(file, number)
        at, end = _two(page, 38 + 2), _two(page, 38 + 4)
        while at < end:
            table, following = _undone(page, at)
            found.add(table)
            if following <= at:
                raise NotUnderstood("an undo log is damaged")
            at = following
        number = struct.unpack_from(">I", page, 38 + 6 + 6)[0]
    return found


def _undone(page: bytes, at: int) -> tuple[int, int]:
    """The table of an undo record, and where the next one begins."""
    place = at + 3
    for _ in range(2):  # the record's number, then the table
        high = 0
        if page[place] == 0xFF:
            high, place = _number(page, place + 1)
        low, place = _number(page, place)
        value = high << 32 | low
    return value, _two(page, at)


def _page(file: Path, number: int) -> bytes:
    data = _read(file, number * _PAGE, _PAGE)
    if len(data) != _PAGE or struct.unpack_from(">I", data, 4)[0] != number:
        raise NotUnderstood(f"page {number} of ibdata1 is not there, or damaged")
    return data


def _read(file: Path, offset: int, length: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(length)
