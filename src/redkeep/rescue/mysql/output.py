"""The directory that the dumps of a rescue go to: nobody else's meanwhile, made anew when it was cut off, known again.

DIRECTORY/data/SCHEMA.sql         tables that are proven exact
DIRECTORY/uncertain/SCHEMA.sql    tables that are not
DIRECTORY/code/SCHEMA.KIND.sql    views, triggers, routines, events
DIRECTORY/accounts.sql            accounts with the hashes of their passwords
DIRECTORY/verify.sql, .expected   what to ask of a server that the dumps were loaded into, and its answer
DIRECTORY/rescue.json             what is known of all that; unfinished.json as long as it is made
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redkeep.errors import LockedError, RedkeepError, RefusedError, UsageError

FORMAT = "redkeep rescue mysql"
RESULT, BEGUN = "rescue.json", "unfinished.json"
_OURS = ("data", "uncertain", "code", "work", "accounts.sql", "verify.sql", "verify.expected", RESULT)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The directory, made where it is not there, and nobody else's meanwhile."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        what = f"cannot write there: {error.strerror}"
        raise UsageError(what, where=str(out), next="name a new directory with --out") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LockedError("another rescue writes there now", where=str(out), next="wait for it") from None
    finally:
        os.close(held)


def finished(out: Path, identity: dict[str, Any], again: bool) -> dict[str, Any] | None:
    """The document of an earlier run that ended well. What one that did not end left behind is removed."""
    names = {p.name for p in out.iterdir()} - {BEGUN + ".new"}
    if names and not names & {RESULT, BEGUN}:
        raise RefusedError("the directory is not empty", where=str(out), next="name a new one with --out")
    mine = RESULT if RESULT in names else BEGUN
    if names:
        before = _read_json(out / mine)
        before = before.get("identity", before)
        if before.get("format") != FORMAT:
            raise RefusedError("the directory is not empty", where=str(out), next="name a new one with --out")
        if mine == RESULT and not again:
            if before != identity:
                raise RefusedError(
                    f"it holds the rescue of another data directory: {before.get('datadir')} of {before.get('source')}",
                    where=str(out),
                    next="name a new directory with --out, or replace it with --again",
                )
            return _checked(out)
    for name in _OURS:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return None


def _checked(out: Path) -> dict[str, Any]:
    document = _read_json(out / RESULT)
    document.pop("identity")
    if files(out) != document["files"]:
        now, then = files(out), document["files"]
        changed = sorted(n for n in {*now, *then} if now.get(n) != then.get(n))
        raise RedkeepError(
            f"changed since it was written: {', '.join(changed[:5])}",
            where=str(out),
            next="--again makes it anew, or name a new directory with --out",
        )
    return {**document, "again": True}


def files(out: Path) -> dict[str, str]:
    """sha256 of what was written."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file() and not p.is_symlink()):
        name = str(path.relative_to(out))
        if name.split("/")[0] in _OURS and name != RESULT:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(file: Path, document: dict[str, Any]) -> None:
    """Whole, or not at all."""
    new = file.with_name(file.name + ".new")
    write(new, json.dumps(document, indent=1) + "\n")
    new.replace(file)


def write(file: Path, content: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content.encode("utf-8", "surrogateescape"))
        out.flush()
        os.fsync(out.fileno())
