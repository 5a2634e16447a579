"""The stream of events, for a person to watch: plain lines, and on a terminal a line of what is running."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from redkeep.faces.output import err
from redkeep.model.events import Event, Note, Progress, StageStarted, StepDone, StepStarted
from redkeep.model.plan import Step

if TYPE_CHECKING:
    from rich.status import Status

#: So many running steps are named on the terminal's last line.
_SHOWN = 4


class View(Protocol):
    def emit(self, event: Event) -> None: ...

    def stop(self) -> None:
        """Leaves the terminal to whoever writes next; a later event starts the view again."""
        ...


def line_of(event: Event) -> str | None:
    """One finished thing in one line, or ``None``: ``done  sz-1  start  sz-1:6379  0.21 s``."""
    if isinstance(event, StepDone):
        step = event.step
        return "  ".join(
            filter(None, (event.status, step.host, step.action, step.node, f"{event.seconds:.2f} s"))
        )
    if isinstance(event, StageStarted):
        count = len(event.steps)
        return f"stage  {event.name}" + (f"  {count} step{'s' if count != 1 else ''}" if count else "")
    if isinstance(event, Progress):
        return _progress(event) if event.done >= event.total else None
    return event.text if isinstance(event, Note) else None


def _progress(event: Progress) -> str:
    return f"{event.what}  {event.done:g}/{event.total:g} {event.unit}".rstrip()


class Lines:
    """For pipes and logs: one plain line for each thing that ended."""

    def emit(self, event: Event) -> None:
        line = line_of(event)
        if line is not None:
            err(line)

    def stop(self) -> None:
        pass


class Live:
    """For a terminal: the same lines, and below them what is running now."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._status: Status | None = None
        self._running: dict[str, Step] = {}
        self._progress = ""

    def emit(self, event: Event) -> None:
        line = line_of(event)
        if line is not None:
            self._console.print(line)
        if isinstance(event, StepStarted):
            self._running[event.step.id] = event.step
        elif isinstance(event, StepDone):
            self._running.pop(event.step.id, None)
        elif isinstance(event, Progress):
            self._progress = "" if event.done >= event.total else _progress(event)
        self._refresh()

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _refresh(self) -> None:
        from rich.text import Text

        names = [f"{step.node or step.host} {step.action}" for step in self._running.values()]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        text = "  ".join(filter(None, (", ".join(names[:_SHOWN]) + more, self._progress)))
        if not text:
            self.stop()
        elif self._status is None:
            self._status = self._console.status(Text(text))
            self._status.start()
        else:
            self._status.update(Text(text))


def view() -> View:
    """The right one for standard error as it is."""
    return Live() if sys.stderr.isatty() else Lines()
