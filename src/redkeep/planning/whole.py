"""The whole plan of a deployment: pure, from what shall be and what is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from redkeep.model.plan import Plan
from redkeep.planning.cluster import cluster
from redkeep.planning.departure import departure
from redkeep.planning.leveling import leveling
from redkeep.planning.provision import provision
from redkeep.planning.replication import addresses_of_sentinels, monitoring, replication
from redkeep.planning.reshard import settling
from redkeep.planning.settings import settings
from redkeep.planning.upgrade import awaits_engine

if TYPE_CHECKING:
    from redkeep.model.topology import Observed
    from redkeep.planning.desired import Desired


def plan(desired: Desired, observed: Observed) -> Plan:
    """What is left to do. Every prefix of it, once done, leaves a state whose plan is the rest."""
    steps = list(provision(desired, observed, partial(awaits_engine, desired, observed)))
    if desired.spec.mode == "cluster":
        steps += cluster(desired, observed)
        if desired.settled:  # a move of this change that was cut short; others are not ours to judge
            steps += settling(desired, observed)
        steps += leveling(desired, observed)
    else:
        steps += replication(desired, observed)
    if desired.spec.mode == "sentinel":
        steps += monitoring(desired, observed)
        steps += addresses_of_sentinels(desired, observed)
    steps += settings(desired, observed)
    if desired.settled:
        steps += departure(desired, observed)
    return Plan.of(steps)
