"""Results as text for people, within 80 columns where names allow. What servers said is escaped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from redkeep.faces.output import clean
from redkeep.model.sizes import human

if TYPE_CHECKING:
    from redkeep.model.finding import Finding
    from redkeep.model.spec import Spec
    from redkeep.usecases.apply import Applied
    from redkeep.usecases.plan import Planned
    from redkeep.usecases.restart import Restarted
    from redkeep.usecases.rotate import Rotated
    from redkeep.usecases.status import Status
    from redkeep.usecases.url import Urls


#: Bytes as people read them.
size = human
#: So many lines show the order of restarts.
_TURNS = 12


def table(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Columns by two blanks; the last one is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    return "\n".join(indent + line for line in lines)


def plan_text(found: Planned) -> str:
    parts = [f"{found.spec.name}: {found.spec.mode}"]
    steps = list(found.plan)
    if steps:
        parts.append(f"\nSteps ({len(steps)}):\n" + table(_grouped(steps), indent="  "))
    elif any(f.rule == "plan-silent" for f in found.problems):
        parts.append("Nothing to do, as far as the nodes that answer tell.")
    else:
        parts.append("Nothing to do: the deployment is as the file says.")
    if found.moves.slots:
        parts.append(f"\nMoves between shards: {found.moves.slots} slots, {found.moves}")
    if found.copies.bytes:
        parts.append(f"Copied to new replicas: {found.copies}")
    parts.append(f"\nAddresses: {found.way}\nEncryption: {found.tls}")
    if found.clear_text:
        parts.append("In clear text:\n" + _list(found.clear_text))
    if found.survives:
        parts.append("\nWhat it survives:\n" + _survival(found))
    if found.rules:
        parts.append("\nSecurity group, inbound TCP:\n" + _rules(found))
    if found.problems:
        parts.append("\nProblems, to be mended before apply:\n" + _list(_problem(f) for f in found.problems))
    if found.suggestions:
        parts.append("\nSuggestions:\n" + _list(found.suggestions))
    if found.notes:
        parts.append("\nNotes:\n" + _list(found.notes))
    return "\n".join(parts)


def _problem(finding: Finding) -> str:
    return f"{finding.severity}: {finding.subject}: {finding.evidence}. {finding.fix}"


def _grouped(steps: Sequence[Any]) -> list[list[str]]:
    """One line for each action of a stage that says the same of several nodes. What goes in turn keeps its order."""
    turn = [s for s in steps if s.stage == "restart"]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for s in steps:
        if s not in turn:
            groups.setdefault((s.stage, s.action, s.why), []).append(s.node or s.host)
    rows = [
        [stage, action, clean(_names(names)), clean(why)] for (stage, action, why), names in groups.items()
    ]
    for (stage, action, why), same in itertools.groupby(turn, lambda s: (s.stage, s.action, s.why)):
        rows.append([stage, action, clean(", ".join(s.node for s in same)), clean(why)])
    first = len(groups) + _TURNS
    if len(rows) > first + 1:
        rows = [
            *rows[:first],
            ["restart", "...", "", f"and {len(turn)} such steps in all, one after the other"],
        ]
    return rows


def _names(names: Iterable[str], most: int = 6) -> str:
    """Sorted, and not more than one can take in."""
    found = sorted(set(filter(None, names)))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _survival(found: Planned) -> str:
    """A line for each host and zone; pairs of hosts with the same outcome share one."""
    rows = [["loss of", "writes", "data", ""]]
    pairs: dict[tuple[bool, bool], list[str]] = {}
    for s in found.survives:
        if " + " in s.loss:
            pairs.setdefault((s.writes, s.data), []).append(s.loss.removeprefix("hosts "))
        else:
            rows.append([s.loss, *_outcome(s.writes, s.data), s.why])
    for (writes, data), names in sorted(pairs.items(), reverse=True):
        which = "any two hosts" if len(pairs) == 1 else _names(names, most=12)
        rows.append(["two hosts", *_outcome(writes, data), which])
    return table(rows, indent="  ")


def _outcome(writes: bool, data: bool) -> tuple[str, str]:
    return "go on" if writes else "STOP", "kept" if data else "LOST"


def _rules(found: Planned) -> str:
    """Rules for the same port and reason in one row, whatever their sources."""
    merged: dict[tuple[str, str], tuple[set[str], list[str]]] = {}
    for rule in found.rules:
        hosts, sources = merged.setdefault((rule.ports, rule.why.split(", from ")[0]), (set(), []))
        hosts.update(rule.hosts)
        sources.append(rule.source.removesuffix("/32"))
    rows = [["port", "hosts", "what for", "from"]]
    for (ports, why), (hosts, sources) in merged.items():
        rows.append([ports, _names(hosts, most=4), why, ", ".join(dict.fromkeys(sources))])
    return table(rows, indent="  ")


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"  - {clean(line)}" for line in lines)


def applied_text(found: Applied, spec: Spec) -> str:
    failed = [c for c in found.checks if not c.ok]
    if failed:
        first = f"{spec.name} is not ready after {found.seconds:.1f} s:"
        return "\n".join(
            [
                first,
                *(f"  - {clean(c.name)}: no {clean(c.detail)}".rstrip() for c in failed),
                "redkeep status shows more",
            ]
        )
    did = f"{len(found.steps)} steps" if found.changed else "nothing to do"
    lines = [f"{spec.name} is ready ({did}, {found.seconds:.1f} s)", ""]
    rows = [[e.kind, e.node, str(e.address)] for e in found.endpoints]
    lines.append(table(rows, indent="  "))
    lines += ["", "For your application:", *(f"  {clean(line)}" for line in found.application)]
    return "\n".join(lines)


def status_text(found: Status) -> str:
    rows = [["node", "role", "announced", "follows", "slots", "memory", "lag", "link", "version"]]
    for n in found.nodes:
        rows.append(
            [
                n.name,
                n.role,
                clean(n.announced),
                clean(n.primary or "-"),
                "-" if n.slots is None else str(n.slots),
                "-" if n.memory_bytes is None else size(n.memory_bytes),
                "-" if n.lag_bytes is None else str(n.lag_bytes),
                clean(n.link),
                n.version or "-",
            ]
        )
    text = f"{found.name}: {found.state} ({found.mode}, {found.engine})\n\n{table(rows)}"
    return f"{text}\n\nSuggestions:\n{_list(found.suggestions)}" if found.suggestions else text


def url_text(found: Urls) -> str:
    lines = [*found.urls]
    if found.sentinels:
        lines += [f"sentinels: {' '.join(found.sentinels)}", f"primary's name there: {found.primary_name}"]
    if found.tls:
        lines.append(f"CA file for clients: {found.ca}")
    if not found.revealed and found.password is not None:
        lines.append("(--reveal shows the password)")
    return "\n".join(lines)


def rotated_text(found: Rotated) -> str:
    names = ", ".join(found.roles)
    failed = [f"  - {clean(c.name)}: no {clean(c.detail)}".rstrip() for c in found.checks if not c.ok]
    if failed:
        return "\n".join(["not every node is well:", *failed, "both passwords work; run it again to go on"])
    if not found.roles:
        return "no former password works any more" if found.finished else "nothing was changed"
    if found.finished:
        return f"the former password of {names} is refused from now on"
    lines = [f"the password of {names} was changed ({found.seconds:.1f} s)"]
    for role in found.waiting:
        lines.append(
            f"the former password of {role} still works: give applications the new one (redkeep url --reveal), "
            f"then redkeep rotate {role} --finish"
        )
    return "\n".join(lines)


def restarted_text(found: Restarted) -> str:
    failed = [f"  - {clean(c.name)}: no {clean(c.detail)}".rstrip() for c in found.checks if not c.ok]
    if failed:
        return "\n".join(["not every node is well after the restart:", *failed, "redkeep status shows more"])
    return f"restarted in {found.seconds:.1f} s: {_names(found.nodes, most=12)}"


def log_text(entries: Sequence[dict[str, Any]]) -> str:
    if not entries:
        return "nothing was done yet"
    rows = []
    for e in entries:
        detail = (
            e.get("why") or e.get("error") or e.get("text") or (f"{e['seconds']} s" if "seconds" in e else "")
        )
        rows.append(
            [
                e.get("at", "")[:19].replace("T", " "),
                e.get("command", ""),
                e.get("event", ""),
                clean(e.get("step", "")),
                clean(str(detail)),
            ]
        )
    return table(rows)
