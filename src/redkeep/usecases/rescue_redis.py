"""Brings the Redis data of a dead or broken-into server back: into a clean RDB file, and into a running deployment."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redkeep.errors import RedkeepError, RefusedError, ReplyError, UsageError, WireError
from redkeep.model.engine import Capability, Engine, oldest_that_reads
from redkeep.model.events import Emit, Note
from redkeep.rescue.cage import caged
from redkeep.rescue.disk.source import inside_of
from redkeep.rescue.redis.picking import loose_file
from redkeep.run.salvage.importing import Import, copy_functions, require_room
from redkeep.run.salvage.keys import KeyList, keyspace, take
from redkeep.run.salvage.loading import Loading, filled, how_to_load
from redkeep.run.salvage.server import Binary, CleanEngine, Load, binary_at, loaded
from redkeep.run.salvage.survey import Contents, Suspect, survey
from redkeep.run.salvage.target import Destination, abilities_of
from redkeep.run.salvage.workplace import Workplace, claimed
from redkeep.usecases.rescue_redis_into import Opened
from redkeep.wire import replies
from redkeep.wire.client import Client

RESULT, REPORT, INTRUDERS = "clean.rdb", "report.json", "intruders.jsonl"
_MOST_NAMED = 100


@dataclass(frozen=True)
class Wish:
    """``data``: a path in the source; empty: what is found there. ``server``: another engine than the bundled one.

    ``flush``: before which flush an append-only file is cut; 0: none, -1: the one that took the most keys.
    ``databases``: only these go into the target; empty: all.
    """

    source: Path
    data: str
    work: Path
    server: Path | None = None
    partition: str = ""
    mount: bool = False
    flush: int = 0
    without_intruders: bool = False
    with_functions: bool = False
    databases: tuple[int, ...] = ()
    replace: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it another rescue."""
        return {
            "source": str(self.source.resolve()),
            "data": self.data,
            "partition": self.partition,
            "before-flush": self.flush,
            "without-intruders": self.without_intruders,
            "with-functions": self.with_functions,
            "server": str(self.server or ""),
        }


@dataclass(frozen=True)
class Rescued:
    """The document of ``--json``."""

    document: dict[str, Any] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Nothing was damaged, and where a target was named it has everything."""
        into = self.document["into"]
        return bool(self.document["complete"]) and (into is None or bool(into["complete"]))

    def as_json(self) -> dict[str, Any]:
        return self.document


async def rescue_redis(wish: Wish, target: Opened | None, emit: Emit) -> Rescued:
    """Run again after whatever ended it, it goes on. Without a target the result is the file alone.

    Raises ``UsageError`` where it is not plain which data is meant, ``EvidenceError`` where nothing can be read,
    ``RefusedError`` (a working directory in the evidence, no room, a Cluster without such a database), and what
    connecting and writing to the target raises.
    """
    began = time.monotonic()
    _require_source(wish)
    _refuse_place(wish)
    binary = await binary_at(wish.server)
    async with contextlib.AsyncExitStack() as stack:
        # first: a wrong password is told before an hour of loading
        to = await stack.enter_async_context(target()) if target else None
        work = stack.enter_context(claimed(wish.work, wish.identity))
        try:
            if work.state["phase"] == "clean" and (work.folder / RESULT).exists():
                document = await _again(wish, work, binary, to, emit)
            else:
                document = await _first(wish, work, binary, to, emit)
            document["seconds"] = round(time.monotonic() - began, 2)
            work.write(REPORT, _json(document))
        except OSError as error:  # what is read there is the cage's; this is about our own files
            raise RedkeepError(
                f"cannot write: {error.strerror or error}",
                where=str(wish.work),
                next="make room and run it again: it goes on where it was",
            ) from None
        return Rescued(document)


def _require_source(wish: Wish) -> None:
    if not wish.source.exists():
        raise UsageError("no such file or directory", where=str(wish.source), next="check the path")
    if wish.data and loose_file(wish.source):
        raise UsageError(
            "a file of Redis, and a path in it", where=str(wish.source), next="leave the path out"
        )


def _refuse_place(wish: Wish) -> None:
    """Nothing is ever written into the evidence; a file that stands alone is none of a disk."""
    source = wish.source
    if source.is_dir() and inside_of(wish.work, source):
        raise RefusedError(
            "the working directory would be inside the evidence",
            where=str(wish.work),
            next="--work DIRECTORY elsewhere",
        )


async def _first(
    wish: Wish, work: Workplace, binary: Binary, to: Destination | None, emit: Emit
) -> dict[str, Any]:
    """From the evidence to the clean file, and on into the target with the same engine."""
    _forget(work)
    arguments = {
        "source": str(wish.source),
        "path": wish.data,
        "work": str(work.folder),
        "partition": wish.partition,
        "mount": wish.mount,
        "with_scripts": wish.with_functions,
        "with_modules": wish.server is not None,
        "flush": wish.flush,
    }
    prepared = await caged("redkeep.rescue.redisprepare:job", arguments, emit)
    loading = how_to_load(prepared, binary.engine)
    async with filled(work.folder, binary, loading, emit) as engine, _alive(engine):
        client = await engine.client()
        info = replies.info(await client.call("INFO"))
        found, left_out = await _read(wish, work, client, binary, info, emit)
        await _save(client, engine, work)
        document = _document(wish, work, binary, prepared, loading, info, found, left_out)
        work.state |= {"phase": "clean", "document": document, "load": _remembered(loading.load)}
        work.keep()
        if to:
            document["into"] = await _import(wish, work, client, binary, to, emit)
        return document


def _forget(work: Workplace) -> None:
    """What an interrupted run left, which would be made again anyway."""
    for name in ("engine", "keys"):
        shutil.rmtree(work.folder / name, ignore_errors=True)
    (work.folder / RESULT).unlink(missing_ok=True)
    work.keep()
    (work.folder / "engine").mkdir(mode=0o700)


async def _again(
    wish: Wish, work: Workplace, binary: Binary, to: Destination | None, emit: Emit
) -> dict[str, Any]:
    """The clean file is there: only the target is left, if there is one."""
    document: dict[str, Any] = {**work.state["document"], "into": None}
    if to is None:
        emit(Note("this rescue is complete already; its result is there"))
        return document
    emit(Note("going on with the clean file of the run before"))
    folder = work.folder / "engine"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if not (work.folder / "keys").is_dir():
        raise RefusedError("the list of keys is gone", where=str(work.folder), next="--work NEW-DIRECTORY")
    shutil.copyfile(work.folder / RESULT, folder / "dump.rdb")
    (folder / "dump.rdb").chmod(0o600)
    load = Load(False, work.state["load"]["databases"])
    async with loaded(folder, binary, load, emit) as engine, _alive(engine):
        client = await engine.client()
        document["into"] = await _import(wish, work, client, binary, to, emit)
        return document


def _remembered(load: Load) -> dict[str, Any]:
    return {"databases": load.databases}


@contextlib.asynccontextmanager
async def _alive(engine: CleanEngine) -> AsyncIterator[None]:
    """An engine that dies on what it reads is told as that, and not as a connection that is lost."""
    try:
        yield
    except WireError as error:
        if error.where == "the clean engine":
            with contextlib.suppress(TimeoutError):
                import asyncio

                async with asyncio.timeout(5):
                    await engine.process.wait()
        if engine.process.returncode is not None:
            raise engine.died() from None
        raise


async def _read(
    wish: Wish, work: Workplace, client: Client, binary: Binary, info: dict[str, str], emit: Emit
) -> tuple[Contents, int]:
    """Everything once; then what looks like an intruder's goes, where that was asked for. Returns how many went."""
    keys = KeyList(work.folder / "keys")
    counts = {d: c["keys"] for d, c in keyspace(info).items()}
    await keys.write(client, counts)
    can = abilities_of(binary.engine)
    found = await survey(
        client, keys, keys.groups(), sum(counts.values()), can, emit, field_ttl=_fields_expire(info)
    )
    work.write(INTRUDERS, "")
    work.append(INTRUDERS, (s.as_json(whole=True) for s in found.suspects))
    if not (wish.without_intruders and found.suspects):
        return found, 0
    await _remove(client, found.suspects)
    for suspect in found.suspects:
        found.without(suspect)
    await keys.write(client, counts)
    return found, len(found.suspects)


def _fields_expire(info: dict[str, str]) -> bool:
    """Valkey counts keys with such fields as ``keys_with_volatile_items``, Redis as ``subexpiry``."""
    return any(c.get("keys_with_volatile_items") or c.get("subexpiry") for c in keyspace(info).values())


def _memory(info: dict[str, str]) -> int:
    """Bytes that the data takes, tables included; clients are few here."""
    return max(0, int(info.get("used_memory", 0)) - int(info.get("used_memory_startup", 0)))


async def _remove(client: Client, suspects: list[Suspect]) -> None:
    for suspect in suspects:
        await client.pipeline([("SELECT", suspect.database), ("UNLINK", suspect.key)])


async def _save(client: Client, engine: CleanEngine, work: Workplace) -> None:
    try:
        await client.call("SAVE")
    except ReplyError as error:
        raise RedkeepError(
            f"the clean engine cannot save: {error.what}",
            where=str(engine.folder),
            next="is there room on the disk? its log, beside, says more",
        ) from None
    take(engine.folder / "dump.rdb", work.folder / RESULT)


async def _import(
    wish: Wish, work: Workplace, client: Client, binary: Binary, to: Destination, emit: Emit
) -> dict[str, Any]:
    keys = KeyList(work.folder / "keys")
    info = replies.info(await client.call("INFO"))
    counts = {d: c["keys"] for d, c in keyspace(info).items()}
    groups = [g for g in keys.groups() if not wish.databases or g.database in wish.databases]
    databases = {g.database for g in groups}
    if wish.databases and (missing := sorted(set(wish.databases) - databases)):
        told = ", ".join(map(str, sorted({g.database for g in keys.groups()}))) or "none"
        raise UsageError(
            f"no keys in database {missing[0]}", where=str(wish.source), next=f"there are keys in: {told}"
        )
    total = sum(counts.get(d, 0) for d in databases)
    one = to.cluster and bool(wish.databases) and len(databases) == 1
    require_room(to, _memory(info) * total // max(1, sum(counts.values())))
    field_ttl = _fields_expire(info)
    found = await Import(
        work,
        client,
        abilities_of(binary.engine),
        keys,
        groups,
        total,
        to,
        wish.replace,
        field_ttl,
        0 if one else None,
        emit,
    ).run()
    if wish.with_functions:
        found["functions"] = await copy_functions(client, to, replace=wish.replace)
    lost = field_ttl and not to.abilities.field_ttl
    return found | {"field_expiry_lost": work.state["document"]["contents"]["fields_expiring"] if lost else 0}


def _document(
    wish: Wish,
    work: Workplace,
    binary: Binary,
    prepared: dict[str, Any],
    loading: Loading,
    info: dict[str, str],
    found: Contents,
    left_out: int,
) -> dict[str, Any]:
    result = work.folder / RESULT
    with result.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    scripts = work.folder / "scripts.jsonl"
    notes = [*prepared["notes"], *loading.notes]
    if not binary.engine.supports(Capability.SANITIZE):
        notes.append(f"{binary.engine.name} does not check values when it loads them; 6.2 and later do")
    expired = int(info.get("rdb_last_load_keys_expired", 0)) + int(info.get("expired_keys", 0))
    damaged = bool(prepared["damaged"] or loading.refused or found.unreadable)
    return {
        "source": str(wish.source),
        "kind": prepared["kind"],
        "files": prepared["files"],
        "configuration": prepared["configuration"],
        "written_by": prepared["rdb"],
        "aof": prepared["aof"],
        "dropped": prepared["dropped"],
        "engine": str(binary.engine),
        "expired_at_load": expired,
        "refused_values": loading.refused,
        "unreadable": found.unreadable[:_MOST_NAMED],
        "contents": found.as_json(),
        "intruders": [s.as_json() for s in found.suspects[:_MOST_NAMED]],
        "intruder_count": len(found.suspects),
        "intruders_left_out": left_out,
        "scripts": sum(1 for _ in scripts.open(encoding="ascii")) if scripts.exists() else 0,
        "scripts_loaded": wish.with_functions,
        "notes": notes,
        "complete": not damaged,
        "result": {
            "rdb": str(result),
            "bytes": result.stat().st_size,
            "sha256": digest,
            "rdb_version": binary.engine.rdb_version,
            "loads_on": _loads_on(binary.engine),
        },
        "into": None,
    }


def _loads_on(engine: Engine) -> str:
    """Whose servers read what this engine saves."""
    if engine.rdb_version <= 11:
        return f"{engine.flavor.capitalize()} {engine.version.major}.{engine.version.minor} and later, Valkey 7.2 and later"
    oldest = oldest_that_reads(engine.flavor, engine.rdb_version) or engine.version
    return (
        f"{engine.flavor.capitalize()} {oldest.major}.{oldest.minor} and later; others get the keys by --into"
    )


def _json(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=1) + "\n"


def default_work(source: Path) -> Path:
    """Beside where one stands, named after the source."""
    return Path(f"rescued-redis-{source.resolve().name or 'root'}")
