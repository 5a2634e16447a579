"""A file that shall be on a host."""

from __future__ import annotations

import hashlib

from redkeep.model.values import Value


class RemoteFile(Value):
    """Absolute path, bytes, octal mode, and owner (a user name on the host).

    Contents may be secret: they travel on standard input, never in an argument, and are not shown.
    """

    path: str
    content: bytes
    mode: int = 0o640
    owner: str = "root"

    @property
    def digest(self) -> str:
        """SHA-256, as sha256sum prints it."""
        return hashlib.sha256(self.content).hexdigest()

    def __repr__(self) -> str:
        return f"RemoteFile({self.path!r}, {len(self.content)} bytes, {self.mode:o}, {self.owner})"
