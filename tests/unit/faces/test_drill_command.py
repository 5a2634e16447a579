"""``redkeep drill`` without a deployment: what is on record, and what is refused before anything is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli import Redkeep


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    found = Redkeep(tmp_path)
    found.write("name: shop\nmode: standalone\nhosts: [local]\ndrills: allowed\n")
    return found


def test_what_is_no_record_of_a_drill_is_passed_over(run: Redkeep) -> None:
    folder = run.folder / ".redkeep" / "shop" / "drills"
    folder.mkdir(parents=True)
    record = {
        "began": "2026-01-02T03:04:05Z",
        "fault": "primary-kill",
        "mode": "cluster",
        "runs": [{}],
        "median_window_ms": 42.0,
        "longest_window_ms": 42.0,
        "lost": 0,
    }
    (folder / "a.json").write_text(json.dumps(record))
    for name, text in {
        "b": "not JSON",
        "c": '{"runs": null}',
        "d": '{"runs": [{}]}',
        "e": json.dumps(record | {"lost": "many"}),
        "f": "[]",
    }.items():
        (folder / f"{name}.json").write_text(text)
    assert len(run("drill", "--history", "--json").ok().json["drills"]) == 1
    assert "primary-kill" in run("drill", "--history").ok().stdout


def test_a_place_for_the_report_that_is_not_there(run: Redkeep) -> None:
    place = run.folder / "nowhere" / "drill.html"
    run("drill", "primary-kill", "--html", str(place), "--yes").error(
        2, "could not be written there", str(place), "nothing was broken"
    )


def test_a_sequence_names_its_faults(run: Redkeep) -> None:
    run("drill", "sequence", "--yes").error(2, "a sequence of which faults?")
    run("drill", "sequence", "primary-kill", "luck", "--yes").error(2, "no such fault: luck")
