"""Where running settings, the file and the deployment file differ; spellings of one value are no difference."""

from __future__ import annotations

from collections.abc import Mapping

from redkeep.model.checkup import Node, ProcessFacts
from redkeep.model.engine import Engine, Version
from redkeep.model.topology import Address, NodeView
from redkeep.planning.evidence.drift import differences


def names(
    running: dict[str, str],
    file: Mapping[str, tuple[str, ...]],
    wanted: dict[str, str] | None = None,
    options: frozenset[str] = frozenset(),
) -> list[str]:
    view = NodeView("primary", Engine("redis", Version(7, 0)), "r", {}, running)
    process = ProcessFacts(1, "/etc/redis.conf", file, options=options)
    node = Node("a:1", Address("127.0.0.1", 1), "127.0.0.1", view, process=process, wanted=wanted)
    return [d.said("/etc/redis.conf") for d in differences(node)]


def test_spellings_of_one_value() -> None:
    running = {
        "maxmemory": "1073741824",
        "save": "3600 1 300 100",
        "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        "notify-keyspace-events": "AKE",
        "bind": "127.0.0.1 -::1",
        "appendonly": "yes",
        "dir": "/var/lib/redis",
    }
    file: dict[str, tuple[str, ...]] = {
        "maxmemory": ("2gb", "1gb"),
        "save": ("900 1", "", "3600 1", "300 100"),
        "client-output-buffer-limit": ("replica 256mb 64mb 60", "pubsub 32mb 8mb 60"),
        "notify-keyspace-events": ("KEA",),
        "bind": ("127.0.0.1  -::1",),
        "appendonly": ("YES",),
        "dir": ("./",),
        "user": ("default on nopass",),
        "unknown-here": ("1",),
    }
    assert names(running, file) == []


def test_what_differs_and_where() -> None:
    found = names(
        {"timeout": "5", "hz": "10"}, {"timeout": ("0",), "hz": ("10",)}, {"timeout": "0", "hz": "20"}
    )
    assert found == [
        "hz is 10 (CONFIG GET), 20 by the deployment file",
        "timeout is 5 (CONFIG GET), 0 in /etc/redis.conf, 0 by the deployment file",
    ]


def test_the_command_line_wins_over_the_file() -> None:
    running, file = {"supervised": "systemd", "timeout": "5"}, {"supervised": ("no",), "timeout": ("0",)}
    assert names(running, file, options=frozenset({"timeout"})) == []


def test_secrets_are_not_shown() -> None:
    found = names({"masterauth": "one"}, {"masterauth": ("two",)}, {"masterauth": "two"})
    assert found == ["masterauth is another one than in its file and in the deployment file"]
