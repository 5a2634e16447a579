"""Takes files out of a victim's disk into a bundle, and proves that they are what was there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redkeep.errors import RedkeepError, RefusedError, UsageError
from redkeep.model.events import Emit, Note, Progress
from redkeep.rescue.disk.bundle import Bundle, Item, Writer
from redkeep.rescue.disk.digest import MOST_HOLES, digest_of
from redkeep.rescue.disk.directory import FileContent
from redkeep.rescue.disk.source import Evidence, inside_of, opened
from redkeep.rescue.disk.tree import Skipped, Stat, Tree, reason, text_of, walk
from redkeep.rescue.inspection.families import FAMILIES
from redkeep.rescue.survey import survey

_MIB = 1 << 20
#: Seconds between two words of progress.
_PACE = 0.5


@dataclass
class Taking:
    """What is to be taken, and what came of it."""

    items: dict[bytes, Item] = field(default_factory=dict)
    problems: list[Skipped] = field(default_factory=list)
    special: int = 0

    def want(self, path: bytes, entry: Stat, belongs: str) -> None:
        known = self.items.get(path)
        if known is not None:
            self.items[path] = replace(known, belongs=tuple(sorted({*known.belongs, belongs})))
        elif entry.kind in ("file", "directory", "symlink"):
            self.items[path] = Item(
                path,
                entry.kind,
                entry.size,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime,
                belongs=(belongs,),
            )


def extract(
    evidence: Evidence, bundle: Path, wanted: Iterable[tuple[bytes, str]], emit: Emit
) -> dict[str, Any]:
    """``wanted``: paths with what they belong to; directories with all below them. Returns the document of ``--json``.

    Raises ``RefusedError`` for a bundle inside the evidence or a disk that is too small, ``RedkeepError`` for one that
    fills up; run again, it goes on.
    """
    refuse_place(evidence, bundle)
    began = time.monotonic()
    taking = gather(evidence.tree, wanted)
    if not taking.items:
        raise UsageError(
            "nothing there to extract",
            where=evidence.tree.where,
            next="redkeep rescue inspect shows what there is; --only /PATH takes any path",
        )
    into = Bundle(bundle, {"source": str(evidence.where.resolve()), "disk": _identity(evidence)})
    try:
        done = into.begin()
        todo = _todo(taking, done)
        # what an earlier run took stays in the manifest, and is verified again
        for path, item in done.items():
            if path not in taking.items:
                taking.items[path] = item
                if item.problem:
                    taking.problems.append(Skipped(path, item.problem))
        _require_space(evidence.tree, into, todo, taking)
        copied = _copy(evidence.tree, into, todo, taking, emit)
        manifest = into.finish(taking.items)
        written = time.monotonic()
        verified = _verify(into, taking, emit)
    except OSError as error:
        raise _full(error, bundle) from None
    files = [i for i in taking.items.values() if i.kind == "file" and not i.problem]
    return {
        "source": str(evidence.where),
        "bundle": str(bundle),
        "files": len(files),
        "bytes": sum(i.size for i in files),
        "skipped_devices_and_sockets": taking.special,
        "copied_files": copied[0],
        "copied_bytes": copied[1],
        "verified_files": verified,
        "complete": not taking.problems and verified == len(files),
        "problems": [{"path": text_of(p.path), "why": p.why} for p in taking.problems],
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "verify_seconds": round(time.monotonic() - written, 2),
        "seconds": round(time.monotonic() - began, 2),
    }


def gather(tree: Tree, wanted: Iterable[tuple[bytes, str]]) -> Taking:
    """Every path below what is wanted, by its real path, so that nothing is taken twice."""
    taking = Taking()
    for path, belongs in wanted:
        try:
            itself = tree.stat(path, follow=False)
            if itself.kind == "symlink":
                taking.want(path.rstrip(b"/"), itself, belongs)
            real = tree.real(path)
            entry = tree.stat(real, follow=False)
        except OSError as error:
            if path.rstrip(b"/") not in taking.items:  # a link that leads nowhere is taken as one
                taking.problems.append(Skipped(path, reason(error)))
            continue
        taking.want(real, entry, belongs)
        if entry.kind == "unknown":
            taking.problems.append(Skipped(path, "its inode cannot be read"))
        if entry.kind == "directory":
            for below, found in walk(tree, real, skipped=taking.problems.append):
                taking.want(below, found, belongs)
    taking.items.pop(b"/", None)
    return taking


def refuse_place(evidence: Evidence, bundle: Path, what: str = "bundle") -> None:
    """A bundle, or ``what`` else is made of the evidence, is never inside it, nor over it."""
    hint = "name a directory on another disk"
    if evidence.where.is_dir() and inside_of(bundle, evidence.where):
        raise RefusedError(f"the {what} would be inside the evidence", where=str(bundle), next=hint)
    if bundle.exists() and not bundle.is_dir():
        raise UsageError(f"the {what} is not a directory", where=str(bundle), next="name a new directory")
    if evidence.form.startswith("device") and _on_device(bundle, evidence.where):
        raise RefusedError(f"the {what} would be on the disk that is rescued", where=str(bundle), next=hint)


def _on_device(bundle: Path, device: Path) -> bool:
    """Whether the directory's file system is on this disk or one of its partitions (Linux, /sys/dev/block)."""
    there = next(p for p in (bundle.resolve(), *bundle.resolve().parents) if p.exists())
    number, own = there.stat().st_dev, device.stat().st_rdev
    name = f"{os.major(number)}:{os.minor(number)}"
    return number == own or (
        Path(f"/sys/dev/block/{os.major(own)}:{os.minor(own)}").resolve()
        in Path(f"/sys/dev/block/{name}").resolve().parents
    )


def _identity(evidence: Evidence) -> str:
    """The same for the same disk: its file systems' UUIDs."""
    return " ".join(p.uuid for p in evidence.partitions if p.uuid) or evidence.form


def _todo(taking: Taking, done: Mapping[bytes, Item]) -> list[Item]:
    """What is not there yet as it is now. What is there keeps its hash."""
    todo = []
    for path, item in taking.items.items():
        had = done.get(path)
        if had is not None and had.hash and (had.size, had.mtime) == (item.size, item.mtime):
            taking.items[path] = replace(item, hash=had.hash)
        elif item.kind == "file":
            todo.append(item)
    return todo


def _require_space(tree: Tree, into: Bundle, todo: Sequence[Item], taking: Taking) -> None:
    needed = sum(_data(tree, item) if item.size > _MIB else (item.size + 4095) & ~4095 for item in todo)
    free = shutil.disk_usage(into.directory).free + _there(into, todo)
    needed += len(taking.items) * 600  # manifest, progress and directories
    if needed > free:
        raise RefusedError(
            f"it needs {needed // _MIB + 1} MiB, and {free // _MIB} MiB are free",
            where=str(into.directory),
            next="name a directory on a larger disk, or take less with --only",
        )


def _there(into: Bundle, todo: Sequence[Item]) -> int:
    """What an interrupted run left of the big files, which are written again in their place."""
    found = 0
    for item in todo:
        if item.size > _MIB:
            try:
                found += os.lstat(os.fsencode(into.files) + item.path).st_blocks * 512
            except OSError:
                continue
    return found


def _data(tree: Tree, item: Item) -> int:
    """What a file really holds. Pieces that lie over each other on a forged disk count each time, as they are written."""
    try:
        with tree.open(item.path) as content:
            return sum(length for _, length in content.segments())
    except OSError:
        return 0


class Pace:
    """Says how far it is, how fast, and how long it will take, twice a second."""

    def __init__(self, what: str, total: int, emit: Emit) -> None:
        self._what, self._total, self._emit = what, max(total, _MIB // 10), emit
        self._began = self._said = time.monotonic()
        self.done = 0

    def add(self, count: int) -> bool:  # bytes
        """True where something was said."""
        self.done += count
        now = time.monotonic()
        if now - self._said < _PACE:
            return False
        self._said = now
        rate = self.done / (now - self._began)
        left = (self._total - self.done) / rate if rate else 0
        self._tell(
            f"MiB  {rate / _MIB:.1f} MiB/s  {left:.0f} s left", min(self.done, self._total - _MIB // 10)
        )
        return True

    def end(self) -> None:
        self._tell("MiB", self._total)

    def _tell(self, unit: str, done: int) -> None:
        self._emit(Progress(self._what, round(done / _MIB, 1), round(self._total / _MIB, 1), unit))


def _copy(tree: Tree, into: Bundle, todo: Sequence[Item], taking: Taking, emit: Emit) -> tuple[int, int]:
    journal, writer = into.progress(), Writer(into.files)
    pace = Pace("extracting", sum(min(i.size, MOST_HOLES) for i in todo), emit)
    files = count = 0
    try:
        for item in todo:
            try:
                made, data = _copy_one(tree, item, writer)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise
                made, data = replace(item, problem=reason(error)), 0
                taking.problems.append(Skipped(item.path, reason(error)))
            taking.items[item.path] = made
            journal.add(made)
            files, count = files + (not made.problem), count + data
            if pace.add(min(item.size, MOST_HOLES)):
                journal.flush()
        for item in taking.items.values():
            if item.kind == "directory":
                writer.directory(item.path)
            elif item.kind == "symlink":
                taking.items[item.path] = replace(item, target=_target(tree, item.path))
    finally:
        writer.close()
        journal.close()
    pace.end()
    return files, count


def _target(tree: Tree, path: bytes) -> str:
    try:
        return text_of(tree.target(path))
    except OSError:
        return ""


def _copy_one(tree: Tree, item: Item, writer: Writer) -> tuple[Item, int]:
    with tree.open(item.path) as content:
        out = writer.create(item.path)
        try:
            found, count = digest_of(content, lambda offset, data: _write(out, offset, data))
            if count < content.size:
                os.ftruncate(out, content.size)
            return replace(item, size=content.size, hash=found), count
        finally:
            os.close(out)


def _write(out: int, offset: int, data: bytes) -> None:
    """Zeros in the middle of data stay data: what is a hole was decided on the victim's disk."""
    written = os.pwrite(out, data, offset)
    while written < len(data):
        written += os.pwrite(out, data[written:], offset + written)


def _verify(into: Bundle, taking: Taking, emit: Emit) -> int:
    """Reads everything back. What is not what was read is named, and made again by the next run."""
    files = [i for i in taking.items.values() if i.kind == "file" and not i.problem]
    pace = Pace("verifying", sum(min(i.size, MOST_HOLES) for i in files), emit)
    writer = Writer(into.files)
    good, bad = 0, []
    try:
        for item in files:
            try:
                with FileContent(writer.reopen(item.path)) as content:
                    same = digest_of(content)[0] == item.hash and content.size == item.size
            except OSError:
                same = False
            if same:
                good += 1
            else:
                bad.append(item)
            pace.add(min(item.size, MOST_HOLES))
    finally:
        writer.close()
    for item in bad:
        taking.problems.append(
            Skipped(item.path, "the file in the bundle is not what was read; run it again")
        )
        taking.items[item.path] = replace(item, hash="", problem="differs in the bundle")
    if bad:
        into.finish(taking.items)
        emit(Note(f"{len(bad)} files in the bundle are not what was read"))
    pace.end()
    return good


def _full(error: OSError, bundle: Path) -> RedkeepError:
    what = (
        "the disk is full"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else f"cannot write: {reason(error)}"
    )
    return RedkeepError(what, where=str(bundle), next="make room and run it again: it goes on where it was")


def wanted_of(evidence: Evidence, only: Sequence[str], emit: Emit) -> list[tuple[bytes, str]]:
    """The paths that were named, and those that an inspection finds of the named families; of all, where none are named."""
    paths = [(os.fsencode(one), "path") for one in only if one.startswith("/")]
    families = [one for one in only if not one.startswith("/")] or ([] if paths else list(FAMILIES))
    if not families:
        return paths
    look = survey(evidence, emit)[1]
    return paths + [(path, family) for path, family in look.wanted if family in families]


def job(source: str, bundle: str, only: list[str], partition: str, mount: bool, emit: Emit) -> dict[str, Any]:
    """For the cage."""
    with opened(Path(source), partition=partition, mount=mount) as evidence:
        refuse_place(evidence, Path(bundle))
        return extract(evidence, Path(bundle), wanted_of(evidence, only, emit), emit)
