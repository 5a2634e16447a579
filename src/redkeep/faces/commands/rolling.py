"""``restart`` and ``rotate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.faces.options import DEFAULT_FILE, FileOption, JsonOption, VerboseOption, YesOption
from redkeep.faces.output import err, out, out_json
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from redkeep.usecases.plan import Planned


def register(app: typer.Typer) -> None:
    app.command("restart")(restart)
    app.command("rotate")(rotate)


def restart(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NODE|HOST]...", help="Which; without, everything."),
    ] = None,
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Restart servers one after the other; who leads hands over first, so that no write is lost."""
    spec = load_spec(file)
    from redkeep.usecases.restart import restart as use_case

    def show(planned: Planned) -> None:
        from redkeep.faces.render import plan_text

        err(plan_text(planned))

    found = run(
        lambda approve, emit: use_case(spec, file, nodes or [], approve=approve, emit=emit, show=show),
        yes=yes,
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.render import restarted_text

        out(restarted_text(found))
    return 0 if found.ok else 1


def rotate(
    roles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PASSWORD...", help="app, admin, replication, sentinel, gate, or all."),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="The application uses the new password everywhere: end the old one."),
    ] = False,
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Change passwords while everything runs; the application's old one works until --finish."""
    spec = load_spec(file)
    from redkeep.usecases.rotate import rotate as use_case

    found = run(
        lambda approve, emit: use_case(spec, file, roles or [], end=finish, approve=approve, emit=emit),
        yes=yes,
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.render import rotated_text

        out(rotated_text(found))
    return 0 if found.ok else 1
