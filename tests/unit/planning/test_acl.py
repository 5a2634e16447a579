"""The users' lines, and the comparison with ACL LIST. Real servers load and print them in tests/live/test_acl_live.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from redkeep.errors import UsageError
from redkeep.model.engine import Engine, Version
from redkeep.planning.hostfiles.acl import (
    Secrets,
    acl_changes,
    acl_differs,
    aclfile,
    sentinel_users,
    server_users,
)

SECRETS = Secrets("app-pw", "admin-pw", "replication-pw", "sentinel-pw", "gate-pw")
REDIS_60, REDIS_62 = Engine("redis", Version(6, 0, 20)), Engine("redis", Version(6, 2, 14))
REDIS_70, REDIS_80 = Engine("redis", Version(7, 0, 15)), Engine("redis", Version(8, 0, 2))
VALKEY_81, VALKEY_91 = Engine("valkey", Version(8, 1, 1)), Engine("valkey", Version(9, 1, 2))
ALL = (REDIS_60, REDIS_62, REDIS_70, REDIS_80, VALKEY_81, VALKEY_91)


def users(engine: Engine, *, cluster: bool = False, secrets: Secrets = SECRETS) -> dict[str, list[str]]:
    lines = server_users(engine, secrets, cluster=cluster, gate_rules="+ping +info")
    return {line.split()[1]: line.split() for line in lines}


def digest(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


@pytest.mark.parametrize("engine", ALL, ids=str)
def test_every_line_stands_alone_and_holds_no_password(engine: Engine) -> None:
    for lines in (
        server_users(engine, SECRETS, cluster=True, gate_rules="+ping"),
        sentinel_users(engine, SECRETS, gate_rules="+ping"),
    ):
        for line in lines:
            assert line.split()[0] == "user"
            assert line.split()[2:4] == ["reset", "on"]
        assert "-pw" not in aclfile(lines)


def test_passwords_are_digests_and_both_hold_while_one_is_changed() -> None:
    rotating = replace(SECRETS, previous={"app": "old-pw", "admin": "admin-pw"})
    found = users(REDIS_70, secrets=rotating)
    assert found["default"][4:6] == [digest("app-pw"), digest("old-pw")]
    assert found["redkeep"].count(digest("admin-pw")) == 1


def test_without_authentication_only_the_application_needs_no_password() -> None:
    found = users(VALKEY_91, secrets=replace(SECRETS, app=None))
    assert [name for name, words in found.items() if "nopass" in words] == ["default"]


def test_channels_are_named_where_the_engine_knows_them() -> None:
    assert not any(word in ("&*", "resetchannels") for words in users(REDIS_60).values() for word in words)
    assert "&*" in users(REDIS_62)["default"]
    assert "resetchannels" in users(REDIS_62)["replication"]


def test_slot_migration_of_valkey_9_needs_all_rights() -> None:
    assert users(VALKEY_91, cluster=True)["replication"][-3:] == ["~*", "&*", "+@all"]
    for engine, cluster in ((VALKEY_91, False), (VALKEY_81, True), (REDIS_80, True)):
        assert users(engine, cluster=cluster)["replication"][-4:] == ["+psync", "+sync", "+replconf", "+ping"]


def test_a_sentinel_of_redis_6_0_has_no_users() -> None:
    assert sentinel_users(REDIS_60, SECRETS, gate_rules="+ping") == ()


def test_primary_is_spelled_as_the_engine_knows_it() -> None:
    assert "get-primary-addr-by-name" not in aclfile(sentinel_users(REDIS_80, SECRETS, gate_rules="+ping"))
    assert "get-primary-addr-by-name" in aclfile(sentinel_users(VALKEY_81, SECRETS, gate_rules="+ping"))


def test_extra_rules_come_last_and_are_checked() -> None:
    line, *_ = server_users(REDIS_80, SECRETS, cluster=False, gate_rules="+ping", app_extra="+keys +flushdb")
    assert line.endswith(" +keys +flushdb")
    with pytest.raises(UsageError):
        server_users(REDIS_80, SECRETS, cluster=False, gate_rules="+ping", app_extra="+keys\x00")


def test_secrets_do_not_show_themselves() -> None:
    assert "pw" not in repr(replace(SECRETS, previous={"app": "old-pw"}))


H = digest("x")


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        (f"user a reset on {H} ~* &* +@all", f"user a on sanitize-payload {H} ~* &* +@all"),
        (f"user a reset on {H} resetchannels +ping +get", f"user a on {H} resetchannels -@all +get +ping"),
        (f"user a reset on {H} ~* +@all -@admin -keys", f"user a on {H} ~* +@all -@admin -keys"),
        (f"user a reset on {H} allkeys +@all", f"user a on {H} ~* +@all"),
        # Sentinels of Redis 6.2.14 and 7.0.15, as they printed it
        (
            f"user a on {H} &* +ping +hello +auth +publish +client|setname +sentinel|is-master-down-by-addr",
            f"user a on {H} &* -@all +@fast -role +sentinel|is-master-down-by-addr +client|setname",
        ),
        (
            f"user a on {H} &* +role +ping +hello +auth +command +client|id +subscribe +unsubscribe +psubscribe "
            "+punsubscribe +sentinel|master",
            f"user a on {H} &* -@all +@read +@pubsub +@connection -publish +sentinel|master -client +client|id",
        ),
    ],
)
def test_the_same_rights_in_other_words_do_not_differ(wanted: str, listed: str) -> None:
    assert not acl_differs([wanted], [listed])


@pytest.mark.parametrize(
    "listed",
    [
        f"user a off {H} ~k &* +@all -@admin",
        f"user a on {digest('y')} ~k &* +@all -@admin",
        f"user a on {H} {digest('y')} ~k &* +@all -@admin",
        f"user a on nopass {H} ~k &* +@all -@admin",
        f"user a on {H} ~* &* +@all -@admin",
        f"user a on {H} ~k resetchannels +@all -@admin",
        f"user a on {H} ~k &* +@all",
        f"user a on {H} ~k &* +@all -@admin +config",
        f"user a on {H} ~k &* -@admin +@all",
        f"user a on {H} ~k &* +@all -@admin (~* +@all)",
    ],
)
def test_other_rights_differ(listed: str) -> None:
    assert acl_differs([f"user a reset on {H} ~k &* +@all -@admin"], [listed])


def test_changes_name_the_users() -> None:
    wanted = (f"user a reset on {H} +get", f"user b reset on {H} +get", f"user c reset on {H} +get")
    listed = (f"user a on {H} -@all +get", f"user b on {H} -@all +set", "user z on nopass +@all")
    changes = acl_changes(wanted, listed)
    assert changes.set == (f"b reset on {H} +get", f"c reset on {H} +get")
    assert changes.delete == ("z",)
    assert not acl_changes(wanted, wanted)
