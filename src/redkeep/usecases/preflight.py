"""Tries the network and judges the hosts, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, RefusedError
from redkeep.model.finding import Finding
from redkeep.model.topology import HostFacts
from redkeep.planning.placing.preflight import memory, preflight
from redkeep.planning.placing.probes import wanted_probes
from redkeep.run.engines.common import fits
from redkeep.run.probe import probe

if TYPE_CHECKING:
    from redkeep.model.plan import Plan
    from redkeep.run.deployment import Deployment, Sight

#: What is somebody else's: refused, not failed.
_NOT_OURS = frozenset({"preflight-port-taken", "preflight-other-redis"})
#: So many further problems are named beside the first.
_NAMED = 5


async def preflighted(deployment: Deployment, sight: Sight, plan: Plan) -> list[Finding]:
    """What speaks against the plan. Where no process is started for the first time, that is memory which is not there."""
    starting = {s.node for s in plan if s.action == "start"}
    if not starting:
        growing = {s.host for s in plan if "maxmemory" in str(s.args.get("settings", "")).split()}
        return memory(deployment.spec, deployment.placement, sight.observed.hosts, growing)
    wanted = wanted_probes(deployment.spec, deployment.placement, sight.addresses)
    wanted = tuple(w for w in wanted if not _closed_by_us(sight, plan, w.source, w.target, w.purpose))
    probes = await probe(deployment.fleet.hosts, wanted)
    running = [n.name for n in sight.desired.nodes if n.name not in starting]
    found = preflight(
        deployment.spec, deployment.placement, sight.addresses, probes, sight.observed.hosts, running=running
    )
    return [*_another_engine(deployment), *found]


def _another_engine(deployment: Deployment) -> Iterator[Finding]:
    """What the source brings, as far as it is known before it is installed, is not what the file asks for."""
    want, engine = deployment.want, deployment.expected
    if want.source not in ("bundled", "tarball") or fits(want, engine):
        return
    yield Finding(
        rule="preflight-engine",
        severity="error",
        subject="engine",
        evidence=f"{want} was asked for, and this source has {engine}",
        why="the file's version: and flavor: are kept to, or nothing is done",
        fix=f"write flavor: {engine.flavor} and version: {engine.version} (or none), or take another source",
    )


def _closed_by_us(sight: Sight, plan: Plan, source: str, target: str, purpose: str) -> bool:
    """A host's own firewall keeps a new host out until its rules are changed, which is a step of the plan."""
    facts, host = sight.observed.hosts.get(target), sight.desired.hosts[target]
    new = sight.observed.hosts.get(source)
    return (
        isinstance(facts, HostFacts)
        and isinstance(new, HostFacts)
        and not new.identity
        and facts.services.get(host.layout.firewall_unit) == "active"
        and any(s.host == target and s.action == "prepare-host" for s in plan)
        and (purpose == "bus" or bool(sight.desired.spec.allow_from))
    )


def refuse(found: list[Finding]) -> None:
    """Raises the first error in full, the others in short. What is not ours to touch is a refusal."""
    errors = [f for f in found if f.severity == "error"]
    if not errors:
        return
    first, rest = errors[0], errors[1:]
    more = [f"{f.subject}: {f.evidence}" for f in rest[:_NAMED]]
    also = f"; also {'; '.join(more)}" if more else ""
    also += f" and {len(rest) - _NAMED} more" if len(rest) > _NAMED else ""
    kind = RefusedError if first.rule in _NOT_OURS else EngineError
    raise kind(f"{first.evidence}; {first.why}", where=f"{first.subject}{also}", next=first.fix)
