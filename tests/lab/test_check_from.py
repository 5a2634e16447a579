"""The doctor on a server of somebody else, from other hosts (``--from``), and on its own host (``--ssh``), through NAT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import Lab
from .conftest import LabFactory
from .site import Site, eventually

PASSWORD = "a-long-password-of-the-lab-0123456789"
CONFIG = "/etc/redis/redis.conf"


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A Cluster of one node on a11 that was created by its private address, while clients are on the internet."""
    lab = lab_factory(dict.fromkeys(("a11", "a12", "b13"), "bookworm"), layers=["redis"])
    private = lab["a11"].private
    text = f"bind 0.0.0.0\\nrequirepass {PASSWORD}\\ncluster-enabled yes\\ncluster-announce-ip {private}\\n"
    lab.exec("a11", f"printf '{text}' >> {CONFIG}; systemctl restart redis-server")
    eventually(lambda: _said(lab, "CLUSTER", "ADDSLOTSRANGE", "0", "16383"), 30)
    return Site.at(lab, tmp_path_factory.mktemp("from"))


def _said(lab: Lab, *words: str) -> str:
    told = lab.exec("a11", f"redis-cli -a {PASSWORD} --no-auth-warning {' '.join(words)}", check=False).stdout
    assert "OK" in told, told
    return told


def findings(site: Site, rule: str, *words: str) -> list[Any]:
    target = f"redis://{site.lab['a11'].public}:6379"
    told = site.run(
        "check", target, "--allow-clear-text", *words, "--json", env={"REDKEEP_PASSWORD": PASSWORD}
    )
    assert told.status in (0, 3), told.everything
    return [f for f in told.json["findings"] if f["rule"] == rule]


def test_a_private_address_is_fine_inside_the_cloud_alone(site: Site) -> None:
    private = f"{site.lab['a11'].private}:6379"
    (here,) = findings(site, "announce-unroutable")
    assert f"{private} (CLUSTER SLOTS" in here["evidence"]
    assert ", from here: " in here["evidence"]
    assert not findings(site, "announce-unroutable", "--from", "a12")
    (other,) = findings(
        site, "announce-unroutable", "--from", "a12", "--from", f"ops@{site.lab['b13'].public}"
    )
    assert f", from {site.lab['b13'].public}: " in other["evidence"]
    _said(site.lab, "CONFIG", "SET", "cluster-announce-ip", site.lab["a11"].public)
    assert not findings(site, "announce-unroutable", "--from", "a12", "--from", "b13", "--from", "here")
    _said(site.lab, "CONFIG", "SET", "cluster-announce-ip", site.lab["a11"].private)


def test_the_host_behind_a_login(site: Site, tmp_path: Path) -> None:
    """Its address is the NAT's. What the login may not read is read by sudo, or named."""
    public = site.lab["a11"].public
    (unseen,) = [f for f in findings(site, "not-checked") if f["evidence"].startswith("the host:")]
    assert "--ssh USER@HOST" in unseen["fix"]
    site.lab.exec("a11", "echo 0 > /proc/sys/vm/overcommit_memory")
    for login in (f"root@{public}", f"ops@{public}", "a11"):
        (found,) = findings(site, "overcommit", "--ssh", login)
        assert found["subject"] == public
        assert not findings(site, "not-checked", "--ssh", login)
    (hidden,) = findings(site, "not-checked", "--ssh", f"nosudo@{public}")
    assert f"{CONFIG} is not readable" in hidden["evidence"]
    site.lab.exec("a11", "echo 1 > /proc/sys/vm/overcommit_memory")
    assert not findings(site, "overcommit", "--ssh", "a11")
    (useless,) = [f for f in findings(site, "not-checked", "--ssh", "b13") if f["subject"] == "b13"]
    assert "no node has an address of it" in useless["evidence"]
