"""Will it fail over, and will everyone follow? Each broken deployment is built with real servers, found, and mended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.live.deployments import replicated
from tests.live.doctor import doctor
from tests.live.fleets import Fleet, acquainted, fleet, my_id, placed, three_sentinels
from tests.live.servers import Binary, Server, available, running, until

pytestmark = pytest.mark.live

STRONG = "a4f09c1be77d4c55b12f8e02d9c3a6e1"
OTHER = "0d7f61e5a8b94c2f9e33c7d1b6a2f480"


#: A new replica is sent its copy without waiting for others.
AT_ONCE = "repl-diskless-sync-delay 0\n"

#: Where the engine makes no difference.
one_shop = pytest.mark.parametrize("shop", available()[:1], indirect=True, ids=str)
one_cluster = pytest.mark.parametrize("cluster", available()[:1], indirect=True, ids=str)


@pytest.fixture(params=available(), ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


@pytest.fixture
def one() -> Binary:
    """Where the engine makes no difference."""
    return available()[0]


def linked(replica: Server, **login: str) -> None:
    def up() -> bool:
        return bool(replica.client(**login).info("replication").get("master_link_status") == "up")

    until(up, what="the link")


def test_logins(binary: Binary, tmp_path: Path) -> None:
    """A password set by hand, and forgotten in one place after the other."""
    with replicated(binary, tmp_path) as (primary, replica):
        replica.client().config_set("masterauth", STRONG)
        for server in (primary, replica):
            server.client().config_set("requirepass", STRONG)
        login = {"password": STRONG}

        found = doctor(primary, password=STRONG).only("primary-cannot-rejoin")
        assert found.severity == "error"
        assert "masterauth is not set (CONFIG GET masterauth)" in found.evidence
        assert f"127.0.0.1:{replica.port}, the next primary: it asks for a password" in found.evidence
        assert f"-p {primary.port} CONFIG SET masterauth PASSWORD" in found.fix
        primary.client(**login).config_set("masterauth", OTHER)
        assert "it takes another password" in doctor(primary, **login).only("primary-cannot-rejoin").evidence
        primary.client(**login).config_set("masterauth", STRONG)
        healthy = doctor(primary, **login)
        assert not healthy.of("primary-cannot-rejoin")
        assert not healthy.of("replication-auth")

        replica.client(**login).config_set("masterauth", OTHER)
        found = doctor(primary, **login).only("replication-auth")
        assert found.subject == f"127.0.0.1:{replica.port}"
        assert "it takes another password (ACL LIST); the link of before still stands" in found.evidence
        primary.client(**login).execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: replica.client(**login).info("replication")["master_link_status"] == "down")
        told = doctor(primary, replica, **login)
        assert "the link is down" in told.only("replication-auth").evidence
        assert "it takes another password" in told.only("replication-broken").evidence
        assert OTHER not in str(told.findings)
        assert STRONG not in str(told.findings)
        replica.client(**login).config_set("masterauth", STRONG)
        linked(replica, **login)
        told = doctor(primary, replica, **login)
        assert not told.of("replication-auth")
        assert not told.of("replication-broken")


def test_replication_auth_of_a_user_that_may_not_copy(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, replica):
        rules = ["ACL", "SETUSER", "copy", "on", f">{STRONG}", "+ping", "+replconf"]
        primary.client().execute_command(*rules)
        replica.client().config_set("masterauth", STRONG)
        replica.client().config_set("masteruser", "copy")
        found = doctor(primary).only("replication-auth")
        assert "its user copy may not use psync (ACL LIST)" in found.evidence
        assert "+psync" in found.fix
        primary.client().execute_command(*rules, "+psync")
        assert not doctor(primary).of("replication-auth")


def test_broken_link_and_lost_replica(one: Binary, tmp_path: Path) -> None:
    with replicated(one, tmp_path) as (primary, replica):
        assert not doctor(primary).of("no-replica")
        replica.process.kill()
        until(lambda: not primary.client().info("replication")["connected_slaves"])
        found = doctor(primary).only("no-replica")
        assert found.severity == "error"
        assert found.evidence == "connected_slaves 0 (INFO replication)"
        assert f"REPLICAOF 127.0.0.1 {primary.port}" in found.fix
        with running(one, tmp_path / "new") as new:
            new.client().execute_command("REPLICAOF", "127.0.0.1", primary.port)
            linked(new)
            told = doctor(primary)
            assert not told.of("no-replica")
            assert not told.of("replication-broken")

            found = told.only("replication-not-persisted")
            assert found.subject == f"127.0.0.1:{new.port}"
            assert f"its file has no replicaof ({tmp_path}/new/server.conf)" in found.evidence
            assert f"-p {new.port} CONFIG REWRITE" in found.fix
            new.client().config_rewrite()
            assert not doctor(primary).of("replication-not-persisted")

            primary.process.kill()
            primary.process.wait(5)
            until(lambda: new.client().info("replication")["master_link_status"] == "down")
            found = doctor(new).only("replication-broken")
            assert "master_link_status down" in found.evidence
            assert f"its primary 127.0.0.1:{primary.port}: nobody listens there" in found.evidence
            assert f"start the server at 127.0.0.1:{primary.port}" in found.fix
            with running(one, tmp_path / "again", AT_ONCE, port=primary.port):
                linked(new)
                assert not doctor(new).of("replication-broken")


def test_replication_not_persisted_where_the_file_names_another(one: Binary, tmp_path: Path) -> None:
    with (
        replicated(one, tmp_path) as (primary, replica),
        running(one, tmp_path / "other", AT_ONCE) as other,
    ):
        replica.client().execute_command("REPLICAOF", "127.0.0.1", other.port)
        linked(replica)
        found = doctor(replica).only("replication-not-persisted")
        assert f"its file says replicaof 127.0.0.1 {primary.port}, and it follows" in found.evidence
        replica.client().config_rewrite()
        assert not doctor(replica).of("replication-not-persisted")


@contextmanager
def writing(server: Server, size: int) -> Iterator[None]:
    """Somebody writes values of that size, about every two milliseconds."""
    over = threading.Event()

    def write() -> None:
        client = server.client()
        while not over.wait(0.002):
            client.set("key", b"x" * size)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_backlog_too_small(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path, primary="repl-backlog-size 64kb\n") as (primary, replica):
        assert not doctor(primary).of("backlog-too-small")
        with writing(primary, 2000):
            until(lambda: doctor(primary).of("backlog-too-small"), what="the server's own average")
            time.sleep(2)  # it is one of the last 1.6 s, and still rising
            found = doctor(primary).only("backlog-too-small")
            assert found.severity == "warning"
            assert "repl-backlog-size 64.0 KiB holds" in found.evidence
            assert "are written each second (INFO replication twice" in found.evidence
            command = f"-p {primary.port} CONFIG SET repl-backlog-size "
            assert command in found.fix
            assert f"the same on 127.0.0.1:{replica.port}" in found.fix
            primary.client().config_set("repl-backlog-size", found.fix.split(command)[1].split()[0])
            assert not doctor(primary).of("backlog-too-small")


def test_replication_lag(one: Binary, tmp_path: Path) -> None:
    with replicated(one, tmp_path) as (primary, replica):
        assert not doctor(primary).of("replication-lag")
        replica.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(4):
                primary.client().set("key", b"x" * 1024**2)
            until(lambda: primary.client().info("replication")["slave0"]["lag"] >= 2)
            found = doctor(primary).only("replication-lag")
        finally:
            replica.process.send_signal(signal.SIGCONT)
        assert found.severity == "warning"
        assert found.subject == f"127.0.0.1:{replica.port}"
        assert f"4.0 MiB behind 127.0.0.1:{primary.port}" in found.evidence
        assert "CONFIG SET min-replicas-to-write 1" in found.fix
        until(lambda: not doctor(primary).of("replication-lag"))


def test_no_eligible_replica(binary: Binary, tmp_path: Path) -> None:
    barred = "replica-priority 0\n"
    with replicated(binary, tmp_path, replicas=(barred, barred)) as (primary, first, _):
        found = doctor(primary).only("no-eligible-replica")
        assert found.severity == "error"
        assert found.subject == f"127.0.0.1:{primary.port}"
        assert "replica-priority 0 (INFO replication)" in found.evidence
        assert "CONFIG SET replica-priority 100" in found.fix
        first.client().config_set("replica-priority", 100)
        assert not doctor(primary).of("no-eligible-replica")


# Sentinels


@pytest.fixture(scope="module", params=available(), ids=str)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[tuple[Server, Server], tuple[Server, ...]]]:
    """A primary, its replica, and three Sentinels with quorum 2. Each test leaves it as it was."""
    folder = tmp_path_factory.mktemp("shop")
    with (
        replicated(request.param, folder) as (primary, replica),
        three_sentinels(request.param, folder, primary) as sentinels,
    ):
        yield (primary, replica), sentinels


Shop = tuple[tuple[Server, Server], tuple[Server, ...]]


def sentinel_set(sentinels: tuple[Server, ...], option: str, value: object) -> None:
    for server in sentinels:
        server.client().execute_command("SENTINEL", "SET", "shop", option, value)


def test_healthy_sentinels(shop: Shop) -> None:
    """What a machine with everything on it lacks, and nothing else of this family."""
    family = ("replication", "primary-", "quorum", "sentinels", "failover", "no-", "backlog", "colocated")
    (primary, _), sentinels = shop
    until(lambda: sentinels[0].client().sentinel_slaves("shop"), seconds=30)
    told = doctor(sentinels[0], primary)
    found = {f.rule for f in told.findings if f.rule.startswith(family) and f.severity != "info"}
    assert found == {"sentinels-too-few", "colocated-replica"}, told.told


@one_shop
def test_quorum_too_low_and_too_high(shop: Shop) -> None:
    _, sentinels = shop
    for quorum, rule in ((1, "quorum-too-low"), (3, "quorum-too-high")):
        sentinel_set(sentinels, "quorum", quorum)
        found = doctor(sentinels[0]).only(rule)
        assert found.severity == "warning"
        assert found.subject == "shop"
        assert f"quorum {quorum} at" in found.evidence
        assert "there are 3 Sentinels, and 2 are their majority" in found.evidence
        assert "SENTINEL SET shop quorum 2; the same on" in found.fix
        sentinel_set(sentinels, "quorum", 2)
        assert not doctor(sentinels[0]).of(rule)


@one_shop
def test_sentinels_too_few(shop: Shop) -> None:
    (primary, replica), sentinels = shop
    where = {s.port: (f"host-{i}", "") for i, s in enumerate(sentinels)}
    where |= {primary.port: ("host-0", ""), replica.port: ("host-1", "")}
    assert "sentinels-too-few" not in {f.rule for f in placed(sentinels, where)}
    where[sentinels[1].port] = ("host-0", "")
    (found,) = (f for f in placed(sentinels, where) if f.rule == "sentinels-too-few")
    assert found.severity == "error"
    assert "2 of 3 Sentinels are on host host-0, and 2 must agree" in found.evidence
    assert f"sentinel monitor shop 127.0.0.1 {primary.port} 2" in found.fix


def test_two_sentinels_are_too_few(one: Binary, tmp_path: Path) -> None:
    with (
        running(one, tmp_path / "p") as primary,
        three_sentinels(one, tmp_path, primary, count=2) as sentinels,
    ):
        found = doctor(sentinels[0]).only("sentinels-too-few")
        assert found.evidence.startswith("2 Sentinels: ")
        text = f"{found.fix.split('each with: ')[1]}\n"
        with running(one, tmp_path / "third", text, sentinel=True) as third:
            every = (*sentinels, third)
            acquainted(every)
            where = {s.port: (f"host-{i}", "") for i, s in enumerate(every)}
            where[primary.port] = ("host-0", "")
            assert "sentinels-too-few" not in {f.rule for f in placed(every, where)}


def test_sentinels_disagree(shop: Shop, tmp_path: Path) -> None:
    _, sentinels = shop
    assert not doctor(sentinels[0]).of("sentinels-disagree")
    sentinels[2].client().execute_command("SENTINEL", "SET", "shop", "quorum", 3)
    sentinels[1].client().execute_command("SENTINEL", "SET", "shop", "auth-pass", STRONG)
    told = doctor(sentinels[0])
    found = told.only("sentinels-disagree")
    assert found.severity == "error"
    assert f"3 by 127.0.0.1:{sentinels[2].port} (SENTINEL MASTER)" in found.evidence
    assert f"for 127.0.0.1:{sentinels[1].port}" in found.evidence.split("auth-pass differs")[1]
    assert STRONG not in told.told
    assert f"-p {sentinels[2].port} SENTINEL SET shop quorum 2" in found.fix
    sentinel_set(sentinels, "quorum", 2)
    assert "quorum" not in doctor(sentinels[0]).only("sentinels-disagree").evidence
    sentinel_set(sentinels, "auth-pass", STRONG)
    assert not doctor(sentinels[0]).of("sentinels-disagree")
    sentinel_set(sentinels, "auth-pass", "")


def test_sentinels_disagree_on_the_primary(one: Binary, tmp_path: Path) -> None:
    with (
        running(one, tmp_path / "p") as primary,
        running(one, tmp_path / "other") as other,
        three_sentinels(one, tmp_path, primary, count=2) as (first, second),
    ):
        commands = second.client()
        commands.execute_command("SENTINEL", "REMOVE", "shop")
        commands.execute_command("SENTINEL", "MONITOR", "shop", "127.0.0.1", other.port, 2)
        found = doctor(first, second).only("sentinels-disagree")
        assert f"primary: 127.0.0.1:{primary.port} by 127.0.0.1:{first.port}" in found.evidence
        assert f"127.0.0.1:{other.port} by 127.0.0.1:{second.port}" in found.evidence
        assert f"-p {second.port} SENTINEL MONITOR shop 127.0.0.1 {primary.port} 2" in found.fix
        commands.execute_command("SENTINEL", "REMOVE", "shop")
        commands.execute_command("SENTINEL", "MONITOR", "shop", "127.0.0.1", primary.port, 2)
        assert not doctor(first, second).of("sentinels-disagree")


def test_quorum_unreachable(one: Binary, tmp_path: Path) -> None:
    with (
        running(one, tmp_path / "p") as primary,
        three_sentinels(one, tmp_path, primary, down_after=500) as (first, *others),
    ):
        assert not doctor(first).of("quorum-unreachable")
        for server in others:
            server.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: all(s["is_sdown"] for s in first.client().sentinel_sentinels("shop")), seconds=30)
            found = doctor(first).only("quorum-unreachable")
        finally:
            for server in others:
                server.process.send_signal(signal.SIGCONT)
        assert found.severity == "error"
        assert "1 of 3 Sentinels are up, quorum 2, majority 2; down for it: " in found.evidence
        assert f"-p {first.port} SENTINEL CKQUORUM shop" in found.fix
        until(lambda: not doctor(first).of("quorum-unreachable"))


def test_replication_auth_of_sentinels(shop: Shop) -> None:
    (primary, replica), sentinels = shop
    replica.client().config_set("masterauth", STRONG)
    primary.client().config_set("requirepass", STRONG)
    admin = primary.client(password=STRONG)
    try:
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind)
        found = until(lambda: auth_of(sentinels, "primary"), seconds=20)[0]
        assert found.severity == "error"
        assert f"the primary 127.0.0.1:{primary.port} answers its PING, but not with PONG" in found.evidence
        assert "last-ok-ping-reply of SENTINEL MASTER shop" in found.evidence
        assert "SENTINEL SET shop auth-pass PASSWORD" in found.fix
        sentinel_set(sentinels, "auth-pass", STRONG)
        until(lambda: not auth_of(sentinels, "primary"), seconds=20)
    finally:
        primary.client(password=STRONG).config_set("requirepass", "")
        sentinel_set(sentinels, "auth-pass", "")
        replica.client().config_set("masterauth", "")


def auth_of(sentinels: tuple[Server, ...], kind: str) -> list[object]:
    told = doctor(sentinels[0], password=STRONG).of("replication-auth")
    return [f for f in told if f"the {kind}" in f.evidence]


@one_shop
def test_failover_too_soon_and_too_late(shop: Shop) -> None:
    _, sentinels = shop
    for value, rule in ((999, "failover-hair-trigger"), (10_001, "failover-slow")):
        sentinel_set(sentinels, "down-after-milliseconds", value)
        found = doctor(sentinels[0]).only(rule)
        assert found.severity == "warning"
        assert f"down-after-milliseconds {value} at" in found.evidence
        assert "SENTINEL SET shop down-after-milliseconds 5000 failover-timeout 15000" in found.fix
        sentinel_set(sentinels, "down-after-milliseconds", 5000)
        assert not doctor(sentinels[0]).of(rule)


@one_shop
def test_failover_sooner_than_a_stall(shop: Shop) -> None:
    (primary, _), sentinels = shop
    stall(primary, 1100)
    sentinel_set(sentinels, "down-after-milliseconds", 1000)
    found = doctor(sentinels[0]).only("failover-hair-trigger")
    assert "it stood still for" in found.evidence
    assert "in LATENCY LATEST), and down-after-milliseconds is 1000" in found.evidence
    sentinel_set(sentinels, "down-after-milliseconds", 5000)
    assert not doctor(sentinels[0]).of("failover-hair-trigger")


def stall(server: Server, milliseconds: int) -> None:
    """A script that runs for so long at least, which the server notes."""
    client = server.client()
    client.config_set("latency-monitor-threshold", 100)
    turns, took = 5_000_000, 0.0
    while took < milliseconds / 1000:
        started = time.monotonic()
        client.eval("for i = 1, tonumber(ARGV[1]) do end", 0, turns)
        took, turns = time.monotonic() - started, turns * 3 // 2


# Cluster


@pytest.fixture(scope="module", params=available(), ids=str)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three primaries and a replica of the first, on one machine. Each test leaves it as it was."""
    with fleet(request.param, tmp_path_factory.mktemp("cluster")) as found:
        yield found


def config(servers: tuple[Server, ...], name: str, value: object) -> None:
    for server in servers:
        server.client().config_set(name, value)


@one_cluster
def test_cluster_without_replicas(cluster: Fleet) -> None:
    _, b, c = cluster.primaries
    found = doctor(b).only("no-replica")
    assert set(found.subject.split(", ")) == {f"127.0.0.1:{s.port}" for s in (b, c)}
    assert found.evidence == "no replica (CLUSTER NODES)"
    assert "--cluster-slave --cluster-master-id" in found.fix
    mended = next(i for i in (my_id(b), my_id(c)) if i in found.fix)
    cluster.replica.client().execute_command("CLUSTER", "REPLICATE", mended)
    linked(cluster.replica)
    until(lambda: mended not in str(doctor(b).of("no-replica")))
    cluster.replica.client().execute_command("CLUSTER", "REPLICATE", my_id(cluster.primaries[0]))
    linked(cluster.replica)


def test_no_eligible_replica_in_a_cluster(cluster: Fleet) -> None:
    replica = cluster.replica
    assert not doctor(replica).of("no-eligible-replica")
    replica.client().config_set("cluster-replica-no-failover", "yes")
    found = doctor(replica).only("no-eligible-replica")
    assert "cluster-replica-no-failover yes (CONFIG GET)" in found.evidence
    assert f"-p {replica.port} CONFIG SET cluster-replica-no-failover no" in found.fix
    replica.client().config_set("cluster-replica-no-failover", "no")
    until(lambda: not doctor(replica).of("no-eligible-replica"))


@one_cluster
def test_cluster_gives_up_too_soon_and_too_late(cluster: Fleet) -> None:
    before = 1000
    for value, rule in ((15_000, "failover-slow"), (499, "failover-hair-trigger")):
        config(cluster.all, "cluster-node-timeout", value)
        found = doctor(cluster.replica).only(rule)
        assert f"cluster-node-timeout {value} (CONFIG GET)" in found.evidence
        assert "CONFIG SET cluster-node-timeout 5000" in found.fix
        config(cluster.all, "cluster-node-timeout", 5000)
        assert not doctor(cluster.replica).of(rule)
    stall(cluster.primaries[1], 600)
    config(cluster.all, "cluster-node-timeout", 550)
    found = doctor(cluster.replica).only("failover-hair-trigger")
    assert found.subject == f"127.0.0.1:{cluster.primaries[1].port}"
    assert "in LATENCY LATEST), and cluster-node-timeout is 550 (CONFIG GET)" in found.evidence
    config(cluster.all, "cluster-node-timeout", 5000)
    assert not doctor(cluster.replica).of("failover-hair-trigger")
    config(cluster.all, "cluster-node-timeout", before)


@one_cluster
def test_full_coverage(cluster: Fleet) -> None:
    found = doctor(cluster.replica).only("full-coverage")
    assert found.severity == "info"
    assert found.evidence == "cluster-require-full-coverage yes (CONFIG GET)"
    config(cluster.all, "cluster-require-full-coverage", "no")
    assert not doctor(cluster.replica).of("full-coverage")
    config(cluster.all, "cluster-require-full-coverage", "yes")


@one_cluster
def test_colocated_replica(cluster: Fleet) -> None:
    """The replica is on its primary's host, then in its zone, and follows another one in the end."""
    (a, b, c), replica = cluster.primaries, cluster.replica
    where = {a.port: ("h1", "z1"), b.port: ("h2", "z2"), c.port: ("h3", "z3"), replica.port: ("h1", "z1")}
    (found,) = (f for f in placed((a,), where) if f.rule == "colocated-replica")
    assert found.severity == "error"
    assert found.evidence == f"on host h1: 127.0.0.1:{a.port} and its replica 127.0.0.1:{replica.port}"
    assert f"CLUSTER REPLICATE {my_id(a)}" in found.fix
    where[replica.port] = ("h4", "z1")
    (found,) = (f for f in placed((a,), where) if f.rule == "colocated-replica")
    assert found.severity == "warning"
    assert found.evidence.startswith("on zone z1: ")
    replica.client().execute_command("CLUSTER", "REPLICATE", my_id(b))
    linked(replica)
    assert "colocated-replica" not in {f.rule for f in placed((a,), where)}
    replica.client().execute_command("CLUSTER", "REPLICATE", my_id(a))
    linked(replica)


@one_cluster
def test_host_and_zone_majority(cluster: Fleet) -> None:
    """Two of three primaries are together, until the replica elsewhere is promoted."""
    (a, b, c), replica = cluster.primaries, cluster.replica
    where = {a.port: ("h1", "z1"), b.port: ("h1", "z1"), c.port: ("h2", "z2"), replica.port: ("h3", "z3")}
    told = {f.rule: f for f in placed((a,), where)}
    for rule, place in (("host-majority", "host h1"), ("zone-majority", "zone z1")):
        assert told[rule].severity == "warning"
        assert told[rule].subject == place
        assert "2 of 3 primaries are there" in told[rule].evidence
        assert "without them 1 are left, and 2 must agree" in told[rule].evidence
        assert f"-p {replica.port} CLUSTER FAILOVER" in told[rule].fix
    promote(replica)
    rules = {f.rule for f in placed((a,), where)}
    assert not rules & {"host-majority", "zone-majority"}
    linked(a)
    promote(a)
    linked(replica)


def promote(server: Server) -> None:
    def done() -> bool:
        client = server.client()
        if client.role()[0] == "master":
            return True
        try:
            client.execute_command("CLUSTER", "FAILOVER")
        except redis.ResponseError:
            return False
        return False

    until(done, seconds=30, what="the promotion")
    until(lambda: server.client().cluster("INFO")["cluster_state"] == "ok", seconds=30)
