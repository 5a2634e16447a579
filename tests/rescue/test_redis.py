"""``rescue redis``: real servers' files, whole, cut, damaged and flushed, back as a clean file with the same content."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep
from tests.live.servers import running
from tests.rescue import disks, victim
from tests.rescue.redisfill import CRON, contents, fill, saved, wait_for_rewrite
from tests.rescue.redisruns import back, redis_7_0, rescue, rescued, valkey, with_result
from tests.rescue.victim import command

pytestmark = pytest.mark.live


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[bytes, Any], dict[bytes, Any]]:
    """The directory of a Redis 7.0 with everything, as RDB and as append-only file of several parts; and what was in it."""
    folder = tmp_path_factory.mktemp("old") / "data"
    config = "appendonly yes\nappendfsync always\naof-timestamp-enabled yes\n"
    with running(redis_7_0(), folder, config) as server:
        client = server.client()
        fill(client)
        client.execute_command(
            "FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() return 1 end)"
        )
        wait_for_rewrite(client)
        server.client(db=2).set("elsewhere", "two")
        client.set("after", "the rewrite")
        client.pexpireat("after", 4102444800000)
        found = contents(server), contents(server, 2)
        saved(server)
    return folder, *found


def test_an_rdb_file_by_itself(
    old: tuple[Path, dict[bytes, Any], dict[bytes, Any]], run: Redkeep, tmp_path: Path
) -> None:
    before = (old[0] / "dump.rdb").read_bytes()
    document = rescued(run, old[0] / "dump.rdb", "--work", "work")
    assert document["complete"]
    assert document["contents"]["keys"] == len(old[1]) + 1
    assert document["contents"]["databases"]["2"] == {"keys": 1, "kinds": {"string": 1}, "expiring": 0}
    assert document["written_by"]["written_by"] == "7.0.15"
    assert document["scripts"] == 1
    assert "register_function" in json.loads((tmp_path / "work/scripts.jsonl").read_text())["code"]
    with with_result(tmp_path / "work", tmp_path / "again") as server:
        assert contents(server) == old[1]
        assert contents(server, 2) == old[2]
        assert server.client().execute_command("FUNCTION", "LIST") == []
    assert (old[0] / "dump.rdb").read_bytes() == before
    work = tmp_path / "work"
    assert work.stat().st_mode & 0o777 == 0o700
    for name in ("clean.rdb", "report.json", "scripts.jsonl", "intruders.jsonl"):
        assert (work / name).stat().st_mode & 0o777 == 0o600
        assert (work / name).stat().st_uid == os.geteuid()


def test_an_append_only_file_of_several_parts_and_the_same_digest(
    old: tuple[Path, dict[bytes, Any], dict[bytes, Any]], run: Redkeep, tmp_path: Path
) -> None:
    from_rdb = rescued(run, old[0] / "dump.rdb", "--work", "rdb")
    from_aof = rescued(run, old[0], "appendonlydir", "--work", "aof", "--with-functions")
    assert from_aof["kind"] == "aof"
    assert len(from_aof["files"]) == 2
    assert from_aof["contents"]["digest"] == from_rdb["contents"]["digest"]
    assert from_aof["contents"]["databases"] == from_rdb["contents"]["databases"]
    with with_result(tmp_path / "aof", tmp_path / "again") as server:
        assert contents(server) == old[1]
        assert len(server.client().execute_command("FUNCTION", "LIST")) == 1
    with_other = rescued(run, old[0] / "dump.rdb", "--work", "other", "--server", redis_7_0().path)
    assert with_other["contents"]["digest"] == from_rdb["contents"]["digest"]
    assert with_other["result"]["rdb_version"] == 10


def test_both_are_there_and_one_must_be_named(
    old: tuple[Path, dict[bytes, Any], dict[bytes, Any]], run: Redkeep
) -> None:
    rescue(run, old[0], "--work", "work").error(2, "data of 2 servers, or of several times", "/dump.rdb")


def test_the_manifest_is_gone(
    old: tuple[Path, dict[bytes, Any], dict[bytes, Any]], run: Redkeep, tmp_path: Path
) -> None:
    shutil.copytree(old[0] / "appendonlydir", tmp_path / "parts")
    (tmp_path / "parts/appendonly.aof.manifest").unlink()
    document = rescued(run, tmp_path / "parts", "--work", tmp_path / "work")
    assert any("manifest is missing" in n for n in document["notes"])
    assert back(tmp_path / "work", tmp_path / "again") == old[1]


def log_of(count: int, *more: bytes) -> bytes:
    """An old append-only file, of one part and without a preamble."""
    words = [
        command(b"SELECT", b"0"),
        *(command(b"SET", b"k%d" % i, b"value-%d" % i) for i in range(count)),
        *more,
    ]
    return b"".join(words)


def keys_of(found: dict[bytes, Any]) -> set[int]:
    return {int(k[1:]) for k in found if k[:1] == b"k" and k[1:].isdigit()}


def test_what_a_cluster_brought_in_and_what_reading_writes(run: Redkeep, tmp_path: Path) -> None:
    """Keys of slots that were moved stand there as RESTORE-ASKING, and PFCOUNT stands there too."""
    folder = tmp_path / "data"
    with running(redis_7_0(), folder, "appendonly yes\nappendfsync always\n") as server:
        client = server.client()
        client.set("moved", "here")
        dump = client.dump("moved")
        client.execute_command("RESTORE-ASKING", "asked", 0, dump)
        client.pfadd("counter", *range(100))
        client.pfcount("counter")
        found = contents(server)
    document = rescued(run, folder, "appendonlydir", "--work", "work")
    assert document["aof"]["left_out"] == {}
    assert back(tmp_path / "work", tmp_path / "again") == found


def test_a_cut_tail(run: Redkeep, tmp_path: Path) -> None:
    (tmp_path / "old.aof").write_bytes(log_of(100, command(b"SET", b"last", b"x" * 100)[:-40]))
    document = rescued(run, "old.aof")
    assert document["complete"]  # a crash does that, and a server takes it
    assert document["aof"]["cut_tail_bytes"] > 0
    assert document["contents"]["keys"] == 100


def test_damage_in_the_middle_costs_what_was_there_and_no_more(run: Redkeep, tmp_path: Path) -> None:
    log = bytearray(log_of(1000))
    at = log.index(b"value-500\r\n")
    log[at - 30 : at] = b"\x00" * 30
    log[at + 2000 : at + 2003] = b"$99"
    (tmp_path / "old.aof").write_bytes(log)
    told = rescue(run, "old.aof", "--json")
    assert told.status == 1, told.everything
    assert not told.json["complete"]
    assert 1 <= len(told.json["aof"]["damaged"]) <= 3
    kept = keys_of(back(tmp_path / "rescued-redis-old.aof", tmp_path / "again"))
    assert {*range(490), *range(510, 530), *range(600, 1000)} <= kept
    assert len(kept) < 1000
    assert "INCOMPLETE" in rescue(run, "old.aof", "--work", "other").stdout


@pytest.mark.parametrize("kind", ["aof", "rdb", "preamble"])
def test_an_image_that_is_cut_gives_what_is_before_the_cut(run: Redkeep, tmp_path: Path, kind: str) -> None:
    top = tmp_path / "top"
    count = 200 if kind == "rdb" else 3000
    values = {b"k%d" % i: b"v" * 60_000 for i in range(200)}
    whole = victim.rdb_of(values)
    log = b"".join(command(b"SET", b"k%d" % i, b"v" * 4000) for i in range(3000))
    content = {
        "aof": command(b"SELECT", b"0") + log,
        "rdb": whole,
        "preamble": victim.rdb({b"old": b"1"}) + log,
    }[kind]
    name = "dump.rdb" if kind == "rdb" else "appendonly.aof"
    (top / "etc").mkdir(parents=True)
    victim.put(top, f"/var/lib/redis/{name}", content)
    image = disks.ext4(top, tmp_path / "disk", 64 * disks.MIB, "-b", "4096")
    disks.need("debugfs")
    placed = disks.run("debugfs", "-R", f"blocks /var/lib/redis/{name}", image).split()
    os.truncate(image, int(placed[len(placed) * 2 // 3]) * 4096)
    told = rescue(run, image, f"/var/lib/redis/{name}", "--work", "work", "--json")
    assert told.status == 1, told.everything
    assert any("cannot be read from byte" in note for note in told.json["notes"]), told.everything
    keys = told.json["contents"]["keys"]
    assert count * 2 // 3 - count // 20 < keys < count * 2 // 3 + count // 20, told.everything


def test_a_transaction_without_its_end_is_not_done(run: Redkeep, tmp_path: Path) -> None:
    (tmp_path / "old.aof").write_bytes(log_of(3, command(b"MULTI"), command(b"SET", b"half", b"1")))
    document = rescued(run, "old.aof")
    assert document["aof"]["transactions_cut"] == 1
    assert document["contents"]["keys"] == 3


def test_a_flush_is_cut_off_when_asked(run: Redkeep, tmp_path: Path) -> None:
    """A small one of the application's own, then the worm's."""
    own = (
        command(b"SELECT", b"1")
        + command(b"SET", b"cache", b"x")
        + command(b"FLUSHDB")
        + command(b"SELECT", b"0")
    )
    worm = command(b"FLUSHALL") + command(b"SET", b"backup1", CRON)
    (tmp_path / "old.aof").write_bytes(log_of(1000, own, command(b"SET", b"k1000", b"x"), worm))
    plain = rescued(run, "old.aof", "--work", "plain")
    assert plain["contents"]["keys"] == 1
    assert [f["keys"] for f in plain["aof"]["flushes"]] == [1, 1001]
    assert plain["intruders"][0]["key"] == "backup1"
    assert any("--before-flush" in n for n in plain["notes"])

    cut = rescued(run, "old.aof", "--work", "cut", "--before-flush")
    assert cut["contents"]["keys"] == 1001
    assert cut["aof"]["commands_after_the_cut"] == 2
    assert cut["intruder_count"] == 0
    assert keys_of(back(tmp_path / "cut", tmp_path / "again")) == {*range(1001)}
    assert rescued(run, "old.aof", "--work", "first", "--flush", "1")["contents"]["keys"] == 1001
    rescue(run, "old.aof", "--work", "third", "--flush", "3").error(2, "no flush 3")
    rescue(run, "old.aof", "--work", "cut", "--flush", "1").error(4, "of another rescue", "before-flush")


def test_an_intruders_keys_are_listed_and_left_out_when_asked(run: Redkeep, tmp_path: Path) -> None:
    with running(valkey(), tmp_path / "data") as server:
        client = server.client()
        fill(client, keys=20)
        client.set("backup1", CRON)
        client.hset("{h}", "x", "ssh-rsa AAAA" + "B" * 60)
        honest = {k: v for k, v in contents(server).items() if k not in (b"backup1", b"{h}")}
        saved(server)
    document = rescued(run, "data/dump.rdb", "--work", "with")
    assert {i["key"] for i in document["intruders"]} == {"backup1", "{h}"}
    assert document["intruders_left_out"] == 0
    assert "curl" in (tmp_path / "with/intruders.jsonl").read_text()
    without = rescued(run, "data/dump.rdb", "--work", "without", "--without-intruders")
    assert without["intruders_left_out"] == 2
    assert without["contents"]["keys"] == len(honest)
    assert back(tmp_path / "without", tmp_path / "again") == honest
    (tmp_path / "honest").mkdir()
    shutil.copy(tmp_path / "without/clean.rdb", tmp_path / "honest/dump.rdb")
    assert (
        rescued(run, "honest/dump.rdb", "--work", "third")["contents"]["digest"]
        == without["contents"]["digest"]
    )


def test_what_had_expired_is_counted(run: Redkeep, tmp_path: Path) -> None:
    log = log_of(5, command(b"PEXPIREAT", b"k1", b"1000"), command(b"PEXPIREAT", b"k2", b"4102444800000"))
    (tmp_path / "old.aof").write_bytes(log)
    document = rescued(run, "old.aof")
    assert document["contents"]["keys"] == 4
    assert document["contents"]["databases"]["0"]["expiring"] == 1


def test_fields_that_expire_survive(run: Redkeep, tmp_path: Path) -> None:
    with running(valkey(), tmp_path / "data") as server:
        client = server.client()
        client.hset("session", mapping={"user": "1", "token": "t"})
        client.execute_command("HPEXPIREAT", "session", 4102444800000, "FIELDS", 1, "token")
        saved(server)
    document = rescued(run, "data/dump.rdb", "--work", "work")
    assert document["contents"]["fields_expiring"] == 1
    with with_result(tmp_path / "work", tmp_path / "again") as server:
        asked = server.client().execute_command("HPEXPIRETIME", "session", "FIELDS", 2, "user", "token")
        assert asked == [-1, 4102444800000]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return victim.infected(victim.clean(tmp_path_factory.mktemp("victim") / "root"))


def test_a_disk_and_its_bundle_give_the_same(root: Path, run: Redkeep, tmp_path: Path) -> None:
    """Found by its configuration; what lies in cron's directory is no data of anybody."""
    from_disk = rescued(run, root, "--before-flush", "--work", "disk")
    assert from_disk["configuration"] == "/etc/redis.conf"
    assert from_disk["contents"]["keys"] == 100
    run("rescue", "extract", str(root), "bundle", "--only", "redis").ok()
    from_bundle = rescued(run, "bundle", "--before-flush", "--work", "work")
    assert from_bundle["contents"] == from_disk["contents"]
    named = rescued(run, root, "/var/lib/redis/dump.rdb", "--work", "named")
    assert named["contents"]["keys"] == 20
    rescue(run, "bundle", "--work", "bundle/work").error(4, "inside the evidence")
    rescue(run, root, "--work", root / "work").error(4, "inside the evidence")
    assert not (root / "work").exists()


def test_appendonly_yes_with_an_rdb_only_would_have_started_empty(
    root: Path, run: Redkeep, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "root", symlinks=True)
    (tmp_path / "root/var/lib/redis/appendonly.aof").unlink()
    document = rescued(run, "root", "--work", "work")
    assert document["contents"]["keys"] == 20
    assert any("starts empty" in n for n in document["notes"])


def test_run_twice_it_is_the_same(run: Redkeep, tmp_path: Path) -> None:
    (tmp_path / "old.aof").write_bytes(log_of(10))
    first = rescued(run, "old.aof")
    second = rescued(run, "old.aof")
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert (
        json.loads((tmp_path / "rescued-redis-old.aof/report.json").read_text())["result"] == first["result"]
    )


def test_a_version_that_nobody_knows_yet(run: Redkeep, tmp_path: Path) -> None:
    content = victim.rdb({b"key": b"value"})
    (tmp_path / "new.rdb").write_bytes(b"REDIS0099" + content[9:])
    rescue(run, "new.rdb", "--work", "work").error(
        1, "later version", "RDB format version 99", "--server PATH"
    )


def test_wrong_inputs(run: Redkeep, tmp_path: Path) -> None:
    rescue(run, "nothing.rdb").error(2, "no such file")
    (tmp_path / "empty").mkdir()
    rescue(run, "empty", "--work", "w").error(2, "no data of Redis or Valkey")
    (tmp_path / "text/x").mkdir(parents=True)
    (tmp_path / "text/dump.rdb").write_text("hello")
    rescue(run, "text", "/dump.rdb", "--work", "w1").error(1, "neither an RDB nor")
    rescue(run, "text", "/x/y", "--work", "w2").error(2, "no such path")
    (tmp_path / "old.aof").write_bytes(log_of(3))
    rescue(run, "old.aof", "/x").error(2, "leave the path out")
    rescue(run, "old.aof", "--server", "/bin/ls").error(1, "not a Redis or Valkey server", "/bin/ls")
    rescue(run, "old.aof", "--server", tmp_path / "none").error(1, "no program there")
    rescue(run, "old.aof", "--before-flush").error(2, "no FLUSHALL or FLUSHDB")
    rescue(run, "old.aof", "--replace").error(2, "--into")
    (tmp_path / "dump.rdb").write_bytes(victim.rdb({b"a": b"1"}))
    rescue(run, "dump.rdb", "--before-flush").error(2, "no flush to cut off")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    rescue(run, "old.aof", "--work", "mine").error(4, "not empty")
    rescue(run, "old.aof", "--work", "old.aof").error(2, "not a directory")
    assert (tmp_path / "mine/letter").read_text() == "dear"
