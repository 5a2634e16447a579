"""What an intruder does through an open Redis, and whether that was the way in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from redkeep.rescue.intrusion.sign import Sign, sign


def written(redis: dict[str, Any], data: Any) -> Iterator[Sign]:
    for file in redis["files"]:
        if file["strange_place"]:
            yield sign(
                "intrusion-redis-file",
                "error",
                file["path"],
                f"a file of Redis in a directory of cron, SSH or start scripts ({file['bytes']} bytes)",
                "Somebody told an open Redis to save its data there, so that cron or sshd would take orders from it.",
                "high",
                "antirez, A few things about Redis security (2015)",
            )
        for suspect in file.get("suspects", []):
            known = next((k for k in data["redis_keys"] if re.fullmatch(k["pattern"], suspect["key"])), None)
            yield sign(
                "intrusion-redis-data",
                "error",
                file["path"],
                f"the key {suspect['key']} holds {suspect['value'][:120]}",
                "It is what a worm writes into an open Redis before it has it saved as a crontab.",
                "high",
                known["source"]
                if known
                else "the value is a line of cron, a fetch into a shell, or an SSH key",
            )
        for flush in file.get("flushes", []):
            yield sign(
                "intrusion-redis-flush",
                "warning",
                file["path"],
                f"{flush['name']} at byte {flush['offset']}, command {flush['command']}",
                "Worms flush before they write their keys; so do applications. What was before it is still in the file.",
                "medium",
                "published droppers through Redis",
            )


def way_in(redis: dict[str, Any], broken_into: bool) -> list[Sign]:
    found = []
    for config in redis["configurations"]:
        if config["open"]:
            why = "Anybody who reaches the port can write files as the server's user."
            found.append(
                sign(
                    "intrusion-open-redis",
                    "error" if broken_into else "warning",
                    config["path"],
                    config["open"],
                    ("This is the likely way in. " if broken_into else "") + why,
                    "high" if broken_into else "medium",
                    "Redis documentation, Security",
                )
            )
    return found
