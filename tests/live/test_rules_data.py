"""Will the data be there tomorrow? Each broken deployment is built with real servers, found, mended, and well again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.live.deployments import replicated, watched
from tests.live.doctor import doctor
from tests.live.servers import Binary, Server, available, running, until
from tests.live.supervised import supervised

pytestmark = pytest.mark.live

#: Snapshots that nothing in a test is slow enough for.
_SNAPSHOTS = "save 3600 1\n"


@pytest.fixture(params=available(), ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


def killed(server: Server) -> None:
    """kill -9, and its supervisor has started it again."""
    pid = server.client().info("server")["process_id"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.client().info("server")["process_id"] != pid)


def followed(binary: Binary, folder: Path, text: str) -> tuple[Binary, str]:
    """A supervised primary's binary, and its configuration."""
    return supervised(binary, folder), f"{text}repl-diskless-sync-delay 0\n"


def test_restart_rollback(binary: Binary, tmp_path: Path) -> None:
    quick, text = followed(binary, tmp_path, _SNAPSHOTS)
    with (
        running(quick, tmp_path / "a", text) as primary,
        running(binary, tmp_path / "b", f"replicaof 127.0.0.1 {primary.port}\n") as replica,
    ):
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        found = doctor(primary).only("restart-rollback")
        assert found.severity == "warning"
        assert "appendonly no, save 3600 1 (CONFIG GET); runsv restarts it" in found.evidence
        assert f"-p {primary.port} CONFIG SET appendonly yes" in found.fix
        # it is as bad as the finding says
        primary.client().set("k", "v")
        assert primary.client().wait(1, 2000) == 1
        killed(primary)
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        until(lambda: replica.client().get("k") is None)
        primary.client().config_set("appendonly", "yes")
        assert not doctor(primary).of("restart-rollback")
        until(lambda: primary.client().info("persistence")["aof_rewrite_in_progress"] == 0)
        primary.client().set("k", "v")
        killed(primary)
        assert not doctor(primary).of("restart-rollback")


def test_restart_rollback_needs_a_replica_and_a_restart(binary: Binary, tmp_path: Path) -> None:
    with running(supervised(binary, tmp_path), tmp_path / "alone", _SNAPSHOTS) as alone:
        assert not doctor(alone).of("restart-rollback")
    with replicated(binary, tmp_path, primary=_SNAPSHOTS) as (primary, _):
        assert not doctor(primary).of("restart-rollback")


def test_empty_restart_wipe(binary: Binary, tmp_path: Path) -> None:
    quick, text = followed(binary, tmp_path, "")
    with (
        running(quick, tmp_path / "a", text) as primary,
        running(binary, tmp_path / "b", f"replicaof 127.0.0.1 {primary.port}\n") as replica,
        watched(binary, tmp_path / "s", primary) as sentinel,
    ):
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        until(lambda: sentinel.client().sentinel_slaves("shop"))
        found = doctor(f"sentinel://127.0.0.1:{sentinel.port}/shop").only("empty-restart-wipe")
        assert found.severity == "error"
        assert 'save ""' in found.evidence
        assert "a failover begins after 0.5 s" in found.evidence
        primary.client().config_set("appendonly", "yes")
        assert not doctor(primary).of("empty-restart-wipe")


def test_persistence_failing(binary: Binary, tmp_path: Path) -> None:
    """A folder stands where the snapshot should go."""
    with running(binary, tmp_path) as server:
        commands = server.client()
        assert not doctor(server).of("persistence-failing")
        (tmp_path / "dump.rdb" / "in the way").mkdir(parents=True)
        commands.set("k", "v")
        commands.bgsave()
        until(lambda: commands.info("persistence")["rdb_last_bgsave_status"] == "err")
        found = doctor(server).only("persistence-failing")
        assert found.severity == "error"
        assert "rdb_last_bgsave_status:err (INFO persistence), the last good snapshot is" in found.evidence
        assert f"{tmp_path}/log names the reason" in found.fix
        (tmp_path / "dump.rdb" / "in the way").rmdir()
        (tmp_path / "dump.rdb").rmdir()
        commands.bgsave()
        until(lambda: commands.info("persistence")["rdb_last_bgsave_status"] == "ok")
        assert not doctor(server).of("persistence-failing")


def test_maxmemory_unset(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path, replicas=("maxmemory 100mb\n",)) as (primary, _):
        found = doctor(primary).only("maxmemory-unset")
        assert found.subject == f"127.0.0.1:{primary.port}"
        assert "maxmemory 0 (CONFIG GET)" in found.evidence
        primary.client().config_set("maxmemory", "100mb")
        assert not doctor(primary).of("maxmemory-unset")


def test_maxmemory_over_host(binary: Binary, tmp_path: Path) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = f"maxmemory {int(total * 0.4)}\n"
    with replicated(binary, tmp_path, primary=limit, replicas=(limit,)) as (primary, replica):
        found = doctor(primary).only("maxmemory-over-host")
        assert found.severity == "error"
        assert "maxmemory of 2 servers together" in found.evidence
        assert "/proc/meminfo" in found.evidence
        assert f"-p {primary.port} CONFIG SET maxmemory" in found.fix
        replica.client().config_set("maxmemory", int(total * 0.3))
        assert not doctor(primary).of("maxmemory-over-host")


def test_write_safety(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, _):
        found = doctor(primary).only("write-safety")
        assert found.severity == "info"
        assert "min-replicas-to-write 0, min-replicas-max-lag 10, appendonly no" in found.evidence
        primary.client().config_set("min-replicas-to-write", 1)
        assert not doctor(primary).of("write-safety")


def test_config_drift_at_run_time(binary: Binary, tmp_path: Path) -> None:
    text = 'timeout 5\nmaxmemory 100mb\nmaxmemory-policy "allkeys-lru"\nsave 3600 1 300 100\nrequirepass secret-one\n'
    with running(binary, tmp_path, text) as server:
        commands = server.client(password="secret-one")
        assert not doctor(server, password="secret-one").of("config-drift")
        commands.config_set("maxmemory", "200mb")
        commands.config_set("requirepass", "secret-two")
        found = doctor(server, password="secret-two").only("config-drift")
        assert f"maxmemory is 209715200 (CONFIG GET), 100mb in {tmp_path}/server.conf" in found.evidence
        assert "requirepass is another one than in its file" in found.evidence
        assert "secret" not in found.evidence
        assert "set at run time (CONFIG SET)" in found.evidence
        commands = server.client(password="secret-two")
        commands.config_rewrite()
        assert not doctor(server, password="secret-two").of("config-drift")
        commands.config_set("tcp-keepalive", 77)
        commands.config_rewrite()
        commands.config_set("tcp-keepalive", 88)
        assert (
            "the server wrote its file itself"
            in doctor(server, password="secret-two").only("config-drift").evidence
        )


def test_config_drift_of_an_edited_file(binary: Binary, tmp_path: Path) -> None:
    more = tmp_path / "more.conf"
    more.write_text("timeout 5\n")
    with running(binary, tmp_path, f"timeout 3\ninclude {tmp_path}/mor*.conf\n") as server:
        assert not doctor(server).of("config-drift")
        more.write_text("timeout 60\n")
        os.utime(more, (time.time() + 10, time.time() + 10))
        found = doctor(server).only("config-drift")
        assert f"timeout is 5 (CONFIG GET), 60 in {tmp_path}/server.conf" in found.evidence
        assert "the file was changed" in found.evidence
        server.client().config_set("timeout", 60)
        assert not doctor(server).of("config-drift")


def test_config_drift_is_not_another_way_to_the_same_folder(binary: Binary, tmp_path: Path) -> None:
    """Data folders are often links to another disk; the server shows where it is."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    for way in ("data", "data/", "disk/"):
        with running(binary, tmp_path / "a", f'dir "{tmp_path}/{way}"\n') as server:
            assert not doctor(server).of("config-drift")
    with running(binary, tmp_path / "b", f"dir {tmp_path}/data\nenable-protected-configs yes\n") as server:
        server.client().config_set("dir", str(tmp_path))
        assert "dir is" in doctor(server).only("config-drift").evidence


def test_config_drift_of_several_servers_is_told_once(binary: Binary, tmp_path: Path) -> None:
    """Their files have different names, and that is no difference worth telling."""
    with replicated(binary, tmp_path, primary="timeout 3\n", replicas=("timeout 3\n",)) as (primary, replica):
        for server in (primary, replica):
            server.client().config_set("timeout", 60)
        found = doctor(primary).only("config-drift")
        assert found.subject == f"127.0.0.1:{primary.port}, 127.0.0.1:{replica.port}"
        assert found.evidence.count("timeout is 60 (CONFIG GET), 3 in its file") == 1
        assert all(str(server.folder / "server.conf") in found.evidence for server in (primary, replica))
