"""``check --fix``: plans the safe repairs, shows them, carries out what was approved, and checks again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError, StuckError
from redkeep.model.events import Approval, Approve, Emit
from redkeep.model.plan import Plan
from redkeep.planning.repairs import Case, MachineRepair, Repair, machine_repairs, repairs, steps
from redkeep.planning.rules.logins import Login
from redkeep.run.converge import Done, Look, Outcome, converge
from redkeep.run.journal import Journal
from redkeep.run.outposts import Outposts, Wanted, outposts
from redkeep.run.repairing import ACTIONS, Surgery
from redkeep.run.sessions import key_question
from redkeep.run.visits import Visitor
from redkeep.usecases.adopted import examine_adopted, posts_of
from redkeep.usecases.check import Access, Checked, examine, judged, opened_own

if TYPE_CHECKING:
    from pathlib import Path

    from redkeep.hosts.base import Host
    from redkeep.model.checkup import Checkup
    from redkeep.model.spec import Spec
    from redkeep.model.targets import Target


@dataclass(frozen=True)
class Proposal:
    """A repair for people: the rule, the node, why, what the node is told, and what makes it last."""

    rule: str
    node: str
    why: str
    say: str
    stays: str


@dataclass(frozen=True)
class Proposed:
    """What was found, and the repairs that nobody has approved yet."""

    checked: Checked
    repairs: tuple[Proposal, ...]


@dataclass(frozen=True)
class Fixed:
    """What was done, and what the check after it says. ``by_apply``: the deployment is Redkeep's own."""

    checked: Checked
    steps: tuple[Done, ...] = ()
    by_apply: bool = False

    @property
    def left(self) -> int:
        """Findings that a person has to see to."""
        return sum(f.severity != "info" for f in self.checked.report.findings)

    def as_json(self) -> dict[str, Any]:
        fix = {"changed": bool(self.steps), "steps": [d.as_json() for d in self.steps], "left": self.left}
        return {**self.checked.as_json(), "fix": fix | ({"next": "redkeep apply"} if self.by_apply else {})}


Show = Callable[[Proposed], None]


@dataclass(frozen=True)
class _Planned:
    """One look, what the rules say, and what is planned from it."""

    checked: Checked
    case: Case
    visitor: Visitor
    plan: Plan
    by_id: Mapping[str, Repair | MachineRepair]
    machines: Mapping[str, Host] = field(default_factory=dict)

    def look(self, emit: Emit) -> Look[Surgery]:
        return Look(self.plan, Surgery(self.case, self.visitor, self.by_id, emit, machines=self.machines))


async def fix_file(
    spec: Spec, file: Path, access: Access, *, approve: Approve, emit: Emit, show: Show = lambda _: None
) -> Fixed:
    """Of a deployment that Redkeep made, what drifted is apply's to bring back; it leaves a local machine as it is."""

    if spec.adopted:
        async with posts_of(spec, file, access, approve) as posts:

            async def adopted() -> _Planned:
                return _of_others(*await examine_adopted(spec, file, access, posts), spec, posts)

            return await _fix(adopted, approve, emit, show)

    async with opened_own(spec, file, access, approve) as (look, posts):

        async def own() -> _Planned:
            checkup = await look()
            checked = judged(checkup, posts=posts)
            case = Case(checkup, _rules(checked), is_here=spec.is_local)
            return _Planned(checked, case, Visitor(case.policy), *steps(case, machine_repairs(case)))

        return replace(await _fix(own, approve, emit, show), by_apply=True)


async def fix_targets(
    named: Sequence[Target],
    access: Access,
    *,
    approve: Approve,
    emit: Emit,
    show: Show = lambda _: None,
) -> Fixed:
    """Raises ``RefusedError`` where it was not approved, and what looking and what a step raises."""

    wanted = Wanted(access.vantages, access.machines)
    async with outposts(wanted, key_question(approve)) as posts:

        async def others() -> _Planned:
            return _of_others(*await examine(named, access, posts), None, posts)

        return await _fix(others, approve, emit, show)


def _of_others(checkup: Checkup, visitor: Visitor, file: Spec | None, posts: Outposts) -> _Planned:
    checked = judged(checkup, file, posts)
    login = visitor.logins.get(None)
    given = None
    # with several, it is not known whose the one for all others is
    if login is not None and login.password and len(set(visitor.logins.values())) == 1:
        given = Login("" if login.user == "default" else login.user, login.password)
    case = Case(
        checkup,
        _rules(checked),
        given,
        visitor.policy,
        visitor.named,
        visitor.own_ca,
        is_here=file is not None and file.is_local,
    )
    found: list[Repair | MachineRepair] = [*repairs(case), *machine_repairs(case)]
    return _Planned(checked, case, visitor, *steps(case, found), posts.machines)


def _rules(checked: Checked) -> frozenset[str]:
    """What found something that nobody suppressed."""
    return frozenset(f.rule for f in checked.report.findings)


async def _fix(planned: Callable[[], Awaitable[_Planned]], approve: Approve, emit: Emit, show: Show) -> Fixed:
    last = await planned()
    if not last.plan:
        return Fixed(last.checked)
    approved: set[str] = set()

    async def look(_: str) -> Look[Surgery]:
        nonlocal last
        last = await planned()
        await _consent(last, approved, approve, show)
        return last.look(emit)

    await _consent(last, approved, approve, show)
    outcome = Outcome()
    begin = await look("")
    try:
        await converge(begin, look, emit=emit, journal=Journal(None), outcome=outcome, actions=ACTIONS)
    except StuckError as error:  # there is no journal of other people's deployments
        error.next = "something there undoes or ignores it; mend it by hand, as redkeep check says"
        raise
    return Fixed(last.checked, tuple(outcome.done))


async def _consent(planned: _Planned, approved: set[str], approve: Approve, show: Show) -> None:
    """What one repair makes possible, or leaves to be done, is asked for like the first."""
    fresh = planned.plan.ids - approved
    if not fresh:
        return
    found = [planned.by_id[s.id] for s in planned.plan if s.id in fresh]
    wanted = tuple(Proposal(r.rule, r.node, r.why, r.shown, r.keeps) for r in found)
    show(Proposed(planned.checked, wanted))
    count = f"{len(wanted)} repair{'s' if len(wanted) != 1 else ''}"
    if not await approve(Approval("ordinary", f"carry out {count}?")):
        done = "the rest was not approved" if approved else "nothing was done: the repairs were not approved"
        raise RefusedError(done, next="redkeep check shows what there is, and changes nothing")
    approved |= fresh
