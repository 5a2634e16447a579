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

#: A command begins: at the begin, behind what joins commands, and behind what only starts another one.
_RUN = re.compile(
    r"(?:^|[;&|({`])\s*(?:(?:nohup|setsid|exec|sudo|nice|env|time|timeout\s+\S+|then|do|else|!)\s+(?:-\S+\s+)*)*"
    r"(?:(?:/\S*/)?(?:(?:ba|da|z|k)?sh|python[\d.]*|perl|php|env)\s+(?:-\w+\s+)*)?[\"']?"
    r"(/[^\s;&|\"'()<>]+)"
)
_ANYBODYS = re.compile(r"/(?:tmp|var/tmp|dev/shm)/")
#: Where people's tools live, whose directories are hidden as well.
_TOOLS = re.compile(
    r"/\.(?:acme\.sh|asdf|bin|bun|cache|cargo|composer|conda|config|deno|docker|dotnet|env|fzf|gem|git|go|goenv|jenkins|"
    r"jenv|kube|linuxbrew|local|m2|nodenv|npm(?:-global)?|nvm|phpbrew|pm2|pnpm|poetry|pyenv|rbenv|rustup|rvm|sdkman|ssh|"
    r"v?env[\w.-]*|virtualenvs?|vscode-server|volta|yarn)/"
)
_FETCHES = re.compile(
    r"(?:curl|wget|lwp-download|cd1)\b.*(?:\|\s*(?:sudo\s+(?:-\S+\s+)*)?(?:/\S*/)?(?:ba|da|z)?sh\b|-O\s*-|;\s*(?:ba)?sh\b)|"
    r"/dev/tcp/\d|base64\s+(?:-d|-D|--decode)\b.*\|\s*(?:ba)?sh\b|"
    r"(?:https?://)(?:\d{1,3}\.){3}\d{1,3}[:/]\S*\.(?:sh|py|pl)\b|"
    r"\b(?:exec|eval)\s*\(.{0,200}(?:b64decode|base64_decode|urlopen)|"
    r"\bcd\s+/(?:tmp|var/tmp|dev/shm)\b[^;&|]*(?:&&|;)\s*\./",
    re.IGNORECASE,
)
#: What is longer is searched so far: expressions take their time.
_LONGEST = 4000
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
        whole = line == text_of(path)
        for command in look.text(path, 256 << 10).splitlines() if whole else [line]:
            sure = _suspicious(command if whole else _command_of(path, command))
            if sure:
                yield sign(
                    "intrusion-cron",
                    "error" if sure == "high" else "warning",
                    path,
                    look.command(command.strip()[:200]),
                    _OF_CRON if sure == "high" else _HIDDEN,
                    sure,
                    "crontab(5); every published dropper through Redis has one",
                )
                break


_OF_CRON = "A line of cron that fetches a script and runs it brings the intruder back every few minutes."
_HIDDEN = "It starts a program from a hidden directory that is none of a known tool: an intruder's, or somebody's habit."


def _command_of(path: bytes, line: str) -> str:
    """What cron gives to the shell: without the times, and the user where the file has one (crontab(5), anacrontab(5))."""
    fields = 1 if line.startswith("@") else 3 if path.endswith(b"anacrontab") else 5
    if path.startswith((b"/etc/crontab", b"/etc/cron.d/")):
        fields += 1
    return line.split(maxsplit=fields)[-1]


def _suspicious(line: str) -> str:
    """``high`` for what no administrator writes: fetch and run, or run what anybody may write or what is hidden.

    ``medium`` for a program in a hidden directory; empty for everything else.
    """
    line = line[:_LONGEST]
    if line.lstrip().startswith("#"):
        return ""
    if _FETCHES.search(line):
        return "high"
    found = ""
    for match in _RUN.finditer(line):
        program = match[1]
        if _ANYBODYS.match(program) or program.rpartition("/")[2].startswith("."):
            return "high"
        if "/." in program and "/.." not in program and not _TOOLS.search(program):
            found = "medium"
    return found


_EXEC = re.compile(r"^\s*Exec\w+\s*=\s*[-@:+!|]*((?:\\[\s\S]|[^\\\n])*)$", re.MULTILINE)


def services(look: Look, services: list[dict[str, Any]], users: list[dict[str, Any]]) -> Iterator[Sign]:
    files = [str(s["file"]).encode("utf-8", "surrogateescape") for s in services if s["kind"] == "service"]
    for user in users:
        own = f"{str(user['home']).rstrip('/')}/.config/systemd/user".encode("utf-8", "surrogateescape")
        files += [path for path in look.files(own) if user["logs_in"] and path.endswith(b".service")]
    for path in files:
        for command in _EXEC.findall(look.text(path, 256 << 10)):
            sure = _suspicious(command)
            if sure:
                yield sign(
                    "intrusion-service",
                    "error" if sure == "high" else "warning",
                    path,
                    f"{text_of(path.rpartition(b'/')[2])} runs {look.command(command.strip()[:160])}",
                    _OF_SERVICES if sure == "high" else _HIDDEN,
                    sure,
                    "systemd.service(5); Aqua and Trend Micro on Kinsing's bot.service",
                )
                break


_OF_SERVICES = "A service that fetches its program, or starts one that anybody may write, keeps an intruder's program alive."


def started(look: Look, users: list[dict[str, Any]]) -> Iterator[Sign]:
    paths = [*_STARTED, *look.files(b"/etc/profile.d"), *look.files(b"/etc/init.d")]
    homes = {"/root", *(str(u["home"]).rstrip("/") for u in users if u["logs_in"])}
    paths += [
        home.encode("utf-8", "surrogateescape") + b"/" + n
        for home in sorted(homes)
        for n in (b".bashrc", b".bash_profile", b".profile")
    ]
    for path in paths:
        text = look.text(path, 256 << 10)
        line = next((one for one in text.splitlines() if _suspicious(one) == "high"), "")
        if line:
            yield sign(
                "intrusion-startup",
                "error",
                path,
                look.command(line.strip()[:200]),
                "It runs with every start or login, and fetches a program, or starts one that anybody may write.",
                "high",
                "bash(1), rc.local",
            )
