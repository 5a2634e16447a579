"""What a use case tells while it works, and what it asks: one stream for terminals, JSON, logs and web pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from redkeep.model.plan import Step
from redkeep.model.values import Value

Status = Literal["done", "failed", "skipped"]

#: ``ordinary`` is what ``--yes`` answers. The others want a person, or a line in the deployment file.
Kind = Literal["ordinary", "host-key", "risk", "clear-text"]


class StageStarted(Value):
    """The steps of one stage begin; they run at the same time."""

    name: str
    steps: tuple[Step, ...] = ()


class StepStarted(Value):
    step: Step


class StepDone(Value):
    """A step ended after so many seconds."""

    step: Step
    seconds: float
    status: Status = "done"


class Note(Value):
    """One line that a person should see."""

    text: str


class Progress(Value):
    """How far something of known size has come, in its unit: ``copying valkey-server``, 3, 12, ``MiB``."""

    what: str
    done: float
    total: float
    unit: str = ""


Event = StageStarted | StepStarted | StepDone | Note | Progress
Emit = Callable[[Event], None]


class Approval(Value):
    """A question that a use case cannot answer itself.

    ``text`` is the question, ``detail`` what one should know to answer it, and ``file_hint`` what to write into the
    deployment file so that nobody has to be asked.
    """

    kind: Kind
    text: str
    detail: str = ""
    file_hint: str = ""


Approve = Callable[[Approval], Awaitable[bool]]


def ignore(event: Event) -> None:
    """Emits nowhere."""
