"""The alphabet of RDB files: lengths, strings, and the compression of strings. Nothing is believed before it is bounded."""

from __future__ import annotations

import errno

from redkeep.rescue.disk.tree import CHUNK, Content


class DamagedRdb(ValueError):
    """It ends early, or says something that no server writes."""


class RdbReader:
    """Reads on from a place in a file. ``DamagedRdb`` for what no server writes, ``OSError`` where it cannot be read."""

    def __init__(self, content: Content, begin: int) -> None:
        self._content = content
        self._buffer = b""
        self._start = begin  # of the buffer
        self._position = 0

    @property
    def at(self) -> int:
        return self._start + self._position

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end <= len(self._buffer):
            found = self._buffer[self._position : end]
            self._position = end
            return found
        if count > self._content.size - self.at:
            raise DamagedRdb(f"it ends in the middle, at {self._content.size} bytes")
        self._start, self._position = self.at, 0
        self._buffer = self._content.read(self._start, max(count, CHUNK))
        if len(self._buffer) < count:
            raise OSError(errno.EIO, "it became shorter while it was read")
        self._position = count
        return self._buffer[:count]

    def skip(self, count: int) -> None:
        if self._position + count <= len(self._buffer):
            self._position += count
            return
        if count > self._content.size - self.at:
            raise DamagedRdb(f"it ends in the middle, at {self._content.size} bytes")
        self._start, self._position, self._buffer = self.at + count, 0, b""

    def byte(self) -> int:
        if self._position < len(self._buffer):
            self._position += 1
            return self._buffer[self._position - 1]
        return self.take(1)[0]

    def length(self) -> tuple[int, bool]:
        """A length, and whether it is a special encoding instead."""
        first = self.byte()
        kind = first >> 6
        if kind == 0:
            return first & 0x3F, False
        if kind == 1:
            return ((first & 0x3F) << 8) | self.byte(), False
        if kind == 3:
            return first & 0x3F, True
        if first == 0x80:
            return int.from_bytes(self.take(4), "big"), False
        if first == 0x81:
            return int.from_bytes(self.take(8), "big"), False
        raise DamagedRdb(f"a length that is none, at {self.at}")

    def count(self) -> int:
        found, special = self.length()
        if special:
            raise DamagedRdb(f"a length that is none, at {self.at}")
        return found

    def string(self, most: int) -> bytes | None:
        """A string; None where it is longer than ``most``, which skips it."""
        size, special = self.length()
        if not special:
            if size <= most:
                return self.take(size)
            self.skip(size)
            return None
        if size in (0, 1, 2):
            return str(int.from_bytes(self.take(1 << size), "little", signed=True)).encode()
        if size != 3:
            raise DamagedRdb(f"a string that is none, at {self.at}")
        packed, whole = self.count(), self.count()
        if whole > most or packed > most:
            self.skip(packed)
            return None
        return unpacked(self.take(packed), whole)

    def skip_string(self) -> None:
        size, special = self.length()
        if not special:
            self.skip(size)
        elif size in (0, 1, 2):
            self.skip(1 << size)
        elif size == 3:
            packed = self.count()
            self.count()
            self.skip(packed)
        else:
            raise DamagedRdb(f"a string that is none, at {self.at}")


def unpacked(data: bytes, size: int) -> bytes:
    """LZF, as Marc Lehmann's liblzf writes it."""
    found = bytearray()
    at = 0
    try:
        while at < len(data) and len(found) <= size:
            control = data[at]
            at += 1
            if control < 32:
                found += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            back = ((control & 0x1F) << 8) + data[at] + 1
            at += 1
            begin = len(found) - back
            if begin < 0:
                raise DamagedRdb("a compressed string that is damaged")
            for i in range(length + 2):
                found.append(found[begin + i])
    except IndexError:
        raise DamagedRdb("a compressed string that is damaged") from None
    return bytes(found[:size])
