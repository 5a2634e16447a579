"""Looks at a dead server's disk and says what was on it, and what was done to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redkeep.model.events import Emit
from redkeep.rescue.cage import caged


@dataclass(frozen=True)
class Inspected:
    """The document of ``--json``."""

    document: dict[str, Any]

    @property
    def broken_into(self) -> bool:
        """Whether there is a sign of a break-in that is an error."""
        return any(finding["severity"] == "error" for finding in self.document["intrusion"])

    def as_json(self) -> dict[str, Any]:
        return self.document


async def inspect(
    source: Path, *, partition: str, mount: bool, reveal: bool, yara: Path | None, emit: Emit
) -> Inspected:
    """``reveal``: passwords as they are, instead of how long they are. ``yara``: the user's own rules.

    Raises ``UsageError``, ``RefusedError`` (what is not read here) and ``EvidenceError`` (what cannot be read).
    """
    arguments = {
        "source": str(source),
        "partition": partition,
        "mount": mount,
        "reveal": reveal,
        "yara": str(yara or ""),
    }
    return Inspected(await caged("redkeep.rescue.survey:job", arguments, emit))
