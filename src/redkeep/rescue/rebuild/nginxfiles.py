"""The configuration of a new nginx for the rescued sites, as files below its own directory.

rescued.conf            upstreams and the sites on port 80, for conf.d
rescued/site-N.inc      what site N does, whichever port
rescued-tls.conf        the same sites with TLS, for conf.d once their certificates are issued
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from typing import Any

from redkeep.rescue.disk.tree import text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.nginx import Configuration, Directive, configurations, servers_of
from redkeep.rescue.rebuild import directives, words
from redkeep.rescue.rebuild.site import Rewriter, Site, Upstreams, as_json
from redkeep.rescue.rebuild.words import Unsafe

_MOST_SITES = 500
_MOST_LEFT_OUT = 1_000
_MOST_BYTES = 4 << 20
#: Longer names need more room in nginx's hash (``server_names_hash_bucket_size``, 64 by default on most machines).
_LONG_NAME = 40

_HEAD = """\
# Written anew by redkeep rescue plan, from what was found on the old disk. Left out, and why: REBUILD.md.
# Logs, users and modules are those of your new nginx; TLS is in rescued-tls.conf.
"""
_TLS_HEAD = """\
# The sites of rescued.conf with TLS. Put it into conf.d when their NEW certificates are in rescued/tls/site-N/; the keys
# of the old disk were exposed.
"""
#: At the level of the whole nginx: what its own configuration says, and ours does not touch.
_QUIET = re.compile(
    r"events|http|stream|mail|server|upstream|include|pid|worker_\w+|error_log|access_log|log_format|types\w*|"
    r"default_type|sendfile|tcp_\w+|keepalive\w*|gzip\w*|client_\w+|server_\w+|ssl_\w+|use|multi_accept|"
    r"large_client_header_buffers|open_file_cache\w*|fastcgi_\w+|proxy_\w+|daemon|master_process|charset|map|limit_\w+|geo|root|index"
)


@dataclass
class NginxFiles:
    """``texts`` by path below nginx's configuration directory."""

    texts: dict[str, str] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    servers: dict[str, list[str]] = field(default_factory=dict)

    def sites_json(self) -> list[dict[str, Any]]:
        """With the servers of upstream blocks in place of our names for those."""
        documents = [as_json(site) for site in self.sites]
        for document in documents:
            behind = [s for name in document["applications"] for s in self.servers.get(name, [name])]
            document["applications"] = list(dict.fromkeys(behind))
        return documents


def nginx_files(look: Look, web_root: str) -> NginxFiles:
    """From every nginx of the disk; without a site there are no files."""
    made = NginxFiles()
    upstreams: list[str] = []

    def strange(path: bytes) -> bool:
        """Files that anybody could have put there are no part of a configuration."""
        why = _strange(look, path)
        if why:
            _leave_out(made, f"include {text_of(path)}", why)
        return bool(why)

    for one in configurations(look, strange):
        _read(made, one, web_root, upstreams)
    made.sites = _without_doubles(made)
    for site in made.sites:
        _look_for_files(look, site)
    if made.sites:
        _write(made, web_root, upstreams)
    for site in made.sites:
        made.left_out += site.left_out
    made.left_out = made.left_out[:_MOST_LEFT_OUT]
    return made


def _look_for_files(look: Look, site: Site) -> None:
    """Directories that are not on this disk cannot be copied from it."""
    for directory in list(site.copies):
        if not look.is_directory(directory.encode("utf-8", "surrogateescape")):
            site.copies.remove(directory)
            why = "not on this disk, or not in this bundle: bring it from where it is"
            site.left_out.append({"site": site.title, "what": f"the files of {directory}", "why": why})


def _strange(look: Look, path: bytes) -> str:
    try:
        real = look.tree.real(path)
        mode = look.tree.stat(real).mode
    except OSError:
        return "it cannot be read"
    if re.match(rb"/(?:tmp|var/tmp|dev/shm|run|proc)/", real) or b"/." in real:
        return "a file where no configuration belongs"
    return "a file that anybody could write" if mode & stat.S_IWOTH else ""


def _leave_out(made: NginxFiles, what: str, why: str, site: str = "nginx") -> None:
    if len(made.left_out) < _MOST_LEFT_OUT:
        made.left_out.append({"site": site, "what": what[:300], "why": why})


def _read(made: NginxFiles, one: Configuration, web_root: str, upstreams: list[str]) -> None:
    _whole(made, one.parsed)
    known = _upstreams(made, one.parsed, upstreams)
    size = _body_size(one.parsed)
    servers = list(servers_of([d for d in one.parsed if d["directive"] != "stream"]))
    names = {n for s in servers for d in s["block"] if d["directive"] == "server_name" for n in d["args"]}
    for server in servers:
        if len(made.sites) >= _MOST_SITES:
            _leave_out(made, "server", f"more than {_MOST_SITES} sites")
            return
        site = Site(len(made.sites) + 1)
        Rewriter(site, web_root, text_of(one.prefix), known, names).read(server["block"], size)
        made.sites.append(site)


def _whole(made: NginxFiles, parsed: list[Directive]) -> None:
    """What stands outside of the sites, and is worth a word."""
    for directive in parsed:
        name = directive["directive"]
        shown = " ".join([name, *map(str, directive["args"])]) if "_by_lua" not in name else name
        if name in ("stream", "mail"):
            _leave_out(
                made, f"{name} {{ ... }}", "it forwards connections that are no web pages; add it by hand"
            )
        elif name == "user":
            if directive["args"][:1] == ["root"]:
                _leave_out(made, shown, "the workers were root: whoever got into one had the host")
        elif name == "http":
            _whole(made, directive.get("block") or [])
        elif not _QUIET.fullmatch(name):
            _leave_out(made, shown, directives.reason(name))


def _upstreams(made: NginxFiles, parsed: list[Directive], written: list[str]) -> Upstreams:
    known: Upstreams = {}
    blocks = [d for http in parsed if http["directive"] == "http" for d in http.get("block") or []]
    for upstream in blocks:
        if upstream["directive"] != "upstream" or len(upstream["args"]) != 1 or len(known) >= _MOST_SITES:
            continue
        name = f"rescued_{len(written) + 1}"
        lines = []
        for directive in upstream.get("block") or []:
            shown = " ".join(["upstream", upstream["args"][0], directive["directive"], *directive["args"]])
            try:
                lines += _of_upstream(directive["directive"], directive["args"])
            except Unsafe as why:
                _leave_out(made, shown, str(why))
        if any(line.startswith("server ") for line in lines):
            known[upstream["args"][0]] = name
            made.servers[name] = [
                line[7:].split()[0].rstrip(";") for line in lines if line.startswith("server ")
            ]
            body = "".join(f"    {line}\n" for line in dict.fromkeys(lines))
            written.append(f"upstream {name} {{\n{body}}}\n")
        else:
            known[upstream["args"][0]] = ""
    return known


def _of_upstream(name: str, args: list[str]) -> list[str]:
    if name in ("ip_hash", "least_conn"):
        return [f"{name};"]
    if name in ("keepalive", "keepalive_timeout", "keepalive_requests", "zone"):
        return []
    if name != "server" or not args:
        raise Unsafe(directives.reason(name))
    to = "unix:" + words.socket(args[0][5:]) if args[0].startswith("unix:") else words.near(args[0])
    weight = [word for word in args[1:] if re.fullmatch(r"weight=[1-9]\d{0,3}", word)]
    return [] if "down" in args[1:] else [" ".join(["server", to, *weight[:1]]) + ";"]


def _body_size(parsed: list[Directive]) -> str:
    """client_max_body_size of http, which sites inherit; uploads fail without it."""
    for http in parsed:
        for directive in http.get("block") or [] if http["directive"] == "http" else []:
            if directive["directive"] == "client_max_body_size" and len(directive["args"]) == 1:
                size = str(directive["args"][0])
                return size if re.fullmatch(r"\d{1,9}[kKmMgG]?", size) else ""
    return ""


def _without_doubles(made: NginxFiles) -> list[Site]:
    """Sites with something to serve come first; what only sent visitors to TLS is not needed until there is TLS."""
    kept: list[Site] = []
    encrypted = {name for site in made.sites if site.encrypted for name in site.names}
    for site in sorted(made.sites, key=lambda s: (not s.encrypted, s.number)):
        if site.redirects and not site.encrypted and (set(site.names) & encrypted or not site.names):
            _leave_out(
                made, "the redirect to TLS", "it comes back when the certificates are issued", site.title
            )
            made.left_out += site.left_out
        else:
            kept.append(site)
    return kept


def _write(made: NginxFiles, web_root: str, upstreams: list[str]) -> None:
    plain, encrypted = [_HEAD, *upstreams], [_TLS_HEAD]
    longest = max((len(name) for site in made.sites for name in site.names), default=0)
    if longest > _LONG_NAME:
        plain.insert(1, "server_names_hash_bucket_size 256;\n")
    taken: set[tuple[int, str]] = set()
    defaults: set[int] = set()
    texts: dict[str, str] = {}
    for number, site in enumerate(made.sites, start=1):
        site.number = number
        texts[f"rescued/site-{number}.inc"] = "\n".join(site.body) + "\n"
        names = ", ".join(site.names) or "no name"
        plain_ports = _free(site, site.plain, taken, defaults)
        encrypted_ports = _free(site, site.encrypted, taken, defaults)
        for ports, mine in plain_ports:
            plain.append(_server(site, ports, mine, _plain_inside(site, web_root), names))
        for ports, mine in encrypted_ports:
            tls = [f"{port} ssl" if " " not in port else port.replace(" ", " ssl ", 1) for port in ports]
            encrypted.append(_server(site, tls, mine, _encrypted_inside(site), names))
    if any(f"${directives.UPGRADE}" in text for text in texts.values()):
        plain.insert(
            1, f"map $http_upgrade ${directives.UPGRADE} {{\n    default upgrade;\n    '' close;\n}}\n"
        )
    if sum(map(len, texts.values())) > _MOST_BYTES:
        _leave_out(made, "all sites", "together they are larger than anybody writes")
        made.sites = []
        return
    made.texts = {"rescued.conf": "\n".join(plain), **texts}
    if len(encrypted) > 1:
        made.texts["rescued-tls.conf"] = "\n".join(encrypted)


def _free(
    site: Site, ports: list[int], taken: set[tuple[int, str]], defaults: set[int]
) -> list[tuple[list[str], list[str]]]:
    """Each port with the names that no earlier site has there."""
    found = []
    for port in ports:
        names = [name for name in site.names or ["_"] if (port, name) not in taken]
        if len(names) < len(site.names):
            site.left_out.append(
                {"site": site.title, "what": f"port {port}", "why": "an earlier site has the same name there"}
            )
        if not names:
            continue
        taken.update((port, name) for name in names)
        default = site.default and port not in defaults
        defaults |= {port} if default else set()
        found.append(([f"{port} default_server" if default else str(port)], names))
    return found


def _server(site: Site, ports: list[str], names: list[str], inside: list[str], title: str) -> str:
    lines = [f"    listen {port};" for port in ports]
    lines += [f"    server_name {' '.join(names)};", *(f"    {line}" for line in inside)]
    return "\n".join([f"# Site {site.number}: {title}", "server {", *lines, "}", ""])


def _plain_inside(site: Site, web_root: str) -> list[str]:
    acme = f'location ^~ /.well-known/acme-challenge/ {{ root "{web_root}/acme"; default_type text/plain; }}'
    later = [
        "# With TLS in place, instead of the include: location / { return 301 https://$host$request_uri; }"
    ]
    return [acme, *(later if site.encrypted else []), f"include rescued/site-{site.number}.inc;"]


def _encrypted_inside(site: Site) -> list[str]:
    where = f"rescued/tls/site-{site.number}"
    return [
        f"ssl_certificate {where}/fullchain.pem;",
        f"ssl_certificate_key {where}/privkey.pem;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"include rescued/site-{site.number}.inc;",
    ]
