"""Asks a server's own parser about the deployment file's settings, before any file on a host says them.

A setting that the server does not know, or a value that it does not take, would be found out at the next start only:
after a crash, at night. The parser stops at the first line that it does not like, and the last line is one that none
likes, so nothing is ever started.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from redkeep.errors import EngineError

if TYPE_CHECKING:
    from redkeep.planning.desired import DesiredNode
    from redkeep.run.steps.context import Context

_END = "redkeep-asks-only yes"
_VERDICT = re.compile(r">>> '(?P<line>.*)'\n(?P<reason>.*)")


async def try_settings(context: Context, node: DesiredNode) -> None:
    """Raises ``EngineError`` naming the first of the file's own settings that the server on the host refuses."""
    named = context.desired.spec.settings
    managed = next((f.content.decode() for f in node.files if f.path == node.paths.managed), "")
    lines = [line for line in managed.splitlines() if line.split(" ", 1)[0] in named]
    if not lines:
        return
    command = f"cd / && timeout 10 {shlex.quote(node.command[0])} -"
    asked = await context.host(node.host).run(
        command, stdin="\n".join([*lines, _END, ""]).encode(), check=False
    )
    refused = verdict(asked.stdout + asked.stderr)
    if refused is not None:
        setting, reason = refused
        raise EngineError(
            f"{node.engine} refuses the setting {setting} {named.get(setting, '')}".rstrip() + f": {reason}",
            where=f"settings: {setting}, tried on {node.host}",
            next="correct or remove it in the deployment file, and apply again; nothing of it was written",
        )


def verdict(output: str) -> tuple[str, str] | None:
    """The setting that the server stopped at and why, from its own words; ``None`` where that is the line of ours."""
    found = _VERDICT.search(output)
    if found is None or found["line"].startswith(_END.split()[0]):
        return None
    return found["line"].split(" ", 1)[0], found["reason"].strip()
