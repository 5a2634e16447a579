"""The users, on every real server of this machine and with a real client library."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.cluster

from redkeep.model.engine import Capability, Engine
from redkeep.model.topology import Address
from redkeep.planning.hostfiles.acl import (
    Secrets,
    acl_changes,
    acl_differs,
    aclfile,
    sentinel_users,
    server_users,
)
from redkeep.planning.hostfiles.gate import gate_acl_rules
from redkeep.planning.hostfiles.quoting import quote, redis_url
from tests.live.servers import Binary, Server, available, free_port, running, until

pytestmark = pytest.mark.live

#: redis-py, whose own annotations are incomplete.
CLIENTS: Any = redis

SECRETS = Secrets("app-pw", "admin-pw", "replication-pw", "sentinel-pw", "gate-pw")


@pytest.fixture(params=available(), ids=str, scope="module")
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


def config(lines: tuple[str, ...], folder: Path, more: str = "") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.acl").write_text(aclfile(lines))
    return f"aclfile {folder}/users.acl\nmasteruser replication\nmasterauth replication-pw\n{more}"


def users(engine: Engine, *, cluster: bool = False, secrets: Secrets = SECRETS) -> tuple[str, ...]:
    return server_users(engine, secrets, cluster=cluster, gate_rules=gate_acl_rules(engine))


def watchers(engine: Engine) -> tuple[str, ...]:
    return sentinel_users(engine, SECRETS, gate_rules=gate_acl_rules(engine, sentinel=True))


@pytest.fixture(scope="module")
def server(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("acl")
    with running(binary, folder, config(users(binary.engine), folder)) as found:
        yield found


def permitted(client: Any, *command: str) -> bool:
    """Whether the user may send it; what else the server has to say of it does not matter.

    From 7.0 on MODULE and DEBUG are refused to everybody by default, before the user's rights are looked at.
    """
    client.response_callbacks.clear()  # the reply's form does not matter either
    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return False
    except redis.ResponseError as error:
        return "command not allowed" not in str(error)
    return True


APPLICATION = """
PING|INFO|INFO replication|ROLE|SELECT 0|ECHO x|COMMAND|COMMAND COUNT|TIME|DBSIZE|LOLWUT
CLIENT SETNAME app|CLIENT GETNAME|CLIENT ID|CLIENT TRACKING off|CLIENT SETINFO lib-name x|CLIENT CACHING yes
CLIENT INFO|CLIENT REPLY on|HELLO 2|AUTH app-pw
CLUSTER SLOTS|CLUSTER NODES|CLUSTER INFO|CLUSTER KEYSLOT a|CLUSTER MYID|CLUSTER SHARDS|CLUSTER COUNTKEYSINSLOT 1
CLUSTER REPLICAS x|CLUSTER SLAVES x|READONLY|READWRITE|ASKING
SET a 1|GET a|MSET b 1 c 2|EXPIRE a 100|SCAN 0|TYPE a|OBJECT ENCODING a|MEMORY USAGE a|DEL b|UNLINK c|EXISTS a|TTL a
LPUSH l 1 2|SORT l|BLPOP l 1|HSET h f 1|HSCAN h 0|SADD s 1|ZADD z 1 m|XADD st * f v|XREAD COUNT 1 STREAMS st 0
XGROUP CREATE st g 0|XINFO STREAM st|PFADD hll 1|GEOADD geo 1 1 m|SETBIT bit 1 1|BITCOUNT bit|RENAME a aa
EVAL redis.call('set','e','1') 0|EVALSHA 0000000000000000000000000000000000000000 0|SCRIPT EXISTS x
PUBLISH channel hello|PUBSUB CHANNELS|WAIT 0 1|MULTI|EXEC|DISCARD|WATCH a|UNWATCH
"""
SINCE_7 = (
    "FUNCTION LIST|FCALL none 0|FCALL_RO none 0|EVAL_RO return 1 0|SPUBLISH channel x|SORT_RO l|WAITAOF 0 0 0"
)

FORBIDDEN = """
CONFIG GET *|CONFIG SET maxmemory 0|CONFIG REWRITE|CONFIG RESETSTAT|MODULE LIST|MODULE LOAD /x|DEBUG SLEEP 0|MONITOR
REPLICAOF NO ONE|SLAVEOF NO ONE|FAILOVER|SHUTDOWN NOSAVE|FLUSHALL|FLUSHDB|SWAPDB 0 1|KEYS *|SAVE|BGSAVE|BGREWRITEAOF
MIGRATE 127.0.0.1 1 k 0 1|RESTORE k 0 x|RESTORE-ASKING k 0 x|SYNC|PSYNC ? -1|REPLCONF capa x|PFDEBUG GETREG k|LASTSAVE
ACL LIST|ACL SETUSER x|ACL SAVE|ACL LOAD|ACL DELUSER x|SLOWLOG GET|LATENCY LATEST
CLIENT KILL ID 1|CLIENT PAUSE 1|CLIENT LIST|CLIENT NO-EVICT on
CLUSTER MEET 127.0.0.1 1|CLUSTER FORGET x|CLUSTER RESET|CLUSTER FAILOVER|CLUSTER SETSLOT 1 STABLE|CLUSTER ADDSLOTS 1
CLUSTER DELSLOTS 1|CLUSTER FLUSHSLOTS|CLUSTER REPLICATE x|CLUSTER SAVECONFIG|CLUSTER BUMPEPOCH
CLUSTER SET-CONFIG-EPOCH 1|SCRIPT FLUSH|SCRIPT KILL|SCRIPT DEBUG no|MEMORY PURGE|MEMORY DOCTOR
"""
FORBIDDEN_SINCE_7 = "FUNCTION FLUSH|FUNCTION DELETE x|FUNCTION RESTORE x|FUNCTION KILL"
FORBIDDEN_MIGRATION = (
    "CLUSTER MIGRATESLOTS SLOTSRANGE 0 1 NODE x|CLUSTER SYNCSLOTS FINISH|CLUSTER CANCELSLOTMIGRATIONS"
)


def commands(text: str) -> list[list[str]]:
    return [command.split(" ") for command in text.strip().replace("\n", "|").split("|")]


def test_the_application_can_do_its_work(server: Server) -> None:
    engine = server.binary.engine
    wanted = commands(APPLICATION) + (
        commands(SINCE_7) if engine.supports(Capability.ACL_SUBCOMMANDS) else []
    )
    refused = []
    for command in wanted:
        with server.client(password="app-pw") as client:
            if not permitted(client, *command):
                refused.append(" ".join(command))
    assert refused == []


def test_the_application_can_do_no_harm(server: Server) -> None:
    engine = server.binary.engine
    unwanted = commands(FORBIDDEN)
    if engine.supports(Capability.ACL_SUBCOMMANDS):
        unwanted += commands(FORBIDDEN_SINCE_7)
    if engine.supports(Capability.ATOMIC_MIGRATION_SOURCE):
        unwanted += commands(FORBIDDEN_MIGRATION)
    with server.client(password="app-pw") as client:
        allowed = [" ".join(command) for command in unwanted if permitted(client, *command)]
        if not engine.supports(Capability.FAILOVER_COMMAND):
            allowed.remove("FAILOVER")  # what does not exist is unknown, not forbidden
    assert allowed == []


def test_no_password_and_wrong_passwords_get_nothing(server: Server) -> None:
    for user, password in ((None, None), (None, "admin-pw"), ("redkeep", "app-pw"), ("stranger", "app-pw")):
        with server.client(user, password) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_the_other_users_have_what_they_need_only(server: Server) -> None:
    with server.client("redkeep", "admin-pw") as admin:
        assert admin.config_get("maxmemory")
        assert admin.execute_command("ACL", "WHOAMI") == "redkeep"
    for user, password in (
        ("replication", "replication-pw"),
        ("gate", "gate-pw"),
        ("sentinel", "sentinel-pw"),
    ):
        with server.client(user, password) as client:
            assert client.ping()
            for command in (
                ["GET", "a"],
                ["SET", "a", "1"],
                ["CONFIG", "GET", "*"],
                ["ACL", "LIST"],
                ["FLUSHALL"],
            ):
                assert not permitted(client, *command), (user, command)


def test_an_unchanged_server_does_not_differ(server: Server) -> None:
    with server.client("redkeep", "admin-pw") as admin:
        listed = admin.acl_list()
        wanted = users(server.binary.engine)
        assert acl_changes(wanted, listed).set == ()
        assert not acl_differs(wanted, listed)


def test_a_change_is_seen_and_mended_without_losing_connections(server: Server) -> None:
    wanted = users(server.binary.engine)
    with server.client("redkeep", "admin-pw") as admin, server.client(password="app-pw") as app:
        app.ping()
        identity = app.client_id()
        for change in (
            ["default", "+flushall"],
            ["gate", "~*"],
            ["intruder", "on", "nopass", "+@all"],
            ["sentinel", "off"],
        ):
            admin.execute_command("ACL", "SETUSER", *change)
            changes = acl_changes(wanted, admin.acl_list())
            assert [line.split()[0] for line in changes.set] + list(changes.delete) == [change[0]]
            for line in changes.set:
                admin.execute_command("ACL", "SETUSER", *line.split())
            if changes.delete:
                admin.execute_command("ACL", "DELUSER", *changes.delete)
            assert not acl_differs(wanted, admin.acl_list())
        assert app.client_id() == identity


def test_no_authentication_and_a_previous_password(binary: Binary, tmp_path: Path) -> None:
    rotating = Secrets(None, "new-pw", "r", "s", "g", previous={"admin": "old-pw"})
    lines = users(binary.engine, secrets=rotating)
    with running(binary, tmp_path, config(lines, tmp_path)) as server:
        with server.client() as app:
            assert app.set("a", "1")
            assert not permitted(app, "CONFIG", "GET", "*")
        for password in ("new-pw", "old-pw"):
            with server.client("redkeep", password) as admin:
                assert not acl_differs(lines, admin.acl_list())


def test_extra_rules_for_the_application(binary: Binary, tmp_path: Path) -> None:
    lines = server_users(
        binary.engine, SECRETS, cluster=False, gate_rules=gate_acl_rules(binary.engine), app_extra="+keys"
    )
    with (
        running(binary, tmp_path, config(lines, tmp_path)) as server,
        server.client(password="app-pw") as app,
    ):
        assert app.keys("*") == []
        if binary.engine.supports(Capability.ACL_RULES_KEPT):
            with server.client("redkeep", "admin-pw") as admin:
                assert not acl_differs(lines, admin.acl_list())


@pytest.mark.parametrize("channels", ["one", "two"])
def test_replicas_follow_with_their_user(binary: Binary, tmp_path: Path, channels: str) -> None:
    more = ""
    if channels == "two":
        if binary.engine.flavor != "valkey":
            pytest.skip("dual-channel replication is Valkey's")
        more = "dual-channel-replication-enabled yes\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n"
    lines = users(binary.engine)
    folders = [tmp_path / "1", tmp_path / "2"]
    with ExitStack() as stack:
        primary = stack.enter_context(running(binary, folders[0], config(lines, folders[0], more)))
        more += f"replicaof 127.0.0.1 {primary.port}\n"
        replica = stack.enter_context(running(binary, folders[1], config(lines, folders[1], more)))
        admin = stack.enter_context(replica.client("redkeep", "admin-pw"))
        app = stack.enter_context(primary.client(password="app-pw"))
        until(lambda: admin.info("replication")["master_link_status"] == "up", what="the link")
        app.set("a", "1")
        until(lambda: admin.get("a") == "1", what="the write")
        until(lambda: app.wait(1, 100) == 1, what="the acknowledgement")


TRICKY = (
    "with blank",
    'quote " and \\ backslash',
    "# hash",
    "it's",
    "naïve-пароль-密码",
    "a:b@c/d?e%f",
    "$HOME `id` \\x41",
    "  ",
)


def test_any_password_survives_files_and_urls(binary: Binary, tmp_path: Path) -> None:
    for index, password in enumerate(TRICKY):
        secrets = Secrets(password, password, password, password, password)
        lines = users(binary.engine, secrets=secrets)
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "users.acl").write_text(aclfile(lines))
        text = f"aclfile {quote(str(folder / 'users.acl'))}\nmasteruser replication\nmasterauth {quote(password)}\n"
        with running(binary, folder, text) as server:
            with server.client("redkeep", password) as admin:
                assert admin.config_get("masterauth") == {"masterauth": password}
                admin.config_rewrite()
            url = redis_url(Address("127.0.0.1", server.port), password=password)
            with CLIENTS.Redis.from_url(url) as app:
                assert app.ping()


def test_asyncio_client(server: Server) -> None:
    async def use() -> None:
        client = CLIENTS.asyncio.Redis(port=server.port, password="app-pw", protocol=3)
        async with client, client.pipeline(transaction=True) as pipe:
            assert await pipe.set("p", 1).get("p").execute() == [True, b"1"]
            async with client.pubsub() as pubsub:
                await pubsub.subscribe("c")
                await client.publish("c", "x")
            assert await client.register_script("return 1")() == 1
        await client.aclose()

    asyncio.run(use())


def test_cluster_client_and_slot_migration(binary: Binary, tmp_path: Path) -> None:
    """A cluster of two primaries and a replica; slots move the way this version moves them."""
    lines = users(binary.engine, cluster=True)
    enabled = "cluster-enabled yes\ncluster-node-timeout 2000\n"
    folders = [tmp_path / name for name in "123"]
    with (
        running(binary, folders[0], config(lines, folders[0], enabled)) as a,
        running(binary, folders[1], config(lines, folders[1], enabled)) as b,
        running(binary, folders[2], config(lines, folders[2], enabled)) as c,
    ):
        admins = [server.client("redkeep", "admin-pw") for server in (a, b, c)]
        ids = [admin.execute_command("CLUSTER", "MYID") for admin in admins]
        for other in (b, c):
            admins[0].execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        admins[0].execute_command("CLUSTER", "ADDSLOTS", *range(8192))
        admins[1].execute_command("CLUSTER", "ADDSLOTS", *range(8192, 16384))
        until(lambda: all(len(admin.cluster("NODES")) == 3 for admin in admins), what="all known")
        until(lambda: admins[2].execute_command("CLUSTER", "REPLICATE", ids[0]), what="a replica")
        until(lambda: admins[2].info("replication")["master_link_status"] == "up", what="the link")
        until(lambda: all(x.cluster("INFO")["cluster_state"] == "ok" for x in admins[:2]), what="ok")

        cluster = CLIENTS.cluster.RedisCluster(
            startup_nodes=[CLIENTS.cluster.ClusterNode("127.0.0.1", a.port)], password="app-pw"
        )
        for number in range(200):
            cluster.set(f"key-{number}", number)
        cluster.mset_nonatomic({"x": 1, "y": 2})
        assert cluster.eval("return redis.call('get', KEYS[1])", 1, "key-7") == b"7"

        if binary.engine.supports(Capability.ATOMIC_MIGRATION_SOURCE):
            admins[0].execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", 0, 63, "NODE", ids[1])
        else:
            _migrate(admins[0], admins[1], ids, b.port)
        until(lambda: ["0", "63"] in _slots(admins[1]), what="the slots moved")
        for number in range(200):
            assert cluster.get(f"key-{number}") == str(number).encode()
        cluster.close()
        for admin in admins:
            assert not acl_differs(lines, admin.acl_list())
            admin.close()


def _slots(node: Any) -> list[list[str]]:
    """The slot ranges that a node holds, as it says itself."""
    nodes = node.execute_command("CLUSTER NODES")
    return next(found["slots"] for found in nodes.values() if "myself" in found["flags"])


def _migrate(source: Any, target: Any, ids: list[str], port: int) -> None:
    """Key by key, as redkeep: MIGRATE logs in as the administration, whose right it is to RESTORE."""
    for slot in range(64):
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        if keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            login = ["AUTH2", "redkeep", "admin-pw"]
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 1000, *login, "KEYS", *keys)
        target.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        source.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


def sentinel_config(binary: Binary, folder: Path, primary: int, port: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"sentinel monitor shop 127.0.0.1 {primary} 2",
        "sentinel down-after-milliseconds shop 800",
        "sentinel failover-timeout shop 4000",
        "sentinel auth-user shop sentinel",
        "sentinel auth-pass shop sentinel-pw",
    ]
    if binary.engine.supports(Capability.SENTINEL_ACL):
        (folder / "users.acl").write_text(aclfile(watchers(binary.engine)))
        lines = [f"aclfile {folder}/users.acl", *lines]
        lines += ["sentinel sentinel-user sentinel", "sentinel sentinel-pass sentinel-pw"]
    else:
        lines = ["requirepass app-pw", *lines]
    return "\n".join(lines) + "\n"


def test_sentinels_watch_vote_and_tell(binary: Binary, tmp_path: Path) -> None:
    """Three Sentinels find each other and the replica, fail over after a crash, and tell the application."""
    lines = users(binary.engine)
    names = {"socket_timeout": 5}
    folders = [tmp_path / f"sentinel-{n}" for n in range(3)]
    ports = [free_port() for _ in folders]
    with (
        running(binary, tmp_path / "1", config(lines, tmp_path / "1")) as one,
        running(
            binary, tmp_path / "2", config(lines, tmp_path / "2", f"replicaof 127.0.0.1 {one.port}\n")
        ) as two,
    ):
        texts = [sentinel_config(binary, f, one.port, p) for f, p in zip(folders, ports, strict=True)]
        with (
            running(binary, folders[0], texts[0], sentinel=True, port=ports[0]) as s0,
            running(binary, folders[1], texts[1], sentinel=True, port=ports[1]) as s1,
            running(binary, folders[2], texts[2], sentinel=True, port=ports[2]) as s2,
        ):
            apps = [s.client(password="app-pw") for s in (s0, s1, s2)]
            known = CLIENTS.Sentinel(
                [("127.0.0.1", p) for p in ports],
                sentinel_kwargs={"password": "app-pw", **names},
                password="app-pw",
            )
            until(
                lambda: all(_master(app)["num-other-sentinels"] == "2" for app in apps),
                what="Sentinels know each other",
            )
            until(lambda: all(_master(app)["num-slaves"] == "1" for app in apps), what="the replica is known")
            assert known.discover_master("shop") == ("127.0.0.1", one.port)
            assert known.master_for("shop").set("a", "1")
            with apps[0].pubsub() as pubsub:
                pubsub.psubscribe("*")
            one.process.kill()
            until(
                lambda: known.discover_master("shop") == ("127.0.0.1", two.port),
                seconds=30,
                what="the failover",
            )
            until(lambda: known.master_for("shop").set("a", "2"), what="a write on the new primary")
            if binary.engine.supports(Capability.SENTINEL_ACL):
                _check_sentinel_users(s0)
            with two.client("redkeep", "admin-pw") as admin:
                assert [e for e in admin.acl_log() if e["username"] == "sentinel"] == []
                assert admin.execute_command("ROLE")[0] == "master"
                until(lambda: _master(apps[1])["flags"] == "master", what="settled")
            for app in apps:
                app.close()


def _master(client: Any) -> dict[str, str]:
    flat = client.execute_command("SENTINEL", "MASTER", "shop")
    if isinstance(flat, dict):
        return {str(k): str(v) for k, v in flat.items()}
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _check_sentinel_users(sentinel: Server) -> None:
    lines = watchers(sentinel.binary.engine)
    with sentinel.client("redkeep", "admin-pw") as admin:
        assert not acl_differs(lines, admin.acl_list())
        assert [e for e in admin.acl_log() if e["username"] == "sentinel"] == []
    with sentinel.client(password="app-pw") as app:
        for command in ("INFO", "ROLE", "PING", "CLIENT SETNAME x", "SENTINEL MASTERS", "SENTINEL SENTINELS shop",
                        "SENTINEL REPLICAS shop", "SENTINEL CKQUORUM shop", "HELLO 3", "COMMAND"):  # fmt: skip
            assert permitted(app, *command.split()), command
        for command in ("SENTINEL REMOVE shop", "SENTINEL FAILOVER shop", "SENTINEL SET shop quorum 1", "SHUTDOWN",
                        "SENTINEL RESET shop", "PUBLISH __sentinel__:hello x", "ACL LIST", "CLIENT KILL ID 1",
                        "SENTINEL MONITOR x 127.0.0.1 1 1", "SENTINEL CONFIG GET *"):  # fmt: skip
            assert not permitted(app, *command.split()), command
