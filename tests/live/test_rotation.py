"""Passwords change while applications write, with connections that are held and with new ones all the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.killed import killed_after
from tests.live.servers import available
from tests.live.site import Site
from tests.live.traffic import Traffic

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(params=available(), ids=str, scope="module")
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A primary, two replicas and three Sentinels, of each engine that is here."""
    binary = request.param
    site = Site(tmp_path_factory.mktemp("watched"), "sentinel", 3, engine=binary)
    site.write("replicas: 2\n")
    try:
        site.run("apply", "--yes").ok()
        yield site
    finally:
        site.run("destroy", "--yes", "--delete-data").ok()


def test_all_passwords_change_and_no_connection_is_refused_or_cut(watched: Site) -> None:
    old, links = watched.password(), watched.links()
    old_admin = watched.password("admin")
    sentinel = watched.port + 3
    with redis.Redis(port=watched.port, password=old) as listener:
        channel = listener.pubsub()
        channel.subscribe("news")
        assert channel.get_message(timeout=5)
        held = {"held": lambda: watched.app(old)}
        with Traffic(held, {"fresh": lambda: watched.app(old)}) as traffic:
            done = watched.rotate("all")
            new = watched.run("url", "--reveal", "--json").ok().json["password"]
            with watched.app(new) as client:
                client.publish("news", "hello")
        assert (channel.get_message(timeout=5) or {})["data"] == b"hello"
    assert traffic.errors == []
    assert new != old
    assert traffic.lost(watched.app(new)) == []
    assert watched.links() == links
    assert (set(done["roles"]), done["waiting"]) == (
        {"app", "admin", "replication", "sentinel", "gate"},
        ["app"],
    )
    assert watched.refuses(old_admin, user="redkeep")
    assert not watched.refuses(old)
    assert not watched.refuses(old, port=sentinel)
    assert watched.run("apply", "--yes", "--json").ok().json["changed"] is False
    with Traffic({"held": lambda: watched.app(old)}, {"fresh": lambda: watched.app(new)}) as traffic:
        assert watched.rotate("app", "--finish")["finished"] is True
    assert traffic.errors == []  # also of the connection that was opened with the former password
    assert watched.refuses(old)
    assert watched.refuses(old, port=sentinel)
    assert watched.rotate("app", "--finish")["roles"] == []
    assert watched.links() == links


def test_replicas_and_sentinels_come_back_with_the_new_passwords(watched: Site) -> None:
    """Connections that last prove nothing: these are cut, by somebody who may."""
    watched.rotate("replication", "sentinel")
    for port in watched.servers:
        watched.admin(port).execute_command("CLIENT", "KILL", "TYPE", "replica", "SKIPME", "yes")
        watched.admin(port).execute_command("CLIENT", "KILL", "USER", "sentinel")
    applied = watched.run("apply", "--yes", "--json").ok().json
    assert applied["verified"]["ok"], applied
    for i in range(3):
        sentinel = watched.admin(watched.port + 3 + i)
        assert sentinel.execute_command("SENTINEL", "CKQUORUM", watched.name)


def test_a_password_that_still_works_is_ended_before_the_next(watched: Site) -> None:
    watched.rotate("app")
    before = watched.vault
    watched.run("rotate", "app", "--yes").error(4, "still works", "redkeep rotate app --finish")
    watched.run("rotate", "nobody", "--yes").error(2, "no such password: nobody")
    watched.run("rotate", "--yes").error(2, "rotate which password?")
    assert watched.vault == before
    watched.rotate("app", "--finish")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A primary and a replica, with passwords from outside for application and administration."""
    site = Site(tmp_path_factory.mktemp("pair"), "standalone", 2, engine=available()[-1])
    given(site, "app-1", "admin-1")
    site.write("replicas: 1\npasswords: {app: {env: APP_PW}, admin: {env: ADMIN_PW}}\n")
    try:
        site.run("apply", "--yes").ok()
        yield site
    finally:
        site.run("destroy", "--yes", "--delete-data").ok()


def given(site: Site, app: str, admin: str) -> None:
    site.run.environment = {**site.run.environment, "APP_PW": app, "ADMIN_PW": admin}


def test_another_value_of_the_files_own_source_is_rotated_in_by_apply(pair: Site) -> None:
    links = pair.links()
    with Traffic({"held": lambda: pair.app("app-1")}, {"fresh": lambda: pair.app("app-1")}) as traffic:
        given(pair, "app-2", "admin-2")
        planned = pair.run("plan", "--json").ok().json
        assert any("passwords are being changed (admin, app)" in note for note in planned["notes"])
        assert pair.run("url", "--reveal", "--json").ok().json["password"] == "app-1"
        applied = pair.run("apply", "--yes", "--json").ok().json
        assert applied["verified"]["ok"], applied
        assert pair.password() == "app-2"
    assert traffic.errors == []
    assert traffic.lost(pair.app("app-2")) == []
    assert pair.refuses("admin-1", user="redkeep")
    assert not pair.refuses("admin-2", user="redkeep")
    pair.run("rotate", "app", "--yes").error(4, "names where the password of app comes from")
    assert pair.rotate("--finish")["roles"] == ["app"]
    assert pair.refuses("app-1")
    assert pair.run("apply", "--yes", "--json").ok().json["changed"] is False
    assert pair.links() == links


def test_killed_anywhere_the_next_run_goes_on(pair: Site) -> None:
    """At each moment somebody with the password that counts is let in; after all it is the new one alone."""
    with Traffic({}, {"fresh": lambda: pair.app("app-2")}) as traffic:
        for steps in range(1, 40, 4):
            before = pair.password("replication")
            killed = killed_after(pair.run, ("rotate", "replication", "gate", "sentinel", "--yes"), steps)
            found = pair.rotate("replication", "gate", "sentinel")
            after = pair.vault
            assert after["passwords"]["replication"] != before
            assert after["previous"] == {}
            assert "rotation" not in after
            assert found["verified"]["ok"], (steps, found)
            if killed is None:
                break
        assert steps > 10
    assert traffic.errors == []
    assert pair.admin(pair.port + 1).info("replication")["master_link_status"] == "up"
