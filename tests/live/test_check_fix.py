"""``redkeep check --fix`` on broken deployments of real servers: what is mended stays mended, and failovers work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from redkeep.errors import RefusedError
from redkeep.model.events import Approval, Event, StepStarted
from redkeep.usecases.check import Access, targets_of
from redkeep.usecases.fix import Fixed, Proposed, fix_targets
from tests.cli import Redkeep
from tests.live.deployments import clustered, linked, replicated
from tests.live.doctor import doctor
from tests.live.fleets import acquainted, cluster_nodes, fleet, my_id, three_sentinels
from tests.live.public import PUBLIC, in_public_network, needs_network
from tests.live.servers import Binary, Server, available, running, until
from tests.ports import free_block

pytestmark = pytest.mark.live

STRONG = "a4f09c1be77d4c55b12f8e02d9c3a6e1"


@pytest.fixture(params=available(), ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


@pytest.fixture
def one() -> Binary:
    """Where the engine makes no difference."""
    return available()[0]


class Operator:
    """Answers every question alike, and remembers what was asked, shown and done."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.asked: list[Approval] = []
        self.shown: list[Proposed] = []
        self.events: list[Event] = []

    async def approve(self, approval: Approval) -> bool:
        self.asked.append(approval)
        return self.answer

    def fix(self, *targets: Server | str, **access: Any) -> Fixed:
        texts = [t if isinstance(t, str) else f"127.0.0.1:{t.port}" for t in targets]
        return asyncio.run(
            fix_targets(
                targets_of(texts),
                Access(**access),
                approve=self.approve,
                emit=self.events.append,
                show=self.shown.append,
            )
        )

    @property
    def started(self) -> list[str]:
        return [e.step.id for e in self.events if isinstance(e, StepStarted)]

    def has_seen(self, secret: str) -> bool:
        return secret in f"{self.asked}{self.shown}{self.events}"


def fixed(*targets: Server | str, **access: Any) -> Fixed:
    """What a willing operator gets; the same again has nothing to do and asks nothing."""
    found = Operator().fix(*targets, **access)
    again = Operator()
    assert not again.fix(*targets, **access).steps
    assert not again.asked
    return found


def rules(found: Fixed) -> set[str]:
    return {f.rule for f in found.checked.report.findings}


def test_the_primary_can_rejoin_after_a_failover(binary: Binary, tmp_path: Path) -> None:
    login = {"password": STRONG}
    with ExitStack() as stack:
        primary, replica = stack.enter_context(replicated(binary, tmp_path))
        replica.client().config_set("masterauth", STRONG)
        for server in (primary, replica):
            server.client().config_set("requirepass", STRONG)
        operator = Operator()
        found = operator.fix(primary, **login)
        assert "primary-cannot-rejoin" not in rules(found)
        assert not operator.has_seen(STRONG)
        assert STRONG not in str(found.as_json())
        (step,) = found.as_json()["fix"]["steps"]
        assert "CONFIG SET masterauth PASSWORD; CONFIG REWRITE" in step["id"]
        assert not Operator().fix(primary, **login).steps

        assert STRONG in (tmp_path / "primary/server.conf").read_text()
        replica.client(**login).execute_command("REPLICAOF", "NO", "ONE")
        primary.client(**login).execute_command("REPLICAOF", "127.0.0.1", replica.port)
        until(partial(linked, primary, STRONG), what="the old primary follows")


def test_a_replica_that_cannot_log_in(one: Binary, tmp_path: Path) -> None:
    """The password is the one that was given: nobody else here has it."""
    login = {"password": STRONG}
    with replicated(one, tmp_path) as (primary, replica):
        primary.client().config_set("masterauth", STRONG)
        for server in (primary, replica):
            server.client().config_set("requirepass", STRONG)
        primary.client(**login).execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: replica.client(**login).info("replication")["master_link_status"] == "down")
        assert doctor(primary, replica, **login).of("replication-auth")
        found = fixed(primary, replica, **login)
        assert not rules(found) & {"replication-auth", "replication-broken"}
        assert linked(replica, STRONG)


def test_nothing_without_approval(one: Binary, tmp_path: Path) -> None:
    with running(one, tmp_path, "tcp-keepalive 0\n") as server:
        unwilling = Operator(answer=False)
        with pytest.raises(RefusedError, match="not approved"):
            unwilling.fix(server)
        assert [a.kind for a in unwilling.asked] == ["ordinary"]
        assert not unwilling.started
        assert server.client().config_get("tcp-keepalive") == {"tcp-keepalive": "0"}
        doctor(server)
        assert server.client().config_get("tcp-keepalive") == {"tcp-keepalive": "0"}


def test_on_the_command_line(one: Binary, tmp_path: Path) -> None:
    run = Redkeep(tmp_path, environment={"HOME": str(tmp_path)})
    with running(one, tmp_path / "a", "tcp-keepalive 0\n") as server:
        target = f"127.0.0.1:{server.port}"
        run("check", target, "--fix").error(4, "not approved, and nobody to ask", "--yes")
        told = run("check", target, "--fix", "--yes")
        assert "REPAIRS (1)" in told.stderr
        assert "CONFIG SET tcp-keepalive 60; CONFIG REWRITE" in told.stderr
        assert "1 repair carried out." in told.stdout
        assert "left to a person" in told.stdout
        assert "tcp-keepalive 60" in (tmp_path / "a/server.conf").read_text()
        document = run("check", target, "--fix", "--yes", "--json").json
        assert document["fix"] == {"changed": False, "steps": [], "left": document["fix"]["left"]}


def test_what_lasts_only_until_the_next_start_is_said(one: Binary, tmp_path: Path) -> None:
    with running(one, tmp_path / "a", "tcp-keepalive 0\n") as server:
        (tmp_path / "a/server.conf").unlink()
        (tmp_path / "a/server.conf").mkdir()  # cannot be rewritten
        operator = Operator()
        assert "keepalive-off" not in rules(operator.fix(server))
        assert any("set, but not kept in its file" in str(e) for e in operator.events)
        (tmp_path / "a/server.conf").rmdir()


@contextmanager
def shop(binary: Binary, folder: Path, replicas: int = 2) -> Iterator[tuple[list[Server], list[Server]]]:
    """A primary, its replicas, and three Sentinels that know each other."""
    with ExitStack() as stack:
        servers = stack.enter_context(replicated(binary, folder, replicas=("",) * replicas))
        sentinels = stack.enter_context(three_sentinels(binary, folder, servers[0], down_after=1000))
        until(lambda: all(len(s.client().sentinel_slaves("shop")) == replicas for s in sentinels), seconds=30)
        yield list(servers), list(sentinels)


def test_sentinels_forget_ghosts_one_at_a_time(binary: Binary, tmp_path: Path) -> None:
    with shop(binary, tmp_path) as (servers, sentinels):
        lost = servers.pop()
        lost.process.kill()
        lost.process.wait(5)
        until(
            lambda: all(any(r["is_sdown"] for r in s.client().sentinel_slaves("shop")) for s in sentinels),
            seconds=30,
        )
        target = f"sentinel://127.0.0.1:{sentinels[0].port}/shop"
        operator = Operator()
        found = operator.fix(target)
        assert "sentinel-ghost" not in rules(found)
        assert len(operator.started) == 3
        acquainted(sentinels)
        assert not Operator().fix(target).steps

        primary, replica = servers
        primary.process.kill()
        primary.process.wait(5)
        until(lambda: replica.client().role()[0] == "master", seconds=40, what="the failover")


def test_no_ghost_is_forgotten_while_the_primary_is_down(one: Binary, tmp_path: Path) -> None:
    with shop(one, tmp_path, replicas=1) as (servers, sentinels):
        for server in servers:
            server.process.kill()
            server.process.wait(5)
        until(lambda: all(s.client().sentinel_master("shop")["is_sdown"] for s in sentinels), seconds=30)
        assert not Operator().fix(f"sentinel://127.0.0.1:{sentinels[0].port}/shop").steps


def test_quorum(one: Binary, tmp_path: Path) -> None:
    with shop(one, tmp_path, replicas=1) as (_, sentinels):
        for sentinel, value in zip(sentinels, (1, 3, 2), strict=True):
            sentinel.client().execute_command("SENTINEL", "SET", "shop", "quorum", value)
        found = fixed(f"sentinel://127.0.0.1:{sentinels[0].port}/shop")
        assert len(found.steps) == 2
        assert not rules(found) & {"quorum-too-low", "quorum-too-high", "sentinels-disagree"}


@needs_network
def test_a_recipe_followed_by_hand(binary: Binary, tmp_path: Path) -> None:
    """Set up by loopback addresses, with a password in some places; clients are elsewhere. Then the primary dies."""
    listen = f"bind {PUBLIC} 127.0.0.1\nprotected-mode no\n"
    secret = f"{listen}requirepass {STRONG}\nrepl-diskless-sync-delay 0\n"
    access = {"password": STRONG, "allow_clear_text": True}

    def body() -> None:
        with ExitStack() as stack:
            enter = stack.enter_context
            primary = enter(running(binary, tmp_path / "p", f"{secret}replica-announce-ip 127.0.0.1\n"))
            follow = f"{secret}masterauth {STRONG}\nreplica-announce-ip 127.0.0.1\n"
            replica = enter(running(binary, tmp_path / "r", f"{follow}replicaof 127.0.0.1 {primary.port}\n"))
            until(partial(linked, replica, STRONG), what="the link")
            watch = f"{listen}sentinel monitor shop 127.0.0.1 {primary.port} 2\nsentinel auth-pass shop {STRONG}\n"
            watch += "sentinel down-after-milliseconds shop 1500\nsentinel failover-timeout shop 20000\n"
            sentinels = [enter(running(binary, tmp_path / f"s{i}", watch, sentinel=True)) for i in range(3)]
            acquainted(sentinels)
            nodes = [f"{PUBLIC}:{s.port}" for s in (primary, replica)]
            nodes += [f"sentinel://{PUBLIC}:{s.port}/shop" for s in sentinels]
            before = doctor(*nodes, **access)
            assert before.of("announce-loopback")
            assert before.of("primary-cannot-rejoin")

            found = fixed(*nodes, **access)
            mended = {"announce-loopback", "announce-differs", "sentinel-ghost", "primary-cannot-rejoin"}
            assert not rules(found) & mended, found
            assert STRONG not in str(found.as_json())
            for sentinel in sentinels:
                entry = sentinel.client().sentinel_master("shop")
                assert (entry["ip"], entry["port"], entry["quorum"]) == (PUBLIC, primary.port, 2)
                assert (entry["down-after-milliseconds"], entry["failover-timeout"]) == (1500, 20000)
                assert f'auth-pass shop "{STRONG}"' in kept(sentinel).replace(f" {STRONG}", f' "{STRONG}"')

            primary.process.kill()
            primary.process.wait(5)
            asked = sentinels[0].client()
            now = (PUBLIC, replica.port)
            until(lambda: asked.sentinel_get_master_addr_by_name("shop") == now, seconds=40)
            # as its own file says by now
            file = (tmp_path / "p/server.conf").read_text()
            again = enter(running(binary, tmp_path / "again", file, port=primary.port))
            until(partial(follows, again), seconds=40, what="the old primary follows")

    in_public_network(body)


def follows(server: Server) -> bool:
    return bool(server.client(password=STRONG).info("replication").get("master_link_status") == "up")


def kept(sentinel: Server) -> str:
    return (sentinel.folder / "sentinel.conf").read_text()


def test_what_drifts_from_the_file_is_left_to_apply(tmp_path: Path) -> None:
    run = Redkeep(tmp_path, environment={"HOME": str(tmp_path)})
    accepted = "".join(
        f"  - {{rule: {r}, because: a test}}\n" for r in ("overcommit", "transparent-huge-pages")
    )
    run.write(
        f"name: fix\nmode: standalone\nhosts: [local]\nport: {free_block(2)}\npersistence: aof\n"
        f"maxmemory: 64MiB\nsuppress:\n{accepted}"
    )
    try:
        run("apply", "--yes").ok()
        url = run("url", "--user", "admin", "--reveal", "--json").ok().json["urls"][0]
        with redis.Redis.from_url(url) as client:
            client.config_set("tcp-keepalive", 0)
        told = run("check", "--fix")
        assert "keepalive-off" in told.stdout
        assert "redkeep apply brings back what the file says" in told.stdout
        document = run("check", "--fix", "--json").json
        assert document["fix"]["next"] == "redkeep apply"
        assert not document["fix"]["changed"]
    finally:
        run("destroy", "--yes", "--delete-data")


@needs_network
def test_a_cluster_that_clients_elsewhere_cannot_use(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        extra = f"bind {PUBLIC} 127.0.0.1\nprotected-mode no\n"
        with clustered(binary, tmp_path, extra=extra) as nodes:
            targets = [f"{PUBLIC}:{s.port}" for s in nodes]
            assert doctor(*targets).of("announce-loopback")
            found = fixed(*targets)
            assert "announce-loopback" not in rules(found), found
            told = nodes[0].client().execute_command("CLUSTER", "SLOTS")
            assert "127.0.0.1" not in str(told)
            assert all(n.client().cluster("INFO")["cluster_state"] == "ok" for n in nodes)

    in_public_network(body)


def test_open_slots_without_keys_stay_where_they_are(binary: Binary, tmp_path: Path) -> None:
    with fleet(binary, tmp_path) as cluster:
        a, b, _ = cluster.primaries
        for slot in (0, 1):
            b.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", my_id(a))
            a.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", my_id(b))
        a.client().execute_command("CLUSTER", "SETSLOT", 1, "STABLE")
        found = fixed(a)
        assert len(found.steps) == 3
        assert "slots-open" not in rules(found)


def test_open_slots_with_keys_on_the_other_side_are_left_to_a_person(one: Binary, tmp_path: Path) -> None:
    with fleet(one, tmp_path) as cluster:
        a, b, _ = cluster.primaries
        slot = int(a.client().execute_command("CLUSTER", "KEYSLOT", "3560"))  # of the first third
        assert slot < 5461
        b.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", my_id(a))
        a.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", my_id(b))
        connection = b.client()
        with connection.pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command("SET", "3560", "x")
            pipe.execute()
        found = Operator().fix(a)
        assert not found.steps
        assert "slots-open" in rules(found)


def test_a_forgotten_node_is_forgotten_by_all(one: Binary, tmp_path: Path) -> None:
    with fleet(one, tmp_path) as cluster:
        a, b, _ = cluster.primaries
        gone = my_id(cluster.replica)
        cluster.replica.process.kill()
        cluster.replica.process.wait(5)
        until(lambda: all(_marked_fail(s, gone) for s in cluster.primaries), seconds=30)
        a.client().execute_command("CLUSTER", "FORGET", gone)
        found = Operator().fix(b)
        assert "node-stale" not in rules(found)
        assert all(gone not in str(s.client().execute_command("CLUSTER", "NODES")) for s in cluster.primaries)


def _marked_fail(server: Server, node_id: str) -> bool:
    return any(line[0] == node_id and "fail" in line[2].split(",") for line in cluster_nodes(server))
