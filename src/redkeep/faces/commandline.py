"""The command line: which commands there are.

Only what ``--help`` needs is imported here and in ``faces/commands``; each command imports its use case when it runs.
"""

from __future__ import annotations

from copy import copy

import typer

from redkeep.faces.commands import (
    check,
    client,
    demo,
    deploy,
    drill,
    explain,
    files,
    move,
    rescue,
    rescuemysql,
    rolling,
    switchover,
)
from redkeep.faces.output import Misused, out

app = typer.Typer(
    name="redkeep",
    help="Deploys and operates Redis and Valkey: standalone, Sentinel or Cluster, here or over SSH.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for group in (
    demo,
    files,
    deploy,
    switchover,
    client,
    check,
    explain,
    drill,
    move,
    rolling,
    rescue,
    rescuemysql,
):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from redkeep import __version__

        out(f"redkeep {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """The command's exit status. Raises what the command raises, and ``Misused``."""
    try:
        status = _only(arguments[0])(arguments, prog_name="redkeep", standalone_mode=False)
    except typer.TyperException as error:
        raise _usage(error, arguments) from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def _only(word: str) -> typer.Typer:
    """The command line with this command alone, where it is one: reading all of them costs 20 ms of every start."""
    found = [info for info in app.registered_commands if info.name == word]
    if not found:
        return app
    alone = copy(app)
    alone.registered_commands = found
    return alone


def _usage(error: typer.TyperException, arguments: list[str]) -> Misused:
    called = " ".join(["redkeep", *_command(arguments)])
    return Misused(
        error.format_message().rstrip("."), where=called, next=f"{called} --help shows what there is"
    )


def _command(arguments: list[str]) -> list[str]:
    """The command that was meant, with its subcommand."""
    if arguments[0] in {info.name for info in app.registered_commands}:
        return arguments[:1]
    for group in app.registered_groups:
        if group.name == arguments[0] and group.typer_instance is not None:
            names = {info.name for info in group.typer_instance.registered_commands}
            return arguments[:2] if arguments[1:2] and arguments[1] in names else arguments[:1]
    return []
