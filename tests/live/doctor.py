"""The doctor, called on real servers: what it found, by rule.

found = doctor(server).only("keepalive-off")
assert "tcp-keepalive 0" in found.evidence
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from redkeep.model.finding import Finding
from redkeep.usecases.check import Access, Checked, check_targets, targets_of
from tests.live.servers import Server


@dataclass(frozen=True)
class Diagnosis:
    checked: Checked

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.checked.report.findings

    def of(self, rule: str) -> list[Finding]:
        return [f for f in self.findings if f.rule == rule]

    def only(self, rule: str) -> Finding:
        """The one finding of that rule; its words are complete."""
        found = self.of(rule)
        assert len(found) == 1, self.told
        finding = found[0]
        assert all((finding.subject, finding.evidence, finding.why, finding.fix)), finding
        return finding

    @property
    def told(self) -> str:
        return "\n".join(f"{f.severity} {f.rule} {f.subject}: {f.evidence}" for f in self.findings)


def doctor(*targets: Server | str, **access: Any) -> Diagnosis:
    """``access`` are the fields of ``Access``: ``password="..."``, ``trust_discovered=True``."""
    texts = [t if isinstance(t, str) else f"127.0.0.1:{t.port}" for t in targets]
    return Diagnosis(asyncio.run(check_targets(targets_of(texts), Access(**access))))
