"""``init`` and ``schema``: the deployment file itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.errors import UsageError
from redkeep.faces.options import (
    DEFAULT_FILE,
    CaOption,
    CertOption,
    ClearTextOption,
    FileOption,
    JsonOption,
    KeyOption,
    PasswordFileOption,
    TrustOption,
    UserOption,
    VerboseOption,
)
from redkeep.faces.output import out, out_json
from redkeep.faces.session import run

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.usecases.check import Access


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("schema")(schema)


def init(
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="TARGET",
            help="Write the file of what runs at this redis://, rediss://, sentinel:// or HOST:PORT; repeat it.",
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="local, or a host: [NAME=]SSH[,private=IP][,public=IP][,zone=CLOUD/ZONE][,network=NAME]; repeat it."
        ),
    ] = None,
    mode: Annotated[str | None, typer.Option(help="standalone, sentinel or cluster.")] = None,
    name: Annotated[str, typer.Option(help="Of the deployment.")] = "main",
    flavor: Annotated[str | None, typer.Option(help="redis or valkey.")] = None,
    source: Annotated[str | None, typer.Option(help="bundled, package, tarball or binary.")] = None,
    path: Annotated[str | None, typer.Option(help="With source tarball or binary: where it is.")] = None,
    clients: Annotated[str, typer.Option(help="private or public: where the applications are.")] = "private",
    maxmemory: Annotated[str | None, typer.Option(help="For each node, such as 2GiB.")] = None,
    user: UserOption = "",
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    trust_discovered: TrustOption = False,
    allow_clear_text: ClearTextOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a deployment file: from answers, or of what runs already."""
    from redkeep.usecases.init import Answers, parse_host, render, write

    if from_:
        if host or mode:
            hint = "leave them out"
            raise UsageError("--from finds the hosts and the mode itself", where="redkeep init", next=hint)
        from redkeep.faces.passwords import given_password
        from redkeep.usecases.check import Access

        password = given_password(password_file)
        access = Access(user, password, ca, trust_discovered, allow_clear_text, cert=cert, key=key)
        text = _described(from_, access)
        _told(write(text, file, force=force), file, json=json, next="redkeep check")
        return
    mode = mode or _ask("mode (standalone, sentinel, cluster)", "--mode")
    hosts = tuple(parse_host(text, index) for index, text in enumerate(host or _ask_hosts(), start=1))
    answers = Answers(mode, hosts, name, flavor, source, path, clients, maxmemory)
    _told(write(render(answers), file, force=force), file, json=json, next="redkeep plan")


def _told(spec: Spec, file: Path, *, json: bool, next: str) -> None:
    if json:
        out_json(
            {"file": str(file), "name": spec.name, "mode": spec.mode, "hosts": [h.name for h in spec.hosts]}
        )
    else:
        out(f"wrote {file}; read it over, then: {next}")


def _described(targets: list[str], access: Access) -> str:
    from redkeep.usecases.check import targets_of
    from redkeep.usecases.initfrom import describe

    named = targets_of(targets)
    return run(lambda approve, emit: describe(named, access))


def schema(json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Print the deployment file's JSON Schema, for editors."""
    from redkeep.usecases.schema import schema as make

    out_json(make())


def _ask_hosts() -> list[str]:
    answer = _ask("hosts, by spaces (local, or user@address ...)", "--host")
    return answer.split()


def _ask(question: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{option} is missing, and nobody to ask", where="redkeep init", next=f"add {option} VALUE"
        )
    while not (answer := str(typer.prompt(question, err=True)).strip()):
        pass
    return answer
