"""kill -9 of ``apply`` right after a step, again and again, over SSH: each time the next one takes up the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killed import apply_killed_after

from .conftest import LabFactory
from .site import Site


@pytest.mark.timeout(900)
def test_a_cluster_of_six_comes_up_although_every_apply_is_killed_after_one_step(
    fresh_lab: LabFactory, tmp_path: Path
) -> None:
    site = Site.at(fresh_lab(["a11", "a12", "a13", "a14", "a15", "a16"]), tmp_path)
    site.write("mode: cluster\nclients: public\nfailover: fast\n")
    killed = 0
    while apply_killed_after(site.run, 1, site.lab.popen) is not None:
        killed += 1
        assert killed < 80, site.run("log").stdout
    assert killed >= 6
    assert site.apply()["steps"] == []
    with site.lab.inside("cli"):
        client = site.client()
        client.set("k", "v")
        assert client.get("k") == "v"
