"""What goes to standard output and standard error, and in which form."""

from __future__ import annotations

import sys
from typing import Any

from redkeep.errors import RedkeepError, UsageError


class Misused(UsageError):
    """A command line that makes no sense. Its traceback would tell nothing."""


class OutputClosed(Exception):
    """Whoever read our standard output went away (``redkeep log | head``)."""


class Unwritten(RedkeepError):
    """What was to be told does not fit where it shall be told (``redkeep status > FILE`` on a full disk)."""


def out(text: str) -> None:
    """One or more lines on standard output."""
    try:
        sys.stdout.write(text.removesuffix("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise Unwritten(
            f"the result cannot be written: {error.strerror}",
            where="standard output",
            next="make room there or send it elsewhere, then run the same command again",
        ) from None


def out_json(document: Any) -> None:
    """The one document of ``--json``."""
    import json

    ascii_only = sys.stdout.encoding.lower() != "utf-8"  # then only escapes are sure to be JSON
    out(json.dumps(document, indent=2, ensure_ascii=ascii_only, default=str))


def err(text: str) -> None:
    """A line on standard error. Progress that nobody can see any more must not stop the work it tells of."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def show_error(error: RedkeepError, *, as_json: bool) -> None:
    if as_json:
        out_json({"error": {"what": error.what, "where": error.where, "next": error.next}})
    else:
        err("\n".join(map(clean, str(error).splitlines())))


def clean(text: str) -> str:
    """Control characters made visible: what a server or a host names may not move the cursor."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
