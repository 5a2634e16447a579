"""Repairs as text for people, within 80 columns where commands allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redkeep.faces.findings import checked_text, wrapped

if TYPE_CHECKING:
    from redkeep.usecases.fix import Fixed, Proposal, Proposed


def proposed_text(proposed: Proposed) -> str:
    return "\n".join([f"REPAIRS ({len(proposed.repairs)})", *map(_repair, proposed.repairs)])


def _repair(repair: Proposal) -> str:
    return "\n".join(
        [
            wrapped(f"{repair.rule}  {repair.node}", "  ", "    "),
            wrapped(repair.why, "    why   ", " " * 10),
            wrapped(repair.say, "    say   ", " " * 10),
            wrapped(repair.stays, "    stays ", " " * 10),
        ]
    )


def fixed_text(fixed: Fixed) -> str:
    """The check after the repairs, with what is left to a person."""
    lines = [checked_text(fixed.checked), ""]
    if fixed.by_apply:
        lines.append("Redkeep made this deployment: redkeep apply brings back what the file says.")
    elif fixed.steps:
        lines.append(f"{len(fixed.steps)} repair{'s' if len(fixed.steps) != 1 else ''} carried out.")
    else:
        lines.append("Nothing here can be mended safely without a person.")
    if fixed.left:
        many = fixed.left != 1
        lines.append(
            f"{fixed.left} finding{'s are' if many else ' is'} left to a person: "
            f"see the fix that {'each' if many else 'it'} names."
        )
    return "\n".join(lines)
