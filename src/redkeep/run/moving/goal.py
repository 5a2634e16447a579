"""What a reshard decided on, written down before it begins: which slots shall be where in the end.

A relative request (1,000 slots more) means something else after half of it is done, so an interrupted run goes on to what
was decided then. The file is there exactly as long as that is unfinished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.model.slots import SlotRange, in_ranges, parse_ranges, ranges_text

if TYPE_CHECKING:
    from redkeep.run.vault import Vault

_NAME = "reshard.json"
_FORMAT = 1


@dataclass(frozen=True)
class Goal:
    """``request``: the options that were given; ``slots``: node name -> what its shard shall have, among other slots."""

    request: str
    slots: Mapping[str, tuple[SlotRange, ...]]
    at: str = ""


def read(vault: Vault) -> Goal | None:
    """The unfinished one, or ``None``. Raises ``RefusedError`` for a file that makes no sense."""
    text = vault.read(_NAME)
    if text is None:
        return None
    try:
        document = json.loads(text)
        if document["version"] != _FORMAT:
            raise ValueError
        slots = {str(name): parse_ranges(ranges) for name, ranges in document["slots"].items()}
        return Goal(str(document["request"]), slots, str(document["at"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RefusedError(
            "the note of an unfinished reshard cannot be read",
            where=str(vault.folder / _NAME),
            next="delete it, then run redkeep reshard with what you want; moved slots stay where they are",
        ) from None


def write(vault: Vault, goal: Goal) -> None:
    document = {
        "version": _FORMAT,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": goal.request,
        "slots": {name: ranges_text(in_ranges(ranges)) for name, ranges in goal.slots.items()},
    }
    vault.write(_NAME, (json.dumps(document, indent=2) + "\n").encode())


def forget(vault: Vault) -> None:
    """It is reached, or nobody wants it any more."""
    (vault.folder / _NAME).unlink(missing_ok=True)
