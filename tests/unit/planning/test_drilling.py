"""Whom a partition separates, and whether the deployment would come through it."""

from __future__ import annotations

import pytest

from redkeep.errors import UsageError
from redkeep.planning.drills.drilling import parse_groups
from redkeep.planning.placing.placement import Placement
from redkeep.planning.placing.survival import after_loss

from .test_survival import sentinel, server, spec_of

HOSTS = ("h0", "h1", "h2", "h3")


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("h0,h1/h2", (("h0", "h1"), ("h2",))),
        (" h0 , h0 / h3 ", (("h0",), ("h3",))),
        ("h1", (("h1",), ("h0", "h2", "h3"))),
    ],
)
def test_groups(text: str, groups: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    assert parse_groups(text, HOSTS) == groups


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("h0/h9", "no such host: h9"),
        ("h0,h1/h1", "in both groups: h1"),
        ("h0/", "a group without a host"),
        ("/", "a group without a host"),
        ("h0,h1,h2,h3", "a group without a host"),
        ("h0/h1/h2", "more than two groups"),
    ],
)
def test_groups_that_make_no_sense(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as raised:
        parse_groups(text, HOSTS)
    assert "h0, h1, h2, h3" in raised.value.next


def test_the_loss_of_several_hosts_together() -> None:
    placement = Placement(
        (
            server("h0", 6379, 0, "primary"),
            server("h1", 6379, 0, "replica"),
            server("h2", 6379, 0, "replica"),
            *(sentinel(host) for host in HOSTS[:3]),
        )
    )
    spec = spec_of("sentinel", 4, replicas=2)
    assert after_loss(spec, placement, ("h0", "h3")).writes
    lost = after_loss(spec, placement, ("h0", "h1"))
    assert not lost.writes
    assert "1 of 3 Sentinels" in lost.why
