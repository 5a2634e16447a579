"""Findings as text for people: what hurts first comes first, within 80 columns. What servers said is escaped."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from redkeep.faces.output import clean
from redkeep.model.finding import Finding

if TYPE_CHECKING:
    from redkeep.usecases.check import Checked

_WIDTH = 80
_TITLES = {"error": "ERRORS", "warning": "WARNINGS", "info": "GOOD TO KNOW"}
_LABEL = 6
#: Names of nodes in one paragraph, at most.
_NAMED = 6


def checked_text(checked: Checked) -> str:
    report = checked.report
    parts = [f"{clean(report.target)}: {_nodes(checked)}{_places(checked)}"]
    for severity, group in groupby(report.findings, key=lambda f: f.severity):
        parts.append(f"\n{_TITLES[severity]}")
        parts += ["\n".join(_finding(f)) for f in merged(list(group))]
    if checked.suppressed:
        parts.append("\nSUPPRESSED by the deployment file")
        parts += [
            wrapped(f"{f.rule}  {f.subject}: {because}", "  ", "    ") for f, because in checked.suppressed
        ]
    parts.append(f"\n{_verdict(checked)}")
    return "\n".join(parts)


def changes_text(before: Checked, now: Checked) -> str:
    """What is new and what is gone since the last look; numbers in a finding may change without being news."""
    known = {_key(f) for f in before.report.findings}
    there = {_key(f) for f in now.report.findings}
    new = [f for f in now.report.findings if _key(f) not in known]
    gone = [f for f in before.report.findings if _key(f) not in there]
    news = f"{len(new)} new, {len(gone)} gone. " if new or gone else "no change. "
    lines = [at(news + _verdict(now))]
    lines += ["\n".join(_finding(f)) for f in merged(new)]
    lines += [wrapped(f"gone: {f.rule}  {f.subject}", "  ", "    ") for f in gone]
    return "\n".join(lines)


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.rule, finding.severity, finding.subject


def at(text: str) -> str:
    """With the time of day."""
    return wrapped(f"{datetime.now().astimezone():%H:%M:%S}  {text}", "", " " * 10)


def _nodes(checked: Checked) -> str:
    servers = f"{checked.servers} server{'s' if checked.servers != 1 else ''}"
    if not checked.sentinels:
        return servers
    return f"{servers}, {checked.sentinels} Sentinel{'s' if checked.sentinels != 1 else ''}"


def _places(checked: Checked) -> str:
    named = [name for name in checked.vantages if name != "here"]
    return f"; reachability as seen from {clean(', '.join(checked.vantages))}" if named else ""


def merged(findings: list[Finding]) -> list[Finding]:
    """Nodes of which the same is said are one paragraph, with the fix for the first."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.rule, f.evidence, f.why), []).append(f)
    return [_as_one(group) for group in groups.values()]


def _as_one(group: list[Finding]) -> Finding:
    first, more = group[0], len(group) - _NAMED
    if len(group) == 1:
        return first
    names = ", ".join(f.subject for f in group[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    same = all(f.fix == first.fix for f in group)
    return replace(first, subject=names, fix=first.fix if same else f"{first.fix}  (and so on for each)")


def _finding(finding: Finding) -> Iterator[str]:
    yield wrapped(f"{finding.rule}  {finding.subject}", "  ", "    ")
    for label, text in (("seen", finding.evidence), ("why", finding.why), ("fix", finding.fix)):
        yield wrapped(text, f"    {label.ljust(_LABEL)}", " " * (4 + _LABEL))


def wrapped(text: str, first: str, rest: str) -> str:
    """Commands are not broken inside words, so that they can be copied."""
    return textwrap.fill(
        clean(text),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(checked: Checked) -> str:
    counts = {s: sum(f.severity == s for f in checked.report.findings) for s in ("error", "warning")}
    if not any(counts.values()):
        return "No errors, no warnings."
    words = [f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items() if n]
    return f"{', '.join(words)}. redkeep explain RULE tells more."
