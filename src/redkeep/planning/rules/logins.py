"""Whether a replica's login would be accepted by the server it follows, read from both sides' settings."""

from __future__ import annotations

from dataclasses import field
from hashlib import sha256

from redkeep.model.checkup import Node
from redkeep.model.values import Value
from redkeep.planning.evidence.aclrights import AclUser, permitted, users

#: What a replica asks of its primary.
_NEEDED = ("psync", "replconf", "ping")


class Login(Value):
    """With what a server logs in to its primary; an empty password: not at all."""

    user: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        """Without the password."""
        if not self.password:
            return "masterauth is not set"
        return f"masterauth is set, for user {self.user}" if self.user else "masterauth is set"


def login_of(node: Node) -> Login | None:
    """``None`` where the settings could not be read."""
    password = _setting(node, "masterauth", "primaryauth")
    return None if password is None else Login(_setting(node, "masteruser", "primaryuser") or "", password)


def _setting(node: Node, *names: str) -> str | None:
    return next((value for name in names if (value := node.setting(name)) is not None), None)


def refusal(node: Node, login: Login) -> str:
    """Why the node would refuse this login; empty where it would not, or where that cannot be told."""
    view = node.seen
    if view is None:
        return ""
    if view.acl:
        name = login.user or "default"
        account = next((u for u in users(view.acl) if u.name == name), None)
        return _by_account(account, login, name)
    required = node.setting("requirepass")
    if required is None or login.user not in ("", "default") or required == login.password:
        return ""
    if not required:
        return "no password is set there, and an AUTH is an error then (CONFIG GET requirepass)"
    return f"{_not_this(login)} (CONFIG GET requirepass)"


def _not_this(login: Login) -> str:
    return "it takes another password" if login.password else "it asks for a password"


def _by_account(account: AclUser | None, login: Login, name: str) -> str:
    if account is None or not account.on:
        state = "no" if account is None else "switched off the"
        return f"it has {state} user {name} (ACL LIST)"
    if account.nopass:
        if login.password and not login.user:
            return "its default user has no password, and an AUTH is an error then (ACL LIST)"
    elif not login.password or sha256(login.password.encode()).hexdigest() not in account.digests:
        return f"{_not_this(login)} (ACL LIST)"
    missing = [command for command in _NEEDED if not permitted(account, command)]
    return f"its user {name} may not use {', '.join(missing)} (ACL LIST)" if missing else ""
