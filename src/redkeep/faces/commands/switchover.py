"""``switchover``: another primary, without losing a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.errors import UsageError
from redkeep.faces.options import DEFAULT_FILE, FileOption, JsonOption, VerboseOption, YesOption
from redkeep.faces.output import out, out_json
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from redkeep.usecases.switchover import Switched


def register(app: typer.Typer) -> None:
    app.command("switchover")(switchover)


def switchover(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[SHARD|NODE|HOST]",
            help="Whose primary hands over: a shard's number, a node, or all primaries of a host.",
        ),
    ] = "",
    to: Annotated[
        str | None, typer.Option("--to", metavar="NODE", help="The replica that takes over.")
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put the primaries back where the placement wants them.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Write meanwhile, and tell how long writes stood still.")
    ] = False,
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Move a primary to one of its replicas without losing a write. Run again after a cut, it goes on.

    A request that names its node (NODE, or --to) may be repeated: where that holds already, nothing is done. One that
    names only a shard is a new one each time.
    """
    if restore and (what or to):
        raise UsageError(
            "--restore finds the shards itself", where="redkeep switchover", next="leave the others out"
        )
    spec = load_spec(file)
    from redkeep.usecases.switchover import Request
    from redkeep.usecases.switchover import switchover as use_case

    request = Request(what, to, restore=restore, probe=probe)
    found = run(lambda approve, emit: use_case(spec, file, request, approve=approve, emit=emit), yes=yes)
    if json:
        out_json(found.as_json())
    else:
        out(_text(found))
    return 0 if found.ok else 1


def _text(found: Switched) -> str:
    if not found.moves:
        return f"nothing to do: {found.at}"
    lines = []
    for move in found.moves:
        lines.append(f"shard {move.shard + 1}: {move.replica} is the primary now (before: {move.primary})")
        if move.window_ms is not None:
            lines.append(
                f"  writes stood still for {move.window_ms:.0f} ms; "
                f"{move.acknowledged} were acknowledged, {move.lost} of them lost"
            )
    return "\n".join(lines)
