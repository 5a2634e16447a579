"""What ``rescue plan`` and ``rescue runbook`` say on a terminal. Everything that a victim's disk says is escaped."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from redkeep.faces.output import clean

if TYPE_CHECKING:
    from redkeep.usecases.rescue_runbook import Runbook

_MOST = 12


def planned_text(document: dict[str, Any]) -> str:
    d = document
    fresh = f"{len(d['written'])} written" if d["written"] else "all of them were there already"
    lines = [f"{clean(d['out'])}: {len(d['files']) + 1} files ({fresh}); begin with REBUILD.md"]
    for one in d["redis"]:
        lines.append(
            f"\n{one['file']}: {one['mode']}, port {one['port']}, from {clean(', '.join(one['sources'][:3]))}"
        )
        lines += [f"  {clean(change)}" for change in one["changes"]]
        lines += [f"  note: {clean(note)}" for note in one["notes"]]
    if d["sites"]:
        lines.append(f"\nnginx: {len(d['sites'])} sites")
        for site in d["sites"][:_MOST]:
            where = ", ".join([*site["directories"], *site["applications"]])
            lines.append(f"  {clean(', '.join(site['names'][:4]) or 'no name')}: {clean(where)}")
        lines += _more(len(d["sites"]))
    if d["left_out"]:
        lines.append(f"\nNot carried over from nginx ({len(d['left_out'])}):")
        lines += [f"  {clean(one['what'])}: {clean(one['why'])}" for one in d["left_out"][:_MOST]]
        lines += _more(len(d["left_out"]))
    counted = Counter(one["kind"] for one in d["rotate"])
    if counted:
        lines.append(f"\nExposed, to be replaced ({len(d['rotate'])}), each with its place in REBUILD.md:")
        lines.append("  " + ", ".join(f"{kind}: {count}" for kind, count in counted.most_common()))
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"  and {count - _MOST} more, in REBUILD.md"] if count > _MOST else []


def runbook_text(runbook: Runbook) -> str:
    """As Markdown, which a terminal shows as well: command lines stand alone, to be copied."""
    blocks = [f"# {runbook.title}", *(part.text for part in runbook.introduction)]
    for number, step in enumerate(runbook.steps, start=1):
        blocks.append(f"## {number}. {step.title}")
        for part in step.parts:
            if part.text:
                blocks.append(part.text)
            if part.run:
                blocks.append(f"```sh\n{part.run}\n```")
            if part.shows:
                blocks.append(f"> {runbook.shows}: " + " ".join(part.shows.split("\n")))
    return "\n\n".join(blocks)
