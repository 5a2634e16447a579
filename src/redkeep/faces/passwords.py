"""Where a password for somebody else's servers comes from; never the command line, which others can see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from redkeep.errors import UsageError

#: Ours, and redis-cli's.
_VARIABLES = ("REDKEEP_PASSWORD", "REDISCLI_AUTH")


def given_password(file: Path | None) -> str:
    """From the file, the terminal or the environment; never from the command line."""
    if file is None:
        return next((value for name in _VARIABLES if (value := os.environ.get(name))), "")
    if str(file) == "-":
        if sys.stdin.isatty():
            import getpass

            return getpass.getpass("password: ", sys.stderr)
        return sys.stdin.readline().rstrip("\r\n")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the password: {error}", where=str(file), next="check the path"
        ) from None
    return lines[0] if lines else ""


def asked_password() -> str:
    """For a deployment file, which holds none: from the environment, else the person at the terminal is asked."""
    found = given_password(None)
    if found or not sys.stdin.isatty():
        return found
    import getpass

    return getpass.getpass("password (nothing, if none is needed): ", sys.stderr)
