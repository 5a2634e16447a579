"""Makes the deployment as its file says. The same again finishes what was interrupted, and then does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.planning.departure import check_departure
from redkeep.planning.identity import check_identity
from redkeep.planning.placing.safety import check_firewall, check_passwordless, one_way_failover
from redkeep.planning.placing.survival import refusal
from redkeep.planning.room import evictions, tight
from redkeep.planning.upgrade import check_upgrade
from redkeep.planning.whole import plan as whole_plan
from redkeep.run.converge import Done, Look, Outcome, converge
from redkeep.run.deployment import Deployment, Sight, check_hosts, hosts_of
from redkeep.run.lock import locked
from redkeep.run.moving.traffic import Traffic
from redkeep.run.opening import opened
from redkeep.run.sessions import Sessions, key_question
from redkeep.run.steps import ACTIONS, Context
from redkeep.run.verify import Check, verify
from redkeep.usecases.plan import Planned, planned, require_room
from redkeep.usecases.preflight import preflighted, refuse
from redkeep.usecases.url import Endpoint, application_lines, endpoints

if TYPE_CHECKING:
    from redkeep.model.plan import Plan
    from redkeep.model.spec import Spec

#: Seconds for everything to be ready after the last step: first votes, first copies, Sentinels' greetings.
READY_LIMIT = 90.0
#: Seconds that a deployment which needs no step is given before it is looked at again.
SETTLE_LIMIT = 5.0

#: Stages after which hosts must be looked at again; the others change servers only.
_HOST_STAGES = frozenset(
    {"engine", "host", "files", "start", "monitor", "restart", "remove", "clean", "tidy", ""}
)


Show = Callable[[Planned], None]


@dataclass(frozen=True)
class Applied:
    changed: bool
    seconds: float
    steps: tuple[Done, ...]
    checks: tuple[Check, ...]
    endpoints: tuple[Endpoint, ...]
    #: what an application is configured with, in lines
    application: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "seconds": round(self.seconds, 3),
            "steps": [d.as_json() for d in self.steps],
            "verified": {"ok": self.ok, "checks": [c.as_json() for c in self.checks]},
            "endpoints": [e.as_json() for e in self.endpoints],
            "application": list(self.application),
        }


async def apply(
    spec: Spec,
    file: Path,
    *,
    approve: Approve,
    emit: Emit,
    show: Show = lambda _: None,
    sessions: Sessions | None = None,
    base: str | None = None,
) -> Applied:
    """Raises ``RefusedError`` for what nobody accepted, ``LockedError``, ``HostUnreachable``, and what a step raises."""
    begun = sessions.begun if sessions else time.monotonic()
    async with opened(
        spec, file, keep=True, accept_key=key_question(approve), sessions=sessions, base=base
    ) as deployment:
        sight = await deployment.look()
        deployment.require_all(sight)
        check_hosts(sight)
        check_identity(sight.desired, sight.observed, sight.identity)
        check_departure(sight.desired, sight.observed)
        require_room(sight, file)
        plan = whole_plan(sight.desired, sight.observed)
        if not plan and not deployment.rotating:
            checks = await verify(deployment, sight, seconds=SETTLE_LIMIT)
            if not all(c.ok for c in checks):  # something is under way: look again before giving it time
                sight = await deployment.look()
                plan = whole_plan(sight.desired, sight.observed)
                checks = checks if plan else await verify(deployment, sight, seconds=READY_LIMIT)
            if not plan:
                return _applied(deployment, sight, begun, [], checks)
        show(planned(deployment, sight))
        await _consent(deployment, sight, plan, approve, emit)
        outcome, sight, checks = await carry_through(deployment, approve, emit, command="apply")
        return _applied(deployment, sight, begun, outcome.done, checks)


async def carry_through(
    deployment: Deployment, approve: Approve, emit: Emit, *, command: str
) -> tuple[Outcome, Sight, list[Check]]:
    """Takes the lock, makes everything as it shall be, and goes on with passwords that are being changed: each of
    their states is left only when every node was seen to be well in it."""
    deployment.remember()
    outcome = Outcome()
    async with locked(hosts_of(deployment), purpose=command):
        deployment.check_passwords()
        while True:
            sight = await _carry_out(deployment, approve, emit, outcome, command)
            checks = await verify(deployment, sight, seconds=READY_LIMIT)
            if not all(c.ok for c in checks):
                if deployment.rotating:
                    emit(Note("passwords are left as they are, old and new both work; run it again to go on"))
                break
            if not deployment.next_passwords():
                break
            emit(Note("every node is well with the passwords so far; now the next step of their change"))
    return outcome, sight, checks


def _applied(
    deployment: Deployment, sight: Sight, begun: float, done: list[Done], checks: list[Check]
) -> Applied:
    return Applied(
        bool(done),
        time.monotonic() - begun,
        tuple(done),
        tuple(checks),
        endpoints(deployment, sight),
        application_lines(deployment, sight),
    )


async def _carry_out(
    deployment: Deployment, approve: Approve, emit: Emit, outcome: Outcome, command: str
) -> Sight:
    """The loop, under the lock; it looks again first, because somebody may have worked until we had the lock.

    Adds to ``outcome`` what was done, and returns the last look.
    """
    sight: Sight
    traffic = Traffic(folder=deployment.vault.folder)

    async def look(after: str) -> Look[Context]:
        nonlocal sight
        sight = await deployment.look(hosts=after in _HOST_STAGES, engine=after == "engine")
        deployment.require_all(sight)
        if after == "engine":
            check_upgrade(
                sight.desired, sight.observed
            )  # which version a package is, one knows when it is there
        if after in ("", "engine") and (reason := _one_way(sight)):
            await accepted(approve, "risk", reason, deployment.spec)
        context = Context(
            deployment.fleet,
            sight.desired,
            sight.observed,
            approve,
            emit,
            {"sentinel": deployment.secrets.sentinel},
            traffic,
        )
        return Look(whole_plan(sight.desired, sight.observed), context)

    await converge(
        await look(""),
        look,
        emit=emit,
        journal=deployment.journal(command),
        outcome=outcome,
        actions=ACTIONS,
    )
    return sight


def _one_way(sight: Sight) -> str | None:
    """Known only when the engines are installed: a distribution decides which version its package is."""
    if len(sight.desired.servers) < 2:
        return None
    serving = {n.host for n in sight.desired.servers}
    return one_way_failover({h: i.engine for h, i in sight.installed.items() if h in serving})


async def _consent(deployment: Deployment, sight: Sight, plan: Plan, approve: Approve, emit: Emit) -> None:
    """Everything that somebody has to know or accept before the first step."""
    spec = deployment.spec
    check_passwordless(spec, sight.addresses)
    if reason := refusal(spec, deployment.placement):
        await accepted(approve, "risk", reason, spec)
    if sight.tls.clear_text:
        text = "this goes in clear text over public addresses: " + "; ".join(sight.tls.clear_text)
        await accepted(approve, "clear-text", text, spec)
    if reason := evictions(tight(sight.desired, sight.observed)):
        await accepted(approve, "risk", reason, spec)
    check_firewall(sight.desired, sight.observed.hosts, sight.addresses)
    found = await preflighted(deployment, sight, plan)
    for finding in found:
        if finding.severity == "warning":
            emit(Note(f"warning  {finding.subject}: {finding.evidence}. {finding.fix}"))
    refuse(found)
    count, destructive = len(list(plan)), sum(s.destructive for s in plan)
    detail = f"{destructive} of them take a server away; its data is kept aside" if destructive else ""
    if not await approve(Approval("ordinary", f"carry out these {count} steps?", detail)):
        raise RefusedError(
            "nothing was done: the plan was not approved",
            where=str(deployment.file),
            next="redkeep plan shows it again",
        )


async def accepted(approve: Approve, kind: Any, text: str, spec: Spec) -> None:
    """``text``: what, where and what to do instead, in lines. Raises ``RefusedError`` where nobody accepts it."""
    if spec.accept_risk:
        return
    lines = text.split("\n")
    hint = "write accept_risk: true into the deployment file, if you can live with that"
    if not await approve(Approval(kind, "go on all the same?", text, hint)):
        raise RefusedError(
            lines[0], where=lines[1] if len(lines) > 1 else "", next=lines[2] if len(lines) > 2 else hint
        )
