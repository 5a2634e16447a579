"""Changes passwords while everything runs. Both work in between; the application's old one until somebody ends that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError, UsageError
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.planning.hostfiles.acl import ROLES
from redkeep.planning.identity import check_identity
from redkeep.planning.whole import plan as whole_plan
from redkeep.run.deployment import Deployment, check_hosts
from redkeep.run.opening import opened
from redkeep.run.rotation import begin, finish, waiting
from redkeep.run.sessions import key_question
from redkeep.run.vault import make_password
from redkeep.usecases.apply import carry_through

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.run.converge import Done
    from redkeep.run.vault import Contents
    from redkeep.run.verify import Check

ALL = "all"


@dataclass(frozen=True)
class Rotated:
    """``roles`` were changed (or, with ``finished``, their former passwords ended); ``waiting``: their former passwords
    still work."""

    roles: tuple[str, ...]
    finished: bool
    waiting: tuple[str, ...]
    seconds: float
    steps: tuple[Done, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "roles": list(self.roles),
            "finished": self.finished,
            "waiting": list(self.waiting),
            "seconds": round(self.seconds, 3),
            "steps": [d.as_json() for d in self.steps],
            "verified": {"ok": self.ok, "checks": [c.as_json() for c in self.checks]},
        }


async def rotate(
    spec: Spec, file: Path, wanted: Sequence[str], *, end: bool, approve: Approve, emit: Emit
) -> Rotated:
    """New passwords for roles (``all`` of them), or, with ``end``, the end of former ones.

    A change that was interrupted is finished first, and that is all that is done then. Raises ``RefusedError`` where
    the deployment is not as its file says, or where a former password of the role still works.
    """
    begun = time.monotonic()
    async with opened(spec, file, keep=True, accept_key=key_question(approve)) as deployment:
        if deployment.vault.contents() is None:
            raise UsageError("nothing was deployed from this file yet", where=str(file), next="redkeep apply")
        unfinished = deployment.rotating
        roles = tuple(deployment.contents.phases) if unfinished else _roles(deployment, wanted, emit, end=end)
        sight = await deployment.look()
        deployment.require_all(sight)
        check_hosts(sight)
        check_identity(sight.desired, sight.observed, sight.identity)
        if not unfinished:
            left = len(list(whole_plan(sight.desired, sight.observed)))
            if left:
                raise RefusedError(
                    f"the deployment is not as its file says: {left} steps are to be done first",
                    where=str(file),
                    next="redkeep apply, then rotate",
                )
            deployment.take(_changed(deployment, roles, end=end))
            if not roles:
                return Rotated((), end, (), time.monotonic() - begun, (), ())
        await _ask(roles, approve, end=end, unfinished=unfinished)
        outcome, _, checks = await carry_through(deployment, approve, emit, command="rotate")
        return Rotated(
            roles,
            end and not unfinished,
            waiting(deployment.contents),
            time.monotonic() - begun,
            tuple(outcome.done),
            tuple(checks),
        )


def _roles(deployment: Deployment, wanted: Sequence[str], emit: Emit, *, end: bool) -> tuple[str, ...]:
    """Which roles are meant. Those whose passwords come from elsewhere are changed there."""
    known = ", ".join((*ROLES, ALL))
    for word in wanted:
        if word not in (*ROLES, ALL):
            raise UsageError(f"no such password: {word}", where="redkeep rotate", next=f"one of {known}")
    everything = ALL in wanted or not wanted
    if end:
        return tuple(r for r in waiting(deployment.contents) if everything or r in wanted)
    if not wanted:
        raise UsageError("rotate which password?", where="redkeep rotate", next=f"one of {known}")
    given = deployment.contents.given or frozenset()
    open_to_all = deployment.secrets.app is None
    found = []
    for role in ROLES if everything else dict.fromkeys(wanted):
        if role in given:
            text = f"the deployment file names where the password of {role} comes from"
            hint = "give it another value there, then redkeep apply"
        elif role == "app" and open_to_all:
            text, hint = (
                "the application needs no password (auth: none)",
                "auth: password in the deployment file",
            )
        else:
            found.append(role)
            continue
        if not everything:
            raise RefusedError(text, where=f"passwords.{role}", next=hint)
        emit(Note(f"{role} is left out: {text}"))
    return tuple(found)


def _changed(deployment: Deployment, roles: Sequence[str], *, end: bool) -> Contents:
    if end:
        return finish(deployment.contents, tuple(roles))
    return begin(deployment.contents, {role: make_password() for role in roles})


async def _ask(roles: Sequence[str], approve: Approve, *, end: bool, unfinished: bool) -> None:
    names = ", ".join(roles)
    if unfinished:
        question, detail = f"finish the change of passwords that was begun ({names})?", ""
    elif end:
        question = f"end the former password of {names}?"
        detail = "connections that are open stay open; new ones with the former password are refused"
    else:
        question = f"change the password of {names}?"
        detail = "no connection is cut, and no server is restarted"
        if "app" in roles:
            detail += "; the application's old password works until redkeep rotate app --finish"
    if not await approve(Approval("ordinary", question, detail)):
        raise RefusedError("nothing was done: it was not approved", next="run it again")
