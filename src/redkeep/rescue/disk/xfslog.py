"""Whether the log of an XFS ends with the word that it was unmounted. It is not replayed.

Format: "XFS Algorithms & Data Structures", chapter "Journaling Log" (``xlog_rec_header``, ``xlog_op_header``).
"""

from __future__ import annotations

import struct

from redkeep.rescue.disk.blocks import Blocks
from redkeep.rescue.disk.tree import CHUNK

_MAGIC = b"\xfe\xed\xba\xbe"
_SECTOR = 512
_UNMOUNT = 0x20
#: A header for each 32 KiB of a record in version 2.
_PER_HEADER = 32 << 10
#: A larger log is not looked through. XFS makes none above 2 GiB.
_MOST = 2 << 30


def is_clean(blocks: Blocks, begin: int, size: int) -> bool:
    """Bytes. True where there is no record at all, and where the log is on another disk (``begin`` 0)."""
    if not begin or not 0 < size <= _MOST:
        return True
    last, at = 0, -1
    for offset in range(0, size, CHUNK):
        data = blocks.read(begin + offset, min(CHUNK, size - offset))
        found = data.find(_MAGIC)
        while found >= 0:
            if found % _SECTOR == 0 and found + 24 <= len(data):
                (number,) = struct.unpack_from(">Q", data, found + 16)
                if number > last:
                    last, at = number, offset + found
            found = data.find(_MAGIC, found + 1)
    if at < 0:
        return True
    head = blocks.read(begin + at, _SECTOR)
    (version,) = struct.unpack_from(">I", head, 8)
    (operations,) = struct.unpack_from(">I", head, 40)
    (written,) = struct.unpack_from(">I", head, 320)
    headers = max(1, -(-written // _PER_HEADER)) if version & 2 else 1
    first = blocks.read(begin + (at + headers * _SECTOR) % size, 16)
    return operations == 1 and bool(first[9] & _UNMOUNT)
