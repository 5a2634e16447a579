"""How soon a silent primary is given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """When a silent primary counts as lost, and how long a failover may take before it is tried anew. Milliseconds.

    ``detection_ms`` is cluster-node-timeout, or a Sentinel's down-after-milliseconds.
    """

    detection_ms: int
    failover_timeout_ms: int


#: Detection in milliseconds: (Cluster, Sentinel). Within one data centre ``fast`` is safe; across clouds a hiccup of
#: the network of a second or two is ordinary, and what ``balanced`` is for; ``patient`` is near the engines' defaults.
DETECTION_MS: dict[str, tuple[int, int]] = {
    "fast": (2_000, 1_000),
    "balanced": (5_000, 5_000),
    "patient": (15_000, 30_000),
}
#: The engines' default of three minutes blocks a second attempt for far too long; a few detections are enough.
_FAILOVER_TIMEOUT_FACTOR, _LEAST_FAILOVER_TIMEOUT_MS = 3, 10_000


def timing_of(failover: str | int, *, cluster: bool) -> Timing:
    """A word of ``DETECTION_MS``, or milliseconds."""
    if isinstance(failover, int):
        detection = failover
    else:
        in_cluster, with_sentinel = DETECTION_MS[failover]
        detection = in_cluster if cluster else with_sentinel
    return Timing(detection, max(_FAILOVER_TIMEOUT_FACTOR * detection, _LEAST_FAILOVER_TIMEOUT_MS))
