"""``rescue plan``: what to rebuild, and the files for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redkeep.faces.options import JsonOption, MountOption, PartitionOption, VerboseOption
from redkeep.faces.output import out as show
from redkeep.faces.output import out_json
from redkeep.faces.session import run


def register(rescue: typer.Typer) -> None:
    rescue.command("plan")(plan)


def plan(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE", readable=False, help="A bundle, or the evidence: a directory, device or image."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the files are written.")] = Path("rebuild"),
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A new host, as in init: NAME=user@address,...; may be given again."),
    ] = None,
    web_root: Annotated[
        str, typer.Option("--web-root", help="Where the sites' files will be on the new host.")
    ] = "/srv/rescued",
    ssh_from: Annotated[
        str,
        typer.Option("--ssh-from", help="The address that may use SSH; the scripts ask for it otherwise."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files of an earlier plan.")] = False,
    partition: PartitionOption = "",
    mount: MountOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write what to rebuild: redkeep.yaml, nginx, a security group, what to rotate, and the order of steps."""
    from redkeep.usecases import rescue_plan

    planned = run(
        lambda approve, emit: rescue_plan.plan(
            source,
            out,
            hosts=host or [],
            web_root=web_root,
            ssh_from=ssh_from,
            partition=partition,
            mount=mount,
            force=force,
            emit=emit,
        )
    )
    if json:
        out_json(planned.as_json())
    else:
        from redkeep.faces.rebuilding import planned_text

        show(planned_text(planned.document))
