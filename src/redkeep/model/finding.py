"""What the doctor and the preflight say: findings with evidence, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from redkeep.model.values import Value

Severity = Literal["error", "warning", "info"]

_RANK: dict[str, int] = {"error": 0, "warning": 1, "info": 2}


class Finding(Value):
    """One thing that is wrong: which rule, how bad, about what, what was seen, why it matters, how to mend it."""

    rule: str
    severity: Severity
    subject: str
    evidence: str
    why: str
    fix: str

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "subject": self.subject,
            "evidence": self.evidence,
            "why": self.why,
            "fix": self.fix,
        }


class Report(Value):
    target: str
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, target: str, findings: Iterable[Finding]) -> Report:
        """Orders by severity, then rule, then subject."""
        ordered = sorted(findings, key=lambda f: (_RANK[f.severity], f.rule, f.subject))
        return cls(target, tuple(ordered))

    @property
    def verdict(self) -> Literal["ok", "warning", "error"]:
        if any(f.severity == "error" for f in self.findings):
            return "error"
        return "warning" if any(f.severity == "warning" for f in self.findings) else "ok"
