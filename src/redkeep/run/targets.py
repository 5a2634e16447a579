"""What a switchover that was begun is to come to: ``.redkeep/NAME/switchover.json``, there until it is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from redkeep.planning.switchover import Move

if TYPE_CHECKING:
    from redkeep.run.vault import Vault

RECORD = "switchover.json"


def read_targets(vault: Vault) -> tuple[Move, ...]:
    text = vault.read(RECORD)
    try:
        document = json.loads(text or b"{}")
        return tuple(Move(int(m["shard"]), str(m["from"]), str(m["to"])) for m in document.get("moves", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()  # damaged: what is the case is seen anyway


def write_targets(vault: Vault, moves: Sequence[Move]) -> None:
    """None left: the file goes."""
    if not moves:
        vault.remove(RECORD)
        return
    document = {"moves": [{"shard": m.shard, "from": m.primary, "to": m.replica} for m in moves]}
    vault.write(RECORD, (json.dumps(document) + "\n").encode())
