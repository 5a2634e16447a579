"""Data that somebody forged or broke: nothing of it is run, the engine cannot get out, and what can be read is."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from pathlib import Path

import pytest

from redkeep.model.events import ignore
from redkeep.run.salvage.server import Load, binary_at, loaded
from tests.cli import Redkeep
from tests.live.servers import running
from tests.rescue.redisfill import contents, fill, saved
from tests.rescue.redisruns import back, redis_7_0, rescue, rescued, valkey
from tests.rescue.victim import command, rdb

pytestmark = pytest.mark.live

PLAIN = {b"user:%d" % i: b"name" for i in range(20)}


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path)


def with_value(kind: int, value: bytes, version: bytes = b"REDIS0012") -> bytes:
    """A file with one more key, ``odd``, of any kind."""
    whole = rdb(PLAIN)
    return version + whole[9:-9] + bytes((kind,)) + b"\x03odd" + value + b"\xff" + bytes(8)


def test_a_later_version_that_holds_nothing_new(run: Redkeep, tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0012" + rdb(PLAIN)[9:])
    document = rescued(run, "dump.rdb")
    assert document["contents"]["keys"] == 20
    assert any("holds nothing that is new" in n for n in document["notes"])


def test_versions_that_this_engine_cannot_read_are_told_apart(run: Redkeep, tmp_path: Path) -> None:
    """With the name of one that can."""
    fields = bytes(8) + b"\x01" + b"\x00" + b"\x01f" + b"\x01v"
    (tmp_path / "new.rdb").write_bytes(with_value(24, fields))
    rescue(run, "new.rdb").error(
        1, "RDB version 12", "valkey 9".capitalize(), "Redis 7.4 or later", "--server"
    )
    (tmp_path / "valkey.rdb").write_bytes(b"VALKEY080" + rdb(PLAIN)[9:])
    server = ("--server", redis_7_0().path)
    rescue(run, "valkey.rdb", *server).error(1, "RDB version 80", "Redis 7.0.15", "Valkey 9.0 or later")
    (tmp_path / "eleven.rdb").write_bytes(b"REDIS0011" + rdb(PLAIN)[9:])
    rescue(run, "eleven.rdb", *server).error(1, "RDB version 11", "Redis 7.2 or later")
    assert rescued(run, "eleven.rdb", "--work", "bundled")["contents"]["keys"] == 20


def _module_number(name: str) -> bytes:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = 0
    for letter in name:
        number = number << 6 | letters.index(letter)
    return b"\x81" + struct.pack(">Q", number << 10 | 1)


def test_a_modules_keys_are_named_and_the_others_come_back(run: Redkeep, tmp_path: Path) -> None:
    value = _module_number("ReJSON-RL") + b"\x05\x02{}" + b"\x00"
    (tmp_path / "dump.rdb").write_bytes(with_value(7, value, b"REDIS0009"))
    document = rescued(run, "dump.rdb")
    assert document["contents"]["keys"] == 20
    assert document["dropped"]["module keys"] == 1
    assert any("ReJSON-RL" in n for n in document["notes"])


def test_a_cut_rdb_file_gives_what_is_before_the_cut(run: Redkeep, tmp_path: Path) -> None:
    whole = rdb({b"k%d" % i: b"v" * 50 for i in range(60)})
    (tmp_path / "dump.rdb").write_bytes(whole[: len(whole) // 2])
    told = rescue(run, "dump.rdb", "--json")
    assert told.status == 1, told.everything
    assert 25 <= told.json["contents"]["keys"] <= 30
    assert any("of the 60 that it says it had" in n for n in told.json["notes"])


def test_a_damaged_value_is_left_out_and_named(run: Redkeep, tmp_path: Path) -> None:
    """A listpack whose length leads out of it, in the middle of a real file."""
    with running(redis_7_0(), tmp_path / "data", "rdbcompression no\n") as server:
        client = server.client()
        fill(client, keys=30)
        client.rpush("victim", *[f"marker-{i}" for i in range(10)])
        want = contents(server)
        data = bytearray(saved(server))
    at = data.index(b"marker-3")
    data[at - 1] = 0xBF  # longer than what is there
    (tmp_path / "dump.rdb").write_bytes(data)
    told = rescue(run, "dump.rdb", "--json")
    assert told.status == 1, told.everything
    assert [r["key"] for r in told.json["refused_values"]] == ["victim"]
    want.pop(b"victim")
    assert back(tmp_path / "rescued-redis-dump.rdb", tmp_path / "again") == want


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\xc3\x04\x81" + struct.pack(">Q", 1 << 40) + b"\x01ab\xff", id="a bomb of one string"),
        pytest.param(b"\x81" + struct.pack(">Q", 1 << 62), id="a length beyond the file"),
        pytest.param(b"\x80" + struct.pack(">I", 1 << 31) + b"x", id="cut"),
    ],
)
def test_lengths_that_lie(value: bytes, run: Redkeep, tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(with_value(0, value, b"REDIS0009"))
    told = rescue(run, "dump.rdb", "--json")
    assert told.status == 1, told.everything
    assert told.json["contents"]["keys"] == 20
    assert not told.json["complete"]


def test_broken_at_random_it_ends_and_says_why(run: Redkeep, tmp_path: Path) -> None:
    with running(redis_7_0(), tmp_path / "data") as server:
        fill(server.client(), keys=50)
        data = saved(server)
    number = random.Random(11)
    for turn in range(6):
        broken = bytearray(data)
        for _ in range(turn + 1):
            broken[number.randrange(9, len(broken))] = number.randrange(256)
        (tmp_path / f"{turn}.rdb").write_bytes(broken)
        told = rescue(run, f"{turn}.rdb", "--json")
        assert told.status in (0, 1), told.everything
        assert "Traceback" not in told.stderr
        assert "contents" in told.json or set(told.json["error"]) == {"what", "where", "next"}


def test_a_forged_log_changes_data_and_nothing_else(run: Redkeep, tmp_path: Path) -> None:
    """Commands that a server would run while it loads the file."""
    (tmp_path / "old.aof").write_bytes(
        b"".join(
            [
                command(b"SELECT", b"0"),
                command(b"SET", b"a", b"1"),
                command(b"CONFIG", b"SET", b"dir", bytes(tmp_path)),
                command(b"MODULE", b"LOAD", bytes(tmp_path / "evil.so")),
                command(b"REPLICAOF", b"192.0.2.66", b"6379"),
                command(b"DEBUG", b"SEGFAULT"),
                command(b"SHUTDOWN", b"NOSAVE"),
                command(b"SAVE"),
                command(b"EVAL", b"redis.call('set', 'lua', 'was run')", b"0"),
                command(b"FUNCTION", b"LOAD", b"#!lua name=x\n redis.register_function('f', function() end)"),
                command(b"JSON.SET", b"doc", b"$", b"{}"),
                command(b"SET", b"b", b"2"),
            ]
        )
    )
    document = rescued(run, "old.aof")
    assert document["contents"]["keys"] == 2
    left_out = document["aof"]["left_out"]
    assert set(left_out) == {
        *("config", "module", "replicaof", "debug", "shutdown", "save", "eval", "function", "json.set")
    }
    assert document["scripts"] == 2
    assert "was run" in (tmp_path / "rescued-redis-old.aof/scripts.jsonl").read_text()
    assert not list(tmp_path.glob("*.rdb"))
    run_them = rescued(run, "old.aof", "--work", "with", "--with-functions")
    assert run_them["contents"]["keys"] == 3


def test_the_engine_has_no_rights_and_no_network(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / ("engine" + "x" * 100)  # a path that is longer than a socket's may be
    folder.mkdir()
    (folder / "dump.rdb").write_bytes(rdb(PLAIN))
    assert not asyncio.run(_look_at_engine(folder)).exists()


async def _look_at_engine(folder: Path) -> Path:
    async with loaded(folder, await binary_at(None), Load(False, 16), ignore) as engine:
        client = await engine.client()
        assert await client.call("DBSIZE") == 20
        process = Path(f"/proc/{engine.process.pid}")
        _assert_confined(process)
    return process


def _assert_confined(process: Path) -> None:
    status = (process / "status").read_text()
    assert "NoNewPrivs:\t1" in status
    if os.geteuid() == 0:
        assert "Uid:\t0" not in status
        assert (process / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        assert len((process / "net/tcp").read_text().splitlines()) == 1  # the heading


def test_a_valkey_file_of_today_is_found_on_a_disk(run: Redkeep, tmp_path: Path) -> None:
    """Its head is another than Redis's."""
    with running(valkey(), tmp_path / "root/var/lib/valkey") as server:
        server.client().set("a", "1")
        assert saved(server)[:6] == b"VALKEY"
    assert rescued(run, "root", "--work", "work")["contents"]["keys"] == 1
