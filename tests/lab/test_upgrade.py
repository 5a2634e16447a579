"""Whole hosts with systemd: other passwords, and then another engine, while an application on the internet writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from redkeep.model.slots import hash_tag
from tests.live.writer import Writer

from .conftest import LabFactory
from .site import Site, eventually, unit

pytestmark = pytest.mark.long

REDIS = "engine: {flavor: redis, source: package}"
VALKEY = "engine: {flavor: valkey, source: bundled}"


@pytest.mark.timeout(900)
def test_rotation_and_upgrade_of_a_cluster(fresh_lab: LabFactory, tmp_path: Path) -> None:
    """From the distribution's Redis to another server altogether: units, files and users are those of the new one."""
    hosts = ("a11", "a12", "a13")
    site = Site.at(fresh_lab(dict.fromkeys(hosts, "bookworm")), tmp_path)
    text = "mode: cluster\nshards: 3\nreplicas: 1\nclients: public\ntls: false\naccept_risk: true\n"
    site.write(f"{text}{REDIS}")
    assert site.apply()["verified"]["ok"]
    tags = [hash_tag(slot) for slot in (0, 8000, 16000)]
    with site.lab.inside("cli"), Writer(lambda: eventually(site.client), tags) as writer:
        assert site.run("rotate", "all", "--yes", "--json").ok().json["waiting"] == ["app"]
        writer.moves_on()  # still with the password that it knows
        site.write(f"{text}{VALKEY}")
        applied = site.apply()
        assert applied["verified"]["ok"], applied["verified"]
        writer.moves_on()
    turn = [s["action"] for s in applied["steps"] if s["stage"] == "restart"]
    assert turn == ["restart", "hand-over", "restart"] * 3
    with site.lab.inside("cli"):
        assert writer.lost() == []
    assert {n["version"].split()[0] for n in site.status()["nodes"]} == {"valkey"}
    assert "/valkey-" in site.lab.exec("a11", f"systemctl show -p ExecStart {unit(6379)}").stdout
    assert site.apply()["steps"] == []
    site.lab.exec("a11", "systemctl kill -s KILL " + unit(6379))
    site.wait_ok()
    site.run("rotate", "app", "--finish", "--yes").ok()
    assert site.apply()["steps"] == []
