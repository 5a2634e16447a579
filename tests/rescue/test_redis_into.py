"""``rescue redis --into``: everything arrives, nothing that was there is lost, and a kill in the middle costs nothing."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep
from tests.live.fleets import fleet
from tests.live.servers import Server, running
from tests.live.site import CLIENTS, Site
from tests.rescue.redisfill import contents, everything, fill, saved
from tests.rescue.redisruns import redis_7_0, rescue, rescued, url, valkey
from tests.rescue.victim import command

pytestmark = pytest.mark.live
PASSWORD = "9d2f4c8a61e04b7f"


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[bytes, Any]]:
    """An RDB file of Redis 7.0 with everything in database 0, and what was in it."""
    folder = tmp_path_factory.mktemp("source")
    with running(redis_7_0(), folder) as server:
        fill(server.client())
        found = contents(server)
        saved(server)
    return folder / "dump.rdb", found


@pytest.mark.parametrize("which", [valkey, redis_7_0])
def test_everything_arrives_and_what_was_there_stays(
    which: Any, evidence: tuple[Path, dict[bytes, Any]], run: Redkeep, tmp_path: Path
) -> None:
    """By RESTORE into the same server, and type by type into one that does not take its payloads."""
    file, want = evidence
    with running(which(), tmp_path / "target", f"requirepass {PASSWORD}\nmaxmemory 500mb\n") as server:
        client = server.client(password=PASSWORD)
        client.mset(
            {"user:1": "mine", "hash": "not a hash", "user:2": want[b"user:2"][1].decode(), "own": "x"}
        )
        into = ("--into", url(server), "--work", "work")
        rescue(run, file, *into).error(1, "not let in", "REDKEEP_PASSWORD")
        wrong = run("rescue", "redis", str(file), *into, env={"REDKEEP_PASSWORD": "wrong"})
        wrong.error(1, "WRONGPASS")
        right = Redkeep(tmp_path, environment={"REDKEEP_PASSWORD": PASSWORD})
        told = rescue(right, file, *into, "--json")
        assert told.status == 1, told.everything
        document = told.json["into"]
        assert {c["key"] for c in document["conflicts"]} == {"user:1", "hash"}
        assert document["equal"] == len(want) - 2
        assert document["differing_count"] == 0
        assert document["copied_now"] == len(want) - 3
        assert client.get("user:1") == "mine"
        assert "NOT COPIED: 2 keys" in rescue(right, file, *into).stdout

        replaced = rescued(right, file, *into, "--replace")["into"]
        assert replaced["complete"]
        assert replaced["replaced"] == 2
        got = contents(server, password=PASSWORD)
        assert got.pop(b"own")[1] == b"x"
        assert got == want
        assert PASSWORD not in (tmp_path / "work/state.json").read_text()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An append-only file of 30,000 keys in three databases."""
    file = tmp_path_factory.mktemp("many") / "old.aof"
    with file.open("wb") as out:
        for database in range(3):
            out.write(command(b"SELECT", b"%d" % database))
            for i in range(10_000):
                out.write(command(b"SET", b"k%d" % i, b"%d" % (i * database)))
    return file, 30_000


def _killed_when(run: Redkeep, server: Server, arguments: tuple[str, ...], keys: int) -> None:
    """kill -9 as soon as the target has so many keys."""
    process = subprocess.Popen(
        list(run.argv("rescue", "redis", *arguments)),
        cwd=run.folder,
        env=run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        until = time.monotonic() + 300
        while process.poll() is None and _count(server) < keys:
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was quicker than the test"


def _count(server: Server) -> int:
    return sum(d["keys"] for d in server.client().info("keyspace").values())


def _strings(server: Server, database: int) -> dict[str, str]:
    client = server.client(db=database)
    keys = list(client.scan_iter(count=5000))
    return dict(zip(keys, client.mget(keys), strict=True))


def _engines_in(work: Path) -> list[str]:
    """Processes whose working directory is the engine's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == work / "engine":
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_killed_in_the_middle_and_run_again(many: tuple[Path, int], run: Redkeep, tmp_path: Path) -> None:
    file, keys = many
    with running(valkey(), tmp_path / "target") as server, running(valkey(), tmp_path / "other") as other:
        arguments = (str(file), "--into", url(server), "--work", "work")
        for so_far in (2_000, 14_000):
            _killed_when(run, server, arguments, so_far)
            assert _count(server) < keys
            until = time.monotonic() + 30
            while _engines_in(tmp_path / "work"):  # its engine ends with it
                assert time.monotonic() < until
                time.sleep(0.02)
        after = rescued(run, *arguments)
        assert after["into"]["equal"] == keys
        assert after["into"]["complete"]
        assert after["into"]["runs"] == 3
        assert after["into"]["copied_now"] < keys
        at_once = rescued(run, file, "--into", url(other), "--work", "other-work")
        for part in ("digest", "databases"):
            assert at_once["contents"][part] == after["contents"][part]
        assert at_once["into"]["copied_now"] == keys
        for database in range(3):
            assert _strings(server, database) == _strings(other, database)
        again = rescued(run, *arguments)["into"]
        assert (again["copied_now"], again["equal"]) == (0, keys)
        server.client(db=1).delete("k7")
        server.client(db=2).set("k8", "changed there")
        told = rescue(run, *arguments, "--json")
        assert told.status == 1, told.everything
        assert server.client(db=1).get("k7") == "7"
        assert [d["key"] for d in told.json["into"]["differing"]] == ["k8"] or [
            c["key"] for c in told.json["into"]["conflicts"]
        ] == ["k8"]


def test_into_a_cluster(evidence: tuple[Path, dict[bytes, Any]], run: Redkeep, tmp_path: Path) -> None:
    file, want = evidence
    with fleet(valkey(), tmp_path / "fleet") as cluster:
        document = rescued(run, file, "--into", url(cluster.primaries[1]), "--work", "work")["into"]
        assert document["complete"]
        assert document["equal"] == len(want)
        assert len(document["nodes"]) == 3
        got: dict[bytes, Any] = {}
        for server in cluster.primaries:
            here = contents(server)
            assert here
            got |= here
        assert got == want
        told = rescue(run, file, "--into", url(cluster.replica), "--work", "work", "--json")
        assert told.json["into"]["equal"] == len(want)


def test_a_cluster_has_one_database(many: tuple[Path, int], run: Redkeep, tmp_path: Path) -> None:
    with fleet(redis_7_0(), tmp_path / "fleet") as cluster:
        into = ("--into", url(cluster.primaries[0]))
        rescue(run, many[0], *into, "--work", "work").error(4, "database 1", "only database 0", "--db N")
        assert sum(p.client().dbsize() for p in cluster.primaries) == 0
        document = rescued(run, many[0], *into, "--work", "work", "--db", "2")["into"]
        assert document["equal"] == 10_000
        node = next(
            p for p in cluster.primaries if p.client().execute_command("CLUSTER", "COUNTKEYSINSLOT", 7629)
        )
        assert node.client().dbsize() > 0
        rescue(run, many[0], *into, "--work", "work", "--db", "5").error(
            2, "no keys in database 5", "0, 1, 2"
        )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("databases 2\n", ("database 2", "--db N")),
        ("maxmemory 2mb\n", ("below maxmemory", "raise maxmemory")),
    ],
)
def test_what_does_not_fit_is_refused_before(
    config: str, words: tuple[str, ...], many: tuple[Path, int], run: Redkeep, tmp_path: Path
) -> None:
    with running(valkey(), tmp_path / "target", config) as server:
        rescue(run, many[0], "--into", url(server)).error(4, *words)
        assert _count(server) == 0


def test_into_a_deployment_of_our_own(evidence: tuple[Path, dict[bytes, Any]], tmp_path: Path) -> None:
    """By its file: a Cluster with passwords that nobody has to type."""
    site = Site(tmp_path, "cluster", 3)
    site.write("replicas: 0\n")
    rescue(site.run, evidence[0], "--into", "redkeep.yaml").error(2, "redkeep apply")
    try:
        site.apply()
        document = rescued(site.run, evidence[0], "--into", "redkeep.yaml")["into"]
        assert document["equal"] == len(evidence[1])
        got: dict[bytes, Any] = {}
        for port in site.servers:
            got |= everything(_admin(site, port))
        assert got == evidence[1]
    finally:
        site.destroy()


def _admin(site: Site, port: int) -> Any:
    return CLIENTS.Redis(port=port, username="redkeep", password=site.password("admin"))


def test_fields_that_expire_where_nobody_can_keep_them(run: Redkeep, tmp_path: Path) -> None:
    with running(valkey(), tmp_path / "data") as source:
        client = source.client()
        client.hset("session", mapping={"user": "1", "token": "t"})
        client.execute_command("HPEXPIREAT", "session", 4102444800000, "FIELDS", 1, "token")
        saved(source)
    for binary, lost in ((valkey(), 0), (redis_7_0(), 1)):
        with running(binary, tmp_path / str(binary)) as target:
            document = rescued(run, "data/dump.rdb", "--into", url(target), "--work", "work")["into"]
            assert document["field_expiry_lost"] == lost
            assert target.client().hgetall("session") == {"user": "1", "token": "t"}
            if not lost:
                asked = target.client().execute_command("HPEXPIRETIME", "session", "FIELDS", 1, "token")
                assert asked == [4102444800000]


def test_a_user_that_may_not_restore(
    run: Redkeep, tmp_path: Path, evidence: tuple[Path, dict[bytes, Any]]
) -> None:
    """An application's user has no RESTORE: then it goes by the commands that it has."""
    config = f"user default on >{PASSWORD} ~* &* +@all -@dangerous +info\n"
    with running(valkey(), tmp_path / "target", config) as server:
        right = Redkeep(tmp_path, environment={"REDKEEP_PASSWORD": PASSWORD})
        document = rescued(right, evidence[0], "--into", url(server), "--work", "work")["into"]
        assert document["method"] == "type by type"
        assert document["equal"] == len(evidence[1])


def test_functions_go_along_only_when_asked(run: Redkeep, tmp_path: Path) -> None:
    code = "#!lua name=mine\nredis.register_function('f', function() return 1 end)"
    (tmp_path / "old.aof").write_bytes(
        command(b"SET", b"a", b"1") + command(b"FUNCTION", b"LOAD", code.encode())
    )
    with running(valkey(), tmp_path / "target") as server:
        rescued(run, "old.aof", "--into", url(server), "--work", "without")
        assert server.client().execute_command("FUNCTION", "LIST") == []
        document = rescued(run, "old.aof", "--into", url(server), "--work", "with", "--with-functions")
        assert document["into"]["functions"] == [{"library": "mine", "refused": ""}]
        assert server.client().execute_command("FCALL", "f", 0) == 1


def test_wrong_targets(run: Redkeep, tmp_path: Path, evidence: tuple[Path, dict[bytes, Any]]) -> None:
    rescue(run, evidence[0], "--into", "http://x").error(2, "not a target")
    rescue(run, evidence[0], "--into", "127.0.0.1:1").error(1, "nobody listens")
    with running(valkey(), tmp_path / "primary") as primary:
        config = f"replicaof 127.0.0.1 {primary.port}\n"
        with running(valkey(), tmp_path / "replica", config) as replica:
            told = rescue(run, evidence[0], "--into", url(replica))
            told.error(2, "that is a replica", str(primary.port))
    assert not list(tmp_path.glob("rescued-*")), "nothing was begun"


def test_two_at_once_are_one_too_many(run: Redkeep, tmp_path: Path, many: tuple[Path, int]) -> None:
    import fcntl

    (tmp_path / "work").mkdir()
    with (tmp_path / "work/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rescue(run, many[0], "--work", "work").error(1, "another rescue is at work")
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["lock"]
