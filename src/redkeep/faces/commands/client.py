"""``client``: settings for an application's client library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.faces.options import DEFAULT_FILE, FileOption, JsonOption, VerboseOption
from redkeep.faces.output import err, out, out_json
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from redkeep.usecases.client import ClientSettings


def register(app: typer.Typer) -> None:
    app.command("client")(client)


def client(
    name: Annotated[
        str | None,
        typer.Argument(
            help="lettuce, spring-boot, jedis, go-redis, ioredis or redis-py. Without it: the list."
        ),
    ] = None,
    stack: Annotated[
        str, typer.Option("--stack", help="An older generation: --stack 2.1 for Spring Boot 2.1.")
    ] = "",
    reveal: Annotated[bool, typer.Option("--reveal", help="With the password in it.")] = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print settings for an application's client library, with which it follows failovers of this deployment."""
    from redkeep.usecases.client import client as use_case
    from redkeep.usecases.client import known, libraries

    if name is None:
        if json:
            out_json({"libraries": libraries()})
        else:
            out("\n".join(f"{lib['name']:<17}{lib['title']}" for lib in libraries()))
        return
    library = known(name, stack)
    spec = load_spec(file)
    found = run(lambda approve, emit: use_case(spec, file, library, reveal=reveal))
    if json:
        out_json(found.as_json())
    else:
        _show(found)


def _show(found: ClientSettings) -> None:
    """One file as it is, so that it can be redirected; several with their names above them."""
    if len(found.files) == 1:
        err(f"{found.files[0].name}:")
        out(found.files[0].text)
        return
    for number, file in enumerate(found.files):
        mark = "#" if file.name.endswith(".yml") else "//"
        out(("\n" if number else "") + f"{mark} ---- {file.name} ----\n{file.text}")
