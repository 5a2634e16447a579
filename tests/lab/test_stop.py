"""Hosts are safe to reboot: a primary that is stopped hands over first, and no write is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from redkeep.model.slots import hash_tag
from tests.live.writer import Writer

from .conftest import LabFactory
from .site import Site, eventually, unit

#: Seconds. The deployments find out that a primary is dead after fifteen or thirty; who hands over is much faster.
SOON = 12.0


@pytest.mark.long
@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        pytest.param(("a11", "a12", "a13"), "mode: cluster\nshards: 3\nreplicas: 1", id="cluster"),
        pytest.param(("a11", "a12", "a13"), "mode: sentinel\nreplicas: 2", id="sentinel"),
    ],
)
def test_stop_and_reboot_of_a_primary_lose_nothing(
    fresh_lab: LabFactory, tmp_path: Path, hosts: tuple[str, ...], text: str
) -> None:
    site = Site.at(fresh_lab(dict.fromkeys(hosts, "bookworm")), tmp_path)
    site.write(f"{text}\nengine: {{flavor: redis, source: package}}\nclients: public\nfailover: patient\n")
    assert site.apply()["verified"]["ok"]
    cluster = site.access()["mode"] == "cluster"
    tags = [hash_tag(slot) for slot in (0, 8000, 16000)] if cluster else ["a"]
    with site.lab.inside("cli"), Writer(lambda: eventually(site.client), tags) as writer:
        victim = site.primaries()[0]
        writer.moves_on()
        port = int(victim["name"].rpartition(":")[2])
        site.lab.exec(victim["host"], f"systemctl stop {unit(port)}")
        writer.moves_on()
        assert victim["name"] not in {n["name"] for n in site.primaries()}
        site.lab.exec(victim["host"], f"systemctl start {unit(port)}")
        site.wait_ok()

        host = site.primaries()[0]["host"]
        site.lab.exec(host, "systemctl reboot", check=False)
        writer.moves_on(500)
        site.lab.wait_ready(host)
        site.wait_ok()
        assert host not in {n["host"] for n in site.primaries()}
        assert site.apply()["steps"] == []
    with site.lab.inside("cli"):
        assert writer.lost() == []
    assert writer.window() < SOON
    if cluster:
        assert any("--restore" in line for line in site.status()["suggestions"])
        site.run("switchover", "--restore", "--yes").ok()
        assert site.status()["suggestions"] == []
