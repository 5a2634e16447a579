"""Passwords that change while everything runs: pure steps from one state of the vault to the next.

    accept   the new password is taken everywhere beside the old one, and nobody uses it yet
    use      everybody of the deployment uses the new one; the old one is still taken
    end      the old one is taken away. The application's stays until ``finish`` says so, since only its owner knows
             when nobody uses it any more

In each state every file on every host says what the running servers do, so a server that dies and comes back, and a
command that is killed, change nothing: the next run goes on from the state that the vault is in. The vault is written
before anything is done, and a state is left only when every node was seen to be in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError
from redkeep.planning.hostfiles.acl import ROLES

if TYPE_CHECKING:
    from redkeep.run.vault import Contents

ACCEPT, USE, END = "accept", "use", "end"


def begin(contents: Contents, new: Mapping[str, str], where: str = "") -> Contents:
    """The new passwords (role -> password) are to be accepted. Those that are in use already are left out.

    Raises ``RefusedError`` where an earlier password of a role still works: a server would have to take three.
    """
    wanted = {role: word for role, word in new.items() if contents.made[role] != word}
    for role in wanted:
        if (
            role in contents.phases
            and contents.phases[role] == ACCEPT
            and contents.previous[role] == new[role]
        ):
            continue
        if role in contents.previous:
            finish_it = f"redkeep rotate {role} --finish" if role not in contents.phases else "redkeep rotate"
            raise RefusedError(
                f"the password of {role} was changed before, and the one from before that still works",
                where=where or f"password: {role}",
                next=f"end that first: {finish_it}; nothing was changed",
            )
    return replace(
        contents,
        previous={**contents.previous, **wanted},
        phases={**contents.phases, **dict.fromkeys(wanted, ACCEPT)},
    )


def advance(contents: Contents) -> Contents | None:
    """The next state, once every node was seen to be in this one; ``None`` where nothing is under way."""
    accepted = [role for role, phase in contents.phases.items() if phase == ACCEPT]
    if accepted:
        made, previous = dict(contents.made), dict(contents.previous)
        for role in accepted:
            made[role], previous[role] = previous[role], made[role]
        return replace(
            contents, made=made, previous=previous, phases={**contents.phases, **dict.fromkeys(accepted, USE)}
        )
    used = [role for role, phase in contents.phases.items() if phase == USE]
    if used:
        kept = replace(contents, phases={r: p for r, p in contents.phases.items() if r != "app" or p == END})
        return _ended(kept, {role for role in used if role != "app"})
    return replace(contents, phases={}) if contents.phases else None


def finish(contents: Contents, roles: tuple[str, ...] = ROLES) -> Contents:
    """Passwords that were kept for applications are taken no longer. What is under way goes on."""
    return _ended(contents, {r for r in roles if r in contents.previous and r not in contents.phases})


def _ended(contents: Contents, roles: set[str]) -> Contents:
    return replace(
        contents,
        previous={r: p for r, p in contents.previous.items() if r not in roles},
        phases={**contents.phases, **dict.fromkeys(roles, END)},
    )


def waiting(contents: Contents) -> tuple[str, ...]:
    """Roles whose former password still works until somebody says that it need not."""
    return tuple(r for r in ROLES if r in contents.previous and r not in contents.phases)
