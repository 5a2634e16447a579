"""Words of a victim's nginx configuration: which may stand in a new one, and how they are written there.

Everything is refused that is not known to be harmless: control characters, what would end a word or a line, variables
beyond a list, regular expressions that Python and PCRE do not both take. The rules of quoting are nginx's own
(``ngx_conf_read_token``): within double quotes only ``\\"`` and backslashes mean something.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re

LONGEST = 400

#: Variables that say something of the request or of this server, and nothing that a map or code would have set.
VARIABLES = frozenset(
    "uri document_uri request_uri args query_string is_args request_filename document_root "  # noqa: SIM905
    "host http_host server_name server_port scheme remote_addr remote_port proxy_add_x_forwarded_for http_upgrade "
    "http_connection http_x_forwarded_for http_x_forwarded_proto http_x_real_ip http_user_agent http_referer "
    "http_origin http_cookie http_authorization request_method https ssl_protocol proxy_host "
    "fastcgi_script_name 1 2 3 4 5 6 7 8 9".split()
)
_VARIABLE = re.compile(r"\$(?:\{(\w*)\}|(\w*))")

#: Directories of a system that no site publishes.
_OF_THE_SYSTEM = re.compile(
    r"/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|run|sbin|sys|lost\+found|usr/(?:s?bin|lib\w*|libexec|include)|"
    r"var/(?:lib/(?:mysql|mariadb|redis|valkey|dpkg|rpm)|log|spool|run|backups?))(?:/|$)|/(?:usr|var|home|tmp|opt)$|/$"
)
_ANYBODYS = re.compile(r"/(?:tmp|var/tmp|dev/shm)(?:/|$)")


class Unsafe(Exception):
    """Why a word is not carried over."""


def quoted(word: str) -> str:
    """One word of an nginx configuration. Raises ``Unsafe`` for what it cannot be."""
    if len(word) > LONGEST or not word.isprintable():
        raise Unsafe("it holds control characters, or is longer than anybody writes")
    if re.fullmatch(r"[\w./:@=$?&*,+^%~!-]+", word, re.ASCII) and not word.startswith("~"):
        return word
    made, at = "", 0
    while at < len(word):
        if word[at] == "\\":
            if at + 1 == len(word):
                raise Unsafe("it ends in a backslash")
            made, at = made + word[at : at + 2], at + 2
            continue
        made += '\\"' if word[at] == '"' else word[at]
        at += 1
    return f'"{made}"'


def with_variables(word: str) -> str:
    """The word, where it names no variables but those of the list."""
    for match in _VARIABLE.finditer(word):
        name = match[1] if match[1] is not None else match[2]
        if name not in VARIABLES:
            raise Unsafe(f"it uses the variable ${name[:40]}, which was set elsewhere")
    return word


def regular(pattern: str) -> str:
    """A regular expression that PCRE takes as well: what the two differ in is refused."""
    if re.search(r"\(\?(?:P|<(?![=!])|'|[aLuixsmU-]*[aLu])|\\N\{|\(\*|\(\?[#&R0-9+|]", pattern):
        raise Unsafe("a regular expression with names or switches")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        raise Unsafe("a regular expression that cannot be checked") from None
    return quoted(pattern)


def directory(path: str) -> str:
    """An absolute path that a site may publish, without ``..``, doubled slashes and variables."""
    if "$" in path:
        raise Unsafe("a path with a variable: write it by hand")
    if not path.startswith("/") or "\\" in path or '"' in path or not path.isprintable():
        raise Unsafe("not a plain absolute path")
    if ".." in path.split("/"):
        raise Unsafe("a path with .. in it")
    plain = posixpath.normpath("/" + path.lstrip("/"))
    if _OF_THE_SYSTEM.match(plain):
        raise Unsafe("it would publish a directory of the system")
    if _ANYBODYS.match(plain):
        raise Unsafe("a directory in which anybody may write")
    return plain + ("/" if path.endswith("/") and plain != "/" else "")


def near(address: str, port: str = "80") -> str:
    """``host:port`` of a server that is this machine or in the own network; raises ``Unsafe`` for everybody else.

    Names are refused except localhost: nginx looks them up when it starts, and whoever owns them answers.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", address)
    if not match:
        raise Unsafe("not an address")
    host, number = match[1], match[2] or port
    if not 0 < int(number) < 65536:
        raise Unsafe("not a port")
    if host.lower() == "localhost":
        return f"127.0.0.1:{number}"
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise Unsafe("it sends visitors' requests to another host, by a name") from None
    if not (found.is_loopback or own(ipaddress.ip_network(found))):
        raise Unsafe("it sends visitors' requests to a public address")
    return f"[{found}]:{number}" if found.version == 6 else f"{found}:{number}"


def own(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """RFC 1918, RFC 4193 and the range of carriers, which clouds give to their hosts; not what is merely reserved."""
    if isinstance(network, ipaddress.IPv4Network):
        return any(network.subnet_of(one) for one in _OWN_4)
    return network.subnet_of(_OWN_6)


_OWN_4 = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_OWN_6 = ipaddress.IPv6Network("fc00::/7")


def socket(path: str) -> str:
    """A Unix socket that not everybody may put there."""
    if not re.fullmatch(r"/[\w./-]+", path, re.ASCII) or ".." in path.split("/") or _ANYBODYS.match(path):
        raise Unsafe("a socket where anybody may write, or with a strange name")
    return path


def server_name(name: str) -> str:
    """A name of a site: exact, or with a star at one end (``server_name`` in nginx's documentation)."""
    if name.startswith("~"):
        raise Unsafe("a name that is a regular expression: write the names")
    label = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
    if len(name) > 200 or not re.fullmatch(
        rf"(?:\*\.|\.)?{label}(?:\.{label})*|{label}(?:\.{label})*\.\*", name, re.ASCII
    ):
        raise Unsafe("not a host name")
    return name.lower()


def is_name(name: str) -> bool:
    """Whether ``server_name`` takes it, and it has no star."""
    try:
        return "*" not in server_name(name) and not name.startswith(".")
    except Unsafe:
        return False
