"""What ACL LIST says that a user may do."""

from __future__ import annotations

import pytest

from redkeep.planning.evidence.aclrights import harmless, permitted, users


@pytest.mark.parametrize(
    ("rules", "command", "may"),
    [
        ("+@all", "config", True),
        ("allcommands", "flushall", True),
        ("+@all -@dangerous", "flushall", False),
        ("+@all -@admin", "flushall", True),
        ("+@all -@admin", "config", False),
        ("-@dangerous +@all", "config", True),
        ("+@all -config", "config", False),
        ("+@all -slaveof", "replicaof", False),
        ("+@all -@dangerous +config|get", "config", False),
        ("+@all nocommands", "shutdown", False),
        ("+@read +@write", "flushall", True),
        ("+get +set", "debug", False),
        ("", "module", False),
        ("-@all +get (~x* +@all)", "config", True),
        ("+@all -config (~x* -@all +get) (~y* +set)", "config", False),
    ],
)
def test_permitted(rules: str, command: str, may: bool) -> None:
    (user,) = users([f"user shop on #{'a' * 64} ~* &* {rules}"])
    assert permitted(user, command) is may


def test_users() -> None:
    default, shop, broken = users(
        [
            "user default on nopass ~* &* +@all",
            f"user shop off #{'a' * 64} #{'b' * 64} -@all",
            "user x",
            "user",
            "",
            "?",
        ]
    )
    assert (default.name, default.on, default.nopass, default.digests) == ("default", True, True, ())
    assert (shop.name, shop.on, shop.nopass, len(shop.digests)) == ("shop", False, False, 2)
    assert (broken.name, broken.on) == ("x", False)


@pytest.mark.parametrize(
    ("rules", "is_harmless"),
    [
        ("-@all", True),
        ("-@all +ping +info +client|setname", True),
        ("+@all -@all +ping", True),
        ("-@all +ping +get", False),
        ("+@all", False),
        ("allcommands nocommands +ping", True),
        ("-@all +@connection", False),
        ("-@all +ping (~x* +get)", False),
        ("+get -get +ping", True),
    ],
)
def test_harmless(rules: str, is_harmless: bool) -> None:
    (user,) = users([f"user default on nopass {rules}"])
    assert harmless(user) is is_harmless
