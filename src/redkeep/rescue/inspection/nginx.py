"""The sites of an nginx: names, roots, aliases, proxied ports, certificates. Includes are found in the victim's root."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from redkeep.errors import RedkeepError
from redkeep.rescue.disk.blocks import library
from redkeep.rescue.disk.tree import is_directory, is_file, names, text_of, walk
from redkeep.rescue.inspection.looking import Look

_MAINS = (
    b"/etc/nginx/nginx.conf",
    b"/usr/local/nginx/conf/nginx.conf",
    b"/usr/local/openresty/nginx/conf/nginx.conf",
    b"/www/server/nginx/conf/nginx.conf",
    b"/opt/nginx/conf/nginx.conf",
)
_MOST_FILES = 2_000
_MOST_BYTES = 1 << 20
_MOST_DIRECTIVES = 500_000
_MOST_SITES = 2_000
_UPLOADS = re.compile(r"upload|image|img|picture|photo|media|static|file|attach|avatar|asset", re.IGNORECASE)

Directive = dict[str, Any]


@dataclass(frozen=True)
class Configuration:
    """One nginx.conf with its includes in place. ``files`` is what was read for it."""

    main: bytes
    parsed: list[Directive]
    files: list[bytes]
    #: what relative roots and aliases are relative to
    prefix: bytes

    @property
    def directory(self) -> bytes:
        """What relative includes, certificates and keys are relative to."""
        return self.main.rpartition(b"/")[0]


def _prefix(look: Look, main: bytes) -> bytes:
    """``--prefix``, which a server was built with, and which stands nowhere: as packages and people choose it."""
    directory = main.rpartition(b"/")[0]
    above, _, last = directory.rpartition(b"/")
    if last == b"conf":
        return above
    usual = b"/usr/share/nginx"
    own = is_directory(look.tree, directory + b"/html")
    return usual if not own and is_directory(look.tree, usual + b"/html") else directory


def sites(look: Look) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in configurations(look):
        servers = list(servers_of(one.parsed))
        found += [_site(look, server, one) for server in servers[: _MOST_SITES - len(found)]]
        look.want("sites", *(path for path in one.files if is_file(look.tree, path)))
    _want(look, found)
    return found


def configurations(look: Look, refuse: Callable[[bytes], bool] = lambda path: False) -> list[Configuration]:
    """Each nginx.conf of the disk once. ``refuse`` says which included files are left out."""
    found: list[Configuration] = []
    mains = [path for path in _MAINS if is_file(look.tree, path)]
    mains += [path for path, _ in look.index.nginx_conf if path not in mains][:20]
    seen: set[bytes] = set()
    for main in mains:
        real = look.tree.real(main)
        if real in seen:
            continue
        seen.add(real)
        files: list[bytes] = []
        try:
            parser = _Parser(look, main, files, refuse)
            found.append(Configuration(main, parser.parsed(main), files, _prefix(look, main)))
            if parser.full:
                look.unseen.append(
                    f"{text_of(main)}: more files or directives than anybody writes; not all were read"
                )
        except RedkeepError as error:  # the parser is not installed
            look.unseen.append(f"nginx: {error.what} ({error.next})")
            return found
    return found


def _want(look: Look, found: list[dict[str, Any]]) -> None:
    for site in found:
        for path in filter(None, [*site["roots"], *(a["path"] for a in site["aliases"])]):
            raw = path.encode("utf-8", "surrogateescape")
            if is_directory(look.tree, raw) and raw.count(b"/") > 1:
                look.want("uploads" if any(u["path"] == path for u in site["uploads"]) else "sites", raw)
        for path in (*site["certificates"], *site["keys"]):
            look.want("sites", path.encode("utf-8", "surrogateescape"))


class _Parser:
    """One configuration with its includes. Each file is parsed alone: the parser never opens another."""

    def __init__(self, look: Look, main: bytes, files: list[bytes], refuse: Callable[[bytes], bool]) -> None:
        self._look, self._files, self._refuse = look, files, refuse
        self._prefix = main.rpartition(b"/")[0]
        self._crossplane = library("crossplane")
        self._known: dict[bytes, list[Directive]] = {}
        self._within: list[bytes] = []
        self._includes = self._directives = 0

    @property
    def full(self) -> bool:
        return self._includes > _MOST_FILES or self._directives > _MOST_DIRECTIVES

    def parsed(self, path: bytes, depth: int = 0) -> list[Directive]:
        """A file may be included at several places, as snippets of sites are; one that includes itself is not again."""
        self._includes += 1
        if depth > 20 or self._includes > _MOST_FILES or path in self._within:
            return []
        if path not in self._known:
            self._files.append(path)
            text = self._look.text(path, _MOST_BYTES)
            self._known[path] = self._one(path, text) if text else []
        self._within.append(path)
        found = self._included(self._known[path], depth)
        self._within.pop()
        return found

    def _one(self, path: bytes, text: str) -> list[Directive]:
        with tempfile.TemporaryDirectory(prefix="redkeep-rescue-") as directory:
            copy = Path(directory) / "conf"
            copy.write_text(text, encoding="utf-8")
            try:
                found = self._crossplane.parse(
                    str(copy),
                    single=True,
                    catch_errors=True,
                    comments=False,
                    check_ctx=False,
                    check_args=False,
                )
                parsed: list[Directive] = found["config"][0]["parsed"]
                errors = found["config"][0]["errors"]
            except (RecursionError, ValueError, KeyError, IndexError) as error:
                parsed, errors = [], [{"error": type(error).__name__}]
        if errors:
            told = str(errors[0]["error"]).replace(str(copy), "").strip()
            self._look.unseen.append(f"{text_of(path)}: nginx configuration with an error: {told}")
        return parsed

    def _included(self, block: list[Directive], depth: int) -> list[Directive]:
        found: list[Directive] = []
        for directive in block:
            self._directives += 1
            if self._directives > _MOST_DIRECTIVES:
                break
            if directive["directive"] == "include" and directive["args"]:
                for path in self._matching(directive["args"][0]):
                    if not self._refuse(path):
                        found += self.parsed(path, depth + 1)
                continue
            if directive.get("block"):
                directive = {**directive, "block": self._included(directive["block"], depth + 1)}
            found.append(directive)
        return found

    def _matching(self, pattern: str) -> list[bytes]:
        """glob(7) inside the root: wildcards in any part, hidden files only when asked for."""
        raw = pattern.encode("utf-8", "surrogateescape")
        at = [b""] if raw.startswith(b"/") else [self._prefix]
        for part in filter(None, raw.split(b"/")):
            if re.search(rb"[*?\[]", part):
                at = [
                    directory + b"/" + name
                    for directory in at
                    for name in names(self._look.tree, directory or b"/")
                    if fnmatchcase(name.decode("latin-1"), part.decode("latin-1"))
                    and (part.startswith(b".") or not name.startswith(b"."))
                ][:_MOST_FILES]
            else:
                at = [directory + b"/" + part for directory in at]
        return [path for path in at if is_file(self._look.tree, path)]


def servers_of(block: list[Directive], upstreams: dict[str, list[str]] | None = None) -> Iterator[Directive]:
    """Server blocks of http, with the upstreams that are known there."""
    for directive in block:
        if directive["directive"] in ("http", "stream"):
            known = {
                d["args"][0]: [
                    s["args"][0] for s in d.get("block", []) if s["directive"] == "server" and s["args"]
                ]
                for d in directive.get("block", [])
                if d["directive"] == "upstream" and d["args"]
            }
            own = [d for d in directive.get("block", []) if d["directive"] in _INHERITED]
            for server in servers_of(directive.get("block", []), known):
                there = {d["directive"] for d in server["block"]}
                yield {
                    **server,
                    "block": [*(d for d in own if d["directive"] not in there), *server["block"]],
                }
        elif directive["directive"] == "server" and directive.get("block") is not None:
            yield {**directive, "upstreams": upstreams or {}}


#: What a server has from what it is in, where it says nothing of its own.
_INHERITED = {"root", "index", "ssl_certificate", "ssl_certificate_key", "proxy_set_header"}


def _all(block: list[Directive], name: str) -> Iterator[tuple[Directive, list[str]]]:
    """Directives of that name in a block and below, with the location that they are in."""
    for directive in block:
        if directive["directive"] == name:
            yield directive, []
        for found, where in _all(directive.get("block") or [], name):
            location = directive["args"] if directive["directive"] == "location" else []
            yield found, [*location, *where]


def _values(server: Directive, name: str) -> list[str]:
    return list(dict.fromkeys(d["args"][0] for d, _ in _all(server["block"], name) if d["args"]))


def _site(look: Look, server: Directive, one: Configuration) -> dict[str, Any]:
    def absolute(path: str, below: bytes = one.directory) -> str:
        return path if path.startswith("/") else f"{text_of(below)}/{path}"

    block = server["block"]
    roots = [absolute(p, one.prefix) for p in _values(server, "root")]
    aliases = [
        {"location": " ".join(where), "path": absolute(d["args"][0], one.prefix)}
        for d, where in _all(block, "alias")
        if d["args"]
    ]
    proxies = [
        {"location": " ".join(where), "to": d["args"][0], "servers": _upstream(server, d["args"][0])}
        for name in ("proxy_pass", "fastcgi_pass", "uwsgi_pass")
        for d, where in _all(block, name)
        if d["args"]
    ]
    named = [*({"location": "/", "path": path} for path in roots), *aliases]
    return {
        "names": [n for d, _ in _all(block, "server_name") for n in d["args"]],
        "listens": [" ".join(d["args"]) for d, _ in _all(block, "listen")],
        "roots": roots,
        "aliases": aliases,
        "proxies": proxies,
        "certificates": [absolute(p) for p in _values(server, "ssl_certificate")],
        "keys": [absolute(p) for p in _values(server, "ssl_certificate_key")],
        "uploads": [u for n in named if (u := _uploads(look, n, aliases))],
        "file": text_of(one.main),
    }


def _upstream(server: Directive, to: str) -> list[str]:
    host = re.sub(r"^\w+://", "", to).split("/")[0]
    return list(server["upstreams"].get(host, [])) or [host]


def _uploads(look: Look, named: dict[str, str], aliases: list[dict[str, str]]) -> dict[str, Any] | None:
    """A directory that serves pictures or uploads: how many files, how many bytes. Aliases always count as such."""
    path = named["path"].encode("utf-8", "surrogateescape")
    if named not in aliases and not _UPLOADS.search(named["location"] + named["path"].rsplit("/", 1)[-1]):
        return None
    if path.count(b"/") < 2 or not is_directory(look.tree, path):
        return None
    files = size = 0
    for _, entry in walk(look.tree, look.tree.real(path), skipped=lambda s: None):
        if entry.kind == "file":
            files, size = files + 1, size + entry.size
        if files >= 2_000_000:
            break
    return {"path": named["path"], "location": named["location"], "files": files, "bytes": size}
