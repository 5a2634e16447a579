"""The working directory of one rescue: what it is of, how far it came, and that nobody else is at it.

WORK/state.json         what it is of, and how far it is
WORK/clean.rdb          the result: what a clean engine holds
WORK/report.json        the document of --json
WORK/scripts.jsonl      functions and scripts, for reading
WORK/intruders.jsonl    keys that look like an intruder's, with their values
WORK/conflicts.jsonl    keys that were in the target already, with another value
WORK/engine, WORK/keys  the engine's own directory, and the names of all keys
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from redkeep.errors import LockedError, RedkeepError, RefusedError, UsageError

FORMAT = "redkeep rescue redis"


class Workplace:
    """Made by ``claimed``. ``state`` is written by ``keep``, at once and as a whole."""

    def __init__(self, folder: Path, state: dict[str, Any], lock: int) -> None:
        self.folder, self.state, self._lock = folder, state, lock

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *what: object) -> None:
        os.close(self._lock)

    def keep(self) -> None:
        self.write("state.json", json.dumps(self.state) + "\n")

    def write(self, name: str, text: str) -> None:
        """For its owner only, whole or not at all."""
        path = self.folder / name
        new = path.with_name(name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was appended and is whole."""
        found = []
        try:
            text = (self.folder / name).read_text(encoding="utf-8")
        except OSError:
            return []
        for line in text.splitlines():
            try:
                document = json.loads(line)
            except ValueError:  # cut by a kill
                continue
            if isinstance(document, dict):
                found.append(document)
        return found

    def append(self, name: str, documents: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(d) + "\n" for d in documents)
        if not text:
            return
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)


def claimed(folder: Path, identity: Mapping[str, Any]) -> Workplace:
    """The directory, made or found again. ``identity``: of which rescue it is one.

    Raises ``RefusedError`` for somebody else's directory and ``LockedError`` where another command is at it.
    """
    wanted = {"format": FORMAT, "version": 1, **identity}
    if folder.exists() and not folder.is_dir():
        raise UsageError("not a directory", where=str(folder), next="--work NEW-DIRECTORY")
    path = folder / "state.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() and any(p.name not in ("lock", "state.json.new") for p in folder.iterdir()):
            raise RefusedError(
                "the working directory is not empty, and not of a rescue",
                where=str(folder),
                next="--work NEW-DIRECTORY",
            )
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RedkeepError(
            f"cannot be written to: {error.strerror}", where=str(folder), next="--work DIRECTORY"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LockedError(
                "another rescue is at work there",
                where=str(folder),
                next="wait for it, or --work NEW-DIRECTORY",
            ) from None
        return Workplace(folder, _state(path, wanted), lock)
    except BaseException:
        os.close(lock)
        raise


def _state(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"of": wanted, "phase": "begun"}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("of"), dict):
        raise RefusedError("its state cannot be read", where=str(path), next="--work NEW-DIRECTORY")
    differ = sorted(k for k in wanted if found["of"].get(k) != wanted[k])
    if differ:
        raise RefusedError(
            f"the working directory is of another rescue ({', '.join(differ)})",
            where=str(path.parent),
            next="--work NEW-DIRECTORY, or remove that one",
        )
    return found
