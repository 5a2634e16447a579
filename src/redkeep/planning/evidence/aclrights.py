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
    "get": "read string fast",
    "set": "write string slow",
}

#: What tells nothing of the data and changes nothing: health checks of a load balancer may have it without a password.
_HARMLESS_WORDS = (
    "ping echo auth hello reset quit info time role command client|setname client|setinfo client|id"
)
_HARMLESS = frozenset(_HARMLESS_WORDS.split())


class AclUser(Value):
    """One line of ACL LIST. ``digests`` are SHA-256 of the passwords; ``rules`` the command rules in their order.

    ``selectors``: the command rules of each further set of rights (7.0), of which one is enough.
    """

    name: str
    on: bool
    nopass: bool
    digests: tuple[str, ...]
    rules: tuple[str, ...]
    selectors: tuple[tuple[str, ...], ...] = ()


def users(lines: Iterable[str]) -> tuple[AclUser, ...]:
    """Those of a deployment's servers are mostly the same, and read once."""
    return _users(tuple(lines))


@lru_cache(maxsize=64)
def _users(lines: tuple[str, ...]) -> tuple[AclUser, ...]:
    return tuple(_user(words) for line in lines if len(words := line.split()) > 1 and words[0] == "user")


def _user(words: list[str]) -> AclUser:
    sets: list[list[str]] = [[]]
    inside = False
    for word in words[2:]:
        if word.startswith("("):
            sets.append([])
            inside = True
        (sets[-1] if inside else sets[0]).append(word.strip("()") if inside else word)
        inside = inside and not word.endswith(")")
    rules = sets[0]
    return AclUser(
        words[1],
        "on" in rules,
        "nopass" in rules,
        tuple(w[1:] for w in rules if w.startswith("#")),
        _commands(rules),
        tuple(map(_commands, sets[1:])),
    )


def _commands(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(w for w in words if w[:1] in ("+", "-") or w in ("allcommands", "nocommands"))


def harmless(user: AclUser) -> bool:
    """Whether all that the user may run tells nothing of the data and changes nothing."""
    return all(_granted(rules) <= _HARMLESS for rules in (user.rules, *user.selectors))


def _granted(rules: Iterable[str]) -> set[str]:
    """What was given and not taken again, as it is written: commands, subcommands, categories."""
    given: set[str] = set()
    for rule in rules:
        if rule in ("nocommands", "-@all"):
            given.clear()
        elif rule == "allcommands":
            given.add("@all")
        else:
            (given.add if rule[0] == "+" else given.discard)(rule[1:].lower())
    return given


@lru_cache(maxsize=1024)
def permitted(user: AclUser, command: str) -> bool:
    """Whether one of the sets of rules, in their order, leaves the user the whole command. A subcommand does not count."""
    return any(_permits(rules, command) for rules in (user.rules, *user.selectors))


def _permits(rules: Iterable[str], command: str) -> bool:
    own = {f"@{category}" for category in _CATEGORIES.get(command, "").split()} | {"@all", command}
    if command == "replicaof":
        own.add("slaveof")
    allowed = False
    for rule in rules:
        if rule in ("allcommands", "nocommands"):
            allowed = rule == "allcommands"
        elif rule[1:].lower() in own:
            allowed = rule[0] == "+"
    return allowed
