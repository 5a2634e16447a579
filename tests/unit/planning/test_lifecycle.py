"""Which versions have an end and which flaws, by the tables."""

from __future__ import annotations

from datetime import date

import pytest

from redkeep.model.checkup import Package
from redkeep.model.engine import Engine, Flavor, Version
from redkeep.planning.evidence.lifecycle import FLAWS, end_of_distribution, end_of_fixes, of_distribution


def engine(flavor: Flavor, text: str) -> Engine:
    return Engine(flavor, Version.parse(text))


@pytest.mark.parametrize(
    ("flavor", "version", "expected"),
    [
        ("redis", "3.2.12", date(2022, 4, 27)),
        ("redis", "7.0.15", date(2024, 7, 29)),
        ("redis", "7.2.16", None),
        ("redis", "9.0.0", None),
        ("valkey", "8.0.6", date(2027, 9, 15)),
        ("valkey", "9.1.2", None),
    ],
)
def test_end_of_fixes(flavor: Flavor, version: str, expected: date | None) -> None:
    assert end_of_fixes(engine(flavor, version)) == expected


@pytest.mark.parametrize(
    ("flavor", "version", "fix"),
    [
        ("redis", "5.0.14", ""),
        ("redis", "6.2.19", "6.2.20"),
        ("redis", "7.0.15", ""),
        ("redis", "7.2.10", "7.2.11"),
        ("redis", "7.2.11", None),
        ("redis", "7.4.5", "7.4.6"),
        ("redis", "8.2.1", "8.2.2"),
        ("redis", "8.4.0", None),
        ("valkey", "7.2.10", "7.2.11"),
        ("valkey", "8.0.5", "8.0.6"),
        ("valkey", "8.1.4", None),
        ("valkey", "9.0.0", None),
    ],
)
def test_the_flaw_in_lua(flavor: Flavor, version: str, fix: str | None) -> None:
    lua = next(f for f in FLAWS if f.id == "CVE-2025-49844")
    assert lua.fix(engine(flavor, version)) == fix


def test_a_flaw_of_one_flavor_is_not_the_other_ones() -> None:
    tls = next(f for f in FLAWS if f.id == "CVE-2026-81934")
    assert tls.fix(engine("redis", "8.0.6")) == ""
    assert tls.fix(engine("valkey", "8.0.6")) is None


def test_distributions() -> None:
    assert end_of_distribution("debian", "11") == date(2026, 8, 31)
    assert end_of_distribution("rocky", "9.4") == date(2032, 5, 31)
    assert end_of_distribution("arch", "") is None
    assert of_distribution(Package("redis-server", "5:7.0.15-1~deb12u10", "Chris Lamb <lamby@debian.org>"))
    assert not of_distribution(Package("redis", "7.2.4-1.el9.remi", "Remi's RPM repository"))
    assert not of_distribution(Package("redis-server", "6:7.4.6-1rl1", "Redis Packages <redis@redis.com>"))
