"""The command line as a user runs it: a process of this interpreter, what it prints, and how it ends.

run = Redkeep(tmp_path)
run.write("mode: standalone\\nhosts: [local]\\n")
run("apply", "--yes").ok()
run("plan").error(2, "unknown key: shard", "did you mean shards?")
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "redkeep")

#: Runs a program and captures its text: ``subprocess.run``, or a lab's ``run``.
Runner = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Told:
    """How a command ended."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document of ``--json``; anything beside it is a failure."""
        return json.loads(self.stdout)

    def ok(self) -> Told:
        assert self.status == 0, self.everything
        return self

    def error(self, status: int, *words: str) -> tuple[str, str, str]:
        """Asserts the exit status and three lines (what, where, next) that hold these words; returns them."""
        lines = self.last_lines()
        text = "\n".join(lines)
        assert self.status == status, self.everything
        assert len(lines) == 3, self.everything
        for word in words:
            assert word in text, f"{word!r} is not in:\n{self.everything}"
        assert "Traceback" not in self.stderr, self.everything
        return lines

    def last_lines(self) -> tuple[str, str, str]:
        """The error: with ``--json`` the document on standard output, else the last three lines of standard error."""
        if "--json" in self.arguments:
            error = self.json["error"]
            assert set(error) >= {"what", "where", "next"}, self.everything
            return error["what"], error["where"], error["next"]
        assert self.stdout == "", self.everything
        lines = self.stderr.rstrip("\n").splitlines()[-3:]
        assert len(lines) == 3, self.everything
        return lines[0], lines[1], lines[2]

    @property
    def everything(self) -> str:
        return f"redkeep {' '.join(self.arguments)}: {self.status}\n{self.stdout}\n{self.stderr}"


@dataclass
class Redkeep:
    """The command in a folder of its own. ``runner`` decides whose network it has."""

    folder: Path
    runner: Runner = subprocess.run
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 120.0

    @property
    def file(self) -> Path:
        return self.folder / "redkeep.yaml"

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def __call__(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Told:
        done = self.runner(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.variables(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            capture_output=False,
            text=True,
            timeout=timeout or self.timeout,
        )
        return Told(arguments, done.returncode, done.stdout, done.stderr)

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, "PYTHONWARNINGS": "ignore", **self.environment, **(more or {})}

    def argv(self, *arguments: str) -> Sequence[str]:
        return [*COMMAND, *arguments]


def remove_aside(name: str) -> None:
    """What a removed node had is kept beside the deployment, and ``destroy`` leaves that alone; a test must not."""
    for left in Path("/var/lib/redkeep").glob(f"{name}.removed-*"):
        shutil.rmtree(left)
