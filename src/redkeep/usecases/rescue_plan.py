"""Says what to rebuild of what a dead server's disk had, and writes the files for it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redkeep.errors import RedkeepError, RefusedError, UsageError
from redkeep.model.events import Emit
from redkeep.rescue.cage import caged
from redkeep.rescue.disk.source import inside_of
from redkeep.usecases.init import parse_host
from redkeep.usecases.rebuilding import secgroup
from redkeep.usecases.rebuilding.applications import applications
from redkeep.usecases.rebuilding.deployments import Deployment, deployments
from redkeep.usecases.rebuilding.document import Places, rebuild


@dataclass(frozen=True)
class Planned:
    """``document`` is that of ``--json``; ``written`` says which files are new or changed, of all that there are."""

    document: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return self.document


async def plan(
    source: Path,
    out: Path,
    *,
    hosts: Sequence[str],
    web_root: str,
    ssh_from: str,
    partition: str,
    mount: bool,
    force: bool,
    emit: Emit,
) -> Planned:
    """``hosts`` as ``redkeep init`` takes them. Run again, it writes the same; files that somebody changed stay.

    Raises ``UsageError``, ``RefusedError`` (a place inside the evidence, a file that was changed) and ``EvidenceError``.
    """
    web_root = _web_root(web_root)
    named = [parse_host(text, index) for index, text in enumerate(hosts, start=1)]
    address = secgroup.ssh_source(ssh_from) if ssh_from else ""
    _refuse_place(source, out)
    arguments = {"source": str(source), "partition": partition, "mount": mount, "web_root": web_root}
    found: dict[str, Any] = await caged("redkeep.rescue.rebuild.facts:job", arguments, emit)

    made = deployments(found, named)
    told = applications(found, made[0].mode if made else "standalone")
    places = _places(source, out, web_root, found["form"])
    texts = {
        "REBUILD.md": rebuild(found, made, told, places),
        **{one.file: one.text for one in made},
        **{f"nginx/{name}": text for name, text in found["nginx"].items()},
        "security-group-tencent.sh": secgroup.tencent(address),
        "security-group-alibaba.sh": secgroup.alibaba(address),
    }
    document = {"source": str(source), "out": str(out)} | _document(
        found, made, told, web_root, sorted(texts)
    )
    texts["plan.json"] = json.dumps(document, indent=1) + "\n"
    written = _write(out, texts, force=force)
    return Planned({**document, "written": written})


def _document(
    found: dict[str, Any],
    made: Sequence[Deployment],
    told: list[dict[str, Any]],
    web_root: str,
    files: list[str],
) -> dict[str, Any]:
    return {
        "web_root": web_root,
        "files": files,
        "redis": [one.as_json() for one in made],
        "sites": found["sites"],
        "databases": [{"path": d["path"], "state": d["state"]} for d in found["inspect"]["databases"]],
        "applications": told,
        "rotate": found["exposed"],
        "left_out": found["left_out"],
        "not_looked_at": found["not_looked_at"],
    }


def _places(source: Path, out: Path, web_root: str, form: str) -> Places:
    return Places(str(source.resolve()), str(out.resolve()), web_root, form == "bundle")


def _web_root(text: str) -> str:
    """It becomes part of nginx's configuration, so it is a plain path."""
    if not re.fullmatch(r"(?:/[\w.-]+)+/?", text, re.ASCII) or ".." in text.split("/"):
        raise UsageError(
            f"not a plain absolute path: {text[:80]}",
            where="--web-root",
            next="write one of letters, digits, dots and hyphens, such as /srv/rescued",
        )
    return text.rstrip("/")


def _refuse_place(source: Path, out: Path) -> None:
    hint = "name another directory with --out"
    if source.is_dir() and inside_of(out, source):
        raise RefusedError("the plan would be written into the evidence", where=str(out), next=hint)
    if out.exists() and not out.is_dir():
        raise UsageError("not a directory", where=str(out), next=hint)


def _write(out: Path, texts: dict[str, str], *, force: bool) -> list[str]:
    """Only what is not there yet as it should be. Nothing is written where one of them cannot be."""
    try:
        there = {name: _read(out / name) for name in texts}
        changed = [name for name, text in there.items() if text is not None and text != texts[name]]
        if changed and not force:
            raise RefusedError(
                f"{len(changed)} files there are not what this plan has: {', '.join(changed[:5])}",
                where=str(out),
                next="name another directory with --out, or replace them with --force",
            )
        wanted = [name for name in texts if there[name] != texts[name]]
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in wanted:
            _replace(out / name, texts[name])
    except OSError as error:
        raise RedkeepError(
            f"cannot write: {error.strerror}", where=str(out), next="name another directory with --out"
        ) from None
    return wanted


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return ""


def _replace(file: Path, text: str) -> None:
    """For its owner only: a plan tells much of a system."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(file.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    new.replace(file)
