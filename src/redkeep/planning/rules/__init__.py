"""The doctor's rules: pure functions from what was seen to what is wrong. One file for each family of rules.

A new rule is a function in its family's file; its identifier is part of the interface::

    @rule("keepalive-off", "warning", needs=("config",))
    def keepalive_off(checkup: Checkup) -> Iterator[Found]:
        for node, view in checkup.servers:
            if node.setting("tcp-keepalive") == "0":  # None: it could not be read, and ``needs`` tells that
                yield Found(
                    subject=node.name,
                    evidence="tcp-keepalive 0 (CONFIG GET)",
                    why="What it means. What will happen.",
                    fix=set_and_keep(checkup, node, "tcp-keepalive", "60"),
                )

What it looks at is in ``Checkup`` (model/checkup.py): nodes with their views and details, visits from the vantage
point, hosts, processes, the deployment file. What is missing there is added to the survey (run/survey.py,
wire/examine.py), not asked by a rule. A rule says nothing where it could not look. Many nodes with the same fault are
one finding, with ``listed(...)``. Where the deployment file accepts the risk, ``accepted.py`` says so.

Its test (tests/live/test_rules_<family>.py) builds the broken deployment with real servers (tests/live/deployments.py
has the usual ones), sees the finding with its evidence, mends it as the finding says, and sees it gone::

    with running(binary, tmp_path / "a", "tcp-keepalive 0\\n") as server:
        found = doctor(server).only("keepalive-off")
        assert "tcp-keepalive 0" in found.evidence
        server.client().config_set("tcp-keepalive", 60)
        assert not doctor(server).of("keepalive-off")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from redkeep.model.checkup import Checkup
from redkeep.model.finding import Finding, Report
from redkeep.model.values import Value
from redkeep.planning.rules import (
    access,
    cluster,
    data,
    failover,
    host,
    intrusion,
    members,
    pace,
    reach,
    sentinels,
    spread,
)
from redkeep.planning.rules.accepted import reason
from redkeep.planning.rules.registry import RULES, Found, Rule
from redkeep.planning.rules.unchecked import NOT_CHECKED, unchecked

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.model.specparts import Suppression

#: Imported for the rules that they register.
FAMILIES = (reach, access, intrusion, failover, pace, sentinels, spread, cluster, members, data, host)


class Judged(Value):
    """``suppressed``: findings that the deployment file accepts by name, each with its reason."""

    report: Report
    suppressed: tuple[tuple[Finding, str], ...] = ()


def judge(checkup: Checkup, accepts: Spec | None = None) -> Judged:
    """All rules, with what the deployment file accepts, and what could not be looked at.

    ``accepts`` is the file of a deployment that Redkeep did not make. It tells what is, and not what is wanted, so that
    only what it suppresses by name is accepted.
    """
    spec = checkup.spec or accepts
    every = [f for rule in RULES.values() for f in _findings(rule, checkup)]
    every += unchecked(checkup, RULES.values())
    kept, suppressed = [], []
    for finding in every:
        accepted = _suppression(finding, spec)
        if accepted:
            suppressed.append((finding, accepted.because))
        else:
            kept.append(finding)
    return Judged(Report.of(checkup.target, kept), tuple(suppressed))


def _found(rule: Rule, checkup: Checkup) -> list[Found]:
    """Servers may say anything: where one rule fails on it, that is told, and all others look all the same."""
    try:
        return list(rule.check(checkup))
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        said = f"what was seen makes no sense to {rule.id}: {type(error).__name__}: {str(error)[:80]}"
        why = f"These rules did not look there: {rule.id}."
        fix = "a server that says this is broken or lies; if all is well with it, this is a fault of Redkeep's: report it"
        return [Found("deployment", said, why, fix, severity="info", rule=NOT_CHECKED)]


def _findings(rule: Rule, checkup: Checkup) -> Iterator[Finding]:
    for found in _found(rule, checkup):
        severity = found.severity or rule.severity
        finding = Finding(
            found.rule or rule.id, severity, found.subject, found.evidence, found.why, found.fix
        )
        accepted = found.accepted or reason(rule.id, checkup.spec)
        yield _lowered(finding, accepted) if accepted else finding


def _lowered(finding: Finding, accepted: str) -> Finding:
    return replace(finding, severity="info", why=f"Accepted: {accepted}. {finding.why}")


def _suppression(finding: Finding, spec: Spec | None) -> Suppression | None:
    if spec is None:
        return None
    return next(
        (s for s in spec.suppress if s.rule == finding.rule and fnmatchcase(finding.subject, s.subject)),
        None,
    )


__all__ = ["RULES", "Found", "Judged", "judge"]
