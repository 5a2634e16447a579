"""``check``: the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redkeep.faces.options import (
    CaOption,
    CertOption,
    ClearTextOption,
    JsonOption,
    KeyOption,
    PasswordFileOption,
    TrustOption,
    UserOption,
    VerboseOption,
    YesOption,
)


def register(app: typer.Typer) -> None:
    app.command("check")(_check)


def _check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]...",
            help="redis://, rediss://, sentinel://HOST:PORT/NAME or HOST:PORT; without, the deployment file.",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="The deployment file.")] = None,
    user: UserOption = "",
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    trust_discovered: TrustOption = False,
    allow_clear_text: ClearTextOption = False,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="HOST",
            help="Judge reachability from there, by SSH: user@host, an alias, a host of the file, or here. Repeatable.",
        ),
    ] = None,
    ssh: Annotated[
        list[str] | None,
        typer.Option(
            "--ssh", metavar="LOGIN", help="Look at this host too, where nodes run: user@host. Repeatable."
        ),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Show the repairs that are safe, do them when approved, check again."),
    ] = False,
    yes: YesOption = False,
    watch: Annotated[
        float,
        typer.Option(
            "--watch", metavar="SECONDS", help="Check again every so many seconds.", min=0, show_default=False
        ),
    ] = 0,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Find what is wrong with any Redis or Valkey deployment. Changes nothing without --fix. Exit status 3: errors."""
    from redkeep.faces.checking import Wish, check

    return check(
        Wish(
            targets or [],
            file,
            user=user,
            password_file=password_file,
            ca=ca,
            cert=cert,
            key=key,
            trust_discovered=trust_discovered,
            allow_clear_text=allow_clear_text,
            vantages=tuple(from_ or ()),
            machines=tuple(ssh or ()),
            fix=fix,
            yes=yes,
            watch=watch,
            json=json,
        )
    )
