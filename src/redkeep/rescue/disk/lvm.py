"""Logical volumes (LVM2): linear and striped, in as many pieces as there are. Others, and those with a piece on a disk that
is not here, are named and left out.

libvslvm is not used: it takes no volume that was ever extended, and no stripes (seen with 20260901). The format is that of
LVM2's ``lib/format_text/layout.h`` and lvmsystemid(7): a label, a header with places, and the metadata as text in a ring.
"""

from __future__ import annotations

import errno
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redkeep.rescue.disk.blocks import Blocks, first_line

_MAGIC = b" LVM2 x[5A%r0N*>"
#: More is no metadata; of what is parsed: how deep, how many volumes and pieces.
_MOST_BYTES = 16 << 20
_DEEPEST = 8
_MOST = 10_000
#: How to read what is not read here.
ELSEWHERE = (
    "attach all of its disks to a throwaway host, there: vgchange -ay GROUP, and name /dev/GROUP/VOLUME"
)


@dataclass(frozen=True)
class Volume:
    """``name`` as ``group/volume``; ``blocks`` None where it cannot be read, and ``problem`` says why.

    ``identity``: of group and volume, as device mapper has it in ``dm-uuid-LVM-...``.
    """

    name: str
    blocks: Blocks | None
    problem: str = ""
    identity: str = ""


@dataclass(frozen=True)
class _Area:
    """A piece of a disk, in bytes."""

    disk: Blocks
    begin: int


@dataclass(frozen=True)
class _Segment:
    """A piece of a volume; ``stripe``: bytes that lie on one area before the next one's turn."""

    begin: int
    size: int
    areas: tuple[_Area, ...]
    stripe: int


def volumes(physical: Sequence[Blocks]) -> Iterator[Volume]:
    """The volumes on these physical volumes, which may belong to several groups."""
    disks: dict[str, Blocks] = {}
    groups: dict[str, tuple[str, dict[str, Any]]] = {}
    for part in physical:
        try:
            identifier, found = _read(part)
        except (OSError, ValueError, struct.error) as error:
            told = first_line(error) if isinstance(error, OSError) else str(error)
            yield Volume("?", None, f"LVM that cannot be read: {told}")
            continue
        disks[identifier] = part
        for name, group in found.items():  # the latest of what the disks say
            known = groups.get(str(group.get("id", name)))
            if known is None or _number(group, "seqno") > _number(known[1], "seqno"):
                groups[str(group.get("id", name))] = name, group
    for name, group in groups.values():
        yield from _volumes(name, group, disks)


def _read(part: Blocks) -> tuple[str, dict[str, Any]]:
    """The physical volume's identifier, and the groups that its metadata names; none where the others have it."""
    for at in range(0, 2048, 512):
        sector = part.read(at, 512)
        if sector[:8] == b"LABELONE":
            break
    else:
        raise OSError(errno.EIO, "no label")
    begin = min(int.from_bytes(sector[20:24], "little"), 480)
    head = part.read(at + begin, 512)
    _, at = _places(head, 40)
    places, _ = _places(head, at)
    problem = ""
    for place, size in places:
        try:
            return head[:32].decode("ascii", "replace"), _metadata(part, place, size)
        except (OSError, ValueError) as error:
            problem = problem or str(error)
    if problem:
        raise ValueError(problem)
    return head[:32].decode("ascii", "replace"), {}


def _places(head: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """Offset and size of each, up to one that is zero; and where that list ends."""
    found = []
    while at + 16 <= len(head):
        place, size = struct.unpack_from("<QQ", head, at)
        at += 16
        if not place:
            break
        found.append((place, size))
    return found, at


def _metadata(part: Blocks, begin: int, size: int) -> dict[str, Any]:
    head = part.read(begin, 512)
    if head[4:20] != _MAGIC:
        raise ValueError("no metadata where the label says")
    offset, length, checksum, flags = struct.unpack_from("<QQII", head, 40)
    if not length or flags & 1:  # none yet, or not to be used
        return {}
    if length > _MOST_BYTES or not 512 <= offset < size:
        raise ValueError("metadata larger than anybody has")
    first = min(length, size - offset)
    raw = part.read(begin + offset, first)
    if first < length:  # around the end of the ring
        raw += part.read(begin + 512, length - first)
    if (zlib.crc32(raw, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF) & 0xFFFFFFFF != checksum:
        raise ValueError("metadata that is damaged: its checksum is another")
    parsed = parsed_text(raw.rstrip(b"\0").decode("utf-8", "replace"))
    return {name: group for name, group in parsed.items() if isinstance(group, dict)}


_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:[^"\\]|\\.)*"|[\w.+-]+|[{}=\[\],])', re.DOTALL)


def parsed_text(text: str) -> dict[str, Any]:
    """``name { ... }`` and ``name = value``; a value is a text, a number or a list. ``ValueError`` for what is none."""
    words = _words(text)
    return _section(words, 0)


def _words(text: str) -> Iterator[str]:
    at = 0
    while match := _TOKEN.match(text, at):
        yield match[1]
        at = match.end()
    if re.sub(r"#[^\n]*", "", text[at:]).strip():
        raise ValueError("metadata that is no text of LVM")


def _section(words: Iterator[str], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in words:
        if name == "}":
            return found
        after = next(words, "")
        if after == "{" and depth < _DEEPEST:
            found[name] = _section(words, depth + 1)
        elif after == "=":
            found[name] = _value(words)
        else:
            raise ValueError("metadata that is no text of LVM")
    if depth:
        raise ValueError("metadata that ends early")
    return found


def _value(words: Iterator[str]) -> Any:
    word = next(words, "")
    if word != "[":
        return _plain(word)
    found: list[str | int] = []
    for one in words:
        if one == "]":
            return found
        if one != ",":
            found.append(_plain(one))
    raise ValueError("metadata that ends early")


def _plain(word: str) -> str | int:
    if word.startswith('"'):
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    return int(word) if re.fullmatch(r"-?\d{1,18}", word) else word


def _volumes(name: str, group: Mapping[str, Any], disks: Mapping[str, Blocks]) -> Iterator[Volume]:
    known = _sections(group, "physical_volumes")
    here = {
        key: (disks[_bare(one.get("id"))], _number(one, "pe_start") * 512)
        for key, one in known.items()
        if _bare(one.get("id")) in disks
    }
    away = f"{len(known) - len(here)} of {len(known)} disks of the volume group are not here"
    extent = _number(group, "extent_size") * 512
    for key, volume in list(_sections(group, "logical_volumes").items())[:_MOST]:
        if "VISIBLE" not in str(volume.get("status", "")):
            continue
        identity = _bare(group.get("id")) + _bare(volume.get("id"))
        try:
            segments = [_segment(one, extent, here, away) for one in _segments(volume)]
            blocks: Blocks | None = Linear(segments)
            problem = ""
        except (ValueError, TypeError) as error:
            blocks, problem = None, str(error)
        yield Volume(f"{name}/{key}", blocks, problem, identity)


def _segments(volume: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [one for key, one in volume.items() if re.fullmatch(r"segment\d+", key) and isinstance(one, dict)]
    if not found or len(found) > _MOST:
        raise ValueError("a volume of no pieces, or of more than anybody has")
    return found


def _segment(
    one: Mapping[str, Any], extent: int, here: Mapping[str, tuple[Blocks, int]], away: str
) -> _Segment:
    kind = one.get("type")
    if kind not in ("striped", "linear"):
        raise ValueError(f"a volume of type {str(kind)[:20]}, which is not read here")
    stripes = one.get("stripes", [])
    if not stripes or len(stripes) % 2:
        raise ValueError("a volume without a place")
    areas = []
    for disk, at in zip(stripes[::2], stripes[1::2], strict=True):
        if disk not in here:
            raise ValueError(away)
        areas.append(_Area(here[disk][0], here[disk][1] + int(at) * extent))
    stripe = _number(one, "stripe_size") * 512
    if extent <= 0 or (len(areas) > 1 and stripe <= 0):
        raise ValueError("a volume whose pieces have no size")
    begin, count = _number(one, "start_extent"), _number(one, "extent_count")
    return _Segment(begin * extent, count * extent, tuple(areas), stripe)


def _sections(group: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    found = group.get(name)
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _number(section: Mapping[str, Any], name: str) -> int:
    value = section.get(name, 0)
    return value if isinstance(value, int) and value >= 0 else 0


def _bare(identifier: object) -> str:
    return str(identifier or "").replace("-", "")


class Linear:
    """A volume by its segments."""

    def __init__(self, segments: Sequence[_Segment]) -> None:
        self._segments = sorted(segments, key=lambda s: s.begin)
        self._begins = [s.begin for s in self._segments]
        self.size = max(s.begin + s.size for s in segments)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size:
            raise OSError(errno.EIO, f"outside of a volume of {self.size} bytes")
        found = []
        while length:
            segment = self._segments[max(0, bisect_right(self._begins, offset) - 1)]
            inside = offset - segment.begin
            if not 0 <= inside < segment.size:
                raise OSError(errno.EIO, f"the volume has no place for byte {offset}")
            area, at, count = _place(segment, inside)
            count = min(count, length)
            found.append(area.disk.read(area.begin + at, count))
            offset, length = offset + count, length - count
        return b"".join(found)


def _place(segment: _Segment, inside: int) -> tuple[_Area, int, int]:
    """On which area a byte of the segment is, where there, and how many follow it."""
    if len(segment.areas) == 1:
        return segment.areas[0], inside, segment.size - inside
    number, rest = divmod(inside, segment.stripe)
    row, area = divmod(number, len(segment.areas))
    return segment.areas[area], row * segment.stripe + rest, min(segment.stripe - rest, segment.size - inside)
