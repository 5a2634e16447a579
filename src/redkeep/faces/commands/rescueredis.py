"""``rescue redis``: a dead server's Redis data back into a clean file, and into a running deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.faces.options import (
    CaOption,
    ClearTextOption,
    JsonOption,
    MountOption,
    PartitionOption,
    PasswordFileOption,
    TrustOption,
    UserOption,
    VerboseOption,
)
from redkeep.faces.output import out, out_json
from redkeep.faces.passwords import given_password
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from redkeep.model.events import Approve
    from redkeep.usecases.check import Access
    from redkeep.usecases.rescue_redis_into import Opened

INCOMPLETE = 1


def redis(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            readable=False,
            help="A directory, device or image, a bundle of rescue extract, or an RDB or append-only file itself.",
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="[PATH]", help="Which data there, where it is not plain: a file, a manifest, a directory."
        ),
    ] = "",
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Where copy and result go.", show_default="./rescued-redis-SOURCE"),
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option("--server", help="The engine to read it with, instead of the bundled Valkey."),
    ] = None,
    before_flush: Annotated[
        bool,
        typer.Option(
            "--before-flush",
            help="Cut an append-only file before the FLUSHALL or FLUSHDB that took the most keys.",
        ),
    ] = False,
    flush: Annotated[
        int,
        typer.Option(
            "--flush",
            metavar="N",
            help="Cut before the flush of this number instead.",
            min=0,
            show_default=False,
        ),
    ] = 0,
    without_intruders: Annotated[
        bool,
        typer.Option(
            "--without-intruders", help="Leave out keys that hold an intruder's cron lines or keys."
        ),
    ] = False,
    with_functions: Annotated[
        bool,
        typer.Option("--with-functions", help="Also load functions and scripts, which may be a back door."),
    ] = False,
    into: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="TARGET",
            help="Copy all keys there: redis://HOST:PORT, a Cluster's node too, or a deployment file (redkeep.yaml).",
        ),
    ] = "",
    db: Annotated[
        list[int] | None, typer.Option("--db", metavar="N", help="Only this database. Repeatable.", min=0)
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace keys that are there with another value; else they stay."),
    ] = False,
    user: UserOption = "",
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    trust_discovered: TrustOption = False,
    allow_clear_text: ClearTextOption = False,
    partition: PartitionOption = "",
    mount: MountOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Load a copy of the data into a clean engine without network; save, and copy into a deployment. Again, to go on."""
    from redkeep.usecases.check import Access
    from redkeep.usecases.rescue_redis import Wish, default_work, rescue_redis

    _consistent(
        into=into, before_flush=before_flush, flush=flush, only_into={"--replace": replace, "--db": bool(db)}
    )
    wish = Wish(
        source,
        data,
        work or default_work(source),
        server,
        partition,
        mount,
        flush or (-1 if before_flush else 0),
        without_intruders,
        with_functions,
        tuple(db or ()),
        replace,
    )
    access = Access(
        user, given_password(password_file) if into else "", ca, trust_discovered, allow_clear_text
    )
    found = run(lambda approve, emit: rescue_redis(wish, _target(into, access, approve), emit))
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.rescuedredis import rescued_redis_text

        out(rescued_redis_text(found.document))
    return 0 if found.complete else INCOMPLETE


def _target(into: str, access: Access, approve: Approve) -> Opened | None:
    """A URL, or the file of a deployment."""
    from redkeep.usecases.rescue_redis_into import at_url, of_deployment

    if not into:
        return None
    if into.endswith((".yaml", ".yml")) and "://" not in into:
        return of_deployment(load_spec(Path(into)), Path(into), approve)
    return at_url(into, access)


def _consistent(*, into: str, before_flush: bool, flush: int, only_into: dict[str, bool]) -> None:
    from redkeep.errors import UsageError

    where = "redkeep rescue redis"
    if before_flush and flush:
        raise UsageError("--before-flush and --flush", where=where, next="leave one out")
    named = [option for option, given in only_into.items() if given]
    if named and not into:
        raise UsageError(
            f"{named[0]} is about a target, and none is named", where=where, next="--into TARGET"
        )
