"""The steps around a rescue, on a cloud: from the snapshot to destroying what is billed, with ready command lines.

``runbooks/<language>.md`` holds the words, which a translator edits, and ``runbooks/<cloud>.toml`` the command lines.
A page is steps (``## id: title``) of paragraphs. ``$ name`` stands for the command lines of that name, ``= text`` says
what they must show, ``%% disk`` stands for the partitions. A paragraph behind ``[word word]`` is for those
circumstances only.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from redkeep.errors import UsageError
from redkeep.model.events import Emit
from redkeep.model.sizes import human
from redkeep.rescue.cage import caged
from redkeep.usecases.init import one_line

CLOUDS: Final = {
    "tencent": {"en": "Tencent Cloud", "zh": "腾讯云"},
    "alibaba": {"en": "Alibaba Cloud", "zh": "阿里云"},
}
_ID = re.compile(r"[a-z][a-z0-9-]{1,60}", re.ASCII)
_GIB = 1 << 30
#: What clouds sell as a data disk at least, and in which steps, in GiB.
_LEAST, _STEP = 20, 10
_UNKNOWN_WORK = 100
#: Of an inspection's JSON, in bytes.
_LONGEST = 256 << 20
_READABLE = ("ext2", "ext3", "ext4", "xfs", "swap", "lvm", "")


@dataclass(frozen=True)
class Disk:
    """What is known of the evidence. ``size`` in bytes, 0 where it is not."""

    size: int = 0
    used: int = 0
    partitions: tuple[str, ...] = ()
    traits: frozenset[str] = frozenset()
    unreadable: str = ""

    @property
    def gib(self) -> int:
        return max(_LEAST, -(-self.size // _GIB))

    @property
    def work_gib(self) -> int:
        """Room for all that was on it, and as much again for dumps and copies that are worked on."""
        if not self.size and not self.used:
            return _UNKNOWN_WORK
        wanted = -(-2 * (self.used or self.size) // _GIB) + _STEP
        return max(_LEAST, -(-wanted // _STEP) * _STEP)


@dataclass
class Part:
    """A paragraph, or command lines with what they must show."""

    text: str = ""
    name: str = ""
    run: str = ""
    shows: str = ""


@dataclass
class Step:
    id: str
    title: str
    parts: list[Part] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "title": self.title,
            "text": "\n\n".join(part.text for part in self.parts if part.text),
            "commands": [{"name": p.name, "run": p.run, "shows": p.shows} for p in self.parts if p.run],
        }


@dataclass(frozen=True)
class Runbook:
    cloud: str
    lang: str
    title: str
    shows: str
    introduction: tuple[Part, ...]
    steps: tuple[Step, ...]
    disk: Disk

    def as_json(self) -> dict[str, Any]:
        return {
            "cloud": self.cloud,
            "lang": self.lang,
            "title": self.title,
            "disk": {
                "size_bytes": self.disk.size or None,
                "partitions": list(self.disk.partitions),
                "traits": sorted(self.disk.traits),
                "copy_gib": self.disk.gib if self.disk.size else None,
                "work_gib": self.disk.work_gib,
            },
            "introduction": "\n\n".join(part.text for part in self.introduction),
            "steps": [step.as_json() for step in self.steps],
        }


@dataclass(frozen=True)
class Ids:
    """What the cloud calls things; empty where the commands find it out, or the user fills it in."""

    region: str = ""
    zone: str = ""
    instance: str = ""
    disk: str = ""

    def check(self) -> None:
        for name, value in vars(self).items():
            if value and not _ID.fullmatch(value):
                raise UsageError(
                    f"not the name of a {name} in a cloud: {value[:60]}",
                    where=f"--{name}",
                    next="lower-case letters, digits and hyphens, as the console shows it",
                )


async def runbook(
    cloud: str, evidence: Path | None, ids: Ids, *, lang: str, partition: str, emit: Emit
) -> Runbook:
    """``evidence``: what ``rescue`` reads, or the JSON that ``rescue inspect`` printed.

    Raises ``UsageError``, and ``EvidenceError`` for a disk that cannot be read.
    """
    if cloud not in CLOUDS:
        raise UsageError(
            f"no runbook for {cloud[:60]!r}", where="--cloud", next=f"one of {', '.join(CLOUDS)}"
        )
    ids.check()
    disk = Disk()
    if evidence is not None and evidence.suffix == ".json":
        disk = described(_inspection(evidence))
    elif evidence is not None:
        arguments = {"source": str(evidence), "partition": partition}
        disk = described(await caged("redkeep.rescue.disk.layout:job", arguments, emit))
    return compose(cloud, lang, disk, ids)


def _inspection(file: Path) -> Any:
    try:
        if file.stat().st_size > _LONGEST:
            raise ValueError("too long")
        document = json.loads(file.read_bytes())
        if not isinstance(document["partitions"], list) or not isinstance(document["system"], dict):
            raise ValueError("other keys")
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=str(file), next="check the path"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            "not the JSON of an inspection",
            where=str(file),
            next="redkeep rescue inspect SOURCE --json > inspect.json",
        ) from None
    return document


def described(document: Mapping[str, Any]) -> Disk:
    """From the keys of an inspection that are about the disk. What is not as it should be counts as unknown."""
    parts = [p for p in document.get("partitions", []) if isinstance(p, dict)]
    ends = [_count(p.get("begin_bytes")) + _count(p.get("size_bytes")) for p in parts]
    kinds = {str(p.get("kind", "")) for p in parts}
    traits = {"lvm"} if "lvm" in kinds else set()
    traits |= {"xfs"} if "xfs" in kinds else set()
    notes = " ".join(map(str, document.get("notes", [])))
    traits |= {"unclean"} if "not unmounted cleanly" in notes else set()
    if any("disks of the volume group are not here" in str(p.get("note", "")) for p in parts):
        traits.add("missing")
    unreadable = ", ".join(
        one_line(f"{p.get('name', '')}: {p.get('kind', '')}")
        for p in parts
        if str(p.get("kind", "")) not in _READABLE
    )
    return Disk(
        size=_count(document.get("disk_bytes")) or max(ends, default=0),
        used=_count(document.get("system", {}).get("bytes")),
        partitions=tuple(_row(p) for p in parts[:128]),
        traits=frozenset(traits | ({"unreadable"} if unreadable else set())),
        unreadable=unreadable,
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60 else 0


def _row(part: Mapping[str, Any]) -> str:
    at = f", {part['mounted_at']}" if part.get("mounted_at") else ""
    return one_line(
        f"{part.get('name', '')}: {part.get('kind') or '?'}, {human(_count(part.get('size_bytes')))}{at}"
    )


def compose(cloud: str, lang: str, disk: Disk, ids: Ids) -> Runbook:
    """The page of that language, with the command lines of that cloud. Pure but for the data files."""
    commands: dict[str, str] = tomllib.loads(_data(f"{cloud}.toml"))
    known = {"known"} if disk.size else {"unknown"}
    traits = known | disk.traits | {cloud}
    values = _values(cloud, lang, disk, ids, commands)
    title, shows = "", ""
    introduction: list[Part] = []
    steps: list[Step] = []
    where = introduction
    for line in _paragraphs(_data(f"{lang}.md")):
        if line.startswith("# "):
            title, _, shows = line.removeprefix("# ").partition("\nshows: ")
            continue
        if line.startswith("## "):
            name, _, heading = line.removeprefix("## ").partition(": ")
            steps.append(Step(name, _filled(heading, values)))
            where = steps[-1].parts
            continue
        wanted, text = _condition(line)
        holds = wanted <= traits
        where += _parts(text, holds, traits, commands, values, disk)
    return Runbook(
        cloud, lang, _filled(title, values), shows.strip(), tuple(introduction), tuple(steps), disk
    )


def _data(name: str) -> str:
    return files("redkeep").joinpath("runbooks", name).read_text(encoding="utf-8")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n{2,}", text.strip()):
        heading, newline, rest = paragraph.partition("\n")
        if heading.startswith("## ") and newline:
            yield heading
            yield rest
        else:
            yield paragraph


def _condition(text: str) -> tuple[set[str], str]:
    match = re.match(r"\[([a-z ]+)\]\s", text)
    return (set(match[1].split()), text[match.end() :]) if match else (set(), text)


def _parts(
    text: str,
    holds: bool,
    traits: set[str],
    commands: Mapping[str, str],
    values: Mapping[str, str],
    disk: Disk,
) -> Iterator[Part]:
    """A paragraph, or a command with what it must show: that may differ by circumstances, each said behind its own words."""
    if not holds:
        return
    if text == "%% disk":
        if disk.partitions:
            yield Part(text="\n".join(f"    {row}" for row in disk.partitions))
        return
    if not text.startswith(("$ ", "= ")):
        yield Part(text=_filled(text, values))
        return
    command, _, rest = text.partition("\n")
    shows = rest
    if command.startswith("= "):
        yield Part(name="", shows=_shown(text, values))
        return
    wanted, shows = _condition(rest + "\n") if rest.startswith("[") else (set(), rest)
    name = command.removeprefix("$ ").strip()
    run = _filled(commands[name].strip("\n"), values)
    yield Part(name=name, run=run, shows=_shown(shows, values) if wanted <= traits else "")


def _shown(text: str, values: Mapping[str, str]) -> str:
    return _filled(text.strip().removeprefix("= "), values)


def _values(cloud: str, lang: str, disk: Disk, ids: Ids, commands: Mapping[str, str]) -> dict[str, str]:
    return {
        "cloud": CLOUDS[cloud][lang],
        "region": ids.region or commands["region-default"],
        "instance": ids.instance or commands["instance-default"],
        "disk": ids.disk or commands["disk-default"],
        "zone": ids.zone or commands["zone-default"],
        "size": f"{human(disk.size)} ({disk.gib} GiB)" if disk.size else "",
        "size_bytes": str(disk.size),
        "evidence_gib": str(disk.gib if disk.size else _UNKNOWN_WORK),
        "work_gib": str(disk.work_gib),
        "unreadable": disk.unreadable,
    }


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Only our own words in braces: command lines have many other braces."""
    return re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), text)
