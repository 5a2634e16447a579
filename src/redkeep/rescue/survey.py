"""Looks at a whole disk: everything that ``rescue inspect`` tells, and what of it ``rescue extract`` takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redkeep.model.events import Emit, Note
from redkeep.rescue.disk.source import Evidence, opened
from redkeep.rescue.disk.tree import text_of
from redkeep.rescue.inspection.applications import applications
from redkeep.rescue.inspection.certificates import certificates
from redkeep.rescue.inspection.index import index
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.mysql import databases
from redkeep.rescue.inspection.nginx import sites
from redkeep.rescue.inspection.redis import redis
from redkeep.rescue.inspection.system import services, system
from redkeep.rescue.intrusion.sign import Sign, bad_names
from redkeep.rescue.intrusion.signs import signs


def survey(
    evidence: Evidence, emit: Emit, *, reveal: bool = False, yara: str = ""
) -> tuple[dict[str, Any], Look]:
    """The document of ``inspect --json``, and the look that it comes from."""
    began = time.monotonic()
    found = index(evidence.tree, bad_names(), lambda n: emit(Note(f"looked at {n:,} files")))
    look = Look(evidence.tree, found, reveal)
    document: dict[str, Any] = {
        "source": str(evidence.where),
        "form": evidence.form,
        "notes": list(evidence.notes),
        "partitions": [p.as_json() for p in evidence.partitions],
        "system": careful(look, "system", lambda: system(look), _NO_SYSTEM),
        "services": careful(look, "services", lambda: services(look), []),
        "sites": careful(look, "sites", lambda: sites(look), []),
    }
    document["certificates"] = careful(
        look, "certificates", lambda: certificates(look, document["sites"]), []
    )
    document["applications"] = careful(look, "applications", lambda: applications(look), [])
    document["databases"] = careful(look, "databases", lambda: databases(look), [])
    document["redis"] = careful(look, "redis", lambda: redis(look), {"configurations": [], "files": []})
    found_signs: list[Sign] = careful(look, "intrusion", lambda: signs(look, document, yara), [])
    document["intrusion"] = [s.as_json() for s in found_signs]
    unseen = [f"{text_of(s.path)}: {s.why}" for s in found.skipped] + look.unseen
    document["not_looked_at"] = list(dict.fromkeys(unseen))
    document["seconds"] = round(time.monotonic() - began, 2)
    return document, look


_NO_SYSTEM = {"name": "", "users": [], "packages": {"manager": "", "count": 0, "installed": [], "note": ""}}


def careful(look: Look, family: str, find: Callable[[], Any], instead: Any) -> Any:
    """One family whose files are too damaged must not take the report with it: then that is what the report says."""
    try:
        return find()
    except (OSError, ValueError, KeyError, IndexError, TypeError, ArithmeticError, RecursionError) as error:
        look.unseen.append(f"{family}: given up, {type(error).__name__}: {error}")
        return instead


def job(source: str, partition: str, mount: bool, reveal: bool, yara: str, emit: Emit) -> dict[str, Any]:
    """For the cage."""
    with opened(Path(source), partition=partition, mount=mount) as evidence:
        return survey(evidence, emit, reveal=reveal, yara=yara)[0]
