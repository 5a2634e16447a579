"""Restarts one server after the other, under writes: who leads hands over first, and nothing acknowledged is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from redkeep.model.engine import DEFAULTS
from tests.killed import killed_after
from tests.live.servers import Binary, available, running, until
from tests.live.site import Site
from tests.live.test_upgrade import in_turn
from tests.live.traffic import Traffic

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(900)]


def run_ids(site: Site) -> dict[int, str]:
    return {port: site.admin(port).info("server")["run_id"] for port in site.servers}


@pytest.mark.parametrize("mode", ["cluster", "sentinel"])
def test_a_setting_that_needs_a_start_costs_no_write(mode: str, tmp_path: Path) -> None:
    count, more = (6, "") if mode == "cluster" else (3, "replicas: 2\n")
    site = Site(tmp_path, mode, count)
    site.write(more)
    try:
        site.apply()
        roles, before = site.roles(), run_ids(site)
        with Traffic({f"app-{i}": site.client for i in range(2)}) as traffic:
            site.write(f"{more}settings: {{tcp-backlog: 256}}\n")
            planned = site.run("plan", "--json").ok().json["steps"]
            steps = site.apply()
        in_turn(steps, roles)
        assert {s["id"] for s in planned} == {s["id"] for s in steps}
        assert not set(before.values()) & set(run_ids(site).values())
        assert traffic.lost(site.client()) == []
        assert traffic.unexpected(site.mode) == []
        assert site.apply() == []
    finally:
        site.destroy()


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server that keeps nothing on disk."""
    site = Site(tmp_path_factory.mktemp("lone"), "standalone", 1)
    site.write("persistence: none\n")
    try:
        site.apply()
        yield site
    finally:
        site.destroy()


def test_in_place_the_data_survive_even_without_persistence(lone: Site) -> None:
    with redis.Redis(port=lone.port, password=lone.password()) as client:
        client.set("kept", "yes")
        lone.write("persistence: none\nsettings: {tcp-backlog: 300}\n")
        (step,) = [s for s in lone.apply() if s["action"] == "restart"]
        assert "it has no replica" in step["why"]
        assert client.get("kept") == b"yes"
    folder = Path(lone.admin(lone.port).config_get("dir")["dir"])
    assert not (folder / "dump.rdb").exists()
    assert lone.admin(lone.port).config_get("save")["save"] == ""


def test_a_setting_taken_out_of_the_file_goes_back_to_the_default(lone: Site) -> None:
    admin = lone.admin(lone.port)
    lone.write("persistence: none\nsettings: {hz: 50, tcp-backlog: 300, slowlog-max-len: 7}\n")
    lone.apply()
    assert admin.config_get("hz")["hz"] == "50"
    admin.config_rewrite()  # as Sentinels do: now the server's own file has it too
    lone.write("persistence: none\nsettings: {slowlog-max-len: 7}\n")
    assert [s["action"] for s in lone.apply()] == ["write-files", "set", "restart"]
    found = admin.config_get("*")
    assert (found["hz"], found["tcp-backlog"], found["slowlog-max-len"]) == ("10", "511", "7")
    assert lone.apply() == []


@pytest.mark.parametrize("binary", available(), ids=str)
def test_the_defaults_that_we_write_down_are_the_engines(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path) as server:
        found = server.client().config_get("*")
        assert {k: found.get(k) for k in DEFAULTS} == DEFAULTS


def test_restart_on_request(tmp_path: Path) -> None:
    """Of a host, of a node; killed in the middle it goes on with who is left; again it is a new request."""
    site = Site(tmp_path, "sentinel", 2)
    site.write("replicas: 1\n")
    try:
        site.apply()
        before, roles = run_ids(site), site.roles()
        with Traffic({"app": site.client}) as traffic:
            assert killed_after(site.run, ("restart", "--yes"), 1) == 1
            done = site.run("restart", "--yes", "--json").ok().json
        assert done["verified"]["ok"], done
        assert not set(before.values()) & set(run_ids(site).values())
        assert [s["action"] for s in done["steps"]][:2] == ["hand-over", "restart"]
        assert site.roles() != roles
        assert traffic.lost(site.client()) == []
        assert traffic.unexpected(site.mode) == []
        replica = next(port for port, role in site.roles().items() if role == "slave")
        before = run_ids(site)
        steps = site.run("restart", f"local:{replica}", "--yes", "--json").ok().json["steps"]
        assert [(s["action"], s["node"]) for s in steps] == [("restart", f"local:{replica}")]
        changed = {port for port, run_id in run_ids(site).items() if run_id != before[port]}
        assert changed == {replica}
        # cut off before it, and another one is named then: both, and nobody whom the first one was through with
        first, second = (f"local:{port}" for port in site.sentinels[:2])
        record = site.run.folder / ".redkeep" / site.name / "restart.json"
        run_id = site.admin(site.sentinels[0]).info("server")["run_id"]
        record.write_text(json.dumps({first: run_id, f"local:{replica}": "gone already"}))
        steps = site.run("restart", second, f"local:{replica}", "--yes", "--json").ok().json["steps"]
        assert [s["node"] for s in steps if s["action"] == "restart"] == [first, second]
        assert not record.exists()
        site.run("restart", "elsewhere", "--yes").error(2, "no such node or host: elsewhere")
        until(lambda: site.run("restart", f"local:{replica}").error(4, "not approved"))
    finally:
        site.destroy()
