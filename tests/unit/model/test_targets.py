"""Targets as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import UsageError
from redkeep.model.targets import Target, parse_target
from redkeep.model.topology import Address


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("db.example", Target(Address("db.example", 6379))),
        ("10.0.0.11:7000", Target(Address("10.0.0.11", 7000))),
        ("[fd00::1]:7000", Target(Address("fd00::1", 7000))),
        ("redis://h", Target(Address("h", 6379))),
        ("valkeys://h:1", Target(Address("h", 1), tls=True)),
        ("rediss://boss:a%40b@h:6380/0", Target(Address("h", 6380), tls=True, user="boss", password="a@b")),
        ("redis://:secret@h", Target(Address("h", 6379), password="secret")),
        ("sentinel://h/shop", Target(Address("h", 26379), sentinel=True, name="shop")),
        ("sentinel://:pw@h:5000/shop", Target(Address("h", 5000), sentinel=True, password="pw", name="shop")),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://h",
        "redis://",
        "redis://:pw@",
        "pw@h:1",
        "h:port",
        "redis://h:99999",
        "a b",
        "redis://[::1",
    ],
)
def test_no_targets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert "redis://HOST:PORT" in caught.value.next


@pytest.mark.parametrize("password", ["se#cret", "p@ss#word", "12/34", "pa?ss", "a@b/c"])
def test_a_password_that_ends_the_host_is_shown_to_nobody(password: str) -> None:
    """What follows ``@`` in it would be looked up as a name, or asked."""
    for text in (f"redis://:{password}@db.example:6379", f"rediss://boss:{password}@db.example/0"):
        with pytest.raises(UsageError) as caught:
            parse_target(text)
        assert "%23" in caught.value.next
        assert not any(part in str(caught.value) for part in ("se#", "cret", "ss#", "12/", "pa?"))


@given(st.text(max_size=60))
def test_anything_is_a_target_or_refused(text: str) -> None:
    try:
        assert parse_target(text).address.host
    except UsageError:
        pass


def test_the_password_is_not_shown() -> None:
    target = parse_target("redis://boss:secret@h")
    assert "secret" not in f"{target} {target!r}"
    with pytest.raises(UsageError) as caught:
        parse_target("redis://boss:secret@h:port")
    assert "secret" not in str(caught.value)
