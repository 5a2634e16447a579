"""One hash for a file's content, in time that does not grow with its holes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from redkeep.rescue.disk.tree import CHUNK, Content

#: A file with more bytes than this in holes is hashed by its blocks that are not zero; hashing zeros takes hours.
MOST_HOLES = 1 << 30
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)

#: Told each piece of data with its offset, in order.
Each = Callable[[int, bytes], object]


def digest_of(content: Content, each: Each | None = None) -> tuple[str, int]:
    """The hash, and how many bytes of data there were; raises ``OSError``, also where the file ended early.

    The hash is ``sha256:`` of the content, holes as zeros; or, for files with enormous holes, ``sha256-blocks:`` of each
    4096 bytes that are not all zero, with their offset before them as eight bytes, most significant first.
    """
    if content.size <= CHUNK:
        data = content.read(0, content.size)
        if len(data) != content.size:
            raise OSError("it became shorter while it was read")
        if each is not None and data:
            each(0, data)
        return "sha256:" + hashlib.sha256(data).hexdigest(), len(data)
    segments = list(content.segments())
    count = sum(length for _, length in segments)
    if content.size - count > MOST_HOLES:
        return "sha256-blocks:" + _of_blocks(content, segments, each), count
    return "sha256:" + _of_all(content, segments, each), count


def _of_all(content: Content, segments: list[tuple[int, int]], each: Each | None) -> str:
    found, at = hashlib.sha256(), 0
    for offset, data in _pieces(content, segments):
        _zeros(found, offset - at)
        found.update(data)
        at = offset + len(data)
        if each is not None:
            each(offset, data)
    _zeros(found, content.size - at)
    return found.hexdigest()


def _of_blocks(content: Content, segments: list[tuple[int, int]], each: Each | None) -> str:
    """Whatever a file system calls a hole, and wherever its blocks begin, those with something in them are the same."""
    found = hashlib.sha256()
    for offset, data in _pieces(content, _aligned(segments, content.size)):
        if each is not None:
            each(offset, data)
        for begin in range(0, len(data), _BLOCK):
            block = data[begin : begin + _BLOCK]
            if block != _ZEROS[: len(block)]:
                found.update((offset + begin).to_bytes(8, "big") + block)
    return found.hexdigest()


def _aligned(segments: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Grown to whole blocks, and those that touch then in one."""
    found: list[tuple[int, int]] = []
    for offset, length in segments:
        begin = offset // _BLOCK * _BLOCK
        end = min(size, -(-(offset + length) // _BLOCK) * _BLOCK)
        if found and begin <= sum(found[-1]):
            begin, before = found.pop()
            end = max(end, begin + before)
        found.append((begin, end - begin))
    return found


def _pieces(content: Content, segments: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    for offset, length in segments:
        begin = offset
        while begin < offset + length:
            data = content.read(begin, min(CHUNK, offset + length - begin))
            if not data:
                raise OSError("it became shorter while it was read")
            yield begin, data
            begin += len(data)


def _zeros(into: Any, count: int) -> None:
    while count > 0:
        into.update(bytes(min(count, CHUNK)))
        count -= CHUNK
