"""Programs that should not be there: those of known intruders, those for everybody as root, those in /tmp."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from redkeep.rescue.disk.tree import names, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.intrusion.sign import Sign, head, sign

_SHELLS = re.compile(
    rb"/(?:(?:ba|da|z|k|c|tc)?sh|python[\d.]*|perl[\d.]*|ruby[\d.]*|php[\d.]*|lua[\d.]*|node|find|vi|vim[\w.]*|nano|less|more|"
    rb"awk|gawk|mawk|sed|env|cp|mv|dd|tee|nmap|gdb|tar|zip|curl|wget|socat|nc|busybox|xxd|base64|cat)$"
)


def suid(look: Look) -> Iterator[Sign]:
    for path, entry in look.index.suid:
        if not entry.mode & 0o4000 or entry.uid != 0:
            continue
        odd_place = path.startswith(
            (b"/tmp/", b"/var/tmp/", b"/dev/shm/", b"/home/", b"/root/", b"/var/www/", b"/srv/")
        )
        shell = _SHELLS.search(path) and not path.startswith((b"/usr/lib/", b"/usr/share/"))
        if odd_place or shell:
            what = "an interpreter or tool" if shell else "a program"
            yield sign(
                "intrusion-suid",
                "error",
                path,
                f"{what} that runs as root for everybody (mode {entry.mode:04o})",
                "Whoever is on the machine becomes root by it.",
                "high",
                "GTFOBins; no distribution ships it so",
            )


def known_paths(look: Look, data: Any, users: list[dict[str, Any]]) -> Iterator[Sign]:
    homes = {str(u["home"]).rstrip("/") for u in users if u["logs_in"] and u["home"] != "/"} or {"/root"}
    for group in data["paths"]:
        for pattern in group["paths"]:
            for home in sorted(homes) if "{home}" in pattern else [""]:
                for path in _glob(look, pattern.replace("{home}", home)):
                    yield sign(
                        "intrusion-known-file",
                        "error" if group["confidence"] == "high" else "warning",
                        path,
                        f"a file of {group['family']}",
                        "This path is known from published intrusions.",
                        group["confidence"],
                        group["source"],
                    )


def _glob(look: Look, pattern: str) -> Iterator[bytes]:
    directory, _, last = pattern.rpartition("/")
    for name in names(look.tree, directory.encode("utf-8", "surrogateescape")):
        if fnmatchcase(text_of(name), last):
            yield directory.encode("utf-8", "surrogateescape") + b"/" + name


def known_names(look: Look, data: Any) -> Iterator[Sign]:
    known = {text_of(s.path) for s in known_paths(look, data, [])}
    for group in data["names"]:
        for name in group["names"]:
            for path, entry in look.index.named.get(name.encode(), []):
                if entry.kind == "file" and text_of(path) not in known:
                    yield sign(
                        "intrusion-known-name",
                        "error" if entry.mode & 0o111 or name.endswith((".so", ".ko")) else "warning",
                        path,
                        f"named as a miner, or as what hides one ({entry.size} bytes)",
                        "It takes the processor for somebody else, or hides who does.",
                        group["confidence"],
                        group["source"],
                    )


#: What libraries of Java unpack there at each start, and leave behind.
_OF_JAVA = re.compile(
    rb"/(?:var/)?tmp/(?:[^/]+/)?(?:snappy-|sqlite-|jna|jffi|lib(?:netty|rocksdbjni|conscrypt|lz4-java|zstd-jni|jansi|leveldbjni|"
    rb"tcnative|snappyjava))[\w.-]*\.(?:so|tmp)"
)


def programs_in_tmp(look: Look) -> Iterator[Sign]:
    for path, entry in look.index.hidden:
        if not _OF_JAVA.fullmatch(path) and head(look, path)[:4] == b"\x7fELF":
            yield sign(
                "intrusion-program-in-tmp",
                "warning",
                path,
                f"a program of {entry.size} bytes where anybody may write",
                "Droppers put their programs there; so do some installers.",
                "medium",
                "published droppers through Redis unpack to /tmp and /var/tmp",
            )
