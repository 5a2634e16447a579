"""Which versions still get security fixes, and which known remote flaws a version has.

Dates are those of endoflife.date and of the projects' own pages ("Security policy" of Redis, "Releases" of Valkey), read
in November 2026; flaws are those of the release notes and CVE records of both. What is not in here is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from redkeep.model.values import Value

if TYPE_CHECKING:
    from redkeep.model.checkup import Package
    from redkeep.model.engine import Engine, Flavor

#: major, minor
Line = tuple[int, int]

#: The day after which a line gets no fixes; ``None``: none is known yet.
_ENDS: dict[Flavor, dict[Line, date | None]] = {
    # Redis keeps the three newest lines, and what its security policy lists beside: 6.2, 7.2 and 7.4 had fixes in
    # August 2026, 8.0 had none after February.
    "redis": {
        (5, 0): date(2022, 4, 27),
        (6, 0): date(2022, 5, 31),
        (6, 2): None,
        (7, 0): date(2024, 7, 29),
        (7, 2): None,
        (7, 4): None,
        (8, 0): date(2026, 2, 11),
        (8, 2): None,
    },
    # Valkey: three years of maintenance from a line's first release; the last line of a major version five of
    # security fixes.
    "valkey": {
        (7, 2): date(2029, 4, 16),
        (8, 0): date(2027, 9, 15),
        (8, 1): date(2030, 3, 31),
        (9, 0): date(2028, 10, 21),
    },
}


class Flaw(Value):
    """``fixed``: by line the patch release that mends it; lines after the last one had it mended from their start,
    lines before and in between never. ``tls``: only servers with a TLS port have it."""

    id: str
    what: str
    fixed: Mapping[Flavor, Mapping[Line, int]]
    tls: bool = False

    def fix(self, engine: Engine) -> str | None:
        """The release that mends it, ``""`` where its line has none, ``None`` where it is not concerned."""
        lines = self.fixed.get(engine.flavor)
        line = (engine.version.major, engine.version.minor)
        if lines is None or line > max(lines):
            return None
        patch = lines.get(line)
        if patch is None:
            return ""
        return None if engine.version.patch >= patch else f"{line[0]}.{line[1]}.{patch}"


FLAWS = (
    # Advisory and releases of October 2025; Redis 8.4 and Valkey 9.0 came after it.
    Flaw(
        "CVE-2025-49844",
        "whoever may run a script runs code on the host",
        {
            "redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
            "valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
        },
    ),
    # CVE record of CISA, August 2026: without a password, where TLS is on.
    Flaw(
        "CVE-2026-81934",
        "a stranger may run code on the host through the TLS port",
        {
            "redis": {
                (6, 2): 24,
                (7, 2): 16,
                (7, 4): 11,
                (8, 2): 9,
                (8, 4): 6,
                (8, 6): 6,
                (8, 8): 2,
                (8, 10): 1,
            }
        },
        tls=True,
    ),
    # Release notes of July 2026. Which 7.2 release has it they do not say: 0, not judged.
    Flaw(
        "CVE-2026-56684",
        "a client that may kill others runs code on the host through the TLS port",
        {"valkey": {(7, 2): 0, (8, 0): 10, (8, 1): 9, (9, 0): 5, (9, 1): 1}},
        tls=True,
    ),
)

#: Until when distributions send fixes to everybody (long term support of volunteers included); their own schedules.
_DISTRIBUTIONS: dict[tuple[str, str], date] = {
    ("debian", "9"): date(2022, 6, 30),
    ("debian", "10"): date(2024, 6, 30),
    ("debian", "11"): date(2026, 8, 31),
    ("debian", "12"): date(2028, 6, 30),
    ("debian", "13"): date(2030, 6, 30),
    ("ubuntu", "16.04"): date(2021, 4, 30),
    ("ubuntu", "18.04"): date(2023, 5, 31),
    ("ubuntu", "20.04"): date(2025, 5, 31),
    ("ubuntu", "22.04"): date(2027, 4, 30),
    ("ubuntu", "24.04"): date(2029, 5, 31),
    ("centos", "6"): date(2020, 11, 30),
    ("centos", "7"): date(2024, 6, 30),
    ("centos", "8"): date(2021, 12, 31),
    ("rhel", "7"): date(2024, 6, 30),
    ("rhel", "8"): date(2029, 5, 31),
    ("rhel", "9"): date(2032, 5, 31),
    ("rocky", "8"): date(2029, 5, 31),
    ("rocky", "9"): date(2032, 5, 31),
    ("almalinux", "8"): date(2029, 5, 31),
    ("almalinux", "9"): date(2032, 5, 31),
}

#: Packages of those who make the servers or repackage their releases: the version is what it says.
_UPSTREAM = re.compile(r"redis\.(?:com|io)|redis ?labs|remi|percona|bitnami", re.IGNORECASE)


def end_of_fixes(engine: Engine) -> date | None:
    """The day, past or to come, where it is known. What is older than the table ended before its first line."""
    ends = _ENDS[engine.flavor]
    line = (engine.version.major, engine.version.minor)
    return ends[min(ends)] if line < min(ends) else ends.get(line)


def end_of_distribution(system: str, version: str) -> date | None:
    """By the ID and VERSION_ID of os-release; ``None`` where nothing is known."""
    return _DISTRIBUTIONS.get((system, version)) or _DISTRIBUTIONS.get((system, version.partition(".")[0]))


def of_distribution(package: Package) -> bool:
    """Whether a distribution made it, which mends flaws without a new number."""
    return not _UPSTREAM.search(f"{package.vendor} {package.version}")
