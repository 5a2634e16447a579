from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.model.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("2gb", 2 * 1024**3),
        ("512mb", 512 * 1024**2),
        ("512 MB", 512 * 1024**2),
        ("1.5G", 1_500_000_000),
        ("100k", 100_000),
        ("1t", 10**12),
        ("1048576", 1_048_576),
        ("1024b", 1024),
        (4096, 4096),
    ],
)
def test_units_are_those_of_redis_conf(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "2 gigs", "-1gb", "1e9", "1..5g", "٣gb", "2GiB 1MiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_spelling_is_exact(size: int) -> None:
    assert parse_size(format_size(size)) == size
