"""The test lab: several hosts with a real systemd and sshd in two clouds, on one machine. See README.md."""

from __future__ import annotations

from .demands import why_unavailable
from .errors import LabError, LabUnavailable
from .facts import CLIENT, CLIENT_ADDRESS, DEFAULT_HOSTS, Host
from .lab import Lab

__all__ = [
    "CLIENT",
    "CLIENT_ADDRESS",
    "DEFAULT_HOSTS",
    "Host",
    "Lab",
    "LabError",
    "LabUnavailable",
    "why_unavailable",
]
