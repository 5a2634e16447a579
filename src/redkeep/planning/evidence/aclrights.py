"""What a user may run, read from ACL LIST."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from redkeep.model.values import Value

#: The categories of the commands that rules ask about; all of them, with ``all``.
_CATEGORIES = {
    "config": "admin slow dangerous",
    "module": "admin slow dangerous",
    "debug": "admin slow dangerous",
    "replicaof": "admin slow dangerous",
    "shutdown": "admin slow dangerous",
    "flushall": "keyspace write slow dangerous",
    "psync": "admin slow dangerous",
    "replconf": "admin slow dangerous",
    "ping": "connection fast",
}


class AclUser(Value):
    """One line of ACL LIST. ``digests`` are SHA-256 of the passwords; ``rules`` the command rules in their order."""

    name: str
    on: bool
    nopass: bool
    digests: tuple[str, ...]
    rules: tuple[str, ...]


def users(lines: Iterable[str]) -> tuple[AclUser, ...]:
    """Those of a deployment's servers are mostly the same, and read once."""
    return _users(tuple(lines))


@lru_cache(maxsize=64)
def _users(lines: tuple[str, ...]) -> tuple[AclUser, ...]:
    return tuple(_user(words) for line in lines if len(words := line.split()) > 1 and words[0] == "user")


def _user(words: list[str]) -> AclUser:
    rules = words[2:]
    return AclUser(
        words[1],
        "on" in rules,
        "nopass" in rules,
        tuple(w[1:] for w in rules if w.startswith("#")),
        tuple(w for w in rules if w[0] in "+-" or w in ("allcommands", "nocommands")),
    )


@lru_cache(maxsize=1024)
def permitted(user: AclUser, command: str) -> bool:
    """Whether the rules, in their order, leave the user the whole command. A subcommand alone does not count."""
    own = {f"@{category}" for category in _CATEGORIES.get(command, "").split()} | {"@all", command}
    if command == "replicaof":
        own.add("slaveof")
    allowed = False
    for rule in user.rules:
        if rule in ("allcommands", "nocommands"):
            allowed = rule == "allcommands"
        elif rule[1:].lower() in own:
            allowed = rule[0] == "+"
    return allowed
