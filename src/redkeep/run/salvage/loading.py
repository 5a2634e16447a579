"""From the copy of the data to an engine that has it: whether it can read them at all, and what it must do without."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redkeep.errors import EvidenceError
from redkeep.model.engine import Capability, Engine, Version, oldest_that_reads
from redkeep.model.events import Emit, Note
from redkeep.rescue.cage import caged
from redkeep.run.salvage.server import Binary, CleanEngine, Load, ReadingFailed, loaded

#: Values that an engine refuses are left out one after the other; with more of them than this, the file is beyond help.
_MOST_REFUSED = 32


@dataclass
class Loading:
    """What was loaded, and what it lacks. ``refused``: keys whose values the engine found damaged."""

    load: Load
    refused: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def how_to_load(prepared: dict[str, Any], engine: Engine) -> Loading:
    """Raises ``EvidenceError`` where this engine cannot read the file, with the name of one that can."""
    loading = Loading(Load(prepared["kind"] == "aof", prepared["databases"]))
    rdb = prepared["rdb"]
    if rdb is None:
        return loading
    writer = Engine(rdb["flavor"], Version(0))
    reads = engine.reads_rdb_of(writer)
    if rdb["rdb_version"] <= reads:
        return loading
    told = f"RDB version {rdb['rdb_version']}, written by {rdb['flavor'].capitalize()} {rdb['written_by'] or '(unknown)'}"
    nothing_new = not prepared["own_types"] and not prepared["damaged"] and rdb["keys_exact"]
    if nothing_new and engine.supports(Capability.RELAXED_RDB):
        loading.load = replace(loading.load, relaxed=True)
        loading.notes.append(
            f"{told}, is later than {engine.name} knows, and holds nothing that is new in it; it was loaded"
        )
        return loading
    oldest = oldest_that_reads(rdb["flavor"], rdb["rdb_version"])
    which = (
        f"{rdb['flavor'].capitalize()} {oldest.major}.{oldest.minor} or later"
        if oldest
        else "the one that wrote it"
    )
    raise EvidenceError(
        f"{told}: {engine.name} reads {rdb['flavor'].capitalize()}'s up to version {reads}",
        where=prepared["files"][0]["path"],
        next=f"name a server that does, {which}: --server PATH"
        + (" (leave --server out: the bundled one does)" if oldest and rdb["flavor"] == "valkey" else ""),
    )


@contextlib.asynccontextmanager
async def filled(work: Path, binary: Binary, loading: Loading, emit: Emit) -> AsyncIterator[CleanEngine]:
    """The engine with the copy in it. A value that it refuses is left out of the copy, and named in ``loading``."""
    async with AsyncExitStack() as stack:
        yield await _until_it_reads(work, binary, loading, emit, stack)


async def _until_it_reads(
    work: Path, binary: Binary, loading: Loading, emit: Emit, stack: AsyncExitStack
) -> CleanEngine:
    folder = work / "engine"
    while True:
        try:
            return await stack.enter_async_context(loaded(folder, binary, loading.load, emit))
        except ReadingFailed as failed:
            _as_it_was(folder)
            if "checksum" in failed.told.lower() and loading.load.checksum:
                loading.load = replace(loading.load, checksum=False)
                loading.notes.append(
                    "the checksum of the file is wrong: something in it was changed; it was loaded all the same, and "
                    "values may be damaged"
                )
                continue
            if "handle rdb format" in failed.told.lower():
                raise _too_new(failed) from None
            if failed.offset is None or len(loading.refused) >= _MOST_REFUSED:
                raise
            dropped = await _leave_out(work, loading, failed.offset, emit)
            if not dropped:
                raise
            loading.refused.append(dropped | {"why": failed.told})
            emit(Note(f"the engine refuses the value of {dropped['key'][:60]!r}; loading without it"))


def _too_new(failed: ReadingFailed) -> EvidenceError:
    return EvidenceError(
        f"of a later version than the engine reads: {failed.told}",
        where=failed.where,
        next="name the server that wrote it, or a later one: --server PATH",
    )


async def _leave_out(work: Path, loading: Loading, offset: int, emit: Emit) -> dict[str, Any]:
    file = "engine/appendonly.aof" if loading.load.aof else "engine/dump.rdb"
    arguments = {"work": str(work), "file": file, "offset": offset}
    found: dict[str, Any] = await caged("redkeep.rescue.redis.rdbcopy:without_part", arguments, emit)
    return found


def _as_it_was(folder: Path) -> None:
    """A server since 7.0 moves a single append-only file into a folder before it reads it."""
    moved = folder / "appendonlydir" / "appendonly.aof"
    if moved.exists():
        moved.replace(folder / "appendonly.aof")
    shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
