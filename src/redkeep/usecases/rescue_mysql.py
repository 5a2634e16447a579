"""Brings the MySQL or MariaDB databases of a dead server back as dumps, by a clean server over a copy of their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redkeep.errors import UsageError
from redkeep.model.events import Emit
from redkeep.rescue.cage import caged


@dataclass(frozen=True)
class Dumped:
    """The document of ``--json``."""

    document: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Every table is there and proven, and nothing was left out."""
        return bool(self.document["complete"])

    def as_json(self) -> dict[str, Any]:
        return self.document


async def dump(
    source: Path,
    out: Path,
    *,
    datadir: str,
    partition: str,
    mount: bool,
    mysqld: str,
    patience: float,
    level: int,
    again: bool,
    emit: Emit,
) -> Dumped:
    """``patience``: seconds that the server may do nothing; ``level``: the innodb_force_recovery to begin with.

    Raises ``UsageError``, ``RefusedError`` (a place inside the evidence or not empty, a full disk), ``EvidenceError``,
    ``EngineError`` (no server, or one that does not start on the copy) and ``LockedError``.
    """
    if patience < 1:
        raise UsageError(
            "a server needs a second at least", where="--patience", next="--patience 300 is usual"
        )
    arguments = {
        "source": str(source),
        "datadir": datadir,
        "out": str(out),
        "partition": partition,
        "mount": mount,
        "mysqld": mysqld,
        "patience": patience,
        "level": level,
        "again": again,
    }
    return Dumped(await caged("redkeep.rescue.mysql.dumping:job", arguments, emit))
