"""Drills over SSH: each fault on real hosts, what it reports against another reader, and a tool that is killed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .conftest import LabFactory
from .site import Site, eventually, unit
from .test_deploy import REDIS, SIX, TWO_CLOUDS, deployed, on

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Six hosts, the data of each on a disk of 400 MB, for clients on the internet."""
    lab = lab_factory(on("bookworm", SIX))
    for name in SIX:
        lab.exec(name, "mkdir -p /var/lib/redkeep")
        lab.disk.shrink(name, "/var/lib/redkeep", "400M")
    site = Site.at(lab, tmp_path_factory.mktemp("drill"))
    site.write(f"mode: cluster\n{REDIS}\nclients: public\nfailover: fast\ndrills: allowed\n")
    assert site.apply()["verified"]["ok"]
    with lab.inside("cli"):
        yield site


def counted_again(client: Any, run: dict[str, Any]) -> int:
    """Acknowledged writes that are missing, as redis-py finds it."""
    missing = 0
    for shard in run["shards"]:
        gone = set(shard["unacknowledged"])
        keys = [f"{shard['keys']}{n}" for n in range(shard["sent"]) if n not in gone]
        assert len(keys) == shard["acknowledged"]
        for start in range(0, len(keys), 500):
            missing += sum(v is None for v in client.mget(keys[start : start + 500]))
    return missing


def drilled(site: Site, *words: str) -> dict[str, Any]:
    found = site.run("drill", *words, "--yes", "--json", "--keep", "--rate", "200").ok().json
    assert len(found["runs"]) == 1
    run = dict(found["runs"][0])
    assert run["acknowledged"] > 0
    assert counted_again(eventually(site.client), run) == run["lost"]
    assert site.wait_ok()
    assert Path(found["report"]).read_text().startswith("<!doctype html>")
    return run


@pytest.mark.parametrize("fault", ["primary-kill", "replica-kill", "host-loss"])
def test_nothing_is_lost(cluster: Site, fault: str) -> None:
    run = drilled(cluster, fault, *(("--hold", "6") if fault == "host-loss" else ()))
    assert run["lost"] == 0
    assert (run["voted_ms"] is not None) == (fault != "replica-kill"), run["events"]
    assert cluster.run("apply", "--yes", "--json").ok().json["steps"] == []


def test_a_partition_loses_what_the_smaller_side_acknowledged(cluster: Site) -> None:
    """Clients still reach the primary that is cut off, and it acknowledges until its node timeout is over."""
    run = drilled(cluster, "partition", "--hold", "8")
    assert run["lost"] > 0
    assert run["voted_ms"] is not None


def test_two_groups_of_hosts_apart(cluster: Site) -> None:
    """A primary and another shard's replica against all the rest; then a cut that neither side would come through."""
    nodes = cluster.status()["nodes"]
    primaries = [n for n in nodes if n["role"] == "primary"]
    stray = next(n for n in nodes if n["role"] == "replica" and n["primary"] != primaries[0]["name"])
    near = [primaries[0]["host"], stray["host"]]
    far = [h for h in SIX if h not in near]
    run = drilled(cluster, "partition", "--groups", f"{','.join(near)}/{','.join(far)}", "--hold", "8")
    assert run["subject"] == "+".join(near)
    assert run["lost"] > 0
    assert [s["shard"] for s in run["shards"] if s["lost"]] == ["shard 1"], run
    for host in near:
        assert "redkeep" not in cluster.lab.exec(host, "nft list tables").stdout
    heir = next(n["host"] for n in nodes if n["primary"] == primaries[0]["name"])
    halves = [primaries[0]["host"], primaries[1]["host"], heir]
    other = [h for h in SIX if h not in halves]
    cluster.run("drill", "partition", "--groups", f"{','.join(halves)}/{','.join(other)}", "--yes").error(
        4, "would not survive partition", "neither side can go on alone"
    )


def test_a_disk_that_cannot_be_slowed_is_said_so(cluster: Site) -> None:
    """The lab's disks are memory."""
    cluster.run("drill", "slow-disk", "--yes").error(4, "the data lies on tmpfs", "drill this fault on hosts")
    assert "redkeep-drill" not in cluster.lab.exec(SIX[0], "systemctl list-timers --all --no-legend").stdout


def test_a_full_disk_stops_writes_until_there_is_room(cluster: Site) -> None:
    run = drilled(cluster, "full-disk", "--hold", "4")
    assert run["errors"] > 0, "a snapshot that fails stops writes"
    assert run["lost"] == 0
    assert run["window_ms"] > 1000
    left = cluster.lab.exec(run["subject"], "ls /var/lib/redkeep/*/*/data").stdout
    assert "fill" not in left


def test_a_hang_is_undone_by_the_host_when_the_tool_was_killed(cluster: Site) -> None:
    process = cluster.lab.popen(
        cluster.run.argv("drill", "primary-hang", "--yes", "--hold", "5"),
        cwd=cluster.run.folder,
        env=cluster.run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stderr or ():
            if line.startswith("primary-hang: "):
                break
        victim = line.split()[1]
        host, _, port = victim.partition(":")
        eventually(lambda: _assert_state(cluster, host, port, "T"))
        process.send_signal(signal.SIGKILL)
    eventually(lambda: _assert_state(cluster, host, port, "S"))
    cluster.wait_ok()
    assert "redkeep-drill" not in cluster.lab.exec(host, "systemctl list-timers --all --no-legend").stdout


def _assert_state(site: Site, host: str, port: str, letter: str) -> None:
    found = site.lab.exec(
        host, f"ps -o stat= -p $(systemctl show -p MainPID --value {unit(int(port))})"
    ).stdout
    assert found.startswith(letter), found


def test_sentinel_partition_is_reported_as_lossy(fresh_lab: LabFactory, tmp_path: Path) -> None:
    """A primary that is cut off from its Sentinels acknowledges as long as clients reach it, and all of that is lost."""
    site = deployed(
        fresh_lab,
        tmp_path,
        on("bookworm", TWO_CLOUDS),
        f"mode: sentinel\n{REDIS}\nreplicas: 2\nclients: public\nfailover: fast\ndrills: allowed\n",
    )
    with ExitStack() as stack:
        stack.enter_context(site.lab.inside("cli"))
        run = drilled(site, "partition", "--hold", "8")
        assert run["lost"] > 0
        assert run["voted_ms"] is not None
        listed = site.run("drill", "--history", "--json").ok().json["drills"]
        assert [d["lost"] for d in listed] == [run["lost"]]
        site.run("drill", "sentinel-kill", "--yes", "--json").ok()
