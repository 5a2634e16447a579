"""What ran is written down, one line each, and can be read whatever happened to the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redkeep.errors import EngineError
from redkeep.model.plan import Step
from redkeep.run.journal import Journal, read

STEP = Step("settings", "set", "h1", "h1:6379", why="maxmemory 0 -> 1", args={"settings": "maxmemory"})


def test_a_step_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "apply")
    journal.started(STEP)
    journal.ended(STEP, "failed", 1.23456, EngineError("the server refuses it", next="change it"))
    journal.ended(STEP, "failed", 0, ValueError("odd"))
    journal.ended(STEP, "done", 0.5, None)
    journal.note("über")
    entries = list(read(path))
    assert [e["event"] for e in entries] == ["started", "failed", "failed", "done", "note"]
    assert entries[0]["step"] == "set:h1:6379:settings=maxmemory"
    assert entries[0]["why"] == "maxmemory 0 -> 1"
    assert (entries[1]["error"], entries[1]["seconds"]) == ("the server refuses it", 1.235)
    assert entries[2]["error"] == "ValueError('odd')"
    assert "error" not in entries[3]
    assert entries[4]["text"] == "über"
    assert all(e["command"] == "apply" and e["at"].endswith("+00:00") for e in entries)
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    Journal(None).note("x")
    assert list(tmp_path.iterdir()) == []
    assert list(read(tmp_path / "none")) == []


@pytest.mark.parametrize("damage", [b'{"at": "2026', b"[1, 2]\n", b"\xff\xfe\n", b"\n\n"])
def test_a_damaged_line_costs_itself_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).note("before")
    with path.open("ab") as file:
        file.write(damage)
    Journal(path).note("after")
    assert [e["text"] for e in read(path)] == ["before", "after"]


def test_text_that_is_none_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).note("a \udcff name")
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["event"] == "note"
