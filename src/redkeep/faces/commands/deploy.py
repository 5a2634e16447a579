"""``plan``, ``apply``, ``status``, ``url``, ``destroy``, ``log`` and ``recover``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.faces.options import (
    DEFAULT_FILE,
    CaOption,
    CertOption,
    ClearTextOption,
    FileOption,
    JsonOption,
    KeyOption,
    PasswordFileOption,
    UserOption,
    VerboseOption,
    YesOption,
)
from redkeep.faces.output import err, out, out_json
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from pathlib import Path

    from redkeep.model.events import Approve, Emit
    from redkeep.model.spec import Spec
    from redkeep.usecases.apply import Applied
    from redkeep.usecases.check import Access
    from redkeep.usecases.plan import Planned
    from redkeep.usecases.status import Status


def register(app: typer.Typer) -> None:
    for name, command in (
        ("plan", plan),
        ("apply", apply),
        ("status", status),
        ("url", url),
        ("destroy", destroy),
        ("log", log),
        ("recover", recover),
    ):
        app.command(name)(command)


def plan(file: FileOption = DEFAULT_FILE, json: JsonOption = False, verbose: VerboseOption = False) -> int:
    """Show what apply would do, why, and what the result survives. Exit status 1 where apply would stop."""
    spec = load_spec(file)
    from redkeep.usecases.plan import plan as use_case

    found = run(lambda approve, emit: use_case(spec, file, approve=approve))
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.render import plan_text

        out(plan_text(found))
    return 1 if found.blocked else 0


def apply(
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Make the deployment as the file says; again, to finish or to change it."""
    spec = load_spec(file)
    from redkeep.usecases.early import greet

    async def carry_out(approve: Approve, emit: Emit) -> Applied:
        sessions = await greet(spec, file, approve, needed="redkeep.usecases.apply")
        from redkeep.usecases.apply import apply as use_case

        return await use_case(spec, file, approve=approve, emit=emit, show=show, sessions=sessions)

    def show(planned: Planned) -> None:
        from redkeep.faces.render import plan_text

        err(plan_text(planned))

    found = run(carry_out, yes=yes)
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.render import applied_text

        out(applied_text(found, spec))
    return 0 if found.ok else 1


def status(
    user: UserOption = "",
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    allow_clear_text: ClearTextOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Show nodes, roles, slots, memory and lag. Exit status 1 where data cannot be written.

    Credentials are for deployments that Redkeep did not make (adopted: true); of its own it knows them.
    """
    spec = load_spec(file)
    if spec.adopted:
        from redkeep.faces.passwords import asked_password, given_password
        from redkeep.usecases.check import Access

        password = given_password(password_file) if password_file else asked_password()
        access = Access(user, password, ca, allow_clear_text=allow_clear_text, cert=cert, key=key)
        found = _status_of_adopted(spec, file, access)
    else:
        from redkeep.usecases.status import status as use_case

        found = run(lambda approve, emit: use_case(spec, file))
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.render import status_text

        out(status_text(found))
    return 1 if found.state == "down" else 0


def _status_of_adopted(spec: Spec, file: Path, access: Access) -> Status:
    from redkeep.usecases.adopted import status_of

    return run(lambda approve, emit: status_of(spec, file, access))


def url(
    user: Annotated[str, typer.Option(help="app or admin.")] = "app",
    reveal: Annotated[bool, typer.Option("--reveal", help="With the password.")] = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print connection URLs, for redis-cli -u and for an application's settings."""
    from redkeep.errors import UsageError

    if user not in ("app", "admin"):
        raise UsageError(f"no such user: {user}", where="redkeep url --user", next="app or admin")
    spec = load_spec(file)
    from redkeep.usecases.url import url as use_case

    found = run(
        lambda approve, emit: use_case(spec, file, user="app" if user == "app" else "admin", reveal=reveal)
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.render import url_text

        out(url_text(found))


def destroy(
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete the data, instead of keeping it aside.")
    ] = False,
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take the deployment down; its data is kept aside on each host."""
    spec = load_spec(file)
    from redkeep.usecases.destroy import destroy as use_case

    found = run(
        lambda approve, emit: use_case(spec, file, approve=approve, emit=emit, delete_data=delete_data),
        yes=yes,
    )
    if json:
        out_json(found.as_json())
    else:
        for host, kept in sorted(found.kept.items()):
            out(f"{host}: taken down" + (f"; its data is in {kept}" if kept else ""))
        for host, folders in sorted(found.earlier.items()):
            out(f"{host}: data that was set aside earlier is still in {', '.join(folders)}")
        for host, reason in sorted(found.unreached.items()):
            out(f"{host}: not reached ({reason}); run redkeep destroy again when it is back")
    if found.unreached:
        raise typer.Exit(1)


def log(
    last: Annotated[int, typer.Option("--last", help="So many entries; 0 for all.", min=0)] = 40,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what was done: when, where, why, and how long it took."""
    spec = load_spec(file)
    from redkeep.usecases.log import log as use_case

    entries = use_case(spec, file, last=last or None)
    if json:
        out_json({"entries": entries})
    else:
        from redkeep.faces.render import log_text

        out(log_text(entries))


def recover(
    file: FileOption = DEFAULT_FILE, json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Read the passwords back from the hosts, when the folder .redkeep was lost."""
    spec = load_spec(file)
    from redkeep.usecases.recover import recover as use_case

    found = run(lambda approve, emit: use_case(spec, file, approve=approve, emit=emit))
    if json:
        out_json(found.as_json())
    else:
        out(
            f"the secrets of {spec.name} were read back from {found.host} into {found.folder}; next: redkeep apply"
        )
