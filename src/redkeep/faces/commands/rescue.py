"""``rescue``: from a dead or broken-into server's disk back to service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redkeep.faces.commands import rescueplan, rescuerunbook
from redkeep.faces.commands.rescueredis import redis
from redkeep.faces.options import JsonOption, MountOption, PartitionOption, SourceArgument, VerboseOption
from redkeep.faces.output import out, out_json
from redkeep.faces.session import run

INCOMPLETE = 1
BROKEN_INTO = 3

rescue = typer.Typer(
    name="rescue",
    help="From a dead or broken-into server's disk back to service. Nothing there is run or written to.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    rescueplan.register(rescue)
    rescuerunbook.register(rescue)
    rescue.command("redis")(redis)
    app.add_typer(rescue, name="rescue")


@rescue.command("inspect")
def inspect(
    source: SourceArgument,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report there, for a browser.")
    ] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show passwords as they are, not only how long they are.")
    ] = False,
    yara: Annotated[Path | None, typer.Option("--yara", help="Your own YARA rules, over every file.")] = None,
    partition: PartitionOption = "",
    mount: MountOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Say what was on a disk, and what was done to it. Exit status 3: signs of a break-in."""
    from redkeep.usecases import rescue_inspect

    if html is not None:
        _require_outside(html, source)
    found = run(
        lambda approve, emit: rescue_inspect.inspect(
            source, partition=partition, mount=mount, reveal=reveal, yara=yara, emit=emit
        )
    )
    if html is not None:
        from redkeep.faces.rescuedhtml import page

        _write(html, page(found.document))
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.rescued import inspected_text

        out(inspected_text(found.document))
    return BROKEN_INTO if found.broken_into else 0


def _require_outside(file: Path, source: Path) -> None:
    from redkeep.errors import RefusedError

    inner, outer = file.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise RefusedError(
            "the report would be written into the evidence", where=str(file), next="name another place"
        )


def _write(file: Path, text: str) -> None:
    """For its owner only: a report tells much of a system."""
    import os
    import stat

    from redkeep.errors import RedkeepError

    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as opened:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):  # one of an earlier run may be for everybody
                os.fchmod(descriptor, 0o600)
            opened.write(text)
    except OSError as error:
        what = f"cannot write the report: {error.strerror}"
        raise RedkeepError(what, where=str(file), next="name another place") from None


@rescue.command("extract")
def extract(
    source: SourceArgument,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A new directory, not on that disk.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="A family that inspect shows, or a path there; may be given more than once."
        ),
    ] = None,
    partition: PartitionOption = "",
    mount: MountOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Take what inspect finds into a bundle, hashed and verified. Again, to finish or to verify."""
    from redkeep.usecases import rescue_extract

    wanted = [part for one in only or [] for part in ([one] if one.startswith("/") else one.split(","))]
    found = run(
        lambda approve, emit: rescue_extract.extract(
            source, bundle, wanted, partition=partition, mount=mount, emit=emit
        )
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.rescued import extracted_text

        out(extracted_text(found.document))
    return 0 if found.complete else INCOMPLETE
