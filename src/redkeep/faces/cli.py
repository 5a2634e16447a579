"""The command ``redkeep``: how it begins and how errors end.

``redkeep check TARGET...`` does without the command line's library, which takes as long to load as many a check.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from redkeep.errors import RedkeepError
from redkeep.faces.output import Misused, OutputClosed, Unwritten, err, show_error

INTERRUPTED = 130
#: As the shell reports a program that SIGPIPE ended.
OUTPUT_CLOSED = 141


def main(argv: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us (>&-)
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  until the end
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout.encoding.lower() != "utf-8" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error always does
    # a short life: collecting garbage costs more than it frees, a twelfth of the start
    gc.set_threshold(100_000, 20, 20)
    # no plugins: looking for them costs 10 ms of every start
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        status = _status(arguments or ["--help"])
    except OutputClosed:
        _silence_output()
        status = OUTPUT_CLOSED
    except Unwritten as error:
        _silence_output()
        show_error(error, as_json=False)  # there is nowhere else to tell it
        status = error.exit_status
    sys.exit(status)


def _silence_output() -> None:
    """The interpreter flushes once more at exit, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    verbose = not {"-v", "--verbose"}.isdisjoint(arguments)
    try:
        status = _run(arguments)
        if status == INTERRUPTED:  # so the framework hands on a KeyboardInterrupt
            raise KeyboardInterrupt
        return status
    except Unwritten:
        raise
    except Misused as error:
        return _fail(error, as_json, verbose=False)
    except RedkeepError as error:
        return _fail(error, as_json, verbose)
    except KeyboardInterrupt:
        err("interrupted; run the same command again to finish")
        return INTERRUPTED
    except OutputClosed:
        raise
    except Exception as error:
        return _fail(_of_this_machine(error) or _fault(error, verbose), as_json, verbose)


#: What the machine lacks, whatever we were at.
_SHORTAGES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def _of_this_machine(error: Exception) -> RedkeepError | None:
    """A file or folder of the operator's that cannot be used, as ``.redkeep`` on a full or read-only disk."""
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # as pathlib says it
        return RedkeepError(
            "this user has no home folder",
            where=f"uid {os.geteuid()}, and HOME is not set",
            next="set it to a folder of the user's: export HOME=/path",
        )
    if not isinstance(error, OSError) or not (error.filename or error.errno in _SHORTAGES):
        return None
    return RedkeepError(
        f"this machine does not let it: {error.strerror or error}",
        where=str(error.filename or "its disk, memory or number of open files"),
        next="check that path, its permissions and the space on its disk, then run the same command again",
    )


def _fault(error: Exception, verbose: bool) -> RedkeepError:
    return RedkeepError(
        f"{type(error).__name__}: {error}",
        where="redkeep " + (sys.argv[1] if len(sys.argv) > 1 else ""),
        next="this is a fault of Redkeep" + ("" if verbose else "; -v shows the traceback"),
    )


def _run(arguments: list[str]) -> int:
    options = {word for word in arguments if word.startswith("-")}
    if arguments[0] == "check" and options <= {"--json"}:
        from redkeep.faces.checking import Wish, check

        targets = [word for word in arguments[1:] if word not in options]
        return check(Wish(targets, json=bool(options)))
    from redkeep.faces.commandline import run

    return run(arguments)


def _fail(error: RedkeepError, as_json: bool, verbose: bool) -> int:
    if verbose:
        import traceback

        err(traceback.format_exc().rstrip())
    show_error(error, as_json=as_json)
    return error.exit_status
