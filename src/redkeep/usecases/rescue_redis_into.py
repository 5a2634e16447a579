"""Where the keys of a rescued server go: a deployment by its URL, or by its file."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.model.targets import parse_target
from redkeep.run.salvage.owntarget import of_file
from redkeep.run.salvage.target import Destination, Way, connected
from redkeep.run.sessions import key_question
from redkeep.usecases.check import Access, tls_context
from redkeep.wire.client import Login

if TYPE_CHECKING:
    from redkeep.model.events import Approve
    from redkeep.model.spec import Spec

#: Opens it, and closes it again.
Opened = Callable[[], contextlib.AbstractAsyncContextManager[Destination]]


def at_url(url: str, access: Access) -> Opened:
    """The deployment that a URL names. Raises ``UsageError``."""
    target = parse_target(url)
    login = Login(target.user or access.user or "default", target.password or access.password)
    context = tls_context(access.ca) if target.tls or access.ca else None
    way = Way(target, login, context, access.ca is not None, access.trust_discovered, access.allow_clear_text)

    @contextlib.asynccontextmanager
    async def open_() -> AsyncIterator[Destination]:
        found = await connected(way)
        try:
            yield found
        finally:
            found.close()

    return open_


def of_deployment(spec: Spec, file: Path, approve: Approve) -> Opened:
    """A deployment of Redkeep's own, by its file."""
    return lambda: of_file(spec, file, key_question(approve))
