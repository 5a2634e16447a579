"""Settings as values and as text, and when a running value is the one that is wanted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.engine import Engine, Version
from redkeep.model.spec import Spec
from redkeep.planning.hostfiles.config import (
    HASTE,
    SECRET_SETTINGS,
    Wire,
    haste,
    same_value,
    sentinel_file,
    sentinel_settings,
    server_file,
    server_settings,
)
from redkeep.planning.hostfiles.layout import Layout

LAYOUT = Layout("/var/lib/redkeep/main", "main")
PATHS = LAYOUT.node(6379, sentinel=False)
REDIS_6 = Engine("redis", Version(6, 2, 14))
REDIS = Engine("redis", Version(7, 0, 15))
VALKEY = Engine("valkey", Version(9, 1, 2))
PLAIN = Wire(6379, ("10.0.0.1", "127.0.0.1"), "10.0.0.1")
TLS = Wire(6379, ("10.0.0.1", "127.0.0.1"), "203.0.113.1", tls=True)
BOTH = Wire(6379, ("10.0.0.1",), "10.0.0.1", "203.0.113.1")
BOTH_6 = Wire(6379, ("fd00::1",), "fd00::1", "2001:db8::1")


def spec_of(mode: str = "standalone", **keys: Any) -> Spec:
    hosts = [{"name": f"h{i}", "private": f"10.0.0.{i}"} for i in range(1, 4)]
    return Spec.model_validate({"mode": mode, "hosts": hosts, **keys})


def settings_of(
    mode: str = "standalone", wire: Wire = PLAIN, engine: Engine = REDIS, **keys: Any
) -> dict[str, str]:
    return server_settings(spec_of(mode, **keys), wire, engine, LAYOUT, PATHS, replication_password="r pw")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (settings_of(), {"port": "6379", "bind": "10.0.0.1 127.0.0.1", "replica-announce-ip": "10.0.0.1"}),
        (
            settings_of(),
            {
                "maxmemory": "0",
                "maxmemory-policy": "noeviction",
                "protected-mode": "yes",
                "aclfile": PATHS.acl,
            },
        ),
        (
            settings_of(),
            {"masteruser": "replication", "masterauth": "r pw", "cluster-enabled": None, "tls-port": None},
        ),
        (settings_of(persistence="rdb"), {"save": "3600 1 300 100 60 10000", "appendonly": "no"}),
        (settings_of(persistence="none"), {"save": "", "appendonly": "no"}),
        (
            settings_of(persistence="aof", appendfsync="always"),
            {"save": "", "appendonly": "yes", "appendfsync": "always"},
        ),
        (settings_of(persistence="rdb+aof"), {"save": "3600 1 300 100 60 10000", "appendonly": "yes"}),
        (
            settings_of(maxmemory="2GiB", eviction="allkeys-lru"),
            {"maxmemory": str(2 * 1024**3), "maxmemory-policy": "allkeys-lru"},
        ),
        (settings_of(auth="none", allow_from=["10.0.0.0/8"]), {"protected-mode": "no"}),
        (settings_of(replicas=1), {"repl-diskless-sync-delay": "0"}),
        (settings_of(replicas=2), {"repl-diskless-sync-delay": "1"}),
        (settings_of(settings={"hz": 50, "save": "60 1"}), {"hz": "50", "save": "60 1"}),
        (
            settings_of(wire=TLS),
            {"port": "0", "tls-port": "6379", "tls-replication": "yes", "tls-auth-clients": "no"},
        ),
        (
            settings_of(wire=TLS),
            {"tls-cert-file": LAYOUT.certificate, "tls-cluster": None, "replica-announce-ip": "203.0.113.1"},
        ),
        (settings_of("cluster", TLS), {"tls-cluster": "yes", "cluster-announce-ip": "203.0.113.1"}),
        (settings_of("cluster", failover="fast"), {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}),
        (
            settings_of("cluster", failover=700),
            {"cluster-node-timeout": "700", "cluster-require-full-coverage": "no"},
        ),
        (
            settings_of("cluster", BOTH, VALKEY),
            {"cluster-announce-ip": "10.0.0.1", "cluster-announce-client-ipv4": "203.0.113.1"},
        ),
        (
            settings_of("cluster", BOTH_6, VALKEY),
            {"cluster-announce-client-ipv6": "2001:db8::1", "cluster-announce-client-ipv4": None},
        ),
        (settings_of("cluster", BOTH, REDIS), {"cluster-announce-client-ipv4": None}),
        (settings_of("standalone", BOTH, VALKEY), {"cluster-announce-client-ipv4": None}),
    ],
)
def test_server_settings(found: dict[str, str], expected: dict[str, str | None]) -> None:
    assert {name: found.get(name) for name in expected} == expected


def test_the_file_of_a_server() -> None:
    text = server_file(
        {"save": "900 1 60 10", "bind": "10.0.0.1 127.0.0.1", "masterauth": 'a "b" # c\xe9', "dir": "/x y"}
    )
    assert text.splitlines()[1:] == [
        'save ""',
        "save 900 1",
        "save 60 10",
        "bind 10.0.0.1 127.0.0.1",
        r'masterauth "a \"b\" # c\xc3\xa9"',
        'dir "/x y"',
    ]
    assert text.startswith("# ")
    assert server_file({"save": ""}).splitlines()[1:] == ['save ""']


def test_no_secret_is_a_setting_that_is_shown() -> None:
    assert {k for k, v in settings_of(wire=TLS).items() if v == "r pw"} <= SECRET_SETTINGS


def seed(engine: Engine = REDIS, wire: Wire = PLAIN, **keys: Any) -> list[str]:
    paths = LAYOUT.node(26379, sentinel=True)
    return sentinel_file(
        spec_of("sentinel", **keys),
        wire,
        LAYOUT,
        paths,
        primary=("10.0.0.1", 6379),
        server_password='s "pw"',
        peer_password="peer",
        engine=engine,
    ).splitlines()


def test_the_seed_of_a_sentinel() -> None:
    lines = seed(failover="fast")
    assert "sentinel monitor main 10.0.0.1 6379 2" in lines
    assert "sentinel down-after-milliseconds main 1000" in lines
    assert r'sentinel auth-pass main "s \"pw\""' in lines
    assert 'sentinel sentinel-pass "peer"' in lines
    assert "sentinel announce-ip 10.0.0.1" in lines
    assert not any(line.startswith("sentinel quorum") for line in lines)
    monitored = lines.index("sentinel monitor main 10.0.0.1 6379 2")
    assert all(i > monitored for i, line in enumerate(lines) if " main " in line and i != monitored)


def test_the_seed_of_an_old_sentinel_names_no_users() -> None:
    lines = seed(Engine("redis", Version(6, 0, 16)))
    assert not any(line.startswith(("aclfile", "sentinel sentinel-")) for line in lines)


def test_the_seed_of_an_encrypted_sentinel() -> None:
    lines = seed(wire=TLS)
    assert 'port "0"' in lines
    assert f'tls-port "{TLS.port}"' in lines
    assert "tls-replication yes" in lines


@pytest.mark.parametrize(
    ("failover", "detection", "timeout"),
    [
        ("fast", "1000", "10000"),
        ("balanced", "5000", "15000"),
        ("patient", "30000", "90000"),
        (4000, "4000", "12000"),
    ],
)
def test_sentinel_settings(failover: str | int, detection: str, timeout: str) -> None:
    found = sentinel_settings(spec_of("sentinel", failover=failover, sentinels=3))
    assert found["down-after-milliseconds"] == detection
    assert found["failover-timeout"] == timeout
    assert found["quorum"] == "2"


@pytest.mark.parametrize(
    ("key", "wanted", "running", "same"),
    [
        ("maxmemory", "2147483648", "2147483648", True),
        ("proto-max-bulk-len", "512mb", "536870912", True),
        ("proto-max-bulk-len", "512m", "536870912", False),
        ("maxmemory", "2gb", "2147483647", False),
        ("appendonly", "yes", "YES", True),
        ("save", "", "", True),
        ("save", "3600 1", "3600  1", True),
        ("save", "", "3600 1", False),
        ("bind", "10.0.0.1 127.0.0.1", "10.0.0.1  127.0.0.1", True),
        ("bind", "10.0.0.1 127.0.0.1", "127.0.0.1 10.0.0.1", False),
        ("notify-keyspace-events", "KEA", "AKE", True),
        ("notify-keyspace-events", "Kg$", "$gK", True),
        ("notify-keyspace-events", "Ex", "xK", False),
        (
            "client-output-buffer-limit",
            "replica 256mb 64mb 60",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 1 1 1",
            True,
        ),
        ("client-output-buffer-limit", "normal 1 0 0", "normal 0 0 0 slave 268435456 67108864 60", False),
        ("hz", "10", "100", False),
        ("dir", "/a", "/b", False),
    ],
)
def test_same_value(key: str, wanted: str, running: str, same: bool) -> None:
    assert same_value(key, wanted, running) is same


@given(
    st.sampled_from(["save", "bind", "hz", "notify-keyspace-events", "client-output-buffer-limit"]),
    st.text(),
    st.text(),
)
def test_same_value_never_fails(key: str, wanted: str, running: str) -> None:
    assert same_value(key, wanted, wanted)
    assert same_value(key, wanted, running) in (True, False)


def test_haste() -> None:
    wanted = settings_of("cluster", replicas=2)
    assert haste(wanted) == {"cluster-node-timeout": "500", "repl-diskless-sync-delay": "0"}
    assert haste(settings_of("cluster", failover=500)) == {}
    assert haste({}) == {}
    assert set(haste(wanted)) <= set(HASTE)
