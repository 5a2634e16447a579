"""Hosts that are replaced, one of them dead, and one that gets another address, while an application writes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.writing import Writing, access_of, writing

from .conftest import LabFactory
from .site import NAME, Site
from .test_deploy import assert_unchanged

pytestmark = pytest.mark.long

FIVE = ("a11", "a12", "a13", "a14", "a15")
CLUSTER = "mode: cluster\nclients: public\ntls: false\naccept_risk: true\nfailover: fast\n"


def addresses_known(site: Site, host: str) -> str:
    """All that the nodes of a host say of the Cluster."""
    names = [n["name"] for n in site.status()["nodes"] if n["host"] == host]
    with site.lab.inside("cli"):
        return "".join(str(site.admin(name).execute_command("CLUSTER", "NODES")) for name in names)


def assert_nothing_left(site: Site, host: str) -> None:
    found = site.lab.exec(host, f"ls -d /var/lib/redkeep/{NAME} /etc/systemd/system/redkeep-*", check=False)
    assert found.stdout == ""


def assert_kept(load: Writing) -> None:
    assert load.acknowledged > 500
    assert load.lost() == 0


@pytest.mark.timeout(600)
def test_hosts_of_a_cluster_are_replaced_and_one_moves(fresh_lab: LabFactory, tmp_path: Path) -> None:
    site = Site.at(fresh_lab(FIVE), tmp_path)
    site.write(CLUSTER, only=FIVE[:3])
    assert site.apply()["verified"]["ok"]

    with writing(access_of(site.run), call=lambda f: site.lab.call(f)) as load:
        site.write(CLUSTER, only=("a11", "a12", "a14"))
        applied = site.apply()
        assert applied["verified"]["ok"], applied["verified"]
    assert not [s for s in applied["steps"] if s["action"] == "move-slots"]
    assert_kept(load)
    assert_nothing_left(site, "a13")
    assert site.lab["a13"].public not in addresses_known(site, "a11")
    assert_unchanged(site)

    site.lab.power_cut("a12")
    site.write(CLUSTER, only=("a11", "a14", "a15"))
    deadline = time.monotonic() + 60
    while "cannot be asked" in (told := site.run("plan")).stderr:  # until the vote
        assert time.monotonic() < deadline, told.everything
        time.sleep(1)
    assert "stays there" in told.ok().stdout
    with writing(access_of(site.run), call=lambda f: site.lab.call(f)) as load:
        applied = site.apply()
        assert applied["verified"]["ok"], applied["verified"]
    assert_kept(load)
    assert site.lab["a12"].public not in addresses_known(site, "a14")
    assert_unchanged(site)

    site.lab.change_public("a11", "198.51.100.91")
    site.trust_keys()
    site.write(CLUSTER, only=("a11", "a14", "a15"))
    applied = site.apply()
    assert applied["verified"]["ok"], applied["verified"]
    assert not any(s["destructive"] for s in applied["steps"])
    known = addresses_known(site, "a15")
    assert "198.51.100.91" in known
    assert "198.51.100.11:" not in known
    assert_kept(load)
    assert_unchanged(site)


SENTINEL = "mode: sentinel\nreplicas: 2\nclients: public\ntls: false\naccept_risk: true\nfailover: fast\n"


@pytest.mark.timeout(600)
def test_sentinels_and_servers_of_a_host_that_moved_say_so(fresh_lab: LabFactory, tmp_path: Path) -> None:
    """The primary's host and its Sentinel get another public address; nothing is deleted, and nobody lists the old one."""
    site = Site.at(fresh_lab(FIVE[:3]), tmp_path)
    site.write(SENTINEL)
    assert site.apply()["verified"]["ok"]
    host = site.primaries()[0]["host"]
    old = site.lab[host].public
    with site.lab.inside("cli"):
        site.client().set("k", "v")
    site.lab.change_public(host, "198.51.100.92")
    site.trust_keys()
    site.write(SENTINEL)
    applied = site.apply()
    assert applied["verified"]["ok"], applied["verified"]
    assert not any(s["destructive"] for s in applied["steps"])
    site.trust_keys()
    with site.lab.inside("cli"):
        assert site.client().get("k") == "v"
        for node in site.status()["nodes"]:
            if node["role"] == "sentinel":
                sentinel = site.admin(node["name"])
                listed = [sentinel.sentinel_master(NAME)]
                listed += [*sentinel.sentinel_slaves(NAME), *sentinel.sentinel_sentinels(NAME)]
                assert len(listed) == 5
                assert old not in {entry["ip"] for entry in listed}
    assert_unchanged(site)
