"""kill -9 of ``apply`` after each of its steps, then ``apply``: a Cluster of six on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import Redkeep
from tests.killed import apply_killed_after
from tests.ports import free_block

pytestmark = pytest.mark.live


@pytest.mark.timeout(900)
def test_killed_after_each_step_the_next_apply_finishes(tmp_path: Path) -> None:
    run = Redkeep(tmp_path, environment={"HOME": str(tmp_path)})
    port = free_block(6)  # also in the name: a run that was cut short must not be in the way of the next
    run.write(f"name: killed-{port}\nmode: cluster\nhosts: [local]\nport: {port}\n")
    try:
        steps = 0
        while True:
            steps += 1
            killed = apply_killed_after(run, steps)
            applied = run("apply", "--yes", "--json").ok().json
            assert applied["verified"]["ok"], (steps, applied["verified"])
            run("destroy", "--yes", "--delete-data").ok()
            if killed is None:
                break
        assert (
            steps > 20
        )  # the host, six files, six starts, three shares of slots, introductions, replicas, settings
    finally:
        run("destroy", "--yes", "--delete-data")
