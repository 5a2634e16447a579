"""What a plan of the rebuilding needs to know of a victim's disk. Runs in the cage; what it returns is JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redkeep.model.events import Emit
from redkeep.rescue.disk.source import opened
from redkeep.rescue.rebuild.clients import libraries
from redkeep.rescue.rebuild.exposed import exposed
from redkeep.rescue.rebuild.nginxfiles import nginx_files
from redkeep.rescue.rebuild.redisfacts import redis_facts, sentinel_facts
from redkeep.rescue.survey import careful, survey


def job(source: str, partition: str, mount: bool, web_root: str, emit: Emit) -> dict[str, Any]:
    """For the cage."""
    with opened(Path(source), partition=partition, mount=mount) as evidence:
        document, look = survey(evidence, emit)
        look.unseen.clear()
        nginx = careful(look, "nginx", lambda: nginx_files(look, web_root), None)
        return {
            "form": evidence.form,
            "inspect": document,
            "redis": careful(look, "redis", lambda: redis_facts(look, document), []),
            "sentinels": careful(look, "sentinels", lambda: sentinel_facts(look), []),
            "libraries": careful(look, "libraries", lambda: libraries(look, document), {}),
            "exposed": careful(look, "secrets", lambda: exposed(look, document), []),
            "nginx": nginx.texts if nginx else {},
            "sites": nginx.sites_json() if nginx else [],
            "left_out": nginx.left_out if nginx else [],
            "not_looked_at": list(dict.fromkeys([*document["not_looked_at"], *look.unseen])),
        }
