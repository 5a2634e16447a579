"""Opens what the user names as a victim's root: a directory, a device or an image, with its partitions and volumes."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redkeep.errors import EvidenceError, RedkeepError, RefusedError, UsageError
from redkeep.rescue.disk import fstab
from redkeep.rescue.disk.blocks import Blocks, Slice, first_line, open_blocks
from redkeep.rescue.disk.bundletree import BundleTree, is_bundle
from redkeep.rescue.disk.directory import DirectoryTree
from redkeep.rescue.disk.ext import FEATURES, Ext
from redkeep.rescue.disk.imagetree import ImageTree
from redkeep.rescue.disk.inodes import FileSystem
from redkeep.rescue.disk.lvm import ELSEWHERE, volumes
from redkeep.rescue.disk.mounting import mounted
from redkeep.rescue.disk.partitions import Part, inside, parts
from redkeep.rescue.disk.tree import Tree

_OURS = ("ext2", "ext3", "ext4", "xfs")
#: What to do with what we do not read.
_REFUSED = {
    "ntfs": "Windows is not for Redkeep: on a throwaway host, ntfs-3g -o ro, and name the directory for its files",
    "btrfs": "on a throwaway host: mount -o ro,rescue=nologreplay,noexec,nodev,nosuid, and name the directory",
    "luks": "it is encrypted: cryptsetup open --readonly DEVICE victim, and name /dev/mapper/victim",
    "raid": "assemble it: mdadm --assemble --readonly /dev/md9 DEVICES, and name /dev/md9",
}
_OTHER = "on a throwaway host: mount -o ro,noexec,nodev,nosuid, and name the directory"


@dataclass(frozen=True)
class Partition:
    """``name``: the number in the table, ``group/volume``, or ``disk`` where there is no table. Bytes.

    ``volume`` is a logical volume's identity.
    """

    name: str
    begin: int
    size: int
    kind: str
    label: str = ""
    uuid: str = ""
    mounted_at: str = ""
    note: str = ""
    volume: str = ""
    blocks: Blocks | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "begin_bytes": self.begin,
            "size_bytes": self.size,
            "kind": self.kind,
            "label": self.label,
            "uuid": self.uuid,
            "mounted_at": self.mounted_at,
            "note": self.note,
        }


@dataclass(frozen=True)
class Evidence:
    """``form``: ``directory``, ``bundle``, ``raw``, ``qcow2`` or ``device``, the last ones with ``mounted`` behind it where
    the kernel reads it."""

    where: Path
    form: str
    tree: Tree
    partitions: tuple[Partition, ...] = ()
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        if isinstance(self.tree, DirectoryTree | BundleTree):
            self.tree.close()


@contextmanager
def opened(where: Path, *, partition: str = "", mount: bool = False) -> Iterator[Evidence]:
    """``partition``: which one is the root, where that is not plain. ``mount``: let this host's kernel read it.

    Raises ``UsageError``, ``RefusedError`` and ``EvidenceError``.
    """
    if where.is_dir():
        found = _directory(where)
        try:
            yield found
        finally:
            found.close()
        return
    with ExitStack() as stack:
        blocks, form = open_blocks(where, stack)
        if form == "raw" and where.is_block_device():
            form = "device"
        if mount:
            found = _mounted(where, form, _partitions(blocks), partition, stack)
        else:
            found = _read(where, form, _partitions(blocks), partition)
        yield found


def _directory(where: Path) -> Evidence:
    try:
        if is_bundle(where):
            return Evidence(where, "bundle", BundleTree(where))
        return Evidence(where, "directory", DirectoryTree(where))
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=str(where), next="as root: sudo redkeep rescue ..."
        ) from None


def _read(where: Path, form: str, found: list[Partition], wanted: str) -> Evidence:
    systems, unreadable = _systems(found)
    root = _root(where, found, systems, unreadable, wanted)
    order = [root, *(name for name in systems if name != root)]
    bare = ImageTree(str(where), [systems[root]])
    places = {p.name: fstab.Place(p.name, p.uuid, p.label, p.volume) for p in found if p.name in systems}
    mounts = fstab.mounts(bare, [places[name] for name in order[1:]])
    tree = ImageTree(
        str(where), [systems[name] for name in order], {path: order.index(n) for path, n in mounts.items()}
    )
    at = {name: path.decode("utf-8", "backslashreplace") for path, name in mounts.items()} | {root: "/"}
    told = [
        replace(
            p, mounted_at=at.get(p.name, ""), note="; ".join(filter(None, (p.note, unreadable.get(p.name))))
        )
        for p in found
    ]
    return Evidence(where, form, tree, tuple(told), tuple(_notes(told, systems)))


def _partitions(disk: Blocks) -> list[Partition]:
    table = parts(disk)
    if not table:
        found = [_partition("disk", Part(0, 0, disk.size, ""), disk)]
    else:
        found = [_partition(str(p.number), p, Slice(disk, p.begin, p.size)) for p in table]
    physical = [p.blocks for p in found if p.kind == "lvm" and p.blocks is not None]
    for volume in volumes(physical):
        if volume.blocks is None:
            found.append(Partition(volume.name, 0, 0, "", note=volume.problem))
        else:
            one = _partition(volume.name, Part(0, 0, volume.blocks.size, "lvm"), volume.blocks)
            found.append(replace(one, volume=volume.identity))
    return found


def _partition(name: str, part: Part, blocks: Blocks) -> Partition:
    what = inside(blocks)
    note = f"the disk ends {part.missing} bytes before this part does" if part.missing else ""
    return Partition(name, part.begin, part.size, what.kind, what.label, what.uuid, note=note, blocks=blocks)


def _systems(found: Sequence[Partition]) -> tuple[dict[str, FileSystem], dict[str, str]]:
    """The file systems that can be read, and why others cannot, by the names of their partitions."""
    systems: dict[str, FileSystem] = {}
    unreadable: dict[str, str] = {}
    for number, part in enumerate(found):
        if part.blocks is None or part.kind not in _OURS:
            continue
        try:
            system = opened_system(part.kind, part.blocks, number)
            if system.stat(system.root).kind != "directory":
                raise OSError(errno.EIO, "its root is no directory")
            system.children(system.root)
            systems[part.name] = system
        except (OSError, MemoryError, ValueError) as error:
            unreadable[part.name] = f"{part.kind} that cannot be read: " + (
                first_line(error) if isinstance(error, OSError) else type(error).__name__
            )
    return systems, unreadable


def opened_system(kind: str, blocks: Blocks, number: int) -> FileSystem:
    if kind == "xfs":
        from redkeep.rescue.disk.xfs import Xfs

        return Xfs(blocks, number)
    return Ext(blocks, number)


def _root(
    where: Path,
    found: Sequence[Partition],
    systems: Mapping[str, FileSystem],
    unreadable: Mapping[str, str],
    wanted: str,
) -> str:
    if wanted:
        if wanted not in systems:
            told = ", ".join(systems) or "none"
            raise UsageError(f"no readable partition {wanted}", where=str(where), next=f"there are: {told}")
        return wanted
    best = max(systems, key=lambda name: _likeness(systems[name]), default="")
    if not best:
        raise _nothing(where, found, unreadable)
    if not _likeness(systems[best]) and (unreadable or any(map(_foreign, found))):
        error = _nothing(where, found, unreadable)  # what cannot be read may well be the root
        names = ", ".join(systems)
        raise type(error)(
            error.what, where=error.where, next=f"{error.next}; what can be read: --partition {names}"
        )
    return best


def _foreign(part: Partition) -> bool:
    """Whether it may hold a system that is not read here."""
    if part.blocks is None:
        return bool(part.note)
    return part.kind not in _OURS and part.kind not in ("", "swap", "lvm", "fat")


def _likeness(system: FileSystem) -> int:
    """How much a file system looks like a root."""
    top = system.children(system.root)
    return sum(name in top for name in (b"etc", b"usr", b"var", b"bin", b"sbin", b"root", b"home"))


def _nothing(where: Path, found: Sequence[Partition], unreadable: Mapping[str, str]) -> RedkeepError:
    cut = next((p.note for p in found if p.note), "")
    for name, why in unreadable.items():
        hint = "repair a copy of it (e2fsck, xfs_repair), and rescue from the copy"
        if FEATURES in why:
            hint = "on a throwaway host: --mount, or -o ro,noload,noexec,nodev,nosuid there, and name the directory"
        elif cut or "ends" in why:
            hint = "is the image complete? compare its size with the disk's"
        return EvidenceError(f"{why}; {cut}" if cut else why, where=f"{where}, {name}", next=hint)
    for part in found:
        if part.blocks is not None and _foreign(part):
            named = part.kind.upper() if part.kind in ("ntfs", "luks", "raid", "fat") else part.kind
            return RefusedError(
                f"{named} is not read here",
                where=f"{where}, {part.name}",
                next=_REFUSED.get(part.kind, _OTHER),
            )
    if lost := next((p for p in found if p.blocks is None and p.note), None):
        return EvidenceError(lost.note, where=f"{where}, {lost.name}", next=ELSEWHERE)
    if cut:
        return EvidenceError(
            cut, where=str(where), next="is the image complete? compare its size with the disk's"
        )
    kinds = ", ".join(f"{p.name}: {p.kind or 'unknown'}" for p in found[:8])
    return EvidenceError(
        "no ext4 or XFS file system in it" if found else "not a disk that we know",
        where=f"{where} ({kinds})",
        next="is it the right file? a directory, device, raw or qcow2 image with Linux on it",
    )


def _notes(found: Sequence[Partition], systems: Mapping[str, FileSystem]) -> Iterator[str]:
    for part in found:
        if part.name in systems and getattr(systems[part.name], "unclean", False):
            yield (
                f"partition {part.name} was not unmounted cleanly, and its journal is not replayed: the changes of the last "
                "minute may lack. To have them, mount a copy of the disk once on a host that you throw away, and rescue that"
            )
        if part.note:
            yield f"partition {part.name}: {part.note}"
        if part.name in systems and not part.mounted_at:
            yield f"partition {part.name} is not mounted by the root's fstab; --partition {part.name} looks into it"


def _mounted(where: Path, form: str, found: list[Partition], wanted: str, stack: ExitStack) -> Evidence:
    """The kernel reads it, in a mount namespace of this process only."""
    if form == "qcow2":
        hint = "qemu-img convert -O raw IMAGE disk.raw, or leave out --mount"
        raise RefusedError("the kernel does not mount qcow2", where=str(where), next=hint)
    systems, _ = _systems(found)
    mountable = [p for p in found if p.kind in _OURS and "/" not in p.name]
    if wanted:
        chosen = next((p for p in mountable if p.name == wanted), None)
    else:
        chosen = max(
            mountable, key=lambda p: _likeness(systems[p.name]) if p.name in systems else 0, default=None
        )
    if chosen is None:
        raise RefusedError(
            "nothing in it that --mount can mount",
            where=str(where),
            next="leave out --mount: LVM is read without",
        )
    directory = stack.enter_context(mounted(where, chosen.kind, chosen.begin, chosen.size))
    tree = DirectoryTree(directory, where=str(where))
    stack.callback(tree.close)
    told = tuple(replace(p, mounted_at="/" if p is chosen else "") for p in found)
    read = {chosen.name: systems[chosen.name]} if chosen.name in systems else {}
    return Evidence(where, f"{form}, mounted", tree, told, tuple(_notes(told, read)))


def inside_of(inner: Path, outer: Path) -> bool:
    """Whether a path, which need not exist yet, is within a directory, whatever links lead there."""
    inner, outer = inner.resolve(), outer.resolve()
    if inner == outer or outer in inner.parents:
        return True
    try:
        there = outer.stat()
    except OSError:
        return False
    for parent in (inner, *inner.parents):  # the same directory by another mount
        try:
            found = parent.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino):
            return True
    return False
