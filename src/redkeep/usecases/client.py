"""Ready settings for an application's client library, for this deployment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redkeep.planning import clients
from redkeep.planning.clients import ClientFacts, Library, SettingsFile
from redkeep.planning.clients.pace import pace
from redkeep.usecases.url import url

if TYPE_CHECKING:
    from pathlib import Path

    from redkeep.model.spec import Spec


@dataclass(frozen=True)
class ClientSettings:
    """The files of one library; with the password in them only where it was asked for."""

    library: Library
    mode: str
    files: tuple[SettingsFile, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "library": self.library.name,
            "stack": self.library.stack,
            "title": self.library.title,
            "proven": self.library.proven,
            "mode": self.mode,
            "password_variable": clients.PASSWORD_VARIABLE,
            "files": [file.as_json() for file in self.files],
        }


def libraries() -> list[dict[str, str]]:
    """What there is, for a list."""
    return [{"name": lib.full_name, "title": lib.title, "proven": lib.proven} for lib in clients.LIBRARIES]


def known(name: str, stack: str = "") -> Library:
    """Raises ``UsageError`` for a name that there are no settings for, before anybody is asked anything."""
    return clients.find(name, stack)


async def client(spec: Spec, file: Path, library: Library, *, reveal: bool = False) -> ClientSettings:
    """From the file and what is seen now. Raises ``UsageError`` before the first apply, as ``url`` does."""
    found = await url(spec, file, reveal=reveal)
    facts = ClientFacts(
        deployment=spec.name,
        mode=spec.mode,
        servers=found.servers,
        sentinels=found.sentinel_addresses,
        ca=found.ca,
        login=found.password is not None,
        password=found.password if reveal else None,
        pace=pace(spec.timing),
    )
    return ClientSettings(library, spec.mode, clients.settings(library, facts))
