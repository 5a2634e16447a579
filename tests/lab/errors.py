"""What the lab raises, and the one helper that runs a command and turns its failure into that."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


class LabError(Exception):
    """The lab itself failed (not the product under test)."""


class LabUnavailable(LabError):
    """This machine cannot hold a lab: not root, or a tool is missing. Tests skip with this reason."""


def output_of(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return its standard output; a failure carries what it said."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=env, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise LabError(f"no end after {timeout:g} s: {' '.join(argv)}") from late
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise LabError(f"exit status {done.returncode}: {' '.join(argv)}\n{said}")
    return done.stdout
