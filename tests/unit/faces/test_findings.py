"""Findings as text."""

from __future__ import annotations

from redkeep.faces.findings import changes_text, checked_text, merged
from redkeep.model.finding import Finding, Report, Severity
from redkeep.usecases.check import Checked


def finding(subject: str, *, fix: str = "do it", evidence: str = "seen") -> Finding:
    return Finding("some-rule", "warning", subject, evidence, "because", fix)


def test_nodes_of_which_the_same_is_said_are_one_paragraph() -> None:
    (one,) = merged([finding(f"n{i}", fix=f"do {i}") for i in range(8)])
    assert one.subject == "n0, n1, n2, n3, n4, n5 and 2 more"
    assert one.fix == "do 0  (and so on for each)"
    assert [f.subject for f in merged([finding("a"), finding("b", evidence="else"), finding("c")])] == [
        "a, c",
        "b",
    ]


def test_what_servers_say_is_escaped_and_wrapped() -> None:
    report = Report.of("redis://h:1", [finding("a\x1b[2J\nb", evidence="x " * 200, fix="y" * 90)])
    text = checked_text(Checked(report, 1, 0, ((finding("z"), "we know"),)))
    assert "\x1b" not in text
    assert "some-rule  a\\x1b[2J\\x0ab" in text
    assert [line for line in text.splitlines() if len(line) > 80] == [f"    fix   {'y' * 90}"]
    assert "some-rule  z: we know" in text


def _found(rule: str, evidence: str, severity: Severity = "warning") -> Finding:
    return Finding(rule, severity, "10.0.0.11:6379", evidence, "why", "fix")


def _checked(*findings: Finding) -> Checked:
    return Checked(Report.of("a", list(findings)), 1, 0)


def test_changes_are_what_comes_and_goes_and_not_its_numbers() -> None:
    before = _checked(_found("keepalive-off", "0"), _found("replication-lag", "1.0 MiB behind"))
    assert "no change. 2 warnings." in changes_text(before, _checked(*before.report.findings))
    same = _checked(_found("keepalive-off", "0"), _found("replication-lag", "2.0 MiB behind"))
    assert "no change. " in changes_text(before, same)
    told = changes_text(before, _checked(_found("keepalive-off", "0"), _found("no-replica", "none", "error")))
    assert "1 new, 1 gone. 1 error, 1 warning." in told
    assert "  no-replica  10.0.0.11:6379\n    seen  none" in told
    assert "  gone: replication-lag  10.0.0.11:6379" in told
