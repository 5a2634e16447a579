"""What ``check --fix`` plans, and what it leaves alone: from views that were made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from redkeep.model.checkup import Checkup, Details, HostView, Node, ProcessFacts, Visit
from redkeep.model.engine import Engine, Version
from redkeep.model.slots import SlotRange
from redkeep.model.topology import (
    Address,
    ClusterNode,
    ClusterView,
    HostFacts,
    NodeView,
    ReplicaLine,
    SentinelEntry,
    Watched,
)
from redkeep.planning.evidence.trust import Policy
from redkeep.planning.repairs import Case, Repair, Secret, machine_repairs, repairs, steps
from redkeep.planning.repairs.base import Knows, Linked, Listed
from redkeep.planning.rules import RULES
from redkeep.planning.rules.logins import Login

STRONG = "a4f09c1be77d4c55b12f8e02d9c3a6e1"
OTHER = "0d7f61e5a8b94c2f9e33c7d1b6a2f480"
REDIS = Engine("redis", Version(7, 0, 15))
VALKEY = Engine("valkey", Version(9, 1, 2))
KNOWN = Visit("open", ping="NOAUTH Authentication required.", login="ok")
OPEN = Visit("open", ping="PONG", anonymous_info=True)


def node(
    host: str, port: int = 6379, *, engine: Engine = REDIS, details: Details | None = None, **view: Any
) -> Node:
    config = {"port": str(port), **view.pop("config", {})}
    info = {"tcp_port": str(port), "config_file": "/etc/redis.conf", **view.pop("info", {})}
    seen = NodeView("primary", engine, f"run-{host}-{port}", info, config)
    address = Address(host, port)
    return Node(str(address), address, host, replace(seen, **view), details or Details())


def checkup(*nodes: Node, visit: Visit = KNOWN, visits: dict[Address, Visit] | None = None) -> Checkup:
    found = {n.address: replace(visit, run_id=n.seen.run_id if n.seen else "") for n in nodes}
    return Checkup("test", datetime(2026, 1, 1, tzinfo=UTC), nodes, {**found, **(visits or {})})


def case(*nodes: Node, **more: Any) -> Case:
    given = more.pop("given", None)
    named = frozenset(more.pop("named", (n.address for n in nodes)))
    policy = more.pop("policy", Policy(frozenset(a.host for a in named)))
    return Case(checkup(*nodes, **more), frozenset(RULES), given, policy, named)


def told(found: Case) -> list[tuple[str, str, str]]:
    return [(r.rule, r.node, r.shown) for r in repairs(found)]


def acl(*passwords: str) -> tuple[str, ...]:
    digests = " ".join(f"#{sha256(p.encode()).hexdigest()}" for p in passwords)
    return (f"user default on {digests} ~* &* +@all",)


def pair(primary_auth: str = "", replica_auth: str = STRONG, accepts: str = STRONG) -> tuple[Node, Node]:
    """A primary and its replica, which accept one password and have these ones."""
    primary = node("10.0.0.1", config={"masterauth": primary_auth}, acl=acl(accepts))
    replica = node(
        "10.0.0.2",
        role="replica",
        primary=primary.address,
        config={"masterauth": replica_auth},
        acl=acl(accepts),
    )
    return primary, replica


class TestLogins:
    def test_the_primary_gets_what_its_replica_has(self) -> None:
        found = case(*pair())
        (repair,) = repairs(found)
        assert repair.rule == "primary-cannot-rejoin"
        assert repair.commands == (
            ("CONFIG", "SET", "masterauth", Secret("setting", "10.0.0.2:6379")),
            ("CONFIG", "REWRITE"),
        )
        assert found.resolve(repair.commands[0][3]) == STRONG
        assert "/etc/redis.conf" in repair.keeps

    def test_no_secret_is_in_a_step_or_its_words(self) -> None:
        found = case(*pair())
        plan, by_id = steps(found, repairs(found))
        assert STRONG not in f"{list(plan)}{by_id}{plan.ids}"
        (step,) = plan
        assert step.args["commands"] == "CONFIG SET masterauth PASSWORD; CONFIG REWRITE"
        (repair,) = repairs(found)
        assert by_id[step.id] == repair
        assert repair.sensitive

    def test_the_user_goes_with_it(self) -> None:
        primary, replica = pair()
        assert isinstance(replica.view, NodeView)
        users = (
            f"user copy on #{sha256(STRONG.encode()).hexdigest()} &* +psync +replconf +ping",
            *acl(OTHER),
        )
        view = replace(replica.view, acl=users, config={**replica.view.config, "masteruser": "copy"})
        assert "CONFIG SET masteruser copy; CONFIG SET masterauth PASSWORD" in str(
            told(case(primary, replace(replica, view=view)))
        )

    def test_a_password_that_its_heirs_would_refuse_is_no_repair(self) -> None:
        assert told(case(*pair(replica_auth=OTHER))) == []

    def test_the_users_password_where_no_server_knows_it(self) -> None:
        found = case(*pair(primary_auth=STRONG, replica_auth=""), given=Login("", STRONG))
        assert told(found) == [
            ("replication-auth", "10.0.0.2:6379", "CONFIG SET masterauth PASSWORD; CONFIG REWRITE")
        ]
        assert told(case(*pair(primary_auth=STRONG, replica_auth=""))) == []
        assert told(case(*pair(primary_auth=STRONG, replica_auth=""), given=Login("", OTHER))) == []

    def test_nothing_secret_for_whom_it_was_withheld_from(self) -> None:
        rogue = {Address("10.0.0.1", 6379): Visit("open", ping="PONG")}
        named = [Address("10.9.9.9", 6379)]
        assert told(case(*pair(), visits=rogue, named=named)) == []

    def test_in_clear_text_over_a_public_address_only_with_consent(self) -> None:
        sentinel = node("203.0.113.5", 26379, role="sentinel")
        open_ = {sentinel.address: OPEN}
        assert not case(sentinel, visits=open_).may_see(sentinel)
        agreed = Policy(frozenset({"203.0.113.5"}), allow_clear_text=True)
        assert case(sentinel, visits=open_, policy=agreed).may_see(sentinel)


class TestSettings:
    def test_keepalive(self) -> None:
        assert told(case(node("10.0.0.1", config={"tcp-keepalive": "0"}))) == [
            ("keepalive-off", "10.0.0.1:6379", "CONFIG SET tcp-keepalive 60; CONFIG REWRITE")
        ]

    def test_what_does_not_last_is_said(self) -> None:
        server = node("10.0.0.1", config={"tcp-keepalive": "0"}, info={"config_file": ""})
        (repair,) = repairs(case(server))
        assert repair.shown == "CONFIG SET tcp-keepalive 60"
        assert repair.keeps.startswith("until the next restart only")

    @pytest.mark.parametrize(("visit", "count"), [(KNOWN, 1), (OPEN, 0), (replace(KNOWN, ping=""), 0)])
    def test_protected_mode_only_where_a_password_is_asked_for(self, visit: Visit, count: int) -> None:
        server = node("10.0.0.1", config={"protected-mode": "no", "bind": "*"})
        assert len(repairs(case(server, visit=visit))) == count

    def test_rules_that_found_nothing_or_were_accepted_are_left_alone(self) -> None:
        found = case(node("10.0.0.1", config={"tcp-keepalive": "0"}))
        assert repairs(replace(found, rules=frozenset())) == ()


def entry(address: Address, **more: Any) -> SentinelEntry:
    times = {"down-after-milliseconds": "5000", "failover-timeout": "20000", "parallel-syncs": "1"}
    settings = {**times, **more.pop("settings", {})}
    return replace(SentinelEntry("shop", address, frozenset({"master"}), 2, 0, (), (), settings), **more)


def ghost(host: str) -> Watched:
    return Watched(Address(host, 6379), "", frozenset({"slave", "s_down"}), {})


def watching(*entries: SentinelEntry, count: int = 3) -> list[Node]:
    """So many Sentinels that know each other and see the same."""
    names = [(f"10.0.0.{i}", f"id-{i}") for i in range(11, 11 + count)]
    found = []
    for host, own in names:
        peers = tuple(
            Watched(Address(other, 26379), other_id, frozenset({"sentinel"}), {})
            for other, other_id in names
            if other != host
        )
        monitored = tuple(replace(e, watched_sentinels=(*peers, *e.watched_sentinels)) for e in entries)
        found.append(
            node(host, 26379, role="sentinel", monitored=monitored, details=Details(sentinel_id=own))
        )
    return found


class TestSentinels:
    PRIMARY = node("10.0.0.1", replicas=(ReplicaLine(Address("10.0.0.2", 6379), "online", 1, 0),))
    REPLICA = node("10.0.0.2", role="replica", primary=Address("10.0.0.1", 6379))

    def entry(self, address: Address | None = None, **more: Any) -> SentinelEntry:
        settings = {"runid": "run-10.0.0.1-6379", **more.pop("settings", {})}
        return entry(address or self.PRIMARY.address, settings=settings, **more)

    def case(self, *entries: SentinelEntry, **more: Any) -> Case:
        return case(self.PRIMARY, self.REPLICA, *watching(*entries), **more)

    def test_ghosts_are_forgotten_one_sentinel_at_a_time(self) -> None:
        found = self.case(self.entry(watched_replicas=(ghost("10.0.0.7"),)))
        resets = repairs(found)
        assert [r.shown for r in resets] == ["SENTINEL RESET shop"] * 3
        assert {r.stage for r in resets} == {"in-turn"}
        assert resets[0].settled == Knows(resets[0].node, "shop", replicas=1, sentinels=2)

    @pytest.mark.parametrize("flag", ["s_down", "o_down", "failover_in_progress"])
    def test_not_while_the_primary_is_down(self, flag: str) -> None:
        flags = frozenset({"master", flag})
        assert told(self.case(self.entry(flags=flags, watched_replicas=(ghost("10.0.0.7"),)))) == []

    def test_not_one_that_greets_and_only_says_a_wrong_address(self) -> None:
        def listed(silent: str) -> Case:
            fields = {"last-hello-message": silent}
            alive = Watched(Address("127.0.0.1", 26379), "b" * 40, frozenset({"sentinel"}), fields)
            return self.case(self.entry(watched_sentinels=(alive,)))

        assert "SENTINEL RESET shop" not in str(told(listed("900")))
        assert "SENTINEL RESET shop" in str(told(listed("90000")))

    def test_no_reset_by_a_name_that_is_a_pattern(self) -> None:
        entry = replace(self.entry(watched_replicas=(ghost("10.0.0.7"),)), name="*")
        assert "RESET" not in str(told(self.case(entry)))

    def test_no_quorum_of_those_who_were_not_all_asked(self) -> None:
        """A Sentinel that was told anew knows of nobody yet."""
        (sentinel, *_) = watching(self.entry())
        assert told(case(self.PRIMARY, self.REPLICA, sentinel)) == []

    def test_not_where_it_would_come_back_at_once(self) -> None:
        """The primary lists it: it has to announce another address first."""
        line = ReplicaLine(Address("127.0.0.1", 6379), "online", 1, 0)
        primary = node("10.0.0.1", replicas=(line,))
        alive = Watched(line.address, "", frozenset({"slave"}), {})
        sentinels = watching(self.entry(watched_replicas=(alive,)))
        assert "SENTINEL RESET shop" not in str(told(case(primary, *sentinels)))

    def test_the_quorum_is_the_majority_and_waits_for_ghosts(self) -> None:
        found = told(self.case(self.entry(quorum=1)))
        assert found[0] == ("quorum-too-low", "10.0.0.11:26379", "SENTINEL SET shop quorum 2")
        assert len(found) == 3
        haunted = self.entry(quorum=1, watched_replicas=(ghost("10.0.0.7"),))
        assert {rule for rule, _, _ in told(self.case(haunted))} == {"sentinel-ghost"}
        # its primary lists it as well, so that no reset helps, and it has no vote
        stays = self.entry(quorum=1, watched_replicas=(ghost("127.0.0.1"),))
        lines = [ReplicaLine(Address(host, 6379), "online", 1, 0) for host in ("10.0.0.2", "127.0.0.1")]
        primary = node("10.0.0.1", replicas=tuple(lines))
        staying = case(primary, self.REPLICA, *watching(stays))
        assert {rule for rule, _, _ in told(staying)} == {"quorum-too-low"}

    def test_watches_the_right_address_with_all_it_knew(self) -> None:
        wrong = self.entry(Address("127.0.0.1", 6379))
        first, *_ = repairs(self.case(wrong, given=Login("", STRONG)))
        assert first.rule == "announce-loopback"
        assert first.shown == (
            "SENTINEL REMOVE shop; SENTINEL MONITOR shop 10.0.0.1 6379 2; SENTINEL SET shop auth-pass PASSWORD; "
            "SENTINEL SET shop down-after-milliseconds 5000; SENTINEL SET shop failover-timeout 20000; "
            "SENTINEL SET shop parallel-syncs 1"
        )
        assert first.undo[1][3] == "127.0.0.1"
        assert first.stage == "in-turn"

    @pytest.mark.parametrize(
        "more",
        [
            {"config_epoch": 1},  # what others say with an epoch would win over what is told anew
            {"flags": frozenset({"master", "o_down"})},
            {"settings": {"client-reconfig-script": "/bin/x"}},
        ],
    )
    def test_what_would_be_lost_is_left_to_a_person(self, more: dict[str, Any]) -> None:
        wrong = self.entry(Address("127.0.0.1", 6379), **more)
        assert told(self.case(wrong, given=Login("", STRONG))) == []

    def test_it_must_not_forget_how_to_log_in(self) -> None:
        wrong = self.entry(Address("127.0.0.1", 6379))
        assert told(self.case(wrong)) == []  # a password is needed, and nobody said which
        assert "PASSWORD" not in str(told(self.case(wrong, visit=OPEN)))

    def test_the_password_of_its_file(self) -> None:
        lines = (f'auth-pass shop "{STRONG}"', "auth-user shop watcher")
        sentinels = [
            replace(s, process=ProcessFacts(settings={"sentinel": lines}))
            for s in watching(self.entry(Address("127.0.0.1", 6379)))
        ]
        found = case(self.PRIMARY, self.REPLICA, *sentinels)
        (secret,) = {w for r in repairs(found)[:1] for c in r.commands for w in c if isinstance(w, Secret)}
        assert secret.source == "file"
        assert found.resolve(secret) == STRONG
        assert "auth-user watcher" in repairs(found)[0].shown


class TestAnnouncements:
    def replica(self, **config: str) -> tuple[Node, Node]:
        told = config.get("replica-announce-ip", "")
        line = ReplicaLine(Address(told or "127.0.0.1", 6379), "online", 1, 0)
        primary = node("10.0.0.1", replicas=(line,), config={"replica-announce-ip": ""})
        replica = node(
            "10.0.0.2",
            role="replica",
            primary=primary.address,
            config={"replica-announce-ip": "", "replica-announce-port": "0", **config},
        )
        return primary, replica

    def test_a_replica_says_where_it_was_asked(self) -> None:
        (repair,) = repairs(case(*self.replica()))
        assert repair.shown == (
            "CONFIG SET replica-announce-ip 10.0.0.2; CONFIG REWRITE; CLIENT KILL TYPE master"
        )
        assert repair.settled == Linked("10.0.0.2:6379", "10.0.0.1:6379", Address("10.0.0.2", 6379))

    def test_an_address_that_leads_to_another_server(self) -> None:
        other = {Address("10.0.0.9", 6379): replace(OPEN, run_id="run-10.0.0.1-6379")}
        (repair,) = repairs(case(*self.replica(**{"replica-announce-ip": "10.0.0.9"}), visits=other))
        assert repair.rule == "announce-unroutable"
        assert "replica-announce-ip 10.0.0.2" in repair.shown

    def test_what_is_asked_through_another_port_is_left_alone(self) -> None:
        assert told(case(*self.replica(**{"replica-announce-port": "7000"}))) == []

    def test_asked_at_loopback_no_better_address_is_known(self) -> None:
        primary, replica = self.replica()
        here = replace(replica, address=Address("127.0.0.1", 6379))
        assert told(case(primary, here)) == []


def cluster_node(host: str, mine: str, lines: list[ClusterNode], **more: Any) -> Node:
    return node(host, cluster=ClusterView(mine, True, 16384, 1, tuple(lines)), **more)


def line(node_id: str, host: str, first: int, last: int, **more: Any) -> ClusterNode:
    made = ClusterNode(
        node_id, Address(host, 6379), 16379, frozenset({"master"}), "", 1, True, (SlotRange(first, last),)
    )
    return replace(made, **more)


class TestCluster:
    def nodes(self, hosts: tuple[str, str] = ("10.0.0.1", "10.0.0.2"), **more: Any) -> tuple[Node, Node]:
        lines = [line("a", hosts[0], 0, 8191), line("b", hosts[1], 8192, 16383)]
        config = {"cluster-announce-ip": "", "cluster-announce-client-ipv4": ""}
        return (
            cluster_node("10.0.0.1", "a", lines, config=config, **more),
            cluster_node("10.0.0.2", "b", lines, config=config, **more),
        )

    def test_where_engines_can_clients_are_told_apart_from_the_bus(self) -> None:
        found = repairs(case(*self.nodes(("127.0.0.1", "127.0.0.1"), engine=VALKEY)))
        assert "cluster-announce-client-ipv4 10.0.0.1" in found[0].shown

    def test_else_one_node_at_a_time_and_taken_back_where_the_bus_does_not_follow(self) -> None:
        first, second = repairs(case(*self.nodes(("127.0.0.1", "127.0.0.1"))))
        assert (first.stage, first.shown) == (
            "in-turn",
            "CONFIG SET cluster-announce-ip 10.0.0.1; CONFIG REWRITE",
        )
        assert first.settled == Listed(Address("10.0.0.1", 6379), ("10.0.0.2:6379",))
        assert first.undo[0] == ("CONFIG", "SET", "cluster-announce-ip", "")
        assert second.node == "10.0.0.2:6379"

    def test_not_where_some_node_was_not_asked(self) -> None:
        first, _ = self.nodes(("127.0.0.1", "127.0.0.1"))
        assert told(case(first)) == []

    def moved(self, keys: dict[str, int], *, both: bool = True, owner: str = "a") -> Case:
        lines = [line("a", "10.0.0.1", 0, 8191), line("b", "10.0.0.2", 8192, 16383)]
        if owner == "b":
            lines = [line("a", "10.0.0.1", 1, 8191), line("b", "10.0.0.2", 0, 0)]
        source = [replace(lines[0], migrating={0: "b"} if both else {}), lines[1]]
        target = [lines[0], replace(lines[1], importing={0: "a"})]
        counts = {name: Details(open_keys={0: n}) for name, n in keys.items()}
        return case(
            cluster_node("10.0.0.1", "a", source, details=counts.get("a")),
            cluster_node("10.0.0.2", "b", target, details=counts.get("b")),
        )

    def test_an_open_slot_stays_where_its_keys_are(self) -> None:
        source, target = repairs(self.moved({"a": 5, "b": 0}))
        assert (source.node, source.shown) == ("10.0.0.1:6379", "CLUSTER SETSLOT 0 STABLE")
        assert source.guards == ((("CLUSTER", "COUNTKEYSINSLOT", "0"), "5"),)
        assert (target.node, target.guards[0][1]) == ("10.0.0.2:6379", "0")
        assert (source.stage, target.stage) == ("slots", "settings")

    def test_what_is_left_of_it_when_only_the_first_step_was_done(self) -> None:
        (left,) = repairs(self.moved({"b": 0}, both=False))
        assert left.node == "10.0.0.2:6379"

    @pytest.mark.parametrize("keys", [{"a": 5, "b": 1}, {"a": 0, "b": 5}, {"a": 5}, {}])
    def test_keys_on_the_other_side_or_not_known(self, keys: dict[str, int]) -> None:
        assert told(self.moved(keys)) == []

    def test_owners_that_do_not_agree(self) -> None:
        assert told(self.moved({"a": 0, "b": 0}, owner="b")) == []

    def stale(self, *, flags: str = "fail", slots: tuple[SlotRange, ...] = (), known_to: int = 1) -> Case:
        gone = ClusterNode(
            "c", Address("10.0.0.3", 6379), 16379, frozenset({"slave", flags}), "a", 1, False, slots
        )
        lines = [line("a", "10.0.0.1", 0, 8191), line("b", "10.0.0.2", 8192, 16383)]
        return case(
            cluster_node("10.0.0.1", "a", [*lines, gone]),
            cluster_node("10.0.0.2", "b", [*lines, *([gone] if known_to == 2 else [])]),
        )

    def test_who_was_forgotten_by_some_is_forgotten_by_all(self) -> None:
        assert told(self.stale()) == [("node-stale", "10.0.0.1:6379", "CLUSTER FORGET c")]
        assert len(told(self.stale(flags="noaddr", known_to=2))) == 2

    @pytest.mark.parametrize(
        "more",
        [
            {"flags": "fail?"},
            {"flags": "handshake"},
            {"slots": (SlotRange(0, 1),)},
            {"known_to": 2},  # down, and perhaps back tomorrow
        ],
    )
    def test_who_may_come_back_is_not_forgotten(self, more: dict[str, Any]) -> None:
        assert told(self.stale(**more)) == []


def test_replicas_announce_alike() -> None:
    """One that announces an address, because a NAT is in between: then all do."""
    watched = SentinelEntry("shop", Address("203.0.113.1", 6379), frozenset(), 2, 0, (), (), {})
    sentinel = node("203.0.113.1", 26379, role="sentinel", monitored=(watched,))
    line = ReplicaLine(Address("203.0.113.2", 6379), "online", 0, 0)
    primary = node("203.0.113.1", config={"replica-announce-ip": ""}, replicas=(line,))
    replica = node(
        "203.0.113.2",
        role="replica",
        primary=primary.address,
        link_up=True,
        config={"replica-announce-ip": "203.0.113.2"},
    )
    found = [t for t in told(case(sentinel, primary, replica)) if t[0] == "announce-differs"]
    say = "CONFIG SET replica-announce-ip 203.0.113.1; CONFIG REWRITE"
    assert found == [("announce-differs", "203.0.113.1:6379", say)]


class TestData:
    def test_a_backlog_for_what_is_written(self) -> None:
        info = {"repl_backlog_size": str(2**20), "instantaneous_output_repl_kbps": "100"}
        config = {"repl-backlog-size": str(2**20)}
        later = Details(later={"master_repl_offset": str(100 * 1024)}, seconds=1.0)
        line = ReplicaLine(Address("10.0.0.2", 6379), "online", 0, 0)
        primary = node("10.0.0.1", info=info, config=config, details=later, replicas=(line,))
        replica = node("10.0.0.2", role="replica", primary=primary.address, config=config, link_up=True)
        found = [t for t in told(case(primary, replica)) if t[0] == "backlog-too-small"]
        say = f"CONFIG SET repl-backlog-size {2**24}; CONFIG REWRITE"
        assert [(n, s) for _, n, s in found] == [("10.0.0.1:6379", say), ("10.0.0.2:6379", say)]

    def replica(self, **settings: tuple[str, ...]) -> Case:
        primary = node("10.0.0.1")
        replica = node("10.0.0.2", role="replica", primary=primary.address, link_up=True)
        process = ProcessFacts(1, "/etc/redis.conf", settings)
        return case(primary, replace(replica, process=process))

    def test_a_replica_whose_file_names_no_primary(self) -> None:
        (found,) = told(self.replica(port=("6379",)))
        assert found == ("replication-not-persisted", "10.0.0.2:6379", "CONFIG REWRITE")

    @pytest.mark.parametrize(
        "settings",
        [
            {"replicaof": ("10.0.0.9 6379",)},  # somebody meant another one
            {"port": ("6380",)},  # it would settle that as well
        ],
    )
    def test_what_a_person_decides(self, settings: dict[str, tuple[str, ...]]) -> None:
        assert not told(self.replica(**settings))

    def test_nobody_is_bound_to_a_stranger(self) -> None:
        found = self.replica(port=("6379",))
        stranger = Case(found.checkup, found.rules, named=frozenset({Address("10.0.0.2", 6379)}))
        seen = {a: replace(v, login="none") for a, v in found.checkup.visits.items()}
        assert not repairs(replace(stranger, checkup=replace(found.checkup, visits=seen)))


class TestMachines:
    def case(self, *, is_here: bool = True, root: bool = True, login: str = "", **kernel: str) -> Case:
        server = node("127.0.0.1", config={"tcp-backlog": "511"})
        facts = host_facts(root=root, kernel={k.replace("__", "."): v for k, v in kernel.items()})
        seen = replace(checkup(server), hosts={"127.0.0.1": HostView(facts, login=login)})
        return Case(seen, frozenset(RULES), is_here=is_here)

    def test_kernel_settings_now_and_at_every_start(self) -> None:
        found = list(machine_repairs(self.case(vm__overcommit_memory="0", transparent_hugepage="always")))
        assert [r.rule for r in found] == ["overcommit", "transparent-huge-pages"]
        assert "vm.overcommit_memory=1" in found[0].script
        assert "/etc/sysctl.d/" in found[0].script
        assert "madvise" in found[1].script
        plan, by_id = steps(self.case(), found)
        assert [s.stage for s in plan] == ["host", "host"]
        assert set(by_id) == plan.ids

    def test_a_host_whose_login_was_given_and_is_root(self) -> None:
        asked = {"is_here": False, "login": "app", "vm__overcommit_memory": "0"}
        (found,) = machine_repairs(self.case(**asked))  # type: ignore[arg-type]
        assert (found.node, found.login) == ("127.0.0.1", "app")
        assert not list(machine_repairs(self.case(**asked, root=False)))  # type: ignore[arg-type]

    def test_the_backlog_that_the_servers_ask_for(self) -> None:
        (found,) = machine_repairs(self.case(net__core__somaxconn="128"))
        assert found.rule == "listen-backlog"
        assert "net.core.somaxconn=511" in found.script
        assert not list(machine_repairs(self.case(net__core__somaxconn="4096")))

    @pytest.mark.parametrize(
        "more",
        [
            {"is_here": False},  # somebody's address is no licence for a machine
            {"root": False},
            {"vm__overcommit_memory": "2"},  # somebody wanted it so
            {"vm__overcommit_memory": "1"},
            {"vm__overcommit_memory:read-only": ""},
        ],
    )
    def test_what_is_left_as_it_is(self, more: dict[str, Any]) -> None:
        assert not list(machine_repairs(self.case(**{"vm__overcommit_memory": "0", **more})))


def host_facts(*, root: bool, kernel: dict[str, str]) -> HostFacts:
    return HostFacts(
        system="debian",
        system_version="12",
        family="apt",
        architecture="x86_64",
        libc="glibc 2.36",
        systemd=True,
        root=root,
        memory=2**30,
        disk_free=2**30,
        clock=0.0,
        clock_uncertainty=0.0,
        addresses=(),
        outgoing="",
        kernel=kernel,
        listeners=(),
        commands=frozenset(),
        digests={},
        present=frozenset(),
        services={},
        enabled=frozenset(),
    )


def test_a_step_has_the_same_identifier_in_the_next_plan() -> None:
    found = case(node("10.0.0.1", config={"tcp-keepalive": "0"}))
    first, _ = steps(found, repairs(found))
    again, _ = steps(found, repairs(found))
    assert first.ids == again.ids
    assert all(isinstance(r, Repair) for r in repairs(found))
