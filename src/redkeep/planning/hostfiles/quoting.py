"""Values as text of other people's formats: redis.conf, sentinel.conf, users.acl and redis:// addresses.

The rules of ``redis.conf`` and ``sentinel.conf`` are those of ``sdssplitargs`` in the server's ``sds.c``: words apart
by blanks, and within double quotes ``\\"``, ``\\\\`` and ``\\xHH``. A line is read as one whole first, so a line break
cannot be quoted as itself. An aclfile knows no quotes at all (``ACLLoadFromFile`` splits at single blanks).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote as percent_encoded

from redkeep.errors import UsageError

if TYPE_CHECKING:
    from redkeep.model.topology import Address

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_AN_ACL_WORD = re.compile(r"[\s\x00-\x1f\x7f]")


def check_secret(value: str, *, where: str = "") -> str:
    """A password that every file format and every client library can carry; never quoted back in the error.

    Control characters are refused: a line break ends a configuration line, and a zero byte ends ``masterauth``,
    which the server keeps as a C string.
    """
    if not value:
        raise UsageError("an empty password", where=where, next="leave the key out and Redkeep makes one")
    if _CONTROL.search(value):
        raise UsageError(
            "a password with a line break or another control character",
            where=where,
            next="configuration files cannot hold it: choose one of printable characters; blanks and quotes are fine",
        )
    return value


def quote(value: str) -> str:
    """One word of ``redis.conf`` or ``sentinel.conf``, always in double quotes.

    What is not printable ASCII becomes ``\\xHH`` of its UTF-8 bytes, as the server's own CONFIG REWRITE writes it:
    the file is the same whatever encoding someone opens it with.
    """
    if _CONTROL.search(value):
        raise UsageError(
            "a setting with a line break or another control character", next="write it on one line"
        )
    return '"' + "".join(_config_byte(byte) for byte in value.encode()) + '"'


def _config_byte(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def acl_word(value: str) -> str:
    """One word of an aclfile (a user name, a rule), which has no way of quoting a blank."""
    if not value or _NOT_AN_ACL_WORD.search(value):
        raise UsageError(
            f"not a word of an ACL rule: {value!r}", next="no blanks or control characters there"
        )
    return value


def url_word(value: str) -> str:
    """A user or password inside an address: everything but letters, digits and ``_.-~`` percent-encoded as UTF-8."""
    return percent_encoded(value, safe="")


def redis_url(address: Address, *, user: str = "", password: str | None = None, tls: bool = False) -> str:
    """``redis://user:password@host:port``.

    The application's user is named, too: ``:password@`` is the empty user for ``redis-cli -u`` (7.0.15), and refused.
    """
    login = "" if password is None else f"{url_word(user)}:{url_word(password)}@"
    return f"{'rediss' if tls else 'redis'}://{login}{address}"
