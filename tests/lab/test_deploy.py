"""From one file to a deployment that clients on the internet reach, and that survives what the plan says."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .conftest import LabFactory
from .site import Site, eventually, unit

SIX = ("a11", "a12", "a13", "a14", "a15", "a16")
TWO_CLOUDS = ("a11", "a12", "b21")

REDIS = "engine: {flavor: redis, source: package}"
VALKEY = "engine: {flavor: valkey, source: package}"


def deployed(fresh_lab: LabFactory, folder: Path, hosts: dict[str, str], text: str) -> Site:
    site = Site.at(fresh_lab(hosts), folder)
    site.write(text)
    applied = site.apply()
    assert applied["changed"]
    assert applied["verified"]["ok"], applied["verified"]
    assert_healthy(site)
    return site


def on(distribution: str, names: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(names, distribution)


def assert_healthy(site: Site) -> None:
    """The doctor has nothing to say but what the file accepts."""
    checked = site.run("check", "--json").json
    assert not [f for f in checked["findings"] if f["severity"] != "info"], checked["findings"]


def assert_unchanged(site: Site) -> None:
    """Applied again: no step."""
    again = site.apply()
    assert again["steps"] == []
    assert again["changed"] is False
    assert again["verified"]["ok"], again["verified"]


def write_many(client: Any, prefix: str, count: int = 200) -> None:
    for i in range(count):
        client.set(f"{prefix}:{i}", f"value {i}")


def assert_there(client: Any, prefix: str, count: int = 200) -> None:
    missing = [i for i in range(count) if client.get(f"{prefix}:{i}") != f"value {i}"]
    assert not missing


def power_cycle_of_a_primary(site: Site) -> None:
    """Power cut without a FIN, writes go on by a vote, the host returns, and all is in sync without our help."""
    client = eventually(site.client)
    write_many(client, "before")
    time.sleep(1.5)  # replication is asynchronous: what we count on has to be there
    victim = site.primaries()[0]["host"]
    site.lab.power_cut(victim)
    eventually(lambda: write_many(site.client(), "during"))
    site.lab.power_on(victim)
    site.lab.wait_ready(victim)
    after = site.wait_ok()
    assert [n for n in after["nodes"] if n["host"] == victim and n["role"] == "primary"] == []
    client = site.client()
    assert_there(client, "before")
    assert_there(client, "during")
    assert_unchanged(site)


def rewritten_and_restarted(site: Site) -> None:
    """CONFIG REWRITE and a restart of every server change nothing."""
    for node in site.status()["nodes"]:
        if node["role"] == "sentinel":
            continue
        port = int(node["name"].rpartition(":")[2])
        site.admin(node["name"]).config_rewrite()
        site.lab.exec(node["host"], f"systemctl restart {unit(port)}")
        site.wait_ok()
    assert_unchanged(site)


CLUSTERS = [
    pytest.param("bookworm", REDIS, id="redis-7.0"),
    pytest.param("trixie", VALKEY, id="valkey-8.1"),
]


@pytest.mark.parametrize(("distribution", "engine"), CLUSTERS)
def test_cluster_on_six_hosts_for_clients_on_the_internet(
    fresh_lab: LabFactory, tmp_path: Path, distribution: str, engine: str
) -> None:
    site = deployed(
        fresh_lab,
        tmp_path,
        on(distribution, SIX),
        f"mode: cluster\n{engine}\nclients: public\nfailover: fast\n",
    )
    with site.lab.inside("cli"):
        power_cycle_of_a_primary(site)
        rewritten_and_restarted(site)


SENTINELS = [
    pytest.param("bookworm", REDIS, id="redis-7.0"),
    pytest.param("forky", VALKEY, id="valkey-9.1"),
]


@pytest.mark.parametrize(("distribution", "engine"), SENTINELS)
def test_sentinel_over_two_clouds_by_public_addresses(
    fresh_lab: LabFactory, tmp_path: Path, distribution: str, engine: str
) -> None:
    site = deployed(
        fresh_lab,
        tmp_path,
        on(distribution, TWO_CLOUDS),
        f"mode: sentinel\n{engine}\nreplicas: 2\nclients: public\nfailover: fast\n",
    )
    with site.lab.inside("cli"):
        power_cycle_of_a_primary(site)
        rewritten_and_restarted(site)


@pytest.mark.parametrize(
    ("distribution", "engine"),
    [pytest.param("bookworm", REDIS, id="redis-7.0"), pytest.param("trixie", REDIS, id="redis-8.0")],
)
def test_standalone_with_password(
    fresh_lab: LabFactory, tmp_path: Path, distribution: str, engine: str
) -> None:
    site = deployed(
        fresh_lab,
        tmp_path,
        on(distribution, ("a11",)),
        f"mode: standalone\n{engine}\nclients: public\npersistence: aof\n",
    )
    with site.lab.inside("cli"):
        client = site.client()
        write_many(client, "k")
        rewritten_and_restarted(site)
        assert_there(site.client(), "k")


def test_rdb_only_primary_killed_and_restarted_at_once_loses_nothing_confirmed(
    fresh_lab: LabFactory, tmp_path: Path
) -> None:
    site = deployed(
        fresh_lab,
        tmp_path,
        on("bookworm", SIX),
        f"mode: cluster\n{REDIS}\nclients: public\npersistence: rdb\nfailover: patient\n",
    )
    with site.lab.inside("cli"):
        client = site.client()
        primary = site.primaries()[0]
        here = [
            i
            for i in range(2000)
            if client.get_node_from_key(f"w:{i}").host == site.lab[primary["host"]].public
        ]
        assert len(here) > 300
        with client.get_redis_connection(
            client.get_node(host=site.lab[primary["host"]].public, port=6379)
        ) as one:
            for i in here:
                one.set(f"w:{i}", f"value {i}")
            assert one.wait(1, 5000) == 1
        site.lab.exec(primary["host"], f"systemctl kill -s KILL {unit(6379)}")
        site.wait_ok()
        client = eventually(site.client)
        lost = [i for i in here if eventually(partial(client.get, f"w:{i}")) != f"value {i}"]
        assert lost == []
        assert_unchanged(site)


def test_bundled_engine_on_private_addresses(fresh_lab: LabFactory, tmp_path: Path) -> None:
    site = deployed(
        fresh_lab,
        tmp_path,
        on("bookworm", SIX[:3]),
        "mode: cluster\nengine: {flavor: valkey, source: bundled}\nfailover: fast\n",
    )
    with site.lab.inside("a11"):
        write_many(site.client(), "k")
        assert_there(site.client(), "k")
    assert_unchanged(site)
    site.lab.power_cut("a13")
    partly = site.run("destroy", "--yes", "--json")
    assert (partly.status, partly.json["destroyed"]) == (1, ["a11", "a12"]), partly
    assert list(partly.json["unreached"]) == ["a13"]
    site.lab.power_on("a13")
    assert site.run("destroy", "--yes", "--json").ok().json["destroyed"] == ["a13"]
    for name in site.lab.hosts:
        assert (
            site.lab.exec(name, "ls /etc/systemd/system/redkeep-* 2>/dev/null | wc -l").stdout.strip() == "0"
        )


def test_a_pinned_package_whose_sources_the_distribution_repacked(
    fresh_lab: LabFactory, tmp_path: Path
) -> None:
    """Debian's valkey is 8.1.1+dfsg1-3: pinned by that, by 8.1.1 and by 8.1; the server itself says 8.1.1."""
    site = Site.at(fresh_lab(on("trixie", ("a11",))), tmp_path)
    text = "mode: standalone\nengine: {{flavor: valkey, source: package, version: '{}'}}\n"
    site.write(text.format("8.1.0"))
    told = "\n".join(site.run("apply", "--yes").error(1, "is not on offer", "only "))
    offered = re.search(r"only (\S*\+dfsg\S*?)[,\s]", f"{told} ")
    if offered is None:
        pytest.skip("the distribution's package is not a repacked one any more")
    upstream = offered[1].partition("+")[0]
    for version in (upstream, offered[1], upstream.rpartition(".")[0]):
        site.write(text.format(version))
        site.run("apply", "--yes").ok()
        assert_unchanged(site)
