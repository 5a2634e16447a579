"""What ``redkeep check`` does, however it was asked. Nothing of the command line's library is imported here."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.faces.output import err, out, out_json, show_error
from redkeep.faces.passwords import asked_password, given_password
from redkeep.faces.session import DEFAULT_FILE, load_spec, run
from redkeep.model.values import Value

if TYPE_CHECKING:
    from redkeep.usecases.check import Access, Checked

ERRORS_FOUND = 3


class Wish(Value):
    """The options of the command. ``watch``: seconds between two looks; 0 for one."""

    targets: Sequence[str]
    file: Path | None = None
    user: str = ""
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    trust_discovered: bool = False
    allow_clear_text: bool = False
    vantages: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    fix: bool = False
    yes: bool = False
    watch: float = 0
    json: bool = False


def check(wish: Wish) -> int:
    """The exit status."""
    from redkeep.usecases.check import Access

    _consistent(wish)
    targets, file = list(wish.targets), wish.file or DEFAULT_FILE
    password = given_password(wish.password_file)
    if not (targets or password or wish.password_file) and load_spec(file).adopted:
        password = asked_password()
    access = Access(
        wish.user,
        password,
        wish.ca,
        wish.trust_discovered,
        wish.allow_clear_text,
        wish.vantages,
        wish.machines,
        wish.cert,
        wish.key,
    )
    if wish.fix:
        return _fix(targets, file, access, yes=wish.yes, json=wish.json)
    if wish.watch:
        return _watch(targets, file, access, wish.watch)
    gc.disable()  # one look, and the end: collecting would cost more than it frees
    checked = _once(targets, file, access)
    if wish.json:
        out_json(checked.as_json())
    else:
        from redkeep.faces.findings import checked_text

        out(checked_text(checked))
    return _ended(checked, json=wish.json)


def _once(targets: list[str], file: Path, access: Access) -> Checked:
    from redkeep.usecases.check import check_file, check_targets, targets_of

    if targets:
        named = targets_of(targets)
        return run(lambda approve, emit: check_targets(named, access, approve))
    spec = load_spec(file)
    return run(lambda approve, emit: check_file(spec, file, access, approve))


def _watch(targets: list[str], file: Path, access: Access, seconds: float) -> int:
    """All findings once, and then what changes, until Ctrl-C; a look that fails is told, and is not the end."""
    import time

    from redkeep.errors import RedkeepError
    from redkeep.faces.findings import at, changes_text, checked_text

    before: Checked | None = None
    try:
        while True:
            try:
                checked = _once(targets, file, access)
            except RedkeepError as error:
                if before is None:
                    raise
                out(at(f"{error.what} ({error.where})"))
            else:
                out(checked_text(checked) if before is None else changes_text(before, checked))
                before = checked
            time.sleep(seconds)
    except KeyboardInterrupt:
        if before is None:
            raise
        return _ended(before, json=False)


def _fix(targets: list[str], file: Path, access: Access, *, yes: bool, json: bool) -> int:
    from redkeep.faces.fixing import fixed_text, proposed_text
    from redkeep.usecases.check import targets_of
    from redkeep.usecases.fix import Proposed, fix_file, fix_targets

    def show(proposed: Proposed) -> None:
        err(proposed_text(proposed))

    if targets:
        named = targets_of(targets)
        found = run(
            lambda approve, emit: fix_targets(named, access, approve=approve, emit=emit, show=show), yes=yes
        )
    else:
        spec = load_spec(file)
        found = run(
            lambda approve, emit: fix_file(spec, file, access, approve=approve, emit=emit, show=show), yes=yes
        )
    if json:
        out_json(found.as_json())
    else:
        out(fixed_text(found))
    return _ended(found.checked, json=json)


def _ended(checked: Checked, *, json: bool) -> int:
    """The exit status. Hosts that were named and not reached are told after the findings, which hold without them."""
    for error in checked.failed:
        if not json:
            show_error(error, as_json=False)
    if checked.report.verdict == "error":
        return ERRORS_FOUND
    return checked.failed[0].exit_status if checked.failed else 0


def _consistent(wish: Wish) -> None:
    from redkeep.errors import UsageError

    if wish.targets and wish.file is not None:
        raise UsageError("a target and a deployment file", where="redkeep check", next="name one of both")
    if wish.watch and wish.fix:
        raise UsageError("--fix ends, and --watch goes on", where="redkeep check", next="leave one out")
    if wish.watch and wish.json:
        raise UsageError(
            "--json is one document, and --watch goes on", where="redkeep check", next="leave one out"
        )
