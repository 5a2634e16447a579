"""The folder with the secrets: made once, closed to others, whole after any interruption, read back from hosts."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from redkeep.errors import HostError, RefusedError, UsageError
from redkeep.hosts.base import Host
from redkeep.planning.hostfiles.acl import ROLES
from redkeep.run.vault import Contents, Vault, recover, resolve, secrets_of, with_given


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "redkeep.yaml", "shop")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_first_use_makes_everything_and_later_uses_nothing(vault: Vault) -> None:
    assert vault.contents() is None
    assert not vault.root.exists()
    made = vault.ensure()
    assert set(made.made) == set(ROLES)
    assert len(set(made.made.values())) == len(ROLES)
    assert all(len(password) == 32 and password.isalnum() for password in made.made.values())
    assert vault.ensure() == made == vault.contents()
    assert vault.notes == []


def test_modes(vault: Vault) -> None:
    old = os.umask(0)
    try:
        vault.ensure()
        vault.write("pki/hosts/a.key", b"x")
    finally:
        os.umask(old)
    assert [mode(vault.root), mode(vault.folder), mode(vault.path)] == [0o700, 0o700, 0o600]
    assert mode(vault.folder / "pki/hosts/a.key") == 0o600


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_git_does_not_see_the_folder(vault: Vault, tmp_path: Path) -> None:
    vault.ensure()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain"], check=True, capture_output=True
    )
    assert done.stdout == b""


def test_a_missing_password_is_made_and_the_others_are_kept(vault: Vault) -> None:
    made = vault.ensure()
    document = json.loads(made.as_json())
    del document["passwords"]["gate"]
    vault.write("secrets.json", json.dumps(document).encode())
    again = vault.ensure()
    assert again.deployment_id == made.deployment_id
    assert {role for role in ROLES if again.made[role] != made.made[role]} == {"gate"}


def test_open_permissions_are_closed_with_a_note(vault: Vault) -> None:
    vault.ensure()
    vault.root.chmod(0o755)
    vault.path.chmod(0o644)
    assert vault.contents()
    assert [mode(vault.root), mode(vault.path)] == [0o700, 0o600]
    assert len(vault.notes) == 2
    assert "now 600" in vault.notes[1]


def test_what_an_interrupted_write_left_does_no_harm(vault: Vault) -> None:
    made = vault.ensure()
    (vault.folder / ".secrets.json.new").write_bytes(b'{"version": 1, "na')
    assert vault.contents() == made
    vault.write("secrets.json", made.as_json())
    assert [path.name for path in vault.folder.iterdir()] == ["secrets.json"]


def _first_use(folder: str) -> str:
    return Vault(Path(folder) / "redkeep.yaml", "shop").ensure().deployment_id


def test_two_first_runs_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_first_use, [str(tmp_path)] * 8))) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 1}',
        b"\xff",
        b'{"version":1,"name":"shop","deployment_id":"x","passwords":{"app":7},"previous":{}}',
    ],
)
def test_a_damaged_file_is_refused_and_kept(vault: Vault, content: bytes) -> None:
    vault.write("secrets.json", content)
    with pytest.raises(RefusedError, match="damaged"):
        vault.ensure()
    assert vault.path.read_bytes() == content


def test_a_newer_format_is_refused(vault: Vault) -> None:
    vault.write("secrets.json", b'{"version": 2}')
    with pytest.raises(RefusedError, match="format 2"):
        vault.contents()


def test_another_deployments_secrets_are_refused(vault: Vault) -> None:
    vault.write("secrets.json", Contents.fresh("other").as_json())
    with pytest.raises(RefusedError, match="'other', not of 'shop'"):
        vault.contents()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\nb", "-"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        Vault(tmp_path / "redkeep.yaml", name)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "pki/../../../x"])
def test_file_names_do_not_lead_out_of_the_folder(vault: Vault, name: str) -> None:
    for use in (vault.read, lambda path: vault.write(path, b"")):
        with pytest.raises(UsageError):
            use(name)


# Passwords from elsewhere


def test_passwords_made_here(vault: Vault) -> None:
    contents = vault.ensure()
    assert secrets_of(contents).app == contents.made["app"]
    assert secrets_of(contents, auth=False).app is None
    assert secrets_of(contents, auth=False).admin == contents.made["admin"]


def test_passwords_from_environment_and_command(vault: Vault) -> None:
    sources = {"app": {"env": "APP_PW"}, "admin": {"command": "printf 'a b#c\\n'"}}
    given = resolve(sources, environment={"APP_PW": 's3cret "x"'})
    assert given == {"app": 's3cret "x"', "admin": "a b#c"}
    found = with_given(vault.ensure(), given, fresh=True, file="redkeep.yaml")
    assert (secrets_of(found).app, secrets_of(found).admin) == ('s3cret "x"', "a b#c")
    assert found.given == frozenset({"app", "admin"})
    assert with_given(found, given, fresh=False, file="redkeep.yaml") == found


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"env": "APP_PW"}, "the environment variable APP_PW is not set"),
        ({"command": "echo hidden; echo hidden >&2; exit 3"}, "the command ended with status 3"),
        ({"command": "true"}, "an empty password"),
        ({"command": "printf 'hidden\\nhidden'"}, "a password with a line break"),
        ({"command": "printf '\\377'"}, "not UTF-8"),
    ],
)
def test_three_clear_lines_where_no_password_comes(vault: Vault, source: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve({"app": source}, file="redkeep.yaml", environment={})
    lines = str(refused.value).splitlines()
    assert says in lines[0]
    assert lines[1].startswith("redkeep.yaml: passwords.app.")
    assert len(lines) == 3
    assert "hidden" not in str(refused.value)


def test_nothing_shows_its_passwords(vault: Vault) -> None:
    contents = vault.ensure()
    shown = repr(contents) + repr(secrets_of(contents)) + repr(vault)
    assert not any(password in shown for password in contents.made.values())


# Read back from hosts


@dataclass
class FakeHost:
    name: str = "sz-1"
    files: dict[str, bytes] = field(default_factory=dict)

    async def read(self, path: str, *, timeout: float = 1.0) -> bytes | None:
        return self.files.get(path)


async def test_a_lost_folder_is_read_back_from_a_host(vault: Vault) -> None:
    made = vault.ensure()
    host = FakeHost(files={"/b/secrets.json": made.as_json()})
    shutil.rmtree(vault.root)
    vault.adopt(await recover(cast(Host, host), "/b/secrets.json"))
    assert vault.contents() == made


async def test_a_host_without_or_with_others_secrets(vault: Vault) -> None:
    with pytest.raises(HostError, match="no secrets"):
        await recover(cast(Host, FakeHost()), "/b/secrets.json")
    vault.ensure()
    with pytest.raises(RefusedError, match="another deployment"):
        vault.adopt(Contents.fresh("shop"))
    elsewhere = Vault(vault.root.parent / "elsewhere" / "redkeep.yaml", "shop")
    elsewhere.root.parent.mkdir()
    with pytest.raises(RefusedError, match="'other'"):
        elsewhere.adopt(Contents.fresh("other"))
