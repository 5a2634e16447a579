"""A setting as the file spells it, and as a server shows it."""

from __future__ import annotations

import pytest

from redkeep.planning.hostfiles.config import same_value

LIMITS = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"


@pytest.mark.parametrize(
    ("key", "wanted", "running", "same"),
    [
        ("hz", "20", "20", True),
        ("hz", "20", "10", False),
        ("maxmemory", "2gb", "2147483648", True),
        ("maxmemory", "2g", "2147483648", False),
        ("appendonly", "YES", "yes", True),
        ("bind", "10.0.0.1 127.0.0.1", "10.0.0.1  127.0.0.1", True),
        ("notify-keyspace-events", "KEA", "AKE", True),
        ("notify-keyspace-events", "Exg", "gxE", True),
        ("notify-keyspace-events", "g$lshzxetdK", "AK", True),
        ("notify-keyspace-events", "Ex", "gxE", False),
        ("notify-keyspace-events", "", "AKE", False),
        ("client-output-buffer-limit", "replica 256mb 64mb 60", LIMITS, True),
        ("client-output-buffer-limit", "slave 256mb 64mb 60 normal 0 0 0", LIMITS, True),
        ("client-output-buffer-limit", "replica 512mb 64mb 60", LIMITS, False),
        ("client-output-buffer-limit", "pubsub 32mb 8mb 61", LIMITS, False),
    ],
)
def test_same_value(key: str, wanted: str, running: str, same: bool) -> None:
    assert same_value(key, wanted, running) is same
