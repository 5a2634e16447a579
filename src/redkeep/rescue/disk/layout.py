"""The partitions and file systems of a disk, and nothing of what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redkeep.model.events import Emit
from redkeep.rescue.disk.source import opened


def job(source: str, partition: str, emit: Emit) -> dict[str, Any]:
    """For the cage: the keys of an inspection that are about the disk."""
    with opened(Path(source), partition=partition) as evidence:
        return {
            "form": evidence.form,
            "notes": list(evidence.notes),
            "partitions": [p.as_json() for p in evidence.partitions],
            "system": {},
        }
