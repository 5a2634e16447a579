"""Takes what is needed out of a dead server's disk into a bundle, with a hash of each file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redkeep.errors import UsageError
from redkeep.model.events import Emit
from redkeep.rescue.cage import caged
from redkeep.rescue.inspection.families import FAMILIES


@dataclass(frozen=True)
class Extracted:
    """The document of ``--json``."""

    document: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Everything that was wanted is in the bundle, and was read back."""
        return bool(self.document["complete"])

    def as_json(self) -> dict[str, Any]:
        return self.document


async def extract(
    source: Path, bundle: Path, only: Sequence[str], *, partition: str, mount: bool, emit: Emit
) -> Extracted:
    """``only``: families of what ``rescue inspect`` finds, or paths on the victim's disk; nothing means every family.

    Run again after whatever ended it, it goes on; when complete, it changes nothing and verifies again. Raises
    ``UsageError``, ``RefusedError`` (a bundle inside the evidence, a full disk) and ``EvidenceError``.
    """
    for one in only:
        if not one.startswith("/") and one not in FAMILIES:
            families = ", ".join(FAMILIES)
            raise UsageError(
                f"no family {one}", where="--only", next=f"a path from / on, or one of {families}"
            )
    arguments = {
        "source": str(source),
        "bundle": str(bundle),
        "only": list(only),
        "partition": partition,
        "mount": mount,
    }
    return Extracted(await caged("redkeep.rescue.extracting:job", arguments, emit))
