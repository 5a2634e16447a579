"""Where a server's running settings, its file and the deployment file differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from redkeep.model.values import Value
from redkeep.planning.hostfiles.config import SECRET_SETTINGS, same_value

if TYPE_CHECKING:
    from redkeep.model.checkup import Node

#: Of a file, what says nothing about the running value: lists of other things, what the start changes or the role,
#: and what the operating system cuts down (rule file-limit).
_NOT_COMPARED = frozenset(
    {"user", "loadmodule", "rename-command", "replicaof", "sentinel", "daemonize", "supervised", "maxclients"}
)


#: Characters of a value, at most.
_SHOWN = 60


class Difference(Value):
    """``None``: not known there, or not different there. ``by_server``: it wrote the line of its file itself."""

    name: str
    running: str
    file: str | None
    wanted: str | None
    by_server: bool = False

    def said(self, file: str) -> str:
        """For people; secrets are not shown."""
        if self.name in SECRET_SETTINGS:
            parts = [*(["its file"] if self.file is not None else [])]
            parts += ["the deployment file"] if self.wanted is not None else []
            return f"{self.name} is another one than in {' and in '.join(parts)}"
        text = f"{self.name} is {_shown(self.running)} (CONFIG GET)"
        if self.file is not None:
            text += f", {_shown(self.file)} in {file}"
        if self.wanted is not None:
            text += f", {_shown(self.wanted)} by the deployment file"
        return text


def differences(node: Node) -> Iterator[Difference]:
    """In the order of their names. Settings that could not be read, or that the version has not, are left out."""
    view, process = node.seen, node.process
    if view is None or not view.config:
        return
    in_file = _in_file(process.settings) if process and process.settings else {}
    skipped = _NOT_COMPARED | (process.options if process else frozenset())
    wanted = node.wanted or {}
    for name in sorted(in_file.keys() | wanted.keys()):
        running = view.config.get(name)
        if running is None or (name in skipped and name not in wanted):
            continue
        file = in_file.get(name) if name not in skipped and not _relative(name, in_file) else None
        other_file = file is not None and not same_value(name, file, running)
        other_wish = name in wanted and not same_value(name, wanted[name], running)
        if other_file or other_wish:
            by_server = process is not None and name in process.rewritten
            yield Difference(
                name,
                running,
                file if other_file else None,
                wanted[name] if other_wish else None,
                by_server,
            )


def _in_file(settings: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """One value for each: the last line counts, but for those whose lines add up."""
    found = {name: values[-1] for name, values in settings.items() if values}
    if "save" in settings:
        points: list[str] = []
        for value in settings["save"]:
            points = [*points, *value.split()] if value else []
        found["save"] = " ".join(points)
    if limits := settings.get("client-output-buffer-limit"):
        found["client-output-buffer-limit"] = " ".join(limits)
    return found


def _relative(name: str, values: Mapping[str, str]) -> bool:
    """The server shows the folder that it meant."""
    return name == "dir" and not values.get(name, "").startswith("/")


def _shown(value: str) -> str:
    return (value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...") if value else "(empty)"
