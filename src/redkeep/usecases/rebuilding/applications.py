"""What each application must change for the new Redis, and what its libraries do not support.

Sources: spring-boot issue 22702 (username, 2.4), jedis pull request 2077 (users, 3.3), lettuce issue 1202 (users, 6.0);
Spring Boot 3.0's migration guide (spring.redis became spring.data.redis).
"""

from __future__ import annotations

import re
from typing import Any

from redkeep.usecases.init import one_line

#: The first versions that can send a user's name besides a password.
_USERS_SINCE = {"spring-boot": (2, 4), "jedis": (3, 3), "lettuce-core": (6, 0)}
_REDIS = re.compile(r"redis|valkey|jedis|lettuce", re.IGNORECASE)
_SETTINGS_OF = {
    "spring-boot": "spring-boot",
    "jedis": "jedis",
    "lettuce-core": "lettuce",
    "ioredis": "ioredis",
}


def applications(found: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    """One for each application with settings of Redis or one of its clients: where, what to change, what it cannot."""
    told = []
    for application in found["inspect"]["applications"]:
        libraries = found["libraries"].get(application["path"], {})
        keys = sorted(
            {v["key"] for part in application["settings"] for v in part["values"] if _REDIS.search(v["key"])}
        )
        if not keys and not libraries:
            continue
        told.append(
            {
                "path": application["path"],
                "libraries": libraries,
                "settings": keys[:100],
                "changes": _changes(keys, libraries, mode),
            }
        )
    return told[:200]


def _changes(keys: list[str], libraries: dict[str, str], mode: str) -> list[str]:
    changes = [f"settings of Redis: {', '.join(map(one_line, keys[:12]))}"] if keys else []
    changes.append("host and port: as redkeep url prints them; password: the new one, and none of the old")
    versions = {name: _version(text) for name, text in libraries.items()}
    old = [
        f"{name} {one_line(libraries[name])}"
        for name, since in _USERS_SINCE.items()
        if name in versions and versions[name] < since
    ]
    if old:
        changes.append(
            f"{', '.join(old)} cannot send a user's name (first in Spring Boot 2.4, Jedis 3.3, Lettuce 6): set the password "
            "alone; it is that of the user default, which redkeep gives to applications"
        )
    if versions.get("spring-boot", (0, 0)) >= (3, 0) and any(k.startswith("spring.redis.") for k in keys):
        changes.append("Spring Boot 3 and later read spring.data.redis, not spring.redis")
    changes.append(_tls(versions))
    if mode != "standalone" and not any(re.search(r"cluster|sentinel", key, re.IGNORECASE) for key in keys):
        changes.append(f"no setting of it names a {mode}: give it the addresses of {_SEVERAL[mode]}")
    names = sorted({_named(name, versions) for name in libraries if name in _SETTINGS_OF})
    if names:
        changes.append(f"ready settings: redkeep client {' or '.join(names)}")
    return changes


_SEVERAL = {"sentinel": "the Sentinels and the primary's name", "cluster": "several nodes of the Cluster"}


def _named(library: str, versions: dict[str, tuple[int, int]]) -> str:
    old = library == "spring-boot" and (0, 0) < versions[library] < (3, 0)
    return "spring-boot-2.1" if old else _SETTINGS_OF[library]


def _tls(versions: dict[str, tuple[int, int]]) -> str:
    if 0 < versions.get("spring-boot", (0, 0))[0] < 2:
        return (
            "TLS: Spring Boot 1 has no setting for it; keep the application in the servers' own network "
            "(clients: private)"
        )
    return "TLS, where redkeep plan says that it is on: rediss:// or the library's ssl setting, and the CA that redkeep made"


def _version(text: str) -> tuple[int, int]:
    match = re.search(r"(\d{1,4})(?:\.(\d{1,4}))?", text)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
