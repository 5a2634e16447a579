"""Every sign of a break-in, worst first. What was not looked at is said as well."""

from __future__ import annotations

from typing import Any

from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.intrusion import accounts, persistence, programs, throughredis, traces
from redkeep.rescue.intrusion.sign import Sign, indicators

_NOT_SEEN = (
    "memory and running processes: they ended with the server",
    "programs are not compared with their packages; a replaced sshd, PAM module or kernel module is not noticed by that",
    "deleted files, and what a journal would still have brought",
    "web shells among the sites' own files, and the file systems of containers",
    "what is in logs, beyond whether they were wiped",
)


def signs(look: Look, document: dict[str, Any], yara: str = "") -> list[Sign]:
    """Everything that was found, worst first."""
    data = indicators()
    found = [
        *persistence.preload(look, data),
        *persistence.cron(look),
        *persistence.services(look, document["services"], document["system"]["users"]),
        *persistence.started(look, document["system"]["users"]),
        *accounts.accounts(document["system"]["users"]),
        *accounts.keys(look, document["system"]["users"], data),
        *programs.suid(look),
        *programs.known_paths(look, data, document["system"]["users"]),
        *programs.known_names(look, data),
        *programs.programs_in_tmp(look),
        *throughredis.written(document["redis"], data),
        *traces.logs(look, document["system"]["users"]),
    ]
    found += traces.immutable(look, document["system"]["users"], [s.path for s in found])
    if yara:
        from redkeep.rescue.intrusion.yararules import matches

        found += matches(look, yara)
    found += throughredis.way_in(document["redis"], bool(found))
    look.unseen += _NOT_SEEN
    if not yara:
        look.unseen.append("contents of files by signatures: give your own with --yara FILE")
    look.want("intrusion", *dict.fromkeys(s.path for s in found if s.path))
    rank = {"error": 0, "warning": 1, "info": 2}
    # two accounts may have one home
    once = {(s.finding.rule, s.finding.subject, s.finding.evidence): s for s in found}
    return sorted(once.values(), key=lambda s: (rank[s.finding.severity], s.finding.rule, s.finding.subject))
