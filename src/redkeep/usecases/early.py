"""Hosts are greeted first, and the rest of the program is imported while they answer: a tenth of a second of every run."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.run.sessions import Sessions, connect, key_question, refuse_adopted
from redkeep.run.vault import Vault

if TYPE_CHECKING:
    from redkeep.model.events import Approve
    from redkeep.model.spec import Spec


async def greet(spec: Spec, file: Path, approve: Approve, *, needed: str) -> Sessions:
    """Sessions with all hosts. ``needed``: the module of the use case that goes on with them, imported when this ends."""
    refuse_adopted(spec, file)
    greeting = asyncio.create_task(connect(spec, Vault(file, spec.name).root, key_question(approve)))
    # Its first step loads the SSH client; what is imported beside that would only hold it up.
    await asyncio.sleep(0)
    try:
        await asyncio.to_thread(importlib.import_module, needed)
        return await greeting
    except BaseException:
        greeting.cancel()
        raise
