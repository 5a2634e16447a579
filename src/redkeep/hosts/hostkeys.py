"""Which SSH host keys are trusted: the policy, without any SSH in it.

A key is trusted because it stands in a ``known_hosts`` file, because the deployment file names its fingerprint,
or because the operator accepted it on first use; the last is remembered beside the deployment. A key that differs
from the one on record is never accepted here, not even by asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

#: Asks for a first use: host as the operator knows it, ``SHA256:...``; true to trust and remember it.
Accept = Callable[[str, str], Awaitable[bool]]


async def refuse(host: str, fingerprint: str) -> bool:
    """The answer where nobody can be asked."""
    return False


@dataclass
class HostKeys:
    """One deployment's policy, shared by its hosts: ``own`` is written to, ``user`` only read."""

    own: Path
    accept: Accept = refuse
    user: Path = field(default_factory=lambda: Path("~/.ssh/known_hosts").expanduser())
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def lines(self) -> list[str]:
        """The lines of both files, in the format of ``known_hosts``; missing files are empty."""
        found: list[str] = []
        for path in (self.user, self.own):
            try:
                found += path.read_text(errors="replace").splitlines()
            except FileNotFoundError:
                continue
        return found

    async def first_use(self, host: str, label: str, key: str, fingerprint: str) -> bool:
        """Asks for an unknown key, one host after the other, and remembers it where it is accepted.

        ``label`` is the host as ``known_hosts`` spells it (``[name]:port`` off port 22), ``key`` its public key in
        OpenSSH's format.
        """
        line = f"{label} {' '.join(key.split()[:2])}"
        async with self._asking:
            if line in self.lines():
                return True
            if not await self.accept(host, fingerprint):
                return False
            self._remember(line)
            return True

    def _remember(self, line: str) -> None:
        self.own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.own.touch(mode=0o600)
        with self.own.open("a") as stream:
            stream.write(line + "\n")
