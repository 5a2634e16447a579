"""Asks the person at the terminal."""

from __future__ import annotations

import asyncio
import sys

from redkeep.errors import RefusedError
from redkeep.faces.output import err
from redkeep.faces.view import View
from redkeep.model.events import Approval


class Terminal:
    """Answers approvals: by ``--yes`` where that is enough, else by asking; refuses where there is nobody to ask."""

    def __init__(self, view: View, *, yes: bool = False) -> None:
        self._view = view
        self._yes = yes
        self._turn = asyncio.Lock()

    async def approve(self, approval: Approval) -> bool:
        if self._yes and approval.kind == "ordinary":
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise _nobody(approval)
        async with self._turn:  # hosts are worked on in parallel; questions come one after the other
            self._view.stop()
            if approval.detail:
                err(approval.detail)
            sys.stderr.write(f"{approval.text} [yes/no] ")
            sys.stderr.flush()
            return (await _line()).strip().lower() in ("y", "yes")


def _nobody(approval: Approval) -> RefusedError:
    """An error has three lines, and so have risks: what, where, and what to do instead."""
    lines = [line.strip() for line in approval.detail.splitlines()]
    what, where = approval.text, "; ".join(lines)
    if approval.kind == "ordinary":
        hint = "run it with --yes, or at a terminal"
    elif len(lines) == 3:
        what, where, hint = lines
    else:
        hint = approval.file_hint or "run it at a terminal; --yes does not answer this"
    return RefusedError(
        f"not approved, and nobody to ask: {what}",
        where=where or "standard input and standard error are not both a terminal",
        next=hint,
    )


async def _line() -> str:
    """A line of standard input. Unlike a blocking read in a thread, Ctrl-C ends it at once."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def ready() -> None:
        if not answer.done():
            answer.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin, ready)
    try:
        return await answer
    finally:
        loop.remove_reader(sys.stdin)
