"""What brings an intruder back: preload libraries, cron, services, and what runs with a start or a login."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from redkeep.rescue.disk.tree import text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.system import cron_lines
from redkeep.rescue.intrusion.sign import Sign, sign

_HIDDEN_PROGRAM = re.compile(r"(?:^|[\s=\"'])(/(?:tmp|var/tmp|dev/shm)/\S+|/\S*/\.[^/\s.]\S*)")
_FETCHES = re.compile(
    r"(?:curl|wget|lwp-download|cd1)\b.*(?:\|\s*(?:ba|da|z)?sh\b|-O\s*-|;\s*(?:ba)?sh\b)|/dev/tcp/\d|"
    r"base64\s+(?:-d|--decode)\b.*\|\s*(?:ba)?sh\b|(?:https?://)(?:\d{1,3}\.){3}\d{1,3}[:/]\S*\.(?:sh|py|pl)\b",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"\b(?:find|rm|test|mkdir|tmpwatch|touch)\s|/\.(?:placeholder|cache|config|local|ssh|acme\.sh)\b"
)
_STARTED = (
    b"/etc/rc.local",
    b"/etc/rc.d/rc.local",
    b"/etc/profile",
    b"/etc/bashrc",
    b"/etc/bash.bashrc",
    b"/etc/environment",
)


def preload(look: Look, data: Any) -> Iterator[Sign]:
    for line in look.text(b"/etc/ld.so.preload", 1 << 16).split():
        if not any(fnmatchcase(line, good["pattern"]) for good in data["preload_known_good"]):
            yield sign(
                "intrusion-preload",
                "error",
                b"/etc/ld.so.preload",
                f"loads {line} into every program",
                "A library that every program loads can hide processes and files from ps, top and ls.",
                "high",
                "ld.so(8); Trend Micro and Alibaba Cloud on rootkits of miners",
            )


def cron(look: Look) -> Iterator[Sign]:
    for path, line in cron_lines(look):
        text = look.text(path, 256 << 10) if line == text_of(path) else line
        problem = _suspicious(text)
        if problem:
            yield sign(
                "intrusion-cron",
                "error",
                path,
                look.command(problem),
                "A line of cron that fetches a script and runs it brings the intruder back every few minutes.",
                "high",
                "crontab(5); every published dropper through Redis has one",
            )


def _suspicious(text: str) -> str:
    """The part of a command that no administrator writes: fetch and run, or run from where anybody may write."""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        if _FETCHES.search(line):
            return line.strip()[:200]
        hidden = _HIDDEN_PROGRAM.search(line)
        if hidden and not _HARMLESS.search(line) and hidden[1] in line.split():
            return line.strip()[:200]
    return ""


def services(services: list[dict[str, Any]]) -> Iterator[Sign]:
    for service in services:
        runs = str(service["runs"]).lstrip("-@:+!")  # prefixes of ExecStart
        if service["kind"] == "service" and (
            _FETCHES.search(runs) or _HIDDEN_PROGRAM.search(" " + runs.split(" ")[0])
        ):
            yield sign(
                "intrusion-service",
                "error",
                service["file"],
                f"{service['name']} runs {runs[:160]}",
                "A service that starts a program from a temporary or hidden directory keeps an intruder's program alive.",
                "high",
                "systemd.service(5); Aqua and Trend Micro on Kinsing's bot.service",
            )


def started(look: Look) -> Iterator[Sign]:
    paths = [*_STARTED, *look.files(b"/etc/profile.d"), *look.files(b"/etc/init.d")]
    paths += [b"/root/" + n for n in (b".bashrc", b".bash_profile", b".profile")]
    for path in paths:
        text = look.text(path, 256 << 10)
        line = next(
            (one for one in text.splitlines() if not one.lstrip().startswith("#") and _FETCHES.search(one)),
            "",
        )
        if line:
            yield sign(
                "intrusion-startup",
                "error",
                path,
                look.command(line.strip()[:200]),
                "It runs with every start or login, and fetches a program from the net.",
                "high",
                "bash(1), rc.local",
            )
