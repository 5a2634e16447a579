"""``redkeep schema``: the deployment file's JSON Schema."""

from __future__ import annotations

from typing import Any

from redkeep.model.spec import json_schema


def schema() -> dict[str, Any]:
    """Draft 2020-12. Editors take it from ``# yaml-language-server: $schema=FILE`` in the file's first line."""
    return json_schema()
