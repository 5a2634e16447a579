"""How long a client waits for what, from how soon the deployment gives a silent primary up.

A failover is over some time after ``detection_ms``; a client that gives up earlier fails for nothing, and one that
waits for a single answer longer than that holds its threads for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redkeep.model.timing import Timing

_LEAST_MS, _MOST_MS = 1_000, 3_000
#: Vote, promotion, and the news of it, after the detection: 1-2 s were measured here with every profile.
_ELECTION_MS = 3_000
#: For a client that is told of the failover: it may wait for its end, but not for ever.
_OUTLAST_MS = 10_000
#: Between two tries of one operation.
_PAUSE_MS = 250
#: An application that starts may look for its deployment this long: longer than a failover takes, and well below the 90 s
#: after which systemd gives up a service that does not report (DefaultTimeoutStartSec).
_START_MS = 30_000


@dataclass(frozen=True)
class Pace:
    """Milliseconds, except for keepalive, which every system counts in seconds."""

    detection_ms: int
    command_ms: int
    connect_ms: int
    retry_for_ms: int
    refresh_ms: int
    user_timeout_ms: int
    keepalive_idle_s: int = 15
    keepalive_interval_s: int = 5
    keepalive_count: int = 3

    @property
    def rounds(self) -> int:
        """Tries that take ``retry_for_ms`` where each waits for an answer and then pauses as often as there are tries."""
        count = 1
        while count * (self.command_ms + (count + 1) * _PAUSE_MS) < self.retry_for_ms:
            count += 1
        return count

    def values(self) -> dict[str, float]:
        """For the templates, with what other units and libraries make of it."""
        return {
            "detection_ms": self.detection_ms,
            "command_ms": self.command_ms,
            "connect_ms": self.connect_ms,
            "retry_for_ms": self.retry_for_ms,
            "refresh_ms": self.refresh_ms,
            "user_timeout_ms": self.user_timeout_ms,
            "keepalive_idle_s": self.keepalive_idle_s,
            "keepalive_interval_s": self.keepalive_interval_s,
            "keepalive_count": self.keepalive_count,
            "keepalive_idle_ms": self.keepalive_idle_s * 1000,
            "pause_ms": _PAUSE_MS,
            "start_ms": max(_START_MS, self.retry_for_ms),
            "retries": -(-self.retry_for_ms // _PAUSE_MS),
            "rounds": self.rounds,
            "outlast_ms": min(self.detection_ms + _ELECTION_MS, _OUTLAST_MS),
            "pause_s": _PAUSE_MS / 1000,
            "command_s": self.command_ms / 1000,
            "connect_s": self.connect_ms / 1000,
            "retry_for_s": self.retry_for_ms / 1000,
        }


def pace(timing: Timing) -> Pace:
    """For a deployment that gives a silent primary up after ``timing.detection_ms``.

    One answer may take half of that, between 1 s (a slow command, a loss on the way and its repetition) and 3 s. An
    operation is tried again until a failover is surely over. TCP_USER_TIMEOUT is above the command's timeout, so that
    it ends connections that are really dead (tcp(7): bytes unacknowledged for that long).
    """
    answer = min(max(timing.detection_ms // 2, _LEAST_MS), _MOST_MS)
    return Pace(
        detection_ms=timing.detection_ms,
        command_ms=answer,
        connect_ms=answer,
        retry_for_ms=timing.detection_ms * 2 + _ELECTION_MS,
        refresh_ms=min(max(timing.detection_ms, 2_000), 15_000),
        user_timeout_ms=2 * answer,
    )
