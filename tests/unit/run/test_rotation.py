"""Passwords on their way: at no time is one in use that is not accepted everywhere."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import RefusedError
from redkeep.planning.hostfiles.acl import ROLES
from redkeep.run.rotation import advance, begin, finish, waiting
from redkeep.run.vault import Contents, with_given

START = Contents("shop", "d-1", {role: f"{role}-1" for role in ROLES})


def new(*roles: str) -> dict[str, str]:
    return {role: f"{role}-2" for role in roles}


def taken(contents: Contents, role: str) -> set[str]:
    """The passwords that servers accept."""
    return {contents.made[role], contents.previous.get(role, contents.made[role])}


@given(st.sets(st.sampled_from(ROLES), min_size=1))
def test_whoever_uses_a_password_finds_it_accepted_before_and_after_each_step(roles: set[str]) -> None:
    states = [START, begin(START, new(*roles))]
    while (following := advance(states[-1])) is not None:
        states.append(following)
    for before, after in itertools.pairwise(states):
        for (
            role
        ) in ROLES:  # whatever node is already in the next state, and whoever still speaks as in this one
            assert before.made[role] in taken(after, role)
            assert after.made[role] in taken(before, role)
    last = states[-1]
    assert {r for r in ROLES if last.made[r] == f"{r}-2"} == roles
    assert waiting(last) == (("app",) if "app" in roles else ())
    assert finish(last).previous == {}
    assert advance(finish(last)) == (replace(finish(last), phases={}) if waiting(last) else None)
    assert last.phases == {}


def test_every_state_survives_the_vault() -> None:
    contents = begin(START, new("app", "admin"))
    for _ in range(3):
        assert Contents.from_json(contents.as_json(), "here") == contents
        contents = advance(contents) or contents
    assert "2" not in repr(contents).replace("d-1", "")


def test_a_third_password_is_refused_until_the_first_is_ended() -> None:
    kept = advance(advance(begin(START, new("app"))) or START) or START
    assert waiting(kept) == ("app",)
    with pytest.raises(RefusedError, match="still works"):
        begin(kept, {"app": "app-3"})
    assert begin(finish(kept), {"app": "app-3"}).previous == {"app": "app-3"}
    with pytest.raises(RefusedError, match="still works"):
        begin(begin(START, new("admin")), {"admin": "admin-3"})


def test_the_same_again_is_no_change() -> None:
    begun = begin(START, new("admin"))
    assert begin(begun, new("admin")) == begun
    assert begin(START, {"admin": "admin-1"}) == START
    assert advance(START) is None


def test_another_value_of_a_source_is_rotated_in() -> None:
    first = with_given(START, {"admin": "theirs"}, fresh=True, file="f")
    assert first.made["admin"] == "theirs"
    assert first.previous == {}
    second = with_given(first, {"admin": "new"}, fresh=False, file="f")
    assert (second.made["admin"], second.previous["admin"]) == ("theirs", "new")
    assert with_given(second, {"admin": "new"}, fresh=False, file="f") == second
    used = advance(second)
    assert used is not None
    assert (used.made["admin"], used.previous["admin"]) == ("new", "theirs")
    assert with_given(used, {"admin": "new"}, fresh=False, file="f") == used


def test_a_folder_of_before_takes_what_its_source_gives() -> None:
    old = Contents("shop", "d-1", START.made, given=None)
    assert with_given(old, {"app": "theirs"}, fresh=False, file="f").made["app"] == "theirs"
