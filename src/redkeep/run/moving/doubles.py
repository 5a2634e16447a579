"""Keys that exist on both sides: the owner's value stays, and both are saved first.

They come about when a target answers too late (the source then keeps the key that the target has taken), when a server
fails over in the middle of a move, and by other people's tools.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redkeep.errors import EngineError, ReplyError
from redkeep.model.slots import key_slot

if TYPE_CHECKING:
    from redkeep.run.moving.ends import End
    from redkeep.run.moving.traffic import Traffic


async def present(at: End, keys: Sequence[bytes]) -> list[bytes]:
    """Which of the keys it has, also where it is only importing their slot."""
    answers = await _asking(at, [("EXISTS", key) for key in keys])
    return [key for key, count in zip(keys, answers, strict=True) if count == 1]


async def save(traffic: Traffic, keys: Sequence[bytes], *, stays: End, goes: End) -> int:
    """Writes both values of each key to a file before one is given up; returns how many differ.

    One JSON document a line: the key, and for both sides DUMP (base64) and time to live in milliseconds (-1: none).
    RESTORE brings a value back. Raises ``EngineError`` where there is no folder to save to.
    """
    if traffic.folder is None:
        raise EngineError(
            f"{len(keys)} keys exist on both sides, and there is no folder to save their values in",
            where=f"{stays.name} and {goes.name}",
            next="redkeep reshard settles them",
        )
    asked = [(word, key) for key in keys for word in ("DUMP", "PTTL")]
    kept, given_up = await _asking(stays, asked), await _asking(goes, asked)
    lines, differ = [], 0
    for index, key in enumerate(keys):
        ours, theirs = kept[2 * index : 2 * index + 2], given_up[2 * index : 2 * index + 2]
        if ours[0] is None or theirs[0] is None:
            continue  # gone meanwhile
        differ += ours[0] != theirs[0]
        lines.append(_line(key, (stays, *ours), (goes, *theirs)))
    _append(traffic, lines)
    return differ


async def drop(at: End, keys: Sequence[bytes]) -> None:
    """Removes values that were saved and lost."""
    await _asking(at, [("UNLINK", key) for key in keys])


async def _asking(at: End, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Each after ASKING, without which a server does not serve a slot that it is only importing."""
    sent: list[tuple[Any, ...]] = [part for command in commands for part in (("ASKING",), command)]
    answers = (await at.client.pipeline(sent))[1::2]
    for index, answer in enumerate(answers):
        if isinstance(answer, ReplyError):
            if answer.code != "ASK":
                answer.where = at.name
                raise answer
            answers[index] = None  # the key has left a slot that this side is giving away
    return answers


def _line(key: bytes, kept: tuple[Any, ...], given_up: tuple[Any, ...]) -> bytes:
    document = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "slot": key_slot(key),
        "key": base64.b64encode(key).decode(),
        "kept": _side(*kept),
        "given_up": _side(*given_up),
        "differ": kept[1] != given_up[1],
    }
    return (json.dumps(document) + "\n").encode()


def _side(at: End, dump: bytes, ttl: int) -> dict[str, Any]:
    return {"node": at.name, "dump": base64.b64encode(dump).decode(), "ttl_ms": int(ttl)}


def _append(traffic: Traffic, lines: Sequence[bytes]) -> None:
    """On the disk before anything is replaced."""
    if not lines or traffic.folder is None:
        return
    if traffic.saved is None:
        name = f"both-sides-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
        traffic.saved = traffic.folder / name
    descriptor = os.open(traffic.saved, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(descriptor)
    traffic.doubles += len(lines)
