"""A plan: what would be done, in stages, each step with its reason. Values only.

Steps of one stage do not depend on each other and run at the same time; a stage starts when the one before
it has ended and the deployment was observed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from redkeep.model.values import Value

#: The order of stages. A planner may leave stages out, never swap them.
STAGES = (
    "engine",  # the server software is on every host
    "host",  # users, kernel settings, folders, firewall
    "files",  # configuration, access lists, certificates, units
    "start",  # processes run
    "slots",  # Cluster: every hash slot has an owner; config epochs can be set only before nodes meet
    "meet",  # Cluster: nodes know each other
    "replicate",  # replicas follow their primaries
    "monitor",  # Sentinels watch
    "settings",  # what differs at run time is set
    "settle",  # Cluster: hash slots whose move was interrupted have one owner and their keys in one place
    "move",  # Cluster: hash slots go to the shards that shall have them
    "hand-over",  # a primary's role goes to a replica, one shard after the other
    "in-turn",  # what the others rely on meanwhile, one node after the other
    "restart",  # what differs and cannot be set at run time
    "remove",  # servers and Sentinels that are no longer wanted
    "forget",  # the others know them no more
    "reset",  # Sentinels forget them, one after the other
    "clean",  # hosts on which nothing is left
    "tidy",  # nobody's files name them any more
)


class Step(Value):
    """One thing to do. ``args`` is free of secrets: it is shown, logged and written to the journal."""

    stage: str
    action: str
    host: str
    node: str = ""
    why: str = ""
    destructive: bool = False
    args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def id(self) -> str:
        """Names the step across plans: the same work has the same identifier."""
        detail = ",".join(f"{k}={v}" for k, v in sorted(self.args.items()))
        return ":".join(part for part in (self.action, self.node or self.host, detail) if part)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "stage": self.stage,
            "host": self.host,
            "node": self.node,
            "action": self.action,
            "why": self.why,
            "destructive": self.destructive,
        }


class Stage(Value):
    name: str
    steps: tuple[Step, ...]


class Plan(Value):
    """Stages in order. An empty plan means that the deployment is as the file says."""

    stages: tuple[Stage, ...] = ()

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Plan:
        every = tuple(steps)
        by_stage = {name: tuple(s for s in every if s.stage == name) for name in STAGES}
        return cls(tuple(Stage(name, found) for name, found in by_stage.items() if found))

    def __bool__(self) -> bool:
        return bool(self.stages)

    def __iter__(self) -> Iterator[Step]:
        return (step for stage in self.stages for step in stage.steps)

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(step.id for step in self)
