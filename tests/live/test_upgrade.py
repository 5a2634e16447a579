"""Another engine under a deployment that is written to: nothing acknowledged is lost, whatever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redkeep.model.engine import Engine, Version
from tests.killed import apply_killed_after
from tests.live.server_sources import cache_folder
from tests.live.servers import Binary, available
from tests.live.site import Site
from tests.live.traffic import Traffic

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(900)]


def newest(flavor: str) -> Binary:
    found = [b for b in available() if b.engine.flavor == flavor]
    if not found:
        pytest.skip(f"no {flavor} here")
    return found[-1]


def versions(site: Site) -> set[str]:
    nodes = [*site.servers, *(site.sentinels if site.mode == "sentinel" else ())]
    infos = [site.admin(port).info("server") for port in nodes]
    return {str(i.get("valkey_version") or i["redis_version"]) for i in infos}


def in_turn(steps: list[dict[str, Any]], roles: dict[int, str]) -> None:
    """Of each shard the replica, the hand-over, and then who led before."""
    turn = [(s["action"], int(s["node"].partition(":")[2])) for s in steps if s["stage"] == "restart"]
    for at, (action, port) in enumerate(turn):
        if action == "restart" and roles.get(port) == "master":
            assert turn[at - 1] == ("hand-over", port)
            replica = turn[at - 2]
            assert replica[0] == "restart"
            assert roles[replica[1]] == "slave"


@pytest.mark.parametrize("mode", ["cluster", "sentinel"])
def test_from_redis_to_valkey_and_not_back(mode: str, tmp_path: Path) -> None:
    """The way back is refused before anything is touched: Redis could not load what Valkey 9 writes."""
    old, new = newest("redis"), newest("valkey")
    count, more = (6, "") if mode == "cluster" else (3, "replicas: 2\n")
    site = Site(tmp_path, mode, count, engine=old)
    site.write(more)
    try:
        site.apply()
        roles = site.roles()
        with Traffic({f"app-{i}": site.client for i in range(2)}) as traffic:
            site.engine = new
            site.write(more)
            steps = site.apply()
        in_turn(steps, roles)
        assert versions(site) == {str(new.engine.version)}
        assert traffic.lost(site.client()) == []
        assert traffic.unexpected(site.mode) == []
        assert site.apply() == []
        site.engine = old
        site.write(more)
        site.run("apply", "--yes").error(4, "cannot load the data of valkey", "these are of version 80")
        assert versions(site) == {str(new.engine.version)}
    finally:
        site.destroy()


def older() -> Binary:
    """Redis 6.2, where somebody built it: named in REDKEEP_TEST_SERVERS, or by the tests of tarballs."""
    found = [b for b in available() if str(b).startswith("redis-6.2")]
    for path in sorted(cache_folder().glob("home/.local/share/redkeep/engines/redis-6.2*/bin/redis-server")):
        found.append(Binary(str(path), Engine("redis", Version(6, 2, 14))))
    if not found:
        pytest.skip("no Redis 6.2 here")
    return found[0]


def test_from_redis_6_to_7_with_an_append_only_file(tmp_path: Path) -> None:
    """Its file becomes a folder in 7.0, users and settings are spelled otherwise; the copy on disk is loaded."""
    site = Site(tmp_path, "sentinel", 2, engine=older())
    more = "replicas: 1\npersistence: aof\n"
    site.write(more)
    try:
        site.apply()
        roles = site.roles()
        with Traffic({"app": site.client}) as traffic:
            site.engine = newest("redis")
            site.write(more)
            steps = site.apply()
        in_turn(steps, roles)
        assert {v[:3] for v in versions(site)} == {"7.0"}
        assert traffic.lost(site.client()) == []
        assert site.apply() == []
        assert {site.admin(p).config_get("appendonly")["appendonly"] for p in site.servers} == {"yes"}
    finally:
        site.destroy()


def test_killed_after_each_step_the_next_apply_goes_on(tmp_path: Path) -> None:
    """One way, on a primary with a replica and Sentinels; the same client writes through all of it."""
    old, new = newest("redis"), newest("valkey")
    site = Site(tmp_path, "sentinel", 2, engine=old)
    site.write("replicas: 1\n")
    try:
        site.apply()
        with Traffic({"app": site.client}) as traffic:
            site.engine = new
            site.write("replicas: 1\n")
            kills = 0
            while apply_killed_after(site.run, 1) is not None:
                kills += 1
        assert kills > 5
        assert site.apply() == []
        assert versions(site) == {str(new.engine.version)}
        assert traffic.lost(site.client()) == []
    finally:
        site.destroy()
