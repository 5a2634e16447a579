"""What system it was: version, accounts and keys, services and timers, cron, network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from redkeep.rescue.disk.tree import names, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.packages import packages

_UNITS = (b"/etc/systemd/system", b"/usr/lib/systemd/system", b"/lib/systemd/system", b"/run/systemd/system")
_CRON_FILES = (b"/etc/crontab", b"/etc/anacrontab")
_CRON_DIRECTORIES = (
    b"/etc/cron.d",
    b"/etc/cron.hourly",
    b"/etc/cron.daily",
    b"/etc/cron.weekly",
    b"/etc/cron.monthly",
    b"/var/spool/cron",
    b"/var/spool/cron/crontabs",
)
_TAKEN = (
    b"/etc/passwd",
    b"/etc/shadow",
    b"/etc/group",
    b"/etc/sudoers",
    b"/etc/sudoers.d",
    b"/etc/hosts",
    b"/etc/fstab",
    b"/etc/hostname",
    b"/etc/os-release",
    b"/etc/ssh",
    b"/etc/sysctl.conf",
    b"/etc/rc.local",
    b"/etc/rc.d/rc.local",
    b"/etc/systemd/system",
    b"/etc/netplan",
    b"/etc/network/interfaces",
    b"/etc/sysconfig/network-scripts",
    b"/etc/crontab",
    b"/etc/cron.d",
    b"/var/spool/cron",
    b"/var/lib/dpkg/status",
)


def system(look: Look) -> dict[str, Any]:
    release = os_release(look)
    users, shadow = accounts(look), passwords(look)
    for user in users:
        user["password"] = shadow.get(user["name"], "none" if shadow else "unknown")
        user["keys"] = [key["comment"] or key["kind"] for key in keys_of(look, user["home"])]
        for name in (b"authorized_keys", b"authorized_keys2"):
            path = user["home"].encode("utf-8", "surrogateescape") + b"/.ssh/" + name
            if names(look.tree, path.rpartition(b"/")[0]) and look.text(path):
                look.want("system", path)
    look.want("system", *(path for path in _TAKEN if look.is_directory(path) or look.text(path)))
    return {
        "name": release.get("PRETTY_NAME", ""),
        "id": release.get("ID", ""),
        "version": release.get("VERSION_ID", ""),
        "hostname": look.text(b"/etc/hostname").strip(),
        "timezone": _timezone(look),
        "kernels": [text_of(n) for n in names(look.tree, b"/boot") if n.startswith(b"vmlinuz-")],
        "files": look.index.files,
        "directories": look.index.directories,
        "bytes": look.index.size,
        "users": users,
        "packages": packages(look),
    }


def os_release(look: Look) -> dict[str, str]:
    """os-release(5), or what CentOS 6 and older have instead."""
    text = look.text(b"/etc/os-release") or look.text(b"/usr/lib/os-release")
    found = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    for old in (b"/etc/centos-release", b"/etc/redhat-release", b"/etc/debian_version"):
        exact = look.text(old).strip()
        if exact and "release" in exact:
            found.setdefault("PRETTY_NAME", exact)
            found["EXACT"] = exact
    return found


def _timezone(look: Look) -> str:
    try:
        return text_of(look.tree.target(b"/etc/localtime")).partition("zoneinfo/")[2]
    except OSError:
        return look.text(b"/etc/timezone").strip()


def accounts(look: Look) -> list[dict[str, Any]]:
    """passwd(5): root's, people's, and whoever else may log in."""
    found = []
    for line in look.text(b"/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) < 7 or not fields[2].isdigit() or not fields[3].isdigit():
            continue
        shell = fields[6].strip()
        logs_in = not shell.endswith(("nologin", "false", "sync", "shutdown", "halt"))
        found.append(
            {
                "name": fields[0],
                "uid": int(fields[2]),
                "gid": int(fields[3]),
                "home": fields[5],
                "shell": shell,
                "logs_in": logs_in,
            }
        )
    return found


def passwords(look: Look) -> dict[str, str]:
    """``set``, ``locked`` or ``empty`` by user: shadow(5); nothing where that cannot be read. Hashes are not shown."""
    found = {}
    for line in look.text(b"/etc/shadow").splitlines():
        name, _, rest = line.partition(":")
        value = rest.split(":")[0]
        found[name] = "empty" if not value else "locked" if value[0] in "!*" else "set"
    return found


def keys_of(look: Look, home: str) -> Iterator[dict[str, str]]:
    """authorized_keys of a user, as sshd(8) reads it."""
    for name in ("authorized_keys", "authorized_keys2"):
        path = f"{home.rstrip('/')}/.ssh/{name}"
        for line in look.text(path.encode("utf-8", "surrogateescape")).splitlines():
            match = re.search(r"\b(ssh-\w+|ecdsa-\S+|sk-\S+)\s+([A-Za-z0-9+/=]{40,})\s*(.*)$", line)
            if match and not line.lstrip().startswith("#"):
                yield {"file": path, "kind": match[1], "key": match[2], "comment": match[3].strip()}


def services(look: Look) -> list[dict[str, Any]]:
    """Units that are enabled or were made on this host, timers with them; scripts of SysV; cron's lines."""
    found = list(_units(look))
    found += [
        {
            "name": text_of(path),
            "kind": "cron",
            "runs": look.command(line),
            "enabled": True,
            "file": text_of(path),
        }
        for path, line in cron_lines(look)
    ]
    for name in names(look.tree, b"/etc/init.d"):
        if name not in (b"functions", b"netconsole", b"network", b"README", b"skeleton"):
            path = text_of(b"/etc/init.d/" + name)
            found.append({"name": text_of(name), "kind": "sysv", "runs": path, "enabled": None, "file": path})
    return found


def _units(look: Look) -> Iterator[dict[str, Any]]:
    enabled = _enabled(look)
    seen: set[bytes] = set()
    for directory in _UNITS:
        for name in names(look.tree, directory):
            own = directory == b"/etc/systemd/system"
            if name in seen or not name.endswith((b".service", b".timer", b".path", b".socket")):
                continue
            if not own and name not in enabled:
                continue
            seen.add(name)
            path = directory + b"/" + name
            text = look.text(path)
            if text:
                yield {
                    "name": text_of(name),
                    "kind": text_of(name.rpartition(b".")[2]),
                    "runs": look.command(
                        _setting(text, "ExecStart")
                        or _setting(text, "OnCalendar")
                        or _setting(text, "OnBootSec")
                    ),
                    "user": _setting(text, "User"),
                    "directory": _setting(text, "WorkingDirectory"),
                    "enabled": name in enabled,
                    "file": text_of(path),
                }


def _enabled(look: Look) -> set[bytes]:
    """Units that some target wants."""
    found: set[bytes] = set()
    for name in names(look.tree, b"/etc/systemd/system"):
        if name.endswith((b".wants", b".requires")):
            found.update(names(look.tree, b"/etc/systemd/system/" + name))
    return found


def _setting(text: str, key: str) -> str:
    match = re.search(rf"^\s*{key}\s*=\s*((?:\\[\s\S]|[^\\\n])+)$", text, re.MULTILINE)
    return re.sub(r"\\\n\s*", "", match[1]).strip()[:500] if match else ""


def cron_lines(look: Look) -> Iterator[tuple[bytes, str]]:
    """Each line that cron runs, with its file. Scripts of cron.daily and the like are a line each, their name."""
    for path in _CRON_FILES:
        yield from _of_file(look, path)
    for directory in _CRON_DIRECTORIES:
        for path in look.files(directory):
            if b".placeholder" in path:
                continue
            if directory.endswith((b"ly",)):
                yield path, text_of(path)
            else:
                yield from _of_file(look, path)


def _of_file(look: Look, path: bytes) -> Iterator[tuple[bytes, str]]:
    for line in look.text(path, 256 << 10).splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#") and not re.match(r"^\w+\s*=", stripped):
            yield path, stripped[:500]
