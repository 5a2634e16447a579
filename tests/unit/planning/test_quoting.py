"""Quoting: what a server reads back is what was meant. Real servers are asked in tests/live/test_acl_live.py."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import UsageError
from redkeep.model.topology import Address
from redkeep.planning.hostfiles.quoting import acl_word, check_secret, quote, redis_url

PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("simple", '"simple"'),
        ("", '""'),
        ("a b", '"a b"'),
        ("# no comment", '"# no comment"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("it's", '"it\'s"'),
        ("ñ", r'"\xc3\xb1"'),
    ],
)
def test_config_words(value: str, quoted: str) -> None:
    assert quote(value) == quoted


@given(PRINTABLE)
def test_a_server_would_read_the_same_back(value: str) -> None:
    assert _sdssplitargs(quote(value)) == value.encode()


def _sdssplitargs(word: str) -> bytes:
    """The double-quoted word as sds.c of the server reads it."""
    assert word[0] == word[-1] == '"'
    assert word.isascii()
    found, rest = bytearray(), word[1:-1]
    while rest:
        if rest.startswith("\\x"):
            found.append(int(rest[2:4], 16))
            rest = rest[4:]
        elif rest.startswith("\\"):
            found += rest[1].encode()
            rest = rest[2:]
        else:
            assert rest[0] != '"'
            found += rest[0].encode()
            rest = rest[1:]
    return bytes(found)


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\x00", "\x7f", "\t"])
def test_control_characters_are_refused_without_being_shown(value: str) -> None:
    for check in (quote, check_secret):
        with pytest.raises(UsageError) as refused:
            check("hidden" + value)
        assert "hidden" not in str(refused.value)


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        check_secret("")


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "a\nb"])
def test_acl_words_have_no_blanks(value: str) -> None:
    with pytest.raises(UsageError):
        acl_word(value)


@given(PRINTABLE)
def test_urls_carry_any_password(password: str) -> None:
    parts = urlsplit(redis_url(Address("203.0.113.1", 6379), user="redkeep", password=password))
    assert (parts.hostname, parts.port, parts.username) == ("203.0.113.1", 6379, "redkeep")
    assert unquote(parts.password or "") == password


def test_url_forms() -> None:
    assert redis_url(Address("::1", 6379)) == "redis://[::1]:6379"
    assert (
        redis_url(Address("db.example", 6379), password="p@ss", tls=True)
        == "rediss://:p%40ss@db.example:6379"
    )
