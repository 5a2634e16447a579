"""What most commands do first and last: read the deployment file, and run a use case. Heavy imports stay inside."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from redkeep.errors import RedkeepError, UsageError

if TYPE_CHECKING:
    from redkeep.model.events import Approve, Emit
    from redkeep.model.spec import Spec

T = TypeVar("T")

#: The deployment file, where none is named.
DEFAULT_FILE = Path("redkeep.yaml")


def load_spec(file: Path) -> Spec:
    """The deployment that the file describes."""
    text = _read(file)
    from redkeep.model.spec import load

    return load(text, str(file))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        where = _resolved(file.parent)
        hint = "write one with redkeep init, or name another with -f FILE"
        raise UsageError(f"no {file.name} here", where=where, next=hint) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(
            "not a text file in UTF-8", where=f"{file}:{line}", next="save it as UTF-8"
        ) from None
    except OSError as error:
        hint = "check the path and its permissions, or name another with -f FILE"
        raise UsageError(f"cannot read {file}: {error.strerror}", where=str(file), next=hint) from None


def _resolved(folder: Path) -> str:
    try:
        return str(folder.resolve())
    except FileNotFoundError:
        return "the current folder, which somebody has deleted"


def run(use_case: Callable[[Approve, Emit], Coroutine[Any, Any, T]], *, yes: bool = False) -> T:
    """Runs a use case to its end, with the terminal as the one who approves and watches.

    ``run(lambda approve, emit: apply(spec, approve=approve, emit=emit), yes=yes)``. Questions and progress go to
    standard error, with and without ``--json``.
    """
    import asyncio

    from redkeep.faces.terminal import Terminal
    from redkeep.faces.view import view

    async def main() -> T:
        watching = view()
        try:
            return await use_case(Terminal(watching, yes=yes).approve, watching.emit)
        finally:
            watching.stop()

    try:
        return asyncio.run(main())
    except BrokenPipeError as error:
        raise RedkeepError(
            f"a connection broke: {error}", next="run the same command again to finish"
        ) from error
