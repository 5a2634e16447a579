"""Hosts that are named on the command line: what they are called, and what is no login at all. Nobody is connected to."""

from __future__ import annotations

import pytest

from redkeep.errors import HostUnreachable, UsageError
from redkeep.hosts.hostkeys import refuse
from redkeep.hosts.local import LocalHost
from redkeep.run.outposts import Outposts, Wanted, outposts


async def found(wanted: Wanted, **ready: LocalHost) -> Outposts:
    failed = {"down": HostUnreachable("down did not answer in time", next="look there")}
    async with outposts(wanted, refuse, {**ready, "down": LocalHost("down")}, failed) as posts:
        return posts


@pytest.mark.parametrize(
    "login", ["", "not a login", "-oProxyCommand=x", "a@-x", "@x", "a@b@c", "x:y:", "a;b"]
)
async def test_what_is_no_login(login: str) -> None:
    with pytest.raises(UsageError, match="not an SSH login"):
        await found(Wanted((login,)))


async def test_this_machine_is_a_place_to_look_from() -> None:
    posts = await found(Wanted(("here", "app")), app=LocalHost("app"))
    assert posts.names == ("here", "app")
    assert list(posts.vantages) == ["app"]


async def test_nothing_is_opened_where_nothing_is_wanted() -> None:
    posts = await found(Wanted())
    assert (posts.names, posts.vantages, posts.machines, posts.errors) == ((), {}, {}, {})


async def test_a_host_that_failed_is_left_out_and_told() -> None:
    posts = await found(Wanted(("down", "app"), ("down",)), app=LocalHost("app"))
    assert posts.names == ("app",)
    assert list(posts.errors) == ["down"]
    assert [(o.name, o.need) for o in posts.left_out] == [("down", "vantage"), ("down", "host")]


async def test_a_host_of_the_file_that_nobody_named_is_left_out_without_an_error() -> None:
    posts = await found(Wanted(described=("down",)))
    assert posts.errors == {}
    assert [o.need for o in posts.left_out] == ["host"]
