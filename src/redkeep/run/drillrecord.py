"""Drills on record: a file each, in ``.redkeep/NAME/drills``, with the series that pictures are made from."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from redkeep.model.drill import Drill

#: Milliseconds that one slice of a run's series covers.
SLICE_MS = 50
_FOLDER = "drills"


def keep(deployment: Path, found: Drill, began: datetime) -> Drill:
    """Writes it down, and returns it with the place. ``deployment``: the folder of what is kept of it."""
    folder = deployment / _FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{began:%Y%m%d-%H%M%S}-{found.fault}.json"
    found = replace(found, report=str(path))
    document = found.as_json()
    for run, shown in zip(found.runs, document["runs"], strict=True):
        for felt, shard in zip(run.felt, shown["shards"], strict=True):
            shard["series"] = felt.series
    document["slice_ms"] = SLICE_MS
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1), encoding="utf-8")
    part.rename(path)
    return found


def records(deployment: Path) -> list[dict[str, Any]]:
    """The oldest first; a file that is not one is passed over."""
    found = []
    for path in sorted((deployment / _FOLDER).glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if _is_record(document):
            found.append(document)
    return found


def _is_record(document: Any) -> bool:
    """Whether it has what a list of drills shows; somebody may have put something else there."""
    words, numbers = ("began", "fault", "mode"), ("median_window_ms", "longest_window_ms", "lost")
    return (
        isinstance(document, dict)
        and isinstance(document.get("runs"), list)
        and all(isinstance(run, dict) for run in document["runs"])
        and all(isinstance(document.get(w), str) for w in words)
        and all(isinstance(document.get(n), int | float) for n in numbers)
    )
