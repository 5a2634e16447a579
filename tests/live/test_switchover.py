"""``redkeep switchover`` on real servers: three modes, two engines, under load, cut off half way, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from redkeep.model.slots import hash_tag
from tests.cli import Redkeep
from tests.live.site import Site
from tests.live.writer import Target, Writer, connect
from tests.ports import free_block

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

ENGINES = {
    "redis": "engine: {flavor: redis, source: binary, path: /usr/bin/redis-server}\n",
    "valkey": "engine: {flavor: valkey, source: bundled}\n",
}
MODES = {
    "cluster": "mode: cluster\nshards: 3\nreplicas: 1\n",
    "sentinel": "mode: sentinel\nreplicas: 2\n",
    "standalone": "mode: standalone\nreplicas: 2\n",
}


#: These are tried every time, the others with the long tests.
OFTEN = {("cluster", "valkey"), ("sentinel", "redis")}
VARIANTS = [
    pytest.param((m, e), id=f"{m}-{e}", marks=() if (m, e) in OFTEN else pytest.mark.long)
    for m in MODES
    for e in ENGINES
]


class Deployment:
    """A deployment on this machine."""

    def __init__(self, folder: Path, mode: str, engine: str) -> None:
        self.mode, self.engine, self.port = mode, engine, free_block(12)
        self.name = f"over-{self.port}"
        self.admins: dict[str, Any] = {}
        self.run = Redkeep(folder, environment={"HOME": str(folder)}, timeout=240)
        self.run.write(
            f"name: {self.name}\nhosts: [local]\nport: {self.port}\nsentinel_port: {self.port + 8}\n"
            f"failover: patient\ndrills: allowed\n{MODES[mode]}{ENGINES[engine]}"
        )
        self.run("apply", "--yes").ok()
        self.passwords = {
            user: self.run("url", "--user", user, "--reveal", "--json").ok().json["password"]
            for user in ("app", "admin")
        }

    def nodes(self, role: str = "") -> list[dict[str, Any]]:
        found = self.run("status", "--json").json["nodes"]  # its exit status tells whether all is well
        return [n for n in found if role in ("", n["role"])]

    def admin(self, node: str) -> Any:
        """One client for each node, closed at the end; it connects anew where its server was restarted."""
        if node not in self.admins:
            self.admins[node] = Redis(
                port=int(node.partition(":")[2]),
                username="redkeep",
                password=self.passwords["admin"],
                decode_responses=True,
            )
        return self.admins[node]

    def primary(self) -> str:
        """Of the first shard."""
        found = [n["name"] for n in self.nodes("primary")]
        if self.mode == "cluster":
            found = [n for n in found if n in (f"local:{self.port}", f"local:{self.port + 3}")]
        assert len(found) == 1, found
        return str(found[0])

    def replicas_of(self, primary: str) -> list[str]:
        return [n["name"] for n in self.nodes("replica") if n["primary"] == primary]

    def target(self) -> Target:
        tags: tuple[str, ...] = ("a",)
        if self.mode == "cluster":
            tags = tuple(hash_tag(slot) for slot in (0, 8000, 16000))
        return Target(
            self.mode,
            tuple(int(n["name"].partition(":")[2]) for n in self.nodes() if n["role"] != "sentinel"),
            self.passwords["app"],
            tuple(int(n["name"].partition(":")[2]) for n in self.nodes("sentinel")),
            self.name,
            tags,
        )

    def writer(self) -> Writer:
        target = self.target()
        return Writer(lambda: connect(target), target.tags)

    def settled(self) -> None:
        """Nothing is left to do, and no switchover is under way."""
        assert self.run("plan", "--json").ok().json["steps"] == []
        assert not (self.run.folder / ".redkeep" / self.name / "switchover.json").exists()

    def failovers_asked(self) -> list[int]:
        """How often each Sentinel was asked for one, in the order in which clients know them."""
        folder = Path(self.admin(self.primary()).config_get("dir")["dir"]).parents[1]
        ports = [n["name"].partition(":")[2] for n in self.nodes("sentinel")]
        logs = [(folder / f"sentinel-{port}" / "data/supervisor.log").read_text() for port in ports]
        return [log.count("Executing user requested FAILOVER") for log in logs]

    def supervisor(self, node: str) -> int:
        folder = Path(self.admin(node).config_get("dir")["dir"])
        return int((folder / "supervisor.pid").read_text())


@pytest.fixture(scope="module", params=VARIANTS)
def deployment(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    mode, engine = request.param
    found = Deployment(tmp_path_factory.mktemp(f"{mode}-{engine}"), mode, engine)
    try:
        yield found
    finally:
        for client in found.admins.values():
            client.close()
        found.run("destroy", "--yes", "--delete-data").ok()


def test_no_write_is_lost(deployment: Deployment) -> None:
    """Away from its primary, and back to it by name."""
    first = deployment.primary()
    with deployment.writer() as writer:
        writer.moves_on()
        done = deployment.run("switchover", first, "--yes", "--json").ok().json
        assert (done["from"], done["lost"], done["window_ms"]) == (first, None, None)
        assert done["to"] in {n["name"] for n in deployment.nodes("primary")}
        writer.moves_on()
        back = deployment.run("switchover", "1", "--to", first, "--yes", "--json").ok().json
        assert (back["from"], back["to"]) == (done["to"], first)
        writer.moves_on()
    assert writer.lost() == []
    assert writer.count() > 500
    assert first in {n["name"] for n in deployment.nodes("primary")}
    deployment.settled()
    if (
        deployment.mode == "sentinel"
    ):  # clients ask the first, and the one that makes a failover is the last to know its end
        asked = deployment.failovers_asked()
        assert (asked[0], sum(asked)) == (0, 2)


def is_tried_elsewhere(deployment: Deployment) -> None:
    """A change by Sentinels takes ten seconds, since they look at their replicas so often; both engines do it alike."""
    if (deployment.mode, deployment.engine) == ("sentinel", "valkey"):
        pytest.skip("tried with Redis")


def test_twice_is_not_back_again(deployment: Deployment) -> None:
    is_tried_elsewhere(deployment)
    first = deployment.primary()
    new = deployment.run("switchover", first, "--yes", "--json").ok().json["to"]
    again = deployment.run("switchover", first, "--yes", "--json").ok().json
    assert (again["changed"], again["moves"]) == (False, [])
    assert deployment.run("switchover", "--to", new, "--yes", "--json").ok().json["changed"] is False
    assert new in {n["name"] for n in deployment.nodes("primary")}
    restored = deployment.run("switchover", "--restore", "--yes", "--json").ok().json
    assert len(restored["moves"]) <= 1
    assert deployment.run("switchover", "--restore", "--yes", "--json").ok().json["changed"] is False


def test_the_probe_measures_and_cleans_up(deployment: Deployment) -> None:
    found = deployment.run("switchover", "1", "--probe", "--yes", "--json").ok().json
    assert found["lost"] == 0
    assert found["acknowledged"] > 10
    assert 0 < found["window_ms"] < 30_000
    for node in deployment.nodes("primary"):
        assert list(deployment.admin(node["name"]).scan_iter("redkeep:drill*")) == []


def test_killed_half_way_it_goes_on(deployment: Deployment) -> None:
    """kill -9 of the tool at some moments. Nothing stays held, and the next run ends what was begun."""
    is_tried_elsewhere(deployment)
    with deployment.writer() as writer:
        for delay in (0.05, 0.3):
            first = deployment.primary()
            record = deployment.run.folder / ".redkeep" / deployment.name / "switchover.json"
            process = subprocess.Popen(
                deployment.run.argv("switchover", first, "--yes"),
                cwd=deployment.run.folder,
                env=deployment.run.variables(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                deadline = time.monotonic() + 60
                while not record.exists() and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.005)
                time.sleep(delay)
            finally:
                os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
                process.wait()
            writer.moves_on()
            deployment.run("switchover", first, "--yes", "--json").ok()
            assert first not in {n["name"] for n in deployment.nodes("primary")}
            writer.moves_on()
            deployment.settled()
    assert writer.lost() == []


def test_connections_to_the_old_primary_end(deployment: Deployment) -> None:
    """A library that looks for the primary only when it connects would write to a replica for ever."""
    if deployment.mode != "sentinel":
        pytest.skip("a Cluster answers MOVED; in plain replication clients know the primary by its address")
    first = deployment.primary()
    with Redis(
        port=int(first.partition(":")[2]), password=deployment.passwords["app"], single_connection_client=True
    ) as client:
        before = client.client_id()
        deployment.run("switchover", first, "--yes").ok()
        assert client.client_id() != before  # redis-py connected anew, since it had to


def test_refused_when_the_replica_is_cut_off(deployment: Deployment) -> None:
    """No replica has a link: nothing is changed, nothing stays held."""
    first = deployment.primary()
    replicas = deployment.replicas_of(first)
    # They cannot log in. Without the right to PSYNC they would try SYNC, and one that comes by that as the right is back
    # has an offset of its own, which nobody can compare.
    for node in [*replicas, first]:
        deployment.admin(node).execute_command("ACL", "SETUSER", "replication", "off")
    deployment.admin(first).execute_command("CLIENT", "KILL", "TYPE", "replica")
    try:
        deadline = time.monotonic() + 60
        while any(deployment.admin(r).info("replication")["master_link_status"] == "up" for r in replicas):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with deployment.writer() as writer:
            deployment.run("switchover", first, "--yes").error(
                4, "can take over", "shard 1"
            )  # no link, or still copying
            writer.moves_on()
        assert writer.window() < 30
    finally:
        for node in [*replicas, first]:
            deployment.admin(node).execute_command("ACL", "SETUSER", "replication", "on")
    deadline = time.monotonic() + 90
    while any(deployment.admin(r).info("replication")["master_link_status"] != "up" for r in replicas):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    deployment.run("apply", "--yes").ok()


def test_what_there_is_not(deployment: Deployment) -> None:
    deployment.run("switchover", "9", "--yes").error(2, "no such shard, node or host: 9", "redkeep status")
    deployment.run("switchover", "--to", "local:1", "--yes").error(2, "no such node: local:1")
    deployment.run("switchover", "1").error(4, "hands over to", "--yes")


def test_a_stopped_primary_hands_over_first(deployment: Deployment) -> None:
    """By the supervisor's stop. In plain replication nobody takes over, since clients know the primary by its address."""
    first = deployment.primary()
    supervisor = deployment.supervisor(first)
    log = Path(deployment.admin(first).config_get("dir")["dir"], "supervisor.log")
    if deployment.mode == "standalone":
        os.kill(supervisor, signal.SIGTERM)
        _gone(supervisor)
        assert deployment.nodes("primary") == []
        deployment.run("apply", "--yes").ok()
        assert deployment.primary() == first
        return
    if deployment.mode == "cluster":
        # before Valkey 9.1 a primary votes once in two node timeouts about the same shard, and there were votes just now
        time.sleep(31)
    else:
        # Sentinels look at replicas every ten seconds, and some were cut off just now
        time.sleep(12)
    with deployment.writer() as writer:
        writer.moves_on()
        os.kill(supervisor, signal.SIGTERM)
        _gone(supervisor)
        writer.moves_on()
    assert writer.lost() == []
    deployment.run("apply", "--yes").ok()
    assert first not in {n["name"] for n in deployment.nodes("primary")}
    # with `failover: patient` nobody would have noticed the death of the primary by then
    assert writer.window() < 20, (writer.errors[:3], log.read_text()[-1000:])


def test_both_come_back_as_what_they_are(deployment: Deployment) -> None:
    """Restarted in order after a switchover, the new primary starts as one, and the old one as its replica."""
    if deployment.mode == "cluster":
        pytest.skip("a Cluster's roles are in nodes.conf; the gate's own tests restart those")
    first = deployment.primary()
    new = deployment.run("switchover", first, "--yes", "--json").ok().json["to"]
    for node in (first, new):
        server = deployment.admin(node)
        before = server.info("server")["run_id"]
        os.kill(server.info("server")["process_id"], signal.SIGTERM)
        deadline = time.monotonic() + 90
        while not _restarted(deployment, node, before):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    deadline = time.monotonic() + 90
    while {n["name"] for n in deployment.nodes("primary")} != {new}:
        assert time.monotonic() < deadline, deployment.nodes()
        time.sleep(0.2)
    assert first in deployment.replicas_of(new)


def _restarted(deployment: Deployment, node: str, before: str) -> bool:
    try:
        return bool(deployment.admin(node).info("server")["run_id"] != before)
    except Exception:  # it is down, or loads
        return False


def _gone(process: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{process}").exists()


def test_a_replica_that_hangs_hides_nobody_s_promotion(tmp_path: Path) -> None:
    """Asked one after the other, it keeps the tool from seeing that another one was promoted, until the Sentinels are
    through: the old primary would be let go, and lose what it acknowledges from then on."""
    site = Site(tmp_path, "sentinel", 3)
    site.write("replicas: 2\n")
    try:
        site.apply()
        hung = int(site.admin(site.port + 1).info("server")["process_id"])
        target = Target(
            "sentinel", tuple(site.servers), site.password(), tuple(site.sentinels), site.name, ("a",)
        )
        with Writer(lambda: connect(target), target.tags) as writer:
            writer.moves_on()
            os.kill(hung, signal.SIGSTOP)
            try:
                told = site.run("switchover", "--yes", "--json")
            finally:
                os.kill(hung, signal.SIGCONT)
            assert told.ok().json["to"] == f"local:{site.port + 2}"
            writer.moves_on()
        assert writer.lost() == []
        roles = site.roles()
        assert [port for port, role in roles.items() if role == "master"] == [site.port + 2], roles
    finally:
        site.destroy()
