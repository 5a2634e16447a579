"""Logical volumes, read by libvslvm. Groups whose disks are not all here are named and left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redkeep.rescue.disk.blocks import BlockFile, Blocks, ReadBlocks, first_line, library


@dataclass(frozen=True)
class Volume:
    """``name`` as ``group/volume``; ``blocks`` None where it cannot be read, and ``problem`` says why."""

    name: str
    blocks: Blocks | None
    problem: str = ""


def volumes(physical: Sequence[Blocks]) -> Iterator[Volume]:
    """The volumes on these physical volumes, which may belong to several groups."""
    groups: dict[str, list[Blocks]] = {}
    for part in physical:
        try:
            groups.setdefault(_group_of(part), []).append(part)
        except OSError as error:
            yield Volume("?", None, f"LVM that cannot be read: {first_line(error)}")
    for found in groups.values():
        try:
            yield from _opened(found)
        except OSError as error:
            yield Volume("?", None, f"LVM that cannot be read: {first_line(error)}")


def _group_of(part: Blocks) -> str:
    handle = library("pyvslvm").handle()
    handle.open_file_object(BlockFile(part))
    return str(handle.get_volume_group().identifier)


def _opened(physical: list[Blocks]) -> Iterator[Volume]:
    handle = library("pyvslvm").handle()
    handle.open_file_object(BlockFile(physical[0]))
    group = handle.get_volume_group()
    wanted = [
        _plain(group.get_physical_volume(i).identifier) for i in range(group.number_of_physical_volumes)
    ]
    by_identifier = {_identifier(part): part for part in physical}
    missing = len([one for one in wanted if one not in by_identifier])
    if missing:
        yield Volume(
            str(group.name), None, f"{missing} of {len(wanted)} disks of the volume group are not here"
        )
        return
    handle.open_physical_volume_files_as_file_objects([BlockFile(by_identifier[one]) for one in wanted])
    group = handle.get_volume_group()  # again: the one from before does not know the files
    for i in range(group.number_of_logical_volumes):
        volume = group.get_logical_volume(i)
        yield Volume(
            f"{group.name}/{volume.name}", _Kept(handle, volume.read_buffer_at_offset, int(volume.size))
        )


class _Kept(ReadBlocks):
    """Holds the handle: a volume of a handle that is gone reads nothing."""

    def __init__(self, handle: object, read_at, size: int) -> None:  # type: ignore[no-untyped-def]
        super().__init__(read_at, size)
        self._handle = handle


def _identifier(part: Blocks) -> str:
    """The physical volume's UUID, 32 letters behind the label's header (LVM2 on-disk format)."""
    for at in range(0, 2048, 512):
        sector = part.read(at, 512)
        if sector[:8] == b"LABELONE":
            begin = int.from_bytes(sector[20:24], "little")
            return sector[begin : begin + 32].decode("ascii", "replace")
    return ""


def _plain(identifier: str) -> str:
    return identifier.replace("-", "")
