"""What servers say: real replies of Redis 7.0 and Valkey 9.1, forms that others document, and hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.slots import SlotRange
from redkeep.model.topology import Address
from redkeep.wire import replies

ONE = "d49db50c9a84e556c7cb22755d43ec06631d86f7"
TWO = "a310e102d17911931747cbf34b89652f3c09138b"
THREE = "1c170edc05677a4d767a9a2645d0a215008f2789"
GONE = "ff8dd5dae30cecb97695f0521e21e2bad7436463"

REDIS_7 = f"""\
{TWO} 127.0.0.1:17101@27101,n1.example.net master - 0 1795544015075 2 connected 5461-10922
{ONE} 127.0.0.1:17100@27100,n0.example.net myself,master - 0 1795544014000 1 connected 0-5460 [1->-{TWO}]
{GONE} :0@0,n3.example.net slave,fail,noaddr {ONE} 1795544015880 1795544015377 1 disconnected
{THREE} 127.0.0.1:17102@27102,n2.example.net master - 0 1795544015000 3 connected 10923-16383

"""

INFO_OK = (
    "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_known_nodes:4\r\ncluster_current_epoch:4\r\n"
)


@pytest.mark.parametrize(
    ("where", "address", "bus", "hostname"),
    [
        ("127.0.0.1:30004@31004", ("127.0.0.1", 30004), 31004, ""),
        ("127.0.0.1:17101@27101,n1.example.net", ("127.0.0.1", 17101), 27101, "n1.example.net"),
        ("127.0.0.1:7000@17000,,tls-port=0,shard-id=69bc", ("127.0.0.1", 7000), 17000, ""),
        (
            "10.0.0.1:7000@17000,a.b,tls-port=0,shard-id=69bc,client-ipv4=198.51.100.7",
            ("10.0.0.1", 7000),
            17000,
            "a.b",
        ),
        ("10.0.0.1:7000@17000,client-ipv4=198.51.100.7", ("10.0.0.1", 7000), 17000, ""),
        ("2001:db8::7:6379@16379", ("2001:db8::7", 6379), 16379, ""),
        ("::1:6379@16379,host", ("::1", 6379), 16379, "host"),
        (":0@0", ("", 0), 0, ""),
        (":17100@27100,n0.example.net", ("", 17100), 27100, "n0.example.net"),
        (":0", ("", 0), 0, ""),
    ],
)
def test_where_a_node_is(where: str, address: tuple[str, int], bus: int, hostname: str) -> None:
    node = replies.cluster_node(f"{ONE} {where} master - 0 0 1 connected")
    assert (node.address, node.bus_port, node.hostname) == (Address(*address), bus, hostname)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f"{ONE} h:1@2 handshake - 0 0 0 disconnected",
            {"flags": {"handshake"}, "link_up": False, "primary_id": ""},
        ),
        (f"{ONE} h:1@2 noflags - 0 0 0 connected", {"flags": {"noflags"}, "is_primary": False}),
        (
            f"{ONE} h:1@2 slave,fail? {TWO} 0 0 7 connected",
            {"primary_id": TWO, "config_epoch": 7, "is_primary": False},
        ),
        (
            f"{ONE} h:1@2 master - 0 0 1 connected 1 3-5",
            {"slots": (SlotRange(1, 1), SlotRange(3, 5)), "slot_count": 4},
        ),
        (
            f"{ONE} h:1@2 myself,master - 0 0 1 connected 0-9 [1->-{TWO}]",
            {"migrating": {1: TWO}, "importing": {}},
        ),
        (
            f"{ONE} h:1@2 myself,master - 0 0 1 connected [1-<-{TWO}] [2-<-{TWO}]",
            {"importing": {1: TWO, 2: TWO}},
        ),
    ],
)
def test_what_a_node_is(line: str, expected: dict[str, Any]) -> None:
    node = replies.cluster_node(line)
    for name, value in expected.items():
        assert getattr(node, name) == value, name


def test_a_whole_view() -> None:
    view = replies.cluster_view(REDIS_7.encode(), INFO_OK.encode())
    assert (view.my_id, view.state_ok, view.slots_assigned, view.current_epoch) == (ONE, True, 16384, 4)
    assert [n.id for n in view.nodes if n.slots] == [TWO, ONE, THREE]
    assert view.me.migrating == {1: TWO}
    gone = view.by_id(GONE)
    assert gone is not None
    assert gone.flags >= {"noaddr", "fail"}
    assert view.by_id("nobody") is None


def test_a_view_without_oneself_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="itself"):
        replies.cluster_view(f"{ONE} h:1@2 master - 0 0 1 connected", INFO_OK)


def test_info_is_flat_text() -> None:
    found = replies.info(
        b"# Server\r\nredis_version:7.0.15\r\nos:Linux 6.1\r\nexecutable:/usr/bin/redis-server\r\n\r\n"
        b"# Replication\r\nrole:slave\r\nmaster_host:2001:db8::1\r\nslave_name:\xff\r\nbroken line\r\n"
    )
    assert found == {
        "redis_version": "7.0.15",
        "os": "Linux 6.1",
        "executable": "/usr/bin/redis-server",
        "role": "slave",
        "master_host": "2001:db8::1",
        "slave_name": "\\xff",
    }


def test_replicas_of_a_primary() -> None:
    lines = replies.replica_lines(
        {
            "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1204,lag=1",
            "slave1": "ip=2001:db8::2,port=6380,state=wait_bgsave,offset=0,lag=0,type=rdb-channel",
            "slave_repl_offset": "12",
            "slaves": "x",
        }
    )
    assert [(str(line.address), line.state, line.offset, line.lag) for line in lines] == [
        ("10.0.0.2:6379", "online", 1204, 1),
        ("[2001:db8::2]:6380", "wait_bgsave", 0, 0),
    ]


def test_pairs() -> None:
    assert replies.flat_map([b"maxmemory", b"0", b"save", b""]) == {"maxmemory": "0", "save": ""}
    assert replies.flat_map({b"a": b"1"}) == {"a": "1"}
    for wrong in ([b"odd"], b"ab", "ab", 7, None):
        with pytest.raises(ValueError, match="pairs"):
            replies.flat_map(wrong)


def test_a_primary_as_a_sentinel_sees_it() -> None:
    entry = replies.flat_map(
        [
            *(
                b"name",
                b"shop",
                b"ip",
                b"10.0.0.1",
                b"port",
                b"6379",
                b"flags",
                b"master,s_down",
                b"quorum",
                b"2",
            ),
            *(b"config-epoch", b"3", b"down-after-milliseconds", b"5000", b"failover-timeout", b"15000"),
        ]
    )
    other = [b"ip", b"10.0.0.2", b"port", b"6379", b"runid", b"", b"flags", b"slave"]
    found = replies.sentinel_entry(
        entry, [other], [[b"ip", b"h", b"port", b"26379"], [b"name", b"no-address"]]
    )
    assert (found.name, found.address, found.quorum, found.config_epoch) == (
        "shop",
        Address("10.0.0.1", 6379),
        2,
        3,
    )
    assert found.flags == {"master", "s_down"}
    assert found.replicas == (Address("10.0.0.2", 6379),)
    assert found.sentinels == (Address("h", 26379),)
    assert found.settings["down-after-milliseconds"] == "5000"


@pytest.mark.parametrize(
    "slots",
    ["0-99999999999", "16384", "-1", "5-3", "a", "1-2-3", "--", "9" * 5000],
)
def test_slots_that_are_none(slots: str) -> None:
    """A range of a thousand million slots, walked through, would be as good as a hang."""
    with pytest.raises(ValueError):  # noqa: PT011 - int() words it too
        replies.cluster_node(f"{ONE} h:1@2 master - 0 0 1 connected {slots}")


# What a hostile server may send: ValueError (or a KeyError for a missing name), or a value; never anything else.

WORDS = st.sampled_from(
    [
        ONE,
        "h:1@2",
        "::1:1@2,h",
        ":0@0",
        "master",
        "myself,slave",
        "-",
        "0",
        "1",
        "connected",
        "0-5460",
        "[1->-a]",
        "",
    ]
)
LINES = st.one_of(st.text(), st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=12).map(" ".join))
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(), st.binary(), LINES.map(lambda t: t.encode(errors="replace"))),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@given(LINES)
def test_hostile_lines(line: str) -> None:
    try:
        node = replies.cluster_node(line)
    except ValueError:
        return
    assert node.slot_count <= 16384 * len(line)


@given(VALUES, VALUES)
def test_hostile_views(nodes: Any, info: Any) -> None:
    try:
        view = replies.cluster_view(nodes, info)
    except ValueError:
        return
    assert view.me.id == view.my_id


@given(st.dictionaries(st.sampled_from(["slave0", "slave1", "role"]), LINES))
def test_hostile_replicas(info: dict[str, str]) -> None:
    try:
        replies.replica_lines(info)
    except (ValueError, KeyError):
        return


@given(VALUES, VALUES, VALUES)
def test_hostile_sentinels(entry: Any, replicas: Any, sentinels: Any) -> None:
    try:
        replies.sentinel_entry(replies.flat_map(entry), replicas, sentinels)
    except (ValueError, KeyError):
        return
