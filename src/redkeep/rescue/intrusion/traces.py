"""Traces that were removed, and files that were locked against removal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redkeep.model.finding import Severity
from redkeep.rescue.disk.tree import names, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.intrusion.sign import Sign, sign

_GUARDED = (
    b"/etc/ld.so.preload",
    b"/etc/passwd",
    b"/etc/shadow",
    b"/etc/crontab",
    b"/etc/rc.local",
    b"/etc/hosts",
    b"/etc/resolv.conf",
    b"/root/.ssh/authorized_keys",
    b"/root/.bashrc",
    b"/root/.ssh",
    b"/etc/cron.d",
    b"/var/spool/cron",
    b"/var/spool/cron/crontabs",
)


def immutable(look: Look, users: list[dict[str, Any]], suspects: list[bytes]) -> Iterator[Sign]:
    """``suspects``: files that other signs name."""
    paths = [*_GUARDED, *look.files(b"/etc/cron.d"), *look.files(b"/var/spool/cron")]
    paths += list(look.files(b"/var/spool/cron/crontabs"))
    for user in users:
        if user["logs_in"]:
            directory = f"{str(user['home']).rstrip('/')}/.ssh".encode("utf-8", "surrogateescape")
            paths += [directory, *look.files(directory)]
    for path in dict.fromkeys([*paths, *filter(None, suspects)]):
        flags = look.tree.flags(path)
        if flags:
            yield sign(
                "intrusion-immutable",
                "warning",
                path,
                f"it is {' and '.join(sorted(flags))}",
                "Intruders set this so that what they wrote cannot be removed; some hardening guides do it as well.",
                "medium",
                "chattr(1); published droppers through Redis lock crontabs and authorized_keys",
            )


def logs(look: Look, users: list[dict[str, Any]]) -> Iterator[Sign]:
    paths = [
        b"/var/log/" + n
        for n in (b"wtmp", b"btmp", b"lastlog", b"secure", b"auth.log", b"messages", b"syslog")
    ]
    paths += [f"{u['home']}/.bash_history".encode("utf-8", "surrogateescape") for u in users if u["logs_in"]]
    for path in paths:
        try:
            target = look.tree.target(path)
        except OSError:
            continue
        if target == b"/dev/null":
            yield _wiped(path, "it leads to /dev/null", "error", "high")
    empty = [p for p in paths[:7] if _is_empty(look, p)]
    kept = look.text(b"/etc/rsyslog.conf") and not names(look.tree, b"/var/log/journal")
    logins = {b"/var/log/secure", b"/var/log/auth.log"} & set(empty)
    if kept and len(empty) >= 3 and b"/var/log/wtmp" in empty and logins:
        yield _wiped(b"/var/log", "empty: " + ", ".join(text_of(p) for p in empty), "warning", "medium")


def _is_empty(look: Look, path: bytes) -> bool:
    try:
        entry = look.tree.stat(path)
    except OSError:
        return False
    return entry.kind == "file" and entry.size == 0


def _wiped(path: bytes, evidence: str, severity: Severity, confidence: str) -> Sign:
    why = "Somebody removed the traces of who logged in and what was run."
    return sign(
        "intrusion-wiped-log",
        severity,
        path,
        evidence,
        why,
        confidence,
        "published droppers empty these files",
    )
