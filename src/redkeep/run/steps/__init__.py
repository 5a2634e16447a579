"""How each step of a plan is done: one function an action, found by name.

A step ends when its effect can be observed, so that the next look sees it; doing a step again does no harm.
"""

from __future__ import annotations

from redkeep.run.steps.cluster import ACTIONS as CLUSTER
from redkeep.run.steps.context import Action, Context
from redkeep.run.steps.departure import ACTIONS as DEPARTURE
from redkeep.run.steps.handover import ACTIONS as HANDOVER
from redkeep.run.steps.moving import ACTIONS as MOVING
from redkeep.run.steps.processes import ACTIONS as PROCESSES
from redkeep.run.steps.provision import ACTIONS as PROVISION
from redkeep.run.steps.replication import ACTIONS as REPLICATION
from redkeep.run.steps.restarts import ACTIONS as RESTARTS
from redkeep.run.steps.settings import ACTIONS as SETTINGS

ACTIONS: dict[str, Action] = {
    **PROVISION,
    **PROCESSES,
    **CLUSTER,
    **REPLICATION,
    **RESTARTS,
    **SETTINGS,
    **HANDOVER,
    **MOVING,
    **DEPARTURE,
}

__all__ = ["ACTIONS", "Action", "Context"]
