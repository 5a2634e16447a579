"""Which directives of a victim's nginx are carried over, with which values; and why others are not."""

from __future__ import annotations

import ipaddress
import re

from redkeep.rescue.rebuild.words import Unsafe, own, quoted, regular, with_variables

_TIME = r"\d{1,7}(?:ms|[smhdwMy])?"
_SIZE = r"\d{1,9}[kKmMgG]?"
_FLAG = r"on|off"
_MIME = r"[\w.+-]+/[\w.+*-]+|\*"

#: The arguments as one line, as a regular expression.
_PLAIN: dict[str, str] = {
    "client_max_body_size": _SIZE,
    "expires": rf"-?{_TIME}|max|off|epoch|modified [+-]?{_TIME}",
    "default_type": _MIME,
    "charset": r"[\w-]{1,30}",
    "gzip_types": rf"(?:{_MIME})(?: (?:{_MIME}))*",
    "gzip_comp_level": r"[1-9]",
    "gzip_min_length": _SIZE,
    "proxy_http_version": r"1\.[01]",
    "proxy_redirect": r"off",
    "internal": r"",
    "access_log": r"off",
    "index": r"[\w./-]+(?: [\w./-]+)*",
    "error_page": r"[3-5]\d\d(?: [3-5]\d\d)*(?: =(?:[2-5]\d\d)?)? /[\w./-]*",
    **dict.fromkeys(
        [
            "etag",
            "gzip",
            "gzip_vary",
            "sendfile",
            "tcp_nopush",
            "tcp_nodelay",
            "log_not_found",
            "proxy_buffering",
            "proxy_request_buffering",
            "proxy_intercept_errors",
            "fastcgi_intercept_errors",
            "fastcgi_buffering",
            "server_name_in_redirect",
            "port_in_redirect",
            "absolute_redirect",
            "merge_slashes",
        ],
        _FLAG,
    ),
    **dict.fromkeys(
        [
            "proxy_connect_timeout",
            "proxy_read_timeout",
            "proxy_send_timeout",
            "fastcgi_connect_timeout",
            "fastcgi_read_timeout",
            "fastcgi_send_timeout",
            "uwsgi_read_timeout",
            "send_timeout",
            "client_body_timeout",
            "client_header_timeout",
            "keepalive_timeout",
        ],
        _TIME,
    ),
}
#: What may stand more than once in a block.
REPEATED = {"add_header", "proxy_set_header", "error_page", "allow", "deny", "rewrite", "if", "location"}
#: What answers a request, or keeps people out. Where one of these is left out, its location answers nobody.
HANDLERS = {
    "proxy_pass",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "grpc_pass",
    "memcached_pass",
    "js_content",
    "perl",
    "return",
    "root",
    "alias",
    "auth_basic",
    "auth_request",
    "auth_jwt",
    "deny",
    "internal",
    "limit_except",
    "valid_referers",
    "secure_link",
    "empty_gif",
    "mp4",
    "flv",
    "random_index",
}
#: Written anew, or of no consequence: not worth a word.
QUIET = re.compile(
    r"listen|server_name|types|ssl|ssl_\w+|http2|fastcgi_index|fastcgi_split_path_info|uwsgi_param|error_log|access_log|"
    r"log_format|server_tokens|break|autoindex_\w+|auth_basic_user_file|keepalive_requests|open_file_cache\w*|"
    r"reset_timedout_connection|proxy_headers_hash\w*|server_names_hash\w*|types_hash\w*|underscores_in_headers"
)
#: A variable of our own: whether a connection becomes one of WebSocket.
UPGRADE = "rescued_upgrade"
_HEADERS = re.compile(
    r"Cache-Control|Pragma|X-Frame-Options|X-Content-Type-Options|X-XSS-Protection|Strict-Transport-Security|"
    r"Referrer-Policy|Access-Control-Allow-(?:Origin|Methods|Headers|Credentials)|Vary",
    re.IGNORECASE,
)
_REASONS = (
    (r".*_by_lua\w*|lua_\w+|init_by_\w+", "code inside nginx (Lua): whoever got in may have written it"),
    (r"js_\w+|perl\w*|njs\w*", "code inside nginx: whoever got in may have written it"),
    (r"load_module", "a module is a program inside nginx: install what you need from the distribution"),
    (r"sub_filter\w*|add_before_body|add_after_body|addition_types", "it changes pages on their way out"),
    (r"mirror\w*", "it sends a copy of each request elsewhere"),
    (r"ssi\w*", "server-side includes"),
    (r"dav_\w+|create_full_put_path", "it lets visitors write files"),
    (r"autoindex", "it lists directories to everybody"),
    (r"auth_basic|auth_request|auth_jwt", "its passwords were exposed; closed until you protect it anew"),
    (r"resolver\w*", "names are not looked up: strangers would be asked"),
    (r"env", "an environment variable for nginx, such as LD_PRELOAD"),
    (
        r"proxy_cookie_\w+|proxy_ssl\w*|proxy_bind",
        "it belongs to a server behind; add it by hand where needed",
    ),
    (
        r"\w+_buffers|\w+_buffers?_size",
        "sizes of buffers, which must fit each other; the defaults do for most",
    ),
    (r"set|map|geo|split_clients", "a variable of its own; add it by hand where needed"),
)


def reason(name: str) -> str:
    """Why a directive of that name is not carried over."""
    for pattern, why in _REASONS:
        if re.fullmatch(pattern, name):
            return why
    return "not among what is known to be harmless; add it by hand where needed"


def line(name: str, args: list[str], site_names: set[str]) -> str:
    """The directive, written anew. Raises ``Unsafe`` with the reason why not."""
    if name in _PLAIN:
        if not re.fullmatch(_PLAIN[name], " ".join(args), re.ASCII):
            raise Unsafe("a value that it does not usually have")
        return " ".join([name, *args]) + ";"
    special = {
        "try_files": _try_files,
        "rewrite": _rewrite,
        "return": lambda words: _return(words, site_names),
        "add_header": _add_header,
        "proxy_set_header": _set_header,
        "allow": _allow,
        "deny": _deny,
    }.get(name)
    if special is None:
        raise Unsafe(reason(name))
    return f"{name} {special(args)};"


def _try_files(args: list[str]) -> str:
    if len(args) < 2:
        raise Unsafe("too few words")
    for word in args:
        if not re.fullmatch(r"=[2-5]\d\d|@[\w-]+|[\w./$?&={}%-]+", word, re.ASCII) or ".." in word:
            raise Unsafe("a value that it does not usually have")
    return " ".join(quoted(with_variables(word)) for word in args)


def _rewrite(args: list[str]) -> str:
    pattern, to, *flag = args if len(args) in (2, 3) else ("", "", "-")
    if flag not in ([], ["last"], ["break"], ["redirect"], ["permanent"]):
        raise Unsafe("a value that it does not usually have")
    if not to.startswith("/") or to.startswith("//"):
        raise Unsafe("it sends visitors to another address")
    if not re.fullmatch(r"[\w./$?&=%{}-]+", to, re.ASCII):
        raise Unsafe("a value that it does not usually have")
    return " ".join([regular(pattern), quoted(with_variables(to)), *flag])


def _return(args: list[str], site_names: set[str]) -> str:
    if len(args) == 1 and re.fullmatch(r"[2-5]\d\d", args[0]):
        return args[0]
    if len(args) != 2 or args[0] not in ("301", "302", "303", "307", "308"):
        raise Unsafe("an answer of its own text")
    to = args[1]
    match = re.fullmatch(
        r"(?:(?:https?|\$scheme)://([^/$]+|\$(?:host|server_name|http_host)))?(/[\w./?&=%-]*|\$request_uri)?",
        to,
    )
    if not match or to.startswith("//") or not (match[1] or match[2]):
        raise Unsafe("a value that it does not usually have")
    if match[1] and match[1].lower() not in {"$host", "$server_name", "$http_host", *site_names}:
        raise Unsafe("it sends visitors to another host")
    return f"{args[0]} {quoted(with_variables(to))}"


def _add_header(args: list[str]) -> str:
    if len(args) not in (2, 3) or args[2:] not in ([], ["always"]) or not _HEADERS.fullmatch(args[0]):
        raise Unsafe("a header that tells browsers what to do; add it by hand where needed")
    if "\\" in args[1]:
        raise Unsafe("a value that it does not usually have")
    return " ".join([args[0], quoted(with_variables(args[1])), *args[2:]])


def _set_header(args: list[str]) -> str:
    if len(args) != 2 or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,60}", args[0]):
        raise Unsafe("a value that it does not usually have")
    if [args[0].lower(), args[1]] == [
        "connection",
        "$connection_upgrade",
    ]:  # as nginx's own page on WebSocket names it
        return f"Connection ${UPGRADE}"
    if not re.fullmatch(r"[\w$./:;, {}-]*", args[1], re.ASCII):
        raise Unsafe("a value that it does not usually have")
    if re.fullmatch(r"(?:Proxy-)?Authorization|Cookie", args[0], re.IGNORECASE) and "$" not in args[1]:
        raise Unsafe("it holds a password; write it anew with the new one")
    return f"{args[0]} {quoted(with_variables(args[1]))}"


def _deny(args: list[str]) -> str:
    try:
        return (
            "all"
            if args == ["all"]
            else str(ipaddress.ip_network(args[0] if len(args) == 1 else "", strict=False))
        )
    except ValueError:
        raise Unsafe("not an address") from None


def _allow(args: list[str]) -> str:
    if args == ["all"]:
        return "all"
    try:
        network = ipaddress.ip_network(args[0] if len(args) == 1 else "", strict=False)
    except ValueError:
        raise Unsafe("not an address") from None
    if not (network.is_loopback or own(network)):
        raise Unsafe("an address that may enter: add it again where it is yours")
    return str(network)
