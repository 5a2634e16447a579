"""The journal: what Redkeep did, for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.run.journal import read
from redkeep.run.vault import Vault

if TYPE_CHECKING:
    from redkeep.model.spec import Spec


def log(spec: Spec, file: Path, *, last: int | None = None) -> list[dict[str, Any]]:
    """Entries in order, the last so many of them."""
    entries = list(read(Vault(file, spec.name).folder / "journal.jsonl"))
    return entries[-last:] if last else entries
