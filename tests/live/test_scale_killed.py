"""kill -9 of ``apply`` right after each step of a change of size: the next one does the rest, and no key is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep, remove_aside
from tests.killed import apply_killed_after
from tests.ports import free_block
from tests.writing import access_of, reader

pytestmark = [pytest.mark.live, pytest.mark.long]

FILE = "name: resized-{port}\nmode: cluster\nhosts: [local]\nport: {port}\nreplicas: 0\n"


@pytest.mark.timeout(900)
def test_killed_after_each_step_of_growing_and_of_shrinking(tmp_path: Path) -> None:
    run = Redkeep(tmp_path, environment={"HOME": str(tmp_path)})
    port = free_block(8)
    file = FILE.format(port=port)
    run.write(file)
    try:
        run("apply", "--yes").ok()
        client = reader(access_of(run))
        values = {f"k:{i}": f"value {i}" for i in range(2000)}
        for key, value in values.items():
            client.set(key, value)
        for shards in (4, 3):
            run.write(f"{file}shards: {shards}\n")
            killed = 0
            while apply_killed_after(run, 1) is not None:
                killed += 1
                assert killed < 60, run("log").stdout
            assert killed >= 6, "every step is killed after once"
            assert run("apply", "--yes", "--json").ok().json["steps"] == []
            owners = [n["slots"] for n in run("status", "--json").ok().json["nodes"]]
            assert len(owners) == shards
            assert sum(owners) == 16384
            assert_there(client, values)
    finally:
        run("destroy", "--yes", "--delete-data").ok()
        remove_aside(f"resized-{port}")


def assert_there(client: Any, values: dict[str, str]) -> None:
    wrong = [key for key, value in values.items() if client.get(key) != value.encode()]
    assert not wrong
