"""``apply``, or another command that changes things, killed with -9 right after one of its steps."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from tests.cli import Redkeep

Popen = Callable[..., "subprocess.Popen[Any]"]


def apply_killed_after(run: Redkeep, steps: int, popen: Popen = subprocess.Popen) -> int | None:
    return killed_after(run, ("apply", "--yes"), steps, popen)


def killed_after(
    run: Redkeep, arguments: tuple[str, ...], steps: int, popen: Popen = subprocess.Popen
) -> int | None:
    """Kills it when so many steps are done. Returns how many lines said so, or ``None`` where it ended before."""
    process: subprocess.Popen[str] = popen(
        list(run.argv(*arguments)),
        cwd=run.folder,
        env=run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    done = 0
    told = []
    with process:
        for line in process.stderr:
            told.append(line)
            done += line.startswith("done  ")
            if done == steps:
                process.kill()
                return done
        assert process.wait() == 0, "".join(told)
    return None
