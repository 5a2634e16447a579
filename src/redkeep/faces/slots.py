"""A move of hash slots as text for people: before it, and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redkeep.faces.output import clean
from redkeep.faces.render import size, table

if TYPE_CHECKING:
    from redkeep.usecases.reshard import Proposed, Resharded

_WAYS = {"atomic": "by the engine, as a whole", "migrate": "key by key"}


def proposed_text(found: Proposed) -> str:
    parts = []
    if found.going_on:
        parts.append(f"{found.name}: going on with redkeep reshard {clean(found.request)}")
    if found.open:
        parts.append(
            f"{found.name}: {len(found.open)} hash slots are in the middle of a move; they are put right first"
        )
    if found.legs:
        slots, keys = sum(leg.move.count for leg in found.legs), sum(leg.keys for leg in found.legs)
        seconds = max(1.0, sum(leg.seconds for leg in found.legs))
        parts.append(
            f"{found.name}: {slots} hash slots with {keys} keys ({size(int(sum(leg.size for leg in found.legs)))}) move, "
            f"in about {seconds:.0f} s"
        )
        rows = [["from", "to", "slots", "keys", "how"]]
        for leg in found.legs:
            move = leg.move
            rows.append(
                [clean(move.source), clean(move.target), str(move.count), str(leg.keys), _WAYS[leg.way]]
            )
        parts.append(table(rows, indent="  "))
    return "\n".join(parts)


def resharded_text(found: Resharded) -> str:
    traffic = found.traffic
    if not traffic.moved_slots and not traffic.settled:
        return "nothing to do: every hash slot is where it shall be, and none is open"
    lines = []
    if traffic.settled:
        lines.append(f"put right: {traffic.settled} hash slots whose move was interrupted")
    rate = f"{traffic.moved_keys / found.seconds:,.0f} keys/s" if found.seconds else ""
    lines.append(
        f"moved {traffic.moved_slots} hash slots with {traffic.moved_keys} keys in {found.seconds:.2f} s ({rate})"
    )
    if found.felt:
        lines.append(
            f"a client's longest pause was {found.felt.longest * 1000:.0f} ms; "
            f"of {found.felt.acknowledged} writes {found.felt.lost} were lost"
        )
    if traffic.doubles:
        lines.append(
            f"{traffic.doubles} keys existed on both sides: the owner's value stayed, both are in {traffic.saved}"
        )
    lines += [f"not well: {clean(c.name)}: no {clean(c.detail)}".rstrip() for c in found.checks if not c.ok]
    return "\n".join(lines)
