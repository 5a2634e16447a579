"""What the tests of engines share: this machine as it is, and as somebody without root sees it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from redkeep.hosts.facts import Look, look
from redkeep.hosts.local import LocalHost
from redkeep.model.topology import HostFacts


async def facts_of(host: LocalHost, *, root: bool = True) -> HostFacts:
    """What this machine says of itself; without ``root``, engines go below the home folder."""
    facts = await look(host, Look("/var/lib/redkeep"))
    return facts if root else replace(facts, root=False)


def only(tools: dict[str, str | None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes PATH a folder with the usual programs in which these are scripts of ours, or missing (``None``)."""
    folder.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            link = folder / program.name
            if program.name not in tools and not link.is_symlink():
                link.symlink_to(program)
    for name, script in tools.items():
        if script is not None:
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert shutil.which("sh")
