"""What apply would do, why, and what the result survives. Changes nothing anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError
from redkeep.model.finding import Finding
from redkeep.model.topology import HostFacts, NodeView, Role, Unreachable
from redkeep.planning.departure import check_departure, left_behind
from redkeep.planning.identity import check_identity
from redkeep.planning.leveling import Freight, copying, freight
from redkeep.planning.placing.safety import check_firewall, check_passwordless
from redkeep.planning.placing.secgroup import Rule, security_group_rules
from redkeep.planning.placing.survival import Survival, refusal, survives
from redkeep.planning.reshard import merged
from redkeep.planning.room import check_room, evictions, tight
from redkeep.planning.switchover import suggestions
from redkeep.planning.upgrade import suggested_restarts
from redkeep.planning.whole import plan as whole_plan
from redkeep.run.deployment import Deployment, Sight, check_hosts
from redkeep.run.moving import goal as goals
from redkeep.run.opening import opened
from redkeep.run.rotation import waiting
from redkeep.run.sessions import key_question
from redkeep.run.targets import read_targets
from redkeep.usecases.preflight import preflighted

if TYPE_CHECKING:
    from redkeep.model.events import Approve
    from redkeep.model.plan import Plan
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.vault import Contents


@dataclass(frozen=True)
class Planned:
    """A plan with all that one should know before approving it."""

    spec: Spec
    plan: Plan
    survives: tuple[Survival, ...]
    rules: tuple[Rule, ...]
    way: str
    tls: str
    clear_text: tuple[str, ...]
    notes: tuple[str, ...]
    suggestions: tuple[str, ...]
    #: between shards, and to new replicas; estimates
    moves: Freight
    copies: Freight
    #: what ``apply`` would stop at; only where the plan was asked for, not where it is about to be carried out
    problems: tuple[Finding, ...] = ()

    @property
    def blocked(self) -> bool:
        return any(f.severity == "error" for f in self.problems)

    def as_json(self) -> dict[str, Any]:
        return {
            "steps": [s.as_json() for s in self.plan],
            "survives": [s.as_json() for s in self.survives],
            "suggestions": list(self.suggestions),
            "moves": self.moves.as_json(),
            "copies": self.copies.as_json(),
            "addresses": self.way,
            "tls": self.tls,
            "clear_text": list(self.clear_text),
            "security_group": [r.as_json() for r in self.rules],
            "notes": list(self.notes),
            "problems": [f.as_json() for f in self.problems],
        }


async def plan(spec: Spec, file: Path, *, approve: Approve) -> Planned:
    """Looks at every host and node. Raises what ``apply`` would raise before its first step."""
    async with opened(spec, file, keep=False, accept_key=key_question(approve)) as deployment:
        sight = await deployment.look()
        deployment.require_all(sight)
        check_hosts(sight)
        check_identity(sight.desired, sight.observed, sight.identity)
        check_departure(sight.desired, sight.observed)
        require_room(sight, file)
        if reason := refusal(spec, deployment.placement):
            what, where, hint = reason.split("\n")
            raise RefusedError(what, where=where, next=hint)
        check_passwordless(spec, sight.addresses)
        check_firewall(sight.desired, sight.observed.hosts, sight.addresses)
        found = planned(deployment, sight)
        problems = [*await preflighted(deployment, sight, found.plan), *_silent(sight, found.plan)]
        return replace(found, problems=tuple(problems))


def planned(deployment: Deployment, sight: Sight) -> Planned:
    spec = deployment.spec
    steps = whole_plan(sight.desired, sight.observed)
    roles = _roles(sight, steps)
    engine = deployment.expected
    notes = [*sight.addresses.notes, *_kernel_notes(sight), *deployment.vault.notes]
    notes += left_behind(sight.desired, sight.observed)
    notes += _password_notes(deployment.contents)
    if evicted := evictions(tight(sight.desired, sight.observed)):
        notes.append(evicted.partition("\n")[0])
    if warning := engine.warning():
        notes.append(warning)
    return Planned(
        spec=spec,
        plan=steps,
        survives=survives(spec, deployment.placement, roles or None),
        rules=security_group_rules(spec, deployment.placement, sight.addresses),
        way=sight.addresses.why,
        tls=f"{'on' if sight.tls.on else 'off'}: {sight.tls.why}",
        clear_text=sight.tls.clear_text,
        notes=tuple(notes),
        suggestions=(
            *suggestions(sight.desired, sight.observed, read_targets(deployment.vault)),
            *_unfinished(deployment),
            *suggested_restarts(sight.desired, sight.observed),
            *(merged(sight.desired, sight.observed) if spec.mode == "cluster" else ()),
        ),
        moves=freight(sight.desired, sight.observed),
        copies=copying(sight.desired, sight.observed, steps),
    )


def require_room(sight: Sight, file: Path) -> None:
    """Raises ``RefusedError`` where the keys would not fit into fewer, or smaller, servers."""
    instead = "more shards" if sight.desired.spec.mode == "cluster" else "leave it as it was"
    check_room(tight(sight.desired, sight.observed), where=str(file), instead=instead)


def _roles(sight: Sight, plan: Plan) -> dict[str, Role]:
    """As observed; of those that start for the first time, as they will be when the plan is carried out."""
    views = sight.observed.nodes
    roles: dict[str, Role] = {n: v.role for n, v in views.items() if isinstance(v, NodeView)}
    if not roles:
        return {}
    starting = {s.node for s in plan if s.action == "start"}
    roles |= {n.name: _first_role(n) for n in sight.desired.nodes if n.name in starting}
    for step in plan:
        if step.action == "hand-over":
            roles |= {str(step.args["from"]): "replica", str(step.args["to"]): "primary"}
    return roles


def _silent(sight: Sight, plan: Plan) -> Iterator[Finding]:
    """Nodes that run, as far as is known, and tell nothing of themselves: the plan cannot know what they need."""
    in_hand = {s.node for s in plan if s.action in ("start", "restart")}
    for node in sight.desired.nodes:
        view = sight.observed.nodes.get(node.name)
        if isinstance(view, Unreachable) and not view.refused and node.name not in in_hand:
            yield Finding(
                rule="plan-silent",
                severity="warning",
                subject=node.name,
                evidence=f"it does not answer: {view.reason}",
                why="what would have to be done there is not known",
                fix="see redkeep status and its log on the host",
            )


def _first_role(node: DesiredNode) -> Role:
    return "sentinel" if node.sentinel else "primary" if node.initial_role == "primary" else "replica"


def _unfinished(deployment: Deployment) -> Iterator[str]:
    """What another command began, and ``apply`` leaves to it."""
    goal = goals.read(deployment.vault)
    if goal is not None:
        yield f"a reshard is unfinished (redkeep reshard {goal.request}): redkeep reshard goes on with it"


def _password_notes(contents: Contents) -> list[str]:
    notes = []
    if contents.phases:
        roles = ", ".join(sorted(contents.phases))
        notes.append(
            f"passwords are being changed ({roles}): both work meanwhile; these steps come again until it is done"
        )
    notes += [
        f"the former password of {role} still works: redkeep rotate {role} --finish"
        for role in waiting(contents)
    ]
    return notes


def _kernel_notes(sight: Sight) -> list[str]:
    """What a host's kernel should be told and we may not tell it, as in a container."""
    notes = []
    for name, facts in sight.observed.hosts.items():
        if (
            isinstance(facts, HostFacts)
            and facts.kernel.get("vm.overcommit_memory") == "0"
            and "vm.overcommit_memory:read-only" in facts.kernel
        ):
            notes.append(
                f"{name}: vm.overcommit_memory is 0 and cannot be set from inside; a snapshot may fail when memory is short"
            )
    return notes
