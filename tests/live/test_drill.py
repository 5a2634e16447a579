"""Drills on this machine: what is measured, what is refused, and a primary whose own host answers its death."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.cli import Redkeep
from tests.ports import free_block

from .servers import until

pytestmark = pytest.mark.live

TEXT = "name: drilled-{port}\nmode: {mode}\nhosts: [local]\nport: {port}\nsentinel_port: {sentinel}\nfailover: {failover}\n"


class Here:
    """A deployment on this machine."""

    def __init__(self, folder: Path, mode: str, *, failover: str, more: str = "") -> None:
        port = free_block(10)
        self.folder, self.port = folder, port
        self.text = TEXT.format(port=port, sentinel=port + 7, mode=mode, failover=failover) + more
        self.run = Redkeep(folder, environment={"HOME": str(folder)}, timeout=300.0)
        self.run.write(self.text + "drills: allowed\n")

    def drill(self, *words: str) -> dict[str, Any]:
        return dict(self.run("drill", *words, "--yes", "--json", "--rate", "200").ok().json)

    def status(self) -> list[dict[str, Any]]:
        return list(self.run("status", "--json").ok().json["nodes"])

    def admin(self, port: int) -> Any:
        password = self.run("url", "--user", "admin", "--reveal", "--json").ok().json["password"]
        return Redis(port=port, username="redkeep", password=password, decode_responses=True)


def made(folder: Path, mode: str, **more: Any) -> Iterator[Here]:
    found = Here(folder, mode, **more)
    try:
        found.run("apply", "--yes").ok()
        yield found
    finally:
        found.run("destroy", "--yes", "--delete-data")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """With the engine's patience (15 s): what is over sooner was not over by anybody's timeout."""
    yield from made(tmp_path_factory.mktemp("cluster"), "cluster", failover="patient")


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    yield from made(tmp_path_factory.mktemp("sentinel"), "sentinel", failover="fast")


def test_a_dead_primary_is_replaced_long_before_anybody_s_timeout(cluster: Here) -> None:
    found = cluster.drill("primary-kill", "--target", "shard 2")
    (run,) = found["runs"]
    assert run["voted_ms"] is not None, run
    assert run["voted_ms"] < 14_000, run
    assert run["lost"] == 0
    assert {s["shard"] for s in run["shards"]} == {"shard 1", "shard 2", "shard 3"}
    assert found["median_window_ms"] == run["window_ms"] > 0
    journal = Path(cluster.folder)
    assert Path(found["report"]).is_relative_to(journal)
    page = Path(found["report"]).read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http-equiv", ""), "it opens offline"
    assert not list(cluster.admin(cluster.port).scan_iter("redkeep:drill:*")), "nothing of it stays"


def test_a_primary_promoted_by_force_just_now_is_left_to_its_restart(cluster: Here) -> None:
    """Without a drill's permission: the second crash of a shard within ten minutes."""
    promoted = _kill_primary(cluster, shard_of="first")
    log = _log(promoted["folder"])
    until(lambda: "is the primary now" in _log(promoted["folder"]), seconds=10, what=log)
    until(lambda: _well(cluster), seconds=40)
    again = _kill_primary(cluster, shard_of=promoted["replica"])
    until(lambda: "less than ten minutes ago" in _log(again["folder"]), seconds=10)
    until(lambda: _well(cluster), seconds=60)


def _kill_primary(here: Here, *, shard_of: str) -> dict[str, Any]:
    """Kills the first primary, or the named node; says where it lies and who its replica is."""
    nodes = here.status()
    primary = next(n for n in nodes if n["role"] == "primary" and shard_of in ("first", n["name"]))
    replica = next(n for n in nodes if n["primary"] == primary["name"])
    port = int(primary["name"].rpartition(":")[2])
    info = here.admin(port).info("server")
    os.kill(info["process_id"], signal.SIGKILL)
    return {"folder": Path(info["config_file"]).parent, "replica": replica["name"]}


def _log(folder: Path) -> str:
    return (folder / "supervisor.log").read_text()


def _well(here: Here) -> bool:
    told = here.run("status", "--json")
    return told.status == 0 and told.json["state"] == "ok"


def test_a_hang_and_then_a_replica(sentinel: Here) -> None:
    found = sentinel.drill("primary-hang", "sentinel-kill", "--hold", "4")
    hung, killed = found["runs"]
    assert found["fault"] == "sequence"
    assert hung["window_ms"] > 500
    assert hung["voted_ms"] is not None
    assert killed["subject"].rpartition(":")[2] in {str(sentinel.port + 7 + i) for i in range(3)}
    assert any("+switch-master" in e["what"] for e in hung["events"])
    history = sentinel.run("drill", "--history", "--json").ok().json["drills"]
    assert [d["fault"] for d in history] == ["sequence"]
    assert "sequence" in sentinel.run("drill", "--history").ok().stdout


def test_the_timer_undoes_a_hang_when_the_tool_was_killed(sentinel: Here) -> None:
    with _hanging(sentinel) as (process, pid):
        process.kill()
    assert _state(pid) == "T"
    until(lambda: _state(pid) != "T", seconds=40)
    until(lambda: _well(sentinel), seconds=60)


def test_control_c_undoes_a_hang_and_removes_the_keys(sentinel: Here) -> None:
    before = _drill_keys(sentinel)  # a tool that was killed left them
    with _hanging(sentinel) as (process, pid):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert _state(pid) != "T"
    until(lambda: _well(sentinel), seconds=60)
    assert _drill_keys(sentinel) <= before


def test_a_drill_that_is_cut_short_keeps_what_its_runs_measured(sentinel: Here) -> None:
    before = len(_history(sentinel))
    process = _begun(sentinel, "replica-kill", "--runs", "2")
    with process:
        told = ""
        for line in process.stderr or ():
            told += line
            if line.startswith("run 2 of 2"):
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, told
    assert "what 1 of the runs measured is in" in told
    assert len(_history(sentinel)) == before + 1
    until(lambda: _well(sentinel), seconds=60)


def _history(here: Here) -> list[dict[str, Any]]:
    return list(here.run("drill", "--history", "--json").ok().json["drills"])


def _drill_keys(here: Here) -> set[str]:
    primary = next(n["name"] for n in here.status() if n["role"] == "primary")
    return set(here.admin(int(primary.rpartition(":")[2])).scan_iter("redkeep:drill:*", count=1000))


def _begun(here: Here, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        here.run.argv("drill", *words, "--yes"),
        cwd=here.folder,
        env=here.run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def _hanging(here: Here) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A drill that has just stopped a primary: the command, and that server's process."""
    process = _begun(here, "primary-hang", "--hold", "5")
    with process:
        line = ""
        for line in process.stderr or ():
            if line.startswith("primary-hang: "):
                break
        pid = int(_server_pid(here, line.strip().rpartition(":")[2]))
        until(lambda: _state(pid) == "T", seconds=10)
        yield process, pid


def _server_pid(here: Here, port: str) -> str:
    pid = next(Path("/").glob(f"{_base(here).lstrip('/')}/{port}/data/server.pid"))
    return pid.read_text()


def _base(here: Here) -> str:
    root = "/var/lib/redkeep" if os.geteuid() == 0 else f"{here.folder}/.local/share/redkeep"
    return f"{root}/drilled-{here.port}"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_is_refused_whatever_is_said(sentinel: Here, cluster: Here) -> None:
    sentinel.run.write(sentinel.text)
    try:
        sentinel.run("drill", "primary-kill", "--yes").error(4, "drills are refused", "drills: allowed")
    finally:
        sentinel.run.write(sentinel.text + "drills: allowed\n")
    sentinel.run("drill", "host-loss", "--yes").error(
        4, "would not survive host-loss of local", "this one host"
    )
    sentinel.run("drill", "full-disk", "--yes").error(4, "this machine's own disk")
    cluster.run("drill", "sentinel-kill", "--yes").error(2, "no sentinel to break")
    later = cluster.run("drill", "replica-kill", "sentinel-kill", "--yes")
    later.error(2, "no sentinel to break")
    assert "run 1" not in later.stderr, "what cannot be done later is not begun"
    cluster.run("drill", "primary-kil", "--yes").error(2, "no such fault: primary-kil", "primary-kill")
    cluster.run("drill", "--yes").error(2, "a fault, or --history")
    cluster.run("drill", "partition", "--groups", "local/b", "--yes").error(2, "no such host: b")
    cluster.run("drill", "replica-kill", "--groups", "local", "--yes").error(2, "only a partition has groups")
    cluster.run("drill", "primary-kill", "--target", "shard 9", "--yes").error(2, "is called shard 9")
    cluster.run("drill", "primary-kill").error(4, "nobody to ask: break", "kill -9 of a primary")


def test_a_nearly_full_or_broken_deployment_is_not_drilled(sentinel: Here) -> None:
    port = int(next(n for n in sentinel.status() if n["role"] == "primary")["name"].rpartition(":")[2])
    admin = sentinel.admin(port)
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 1000)
    try:
        sentinel.run("drill", "replica-kill", "--yes").error(4, "too little memory", "of maxmemory is in use")
    finally:
        admin.config_set("maxmemory", 0)
    replica = next(n for n in sentinel.status() if n["role"] == "replica")["name"].rpartition(":")[2]
    pid = int(_server_pid(sentinel, replica))
    os.kill(pid, signal.SIGSTOP)
    try:
        sentinel.run("drill", "replica-kill", "--yes").error(4, "is not well", f"local:{replica}")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: _well(sentinel), seconds=30)


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/sys/fs/cgroup/blkio").is_dir(),
    reason="no blkio controller here, or not root",
)
def test_a_slow_disk_is_felt_and_fast_again(tmp_path: Path) -> None:
    """Each write waits for the disk; and the timer makes it fast again when the tool was killed."""
    here = Here(tmp_path, "standalone", failover="fast", more="persistence: aof\nappendfsync: always\n")
    try:
        here.run("apply", "--yes").ok()
        (run,) = here.drill("slow-disk", "--hold", "4")["runs"]
        (shard,) = run["shards"]
        assert shard["longest_gap_ms"] > 250, "ten writes a second, and each fsync needs several"
        assert run["lost"] == 0
        pid = int(_server_pid(here, str(here.port)))
        assert "redkeep-drill-" not in Path(f"/proc/{pid}/cgroup").read_text()
        killed = subprocess.Popen(
            here.run.argv("drill", "slow-disk", "--yes", "--hold", "1"),
            cwd=here.folder,
            env=here.run.variables(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        with killed:
            until(lambda: "redkeep-drill-" in Path(f"/proc/{pid}/cgroup").read_text(), seconds=40)
            killed.kill()
        assert "redkeep-drill-" in Path(f"/proc/{pid}/cgroup").read_text()
        until(lambda: "redkeep-drill-" not in Path(f"/proc/{pid}/cgroup").read_text(), seconds=40)
    finally:
        here.run("destroy", "--yes", "--delete-data")


def test_a_lone_server_whose_snapshot_is_older_is_not_killed(tmp_path: Path) -> None:
    here = Here(tmp_path, "standalone", failover="fast", more="persistence: rdb\n")
    try:
        here.run("apply", "--yes").ok()
        here.run("drill", "primary-kill", "--yes").error(4, "loses acknowledged writes", "persistence: rdb")
        here.run.write(here.text.replace("persistence: rdb", "persistence: aof") + "drills: allowed\n")
        here.run("apply", "--yes").ok()
        (run,) = here.drill("primary-kill")["runs"]
        assert run["lost"] == 0
        assert run["window_ms"] > 0
    finally:
        here.run("destroy", "--yes", "--delete-data")


def test_a_real_library_rides_along(sentinel: Here) -> None:
    """redis-py is always here; the others need their runtimes."""
    before = drilled(sentinel)  # of a tool that was killed: those expire
    found = sentinel.drill("replica-kill", "--client", "redis-py")
    (run,) = found["runs"]
    rider = run["client"]
    assert rider["library"].startswith("redis-py ")
    assert rider["window_ms"] is not None
    assert found["settings"]["client"] == "redis-py"
    page = Path(found["report"]).read_text()
    assert "<h2>Clients</h2>" in page
    assert rider["library"] in page
    assert drilled(sentinel) <= before, "what the library wrote is gone too"


def drilled(here: Here) -> set[str]:
    """Keys of drills on the primary."""
    primary = next(n for n in here.status() if n["role"] == "primary")
    return set(here.admin(int(primary["name"].rpartition(":")[2])).scan_iter("redkeep:drill:*"))


def test_a_library_that_cannot_run_here_breaks_nothing(sentinel: Here) -> None:
    sentinel.run("drill", "replica-kill", "--client", "letuce", "--yes").error(2, "did you mean lettuce?")
    empty = {"PATH": str(sentinel.folder)}
    sentinel.run("drill", "replica-kill", "--client", "lettuce", "--yes", env=empty).error(
        4, "cannot run on this machine: not here: java, mvn, javac", "nothing was broken"
    )
