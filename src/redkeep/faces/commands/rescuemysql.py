"""``rescue mysql``: the databases of a dead server as dumps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redkeep.faces.commands.rescue import INCOMPLETE, rescue
from redkeep.faces.options import JsonOption, MountOption, PartitionOption, SourceArgument, VerboseOption
from redkeep.faces.output import out as say
from redkeep.faces.output import out_json
from redkeep.faces.session import run


def register(app: typer.Typer) -> None:
    rescue.command("mysql")(mysql)


def mysql(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIRECTORY", help="A new directory, for the dumps.")],
    datadir: Annotated[
        str, typer.Option("--datadir", metavar="PATH", help="Which data directory, as a path on that disk.")
    ] = "",
    mysqld: Annotated[
        str, typer.Option("--mysqld", metavar="PATH", help="Another server than this machine's MariaDB.")
    ] = "",
    level: Annotated[
        int,
        typer.Option("--force-recovery", min=0, max=6, help="The innodb_force_recovery to begin with."),
    ] = 0,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", help="So long may the server do nothing.")
    ] = 300,
    again: Annotated[bool, typer.Option("--again", help="Make anew what is there already.")] = False,
    partition: PartitionOption = "",
    mount: MountOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Dump the databases from a copy of their files, and say which tables are exact. Exit status 1: not all are."""
    from redkeep.usecases import rescue_mysql

    found = run(
        lambda approve, emit: rescue_mysql.dump(
            source,
            out,
            datadir=datadir,
            partition=partition,
            mount=mount,
            mysqld=mysqld,
            patience=patience,
            level=level,
            again=again,
            emit=emit,
        )
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.rescuedmysql import dumped_text

        say(dumped_text(found.document))
    return 0 if found.complete else INCOMPLETE
