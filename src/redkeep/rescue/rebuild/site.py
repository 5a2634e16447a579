"""One site of a victim's nginx, written anew from what of it is known to be harmless."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from redkeep.rescue.inspection.nginx import Directive
from redkeep.rescue.rebuild import directives, words
from redkeep.rescue.rebuild.words import Unsafe, quoted

_MOST_LOCATIONS = 300
_DEEPEST = 5
_CLOSED = "return 503;"
_PHP = re.compile(r"php|phtml", re.IGNORECASE)
_ACME = "/.well-known/acme-challenge"

#: Where an application listens, by the name of an upstream block; empty where nothing of it is kept.
Upstreams = dict[str, str]


@dataclass
class Site:
    """``body`` is what the site does, whichever port; ``copies`` are the directories of the victim's disk that it serves."""

    number: int
    names: list[str] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)
    encrypted: list[int] = field(default_factory=list)
    default: bool = False
    body: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    applications: list[str] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    php: bool = False
    redirects: bool = False

    @property
    def title(self) -> str:
        return self.names[0] if self.names else f"site {self.number}"


class Rewriter:
    """``web_root``: where the files will be. ``prefix``: what relative paths of this nginx were relative to. ``names``: of
    all sites of this nginx, to which one may send visitors on."""

    def __init__(
        self, site: Site, web_root: str, prefix: str, upstreams: Upstreams, names: Collection[str] = ()
    ) -> None:
        self.site, self._web_root, self._prefix, self._upstreams = site, web_root, prefix, upstreams
        self._locations = 0
        self._own: set[str] = set()
        self._names_of_all = {name.lower() for name in names if words.is_name(name)}

    def read(self, block: list[Directive], size: str) -> Site:
        """``size``: client_max_body_size as it was outside of the site."""
        self._names(block)
        self._ports(block)
        self._own = set(self.site.names) | self._names_of_all
        body = self._block(block, "", 0)
        if size and not any(d["directive"] == "client_max_body_size" for d in block):
            body.insert(0, f"client_max_body_size {size};")
        self.site.redirects = _only_redirects(block)
        self.site.body = [*self._guards(block), *body]
        return self.site

    def _names(self, block: list[Directive]) -> None:
        for directive in block:
            if directive["directive"] == "server_name":
                for name in directive["args"]:
                    try:
                        if name not in ("_", "", "localhost"):
                            self.site.names.append(words.server_name(name))
                    except Unsafe as why:
                        self._leave_out(f"server_name {name}", str(why))
        self.site.names = list(dict.fromkeys(self.site.names))[:200]

    def _ports(self, block: list[Directive]) -> None:
        everywhere = any(d["directive"] == "ssl" and d["args"] == ["on"] for d in block)
        for directive in block:
            args = directive["args"]
            if directive["directive"] != "listen" or not args:
                continue
            match = re.fullmatch(r"(?:(?:.*\]|[^:]*):)?(\d{1,5})", args[0], re.ASCII)
            if args[0].startswith("unix:") or (match and not 0 < int(match[1]) < 65536):
                self._leave_out(f"listen {args[0]}", "not a port of its own")
                continue
            port = int(match[1]) if match else 80
            encrypted = everywhere or "ssl" in args or port == 443
            into = self.site.encrypted if encrypted else self.site.plain
            if port not in into:
                into.append(port)
            self.site.default = self.site.default or bool({"default_server", "default"} & set(args))
        if 80 not in self.site.plain and (self.site.encrypted or not self.site.plain):
            self.site.plain.insert(0, 80)

    def _guards(self, block: list[Directive]) -> Iterator[str]:
        """What no site of rescued files may hand out, and that what visitors uploaded is never run."""
        yield "# Hidden files, and what nobody should fetch."
        yield 'location ~ "/\\.(?!well-known/)" { deny all; }'
        yield 'location ~* "\\.(?:sql|bak|swp|rdb|aof)$" { deny all; }'
        if self.site.php:
            yield "# A program among the pictures is an intruder's."
            yield (
                'location ~* "/(?:uploads?|files?|images?|img|media|static|avatars?|attach\\w*)/.*'
                '\\.(?:php\\d?|phtml|phar)$" { return 403; }'
            )
        elif self.site.copies and not any(_proxies_all(d) for d in block):
            yield "# This site had no PHP: nothing hands out its source by mistake."
            yield 'location ~* "\\.(?:php\\d?|phtml|phar)$" { return 404; }'
        yield ""

    def _block(self, block: list[Directive], location: str, depth: int) -> list[str]:
        """The lines of a server or a location. ``location`` as it was written, empty for the server itself."""
        made: list[str] = []
        seen: set[str] = set()
        below: set[str] = set()
        closed = False
        # alias and root exclude each other, and PHP brings a try_files of its own
        names = {d["directive"] for d in block}
        for directive in block:
            name, args = directive["directive"], directive["args"]
            try:
                if name == "location":
                    made += self._location(directive, location, below, depth)
                elif name == "if":
                    made += self._condition(directive)
                elif (name == "root" and "alias" in names) or (
                    name == "try_files" and "fastcgi_pass" in names
                ):
                    continue
                elif name in seen and name not in directives.REPEATED:
                    raise Unsafe("it stood there before")
                elif line := self._line(name, args, location):
                    made.append(line)
                    seen.add(name)
            except Unsafe as why:
                self._leave_out(_shown(directive, location), str(why))
                closed = closed or (name in directives.HANDLERS or "_by_lua" in name)
        if closed and location:
            return [f"{_CLOSED}  # what answered here was left out"]
        return made

    def _line(self, name: str, args: list[str], location: str) -> str:
        if name in ("fastcgi_param", "env"):
            if re.search(r"PHP_(?:ADMIN_)?VALUE|LD_PRELOAD", " ".join(args)):
                raise Unsafe("it makes PHP load a file before every page: a common back door")
            return ""
        if name == "access_log" and args != ["off"]:
            return ""
        if (name, args) in (("autoindex", ["off"]), ("proxy_redirect", ["default"])):  # as without it
            return ""
        if name == "auth_basic" and args == ["off"]:
            return "auth_basic off;"
        if not location and name in ("internal", "alias", "proxy_pass", "fastcgi_pass", "uwsgi_pass"):
            raise Unsafe("it stands outside of a location")
        if name in ("root", "alias"):
            return self._directory(name, args, location)
        if name in ("proxy_pass", "fastcgi_pass", "uwsgi_pass"):
            return self._pass(name, args, location)
        if directives.QUIET.fullmatch(name):
            return ""
        return directives.line(name, args, self._own)

    def _directory(self, name: str, args: list[str], location: str) -> str:
        path = args[0] if len(args) == 1 else ""
        plain = words.directory(path if path.startswith("/") else f"{self._prefix}/{path}")
        if name == "alias" and location.startswith(("~", "@")):
            raise Unsafe("an alias in a location of a pattern: write it by hand")
        if name == "alias" and _prefix_of(location).endswith("/") and not plain.endswith("/"):
            plain += "/"
        if plain.rstrip("/") not in self.site.copies:
            self.site.copies.append(plain.rstrip("/"))
        return f"{name} {quoted(self._web_root + plain)};"

    def _pass(self, name: str, args: list[str], location: str) -> str:
        to = args[0] if len(args) == 1 else ""
        if "$" in to:
            raise Unsafe("it is sent where a variable says")
        if name == "proxy_pass":
            match = re.fullmatch(r"(https?)://([^/]+)(/[\w./%-]*)?", to, re.ASCII)
            if not match:
                raise Unsafe("a value that it does not usually have")
            if match[3] and location.startswith(("~", "@")):
                raise Unsafe("nginx takes no path there")
            where = self._upstreams.get(match[2])
            if where is None:
                where = words.near(match[2], "443" if match[1] == "https" else "80")
            return self._passing(f"proxy_pass {match[1]}://", where, (match[3] or "") + ";")
        if to.startswith("unix:"):
            where = "unix:" + words.socket(to.removeprefix("unix:"))
        else:
            found = self._upstreams.get(to)
            where = words.near(to, "9000") if found is None else found
        if name == "uwsgi_pass":
            return "include uwsgi_params;\n" + self._passing("uwsgi_pass ", where, ";")
        if not _PHP.search(location):
            return "include fastcgi_params;\n" + self._passing("fastcgi_pass ", where, ";")
        self.site.php = True
        return _FASTCGI + self._passing("fastcgi_pass ", where, ";")

    def _passing(self, before: str, where: str, after: str) -> str:
        if not where:
            raise Unsafe("nothing is left of the servers that it was sent to")
        if where not in self.site.applications:
            self.site.applications.append(where)
        return f"{before}{where}{after}"

    def _location(self, directive: Directive, outer: str, known: set[str], depth: int) -> list[str]:
        self._locations += 1
        if self._locations > _MOST_LOCATIONS or depth >= _DEEPEST:
            raise Unsafe("more locations than anybody writes")
        head, written = _head(directive["args"], outer)
        if _prefix_of(head).startswith(_ACME):
            return []
        inside = self._block(directive.get("block") or [], head, depth + 1)
        alias = next((one for one in inside if one.startswith("alias ")), "")
        if alias and not _prefix_of(head).endswith("/") and alias.rstrip('";').endswith("/"):
            # /upload with an alias /data/upload/ lets /upload../ out of it
            self._leave_out(
                f"location {head}", "without the slash at its end, visitors leave the directory: now with it"
            )
            head, written = _head([*directive["args"][:-1], directive["args"][-1] + "/"], outer)
        if head in known:
            raise Unsafe("the same location stood there before")
        known.add(head)
        return [f"location {written} {{", *_indented(inside), "}"]

    def _condition(self, directive: Directive) -> list[str]:
        """The one that frameworks of PHP have: whatever is no file is the application's."""
        if directive["args"] not in (["!-e", "$request_filename"], ["!-f", "$request_filename"]):
            raise Unsafe("a condition; add it by hand where needed")
        inside = []
        for one in directive.get("block") or []:
            if one["directive"] == "rewrite":
                inside.append(directives.line("rewrite", one["args"], self._own))
            elif one["directive"] != "break":
                raise Unsafe("a condition that does more than rewrite")
        return [f"if ({' '.join(directive['args'])}) {{", *_indented(inside), "}"]

    def _leave_out(self, what: str, why: str) -> None:
        if len(self.site.left_out) < 200:
            self.site.left_out.append({"site": self.site.title, "what": what[:300], "why": why})


_FASTCGI = """\
fastcgi_split_path_info "^(.+?\\.php)(/.*)$";
try_files $fastcgi_script_name =404;
set $path_info $fastcgi_path_info;
include fastcgi_params;
fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
fastcgi_param PATH_INFO $path_info;
fastcgi_index index.php;
"""


def _head(args: list[str], outer: str) -> tuple[str, str]:
    """A location as a key, and as it is written. nginx says which may be inside of which (``ngx_http_core_location``)."""
    modifier, pattern = (args[0], args[1]) if len(args) == 2 else ("", args[0] if len(args) == 1 else "")
    if not modifier:  # written together: location ~\.php$
        match = re.fullmatch(r"(=|\^~|~\*|~)(.+)", pattern, re.DOTALL)
        modifier, pattern = (match[1], match[2]) if match else ("", pattern)
    if outer.startswith(("=", "@")):
        raise Unsafe("a location inside of an exact one")
    if modifier in ("~", "~*"):
        return f"{modifier} {pattern}", f"{modifier} {words.regular(pattern)}"
    if modifier not in ("", "=", "^~") or not pattern or "\\" in pattern or '"' in pattern:
        raise Unsafe("a location that cannot be checked")
    if pattern.startswith("@"):
        if outer or modifier or not re.fullmatch(r"@[\w-]{1,60}", pattern, re.ASCII):
            raise Unsafe("a location that cannot be checked")
        return pattern, pattern
    if outer and not pattern.startswith(_prefix_of(outer)):
        raise Unsafe("a location outside of the one that it is in")
    key = f"{modifier} {pattern}".strip()
    return key, f"{modifier} {quoted(pattern)}".strip()


def _prefix_of(location: str) -> str:
    """The path of a location without what stands before it."""
    return location.rpartition(" ")[2] if location.startswith(("=", "^~")) else location


def _shown(directive: Directive, location: str) -> str:
    text = " ".join([directive["directive"], *map(str, directive["args"])])
    if re.fullmatch(
        r"proxy_set_header|auth\w*|set|fastcgi_param|uwsgi_param|add_header", directive["directive"]
    ):
        text = " ".join([directive["directive"], *map(str, directive["args"][:1])])  # values may be passwords
    if "_by_lua" in directive["directive"]:
        text = directive["directive"]
    return f"location {location}: {text}" if location else text


def _only_redirects(block: list[Directive]) -> bool:
    """A server whose whole work is to send visitors to TLS."""
    ways = [d for d in block if d["directive"] in ("return", "rewrite")]
    inner: Callable[[Directive], bool] = lambda d: _only_redirects(d.get("block") or [])  # noqa: E731
    places = [d for d in block if d["directive"] == "location" and not _acme(d)]
    return bool(ways or places) and all(map(_to_tls, ways)) and all(map(inner, places)) and not _serves(block)


def _to_tls(directive: Directive) -> bool:
    return any(str(word).lower().startswith("https://") for word in directive["args"])


def _acme(directive: Directive) -> bool:
    return bool(directive["args"]) and str(directive["args"][-1]).startswith(_ACME)


def _serves(block: list[Directive]) -> bool:
    return any(d["directive"] in ("proxy_pass", "fastcgi_pass", "uwsgi_pass", "alias", "if") for d in block)


def _proxies_all(directive: Directive) -> bool:
    return (
        directive["directive"] == "location"
        and directive["args"] == ["/"]
        and _serves(directive.get("block") or [])
    )


def _indented(lines: list[str]) -> list[str]:
    return [f"    {one}" for line in lines for one in line.rstrip("\n").split("\n")]


def as_json(site: Site) -> dict[str, Any]:
    return {
        "number": site.number,
        "names": site.names,
        "ports": site.plain,
        "tls_ports": site.encrypted,
        "directories": site.copies,
        "applications": site.applications,
        "php": site.php,
    }
