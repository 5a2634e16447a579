"""Restarts servers one after the other, without losing a write: who leads hands over first.

"Restart" is relative, so what it comes to is written down before anything is done (``.redkeep/NAME/restart.json``): the
processes that are to be gone, by their run IDs. Run again after a cut it goes on with those that are still there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError, UsageError
from redkeep.model.events import Approval, Approve, Emit, Note
from redkeep.planning.identity import check_identity
from redkeep.planning.provision import reachable
from redkeep.planning.whole import plan as whole_plan
from redkeep.run.deployment import Deployment, Sight, check_hosts
from redkeep.run.opening import opened
from redkeep.run.sessions import key_question
from redkeep.usecases.apply import Show, carry_through
from redkeep.usecases.plan import planned

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.run.converge import Done
    from redkeep.run.verify import Check

RECORD = "restart.json"


@dataclass(frozen=True)
class Restarted:
    nodes: tuple[str, ...]
    seconds: float
    steps: tuple[Done, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": list(self.nodes),
            "seconds": round(self.seconds, 3),
            "steps": [d.as_json() for d in self.steps],
            "verified": {"ok": self.ok, "checks": [c.as_json() for c in self.checks]},
        }


async def restart(
    spec: Spec, file: Path, wanted: Sequence[str], *, approve: Approve, emit: Emit, show: Show
) -> Restarted:
    """``wanted``: nodes or hosts; none: everything. Raises ``RefusedError`` where the deployment is not as its file says."""
    begun = time.monotonic()
    async with opened(spec, file, keep=True, accept_key=key_question(approve)) as deployment:
        sight = await _settled(deployment)
        named = _named(sight, wanted)
        noted, left = _noted(deployment), _unfinished(deployment, sight)
        if left:
            emit(Note(f"an earlier restart was cut off; going on with {', '.join(left)}"))
            # whom it was about and is through with, is not restarted twice; whoever is named now beside them is
            named = [n for n in named if wanted and n not in noted]
        deployment.renew = left | _run_ids(sight, named)
        sight = await deployment.look()
        plan = whole_plan(sight.desired, sight.observed)
        show(planned(deployment, sight))
        count = len(list(plan))
        if not await approve(Approval("ordinary", f"carry out these {count} steps?")):
            raise RefusedError("nothing was done: the restart was not approved", next="run it again")
        begun_for = (noted if left else {}) | dict(deployment.renew)
        deployment.vault.write(RECORD, json.dumps(begun_for).encode())
        names = tuple(deployment.renew)
        outcome, _, checks = await carry_through(deployment, approve, emit, command="restart")
        deployment.vault.remove(RECORD)
        return Restarted(names, time.monotonic() - begun, tuple(outcome.done), tuple(checks))


async def _settled(deployment: Deployment) -> Sight:
    """A look at a deployment that is as its file says."""
    sight = await deployment.look()
    deployment.require_all(sight)
    check_hosts(sight)
    check_identity(sight.desired, sight.observed, sight.identity)
    left = [s for s in whole_plan(sight.desired, sight.observed) if s.stage != "restart"]
    if left and not _unfinished(deployment, sight):
        raise RefusedError(
            f"the deployment is not as its file says: {len(left)} steps are to be done first",
            where=str(deployment.file),
            next="redkeep apply, then restart",
        )
    return sight


def _named(sight: Sight, wanted: Sequence[str]) -> list[str]:
    nodes = sight.desired.nodes
    for word in wanted:
        if not any(word in (n.name, n.host) for n in nodes):
            known = ", ".join(n.name for n in nodes[:6])
            raise UsageError(f"no such node or host: {word}", where="redkeep restart", next=f"nodes: {known}")
    return [n.name for n in nodes if not wanted or n.name in wanted or n.host in wanted]


def _run_ids(sight: Sight, names: Sequence[str]) -> dict[str, str]:
    views = {n: reachable(sight.observed, sight.desired.node(n)) for n in names}
    return {name: view.run_id for name, view in views.items() if view is not None}


def _noted(deployment: Deployment) -> dict[str, str]:
    """The last request that was begun: node -> the run ID that is to be gone."""
    try:
        return {str(k): str(v) for k, v in dict(json.loads(deployment.vault.read(RECORD) or b"{}")).items()}
    except (ValueError, TypeError):
        return {}  # damaged: nobody is restarted for it


def _unfinished(deployment: Deployment, sight: Sight) -> dict[str, str]:
    """What of it was not come to."""
    now = _run_ids(sight, [n.name for n in sight.desired.nodes])
    return {name: run_id for name, run_id in _noted(deployment).items() if now.get(name) == run_id}
