"""Who may log in that should not: users with root's number, empty passwords, keys of intruders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redkeep.rescue.disk.tree import names
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.system import keys_of
from redkeep.rescue.intrusion.sign import Sign, head, sign
from redkeep.rescue.redis.rdb import is_rdb


def accounts(users: list[dict[str, Any]]) -> Iterator[Sign]:
    for user in users:
        if user["uid"] == 0 and user["name"] != "root":
            yield sign(
                "intrusion-root-user",
                "error",
                b"/etc/passwd",
                f"{user['name']} has uid 0",
                "A second user with root's number is root under another name.",
                "high",
                "passwd(5)",
            )
        if user["password"] == "empty" and user["logs_in"]:
            yield sign(
                "intrusion-empty-password",
                "warning",
                b"/etc/shadow",
                f"{user['name']} logs in without a password",
                "Anybody who reaches a login gets in.",
                "medium",
                "shadow(5)",
            )


def keys(look: Look, users: list[dict[str, Any]], data: Any) -> Iterator[Sign]:
    for user in users:
        home = str(user["home"])
        for name in names(look.tree, f"{home}/.ssh".encode("utf-8", "surrogateescape")):
            path = f"{home}/.ssh/".encode("utf-8", "surrogateescape") + name
            if name.startswith(b"authorized_keys") and is_rdb(head(look, path)):
                yield sign(
                    "intrusion-key-by-redis",
                    "error",
                    path,
                    "it begins as an RDB file does",
                    "Somebody let Redis save its data there, to put a key into it.",
                    "high",
                    "antirez, A few things about Redis security (2015)",
                )
        for key in keys_of(look, home):
            for bad in data["key_comments"]:
                if bad["pattern"] in key["comment"]:
                    yield sign(
                        "intrusion-key-known",
                        "error",
                        key["file"],
                        f"the key {key['comment'][:80]} ({bad['family']})",
                        "It is the key of a known intruder, who logs in with it.",
                        "high",
                        bad["source"],
                    )
