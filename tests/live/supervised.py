"""A simple supervisor, as runit is one: it starts its server again whenever that ends."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from tests.live.servers import Binary

_SCRIPT = """\
#!/bin/sh
# The server ends with us, also when we are killed.
trap 'kill "$child" 2>/dev/null; wait; exit' TERM
while :; do
    {start} "$@" &
    child=$!
    wait "$child"
    sleep 0.1
done
"""


def supervised(binary: Binary, folder: Path) -> Binary:
    """The same server below ``runsv``."""
    return wrapped(
        binary, folder / "runsv", _SCRIPT.format(start=f"setpriv --pdeathsig KILL {shlex.quote(binary.path)}")
    )


def limited(binary: Binary, folder: Path, files: int) -> Binary:
    """The same server with so many open files, which it cannot raise."""
    start = f"#!/bin/sh\nulimit -n {files}\n"
    drop = "--bounding-set -sys_resource --inh-caps -sys_resource"
    return wrapped(
        binary, folder / "limited", f'{start}exec setpriv {drop} {shlex.quote(binary.path)} "$@"\n'
    )


def wrapped(binary: Binary, script: Path, text: str) -> Binary:
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(text)
    script.chmod(0o755)
    return replace(binary, path=str(script))
