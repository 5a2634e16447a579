"""What ran, when, why and for how long: a file for people. Nothing reads it to decide anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError

if TYPE_CHECKING:
    from redkeep.model.plan import Step


@dataclass(frozen=True)
class Journal:
    """One JSON document a line in ``.redkeep/journal.jsonl``, appended in one write each, so that it survives a kill."""

    path: Path | None
    command: str = ""

    def started(self, step: Step) -> None:
        self._add("started", step=step.id, host=step.host, why=step.why)

    def ended(self, step: Step, status: str, seconds: float, error: BaseException | None) -> None:
        reason = {"error": error.what if isinstance(error, RedkeepError) else repr(error)} if error else {}
        self._add(status, step=step.id, host=step.host, seconds=round(seconds, 3), **reason)

    def note(self, text: str) -> None:
        self._add("note", text=text)

    def _add(self, event: str, **details: Any) -> None:
        if self.path is None:
            return
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "command": self.command,
            "event": event,
            **details,
        }
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" + line if cut else line)
        except OSError as error:
            error.filename = str(self.path)  # a full disk does not say whose
            raise
        finally:
            os.close(descriptor)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Entries in order. A line that was cut short by a full disk is passed over."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
