"""One sign of a break-in, and what is known of intruders."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import yaml

from redkeep.model.finding import Finding, Severity
from redkeep.rescue.disk.tree import text_of
from redkeep.rescue.inspection.looking import Look

_REINSTALL = "do not repair this system: take the data out (redkeep rescue extract), and start on a fresh one"


@dataclass(frozen=True)
class Sign:
    """A finding, with its confidence (``high``, ``medium``, ``low``), its source, and the file that shows it."""

    finding: Finding
    confidence: str
    source: str
    path: bytes = b""

    def as_json(self) -> dict[str, Any]:
        return self.finding.as_json() | {"confidence": self.confidence, "source": self.source}


def sign(
    rule: str, severity: Severity, path: bytes | str, evidence: str, why: str, confidence: str, source: str
) -> Sign:
    raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    return Sign(Finding(rule, severity, text_of(raw), evidence, why, _REINSTALL), confidence, source, raw)


def indicators() -> Any:
    """The data file; names that a walk has to look for are ``bad_names``."""
    text = (
        importlib.resources.files("redkeep.rescue.intrusion")
        .joinpath("indicators.yaml")
        .read_text(encoding="utf-8")
    )
    return yaml.safe_load(text)


def bad_names() -> frozenset[bytes]:
    return frozenset(name.encode() for group in indicators()["names"] for name in group["names"])


def head(look: Look, path: bytes) -> bytes:
    try:
        with look.tree.open(path) as content:
            return content.read(0, 16)
    except OSError:
        return b""
