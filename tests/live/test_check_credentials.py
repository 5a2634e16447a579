"""Who is shown the password: whom the user named, and nobody whom a stranger names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from redkeep.errors import RefusedError
from tests.live.deployments import has_replicas, replicated, watched
from tests.live.doctor import doctor
from tests.live.pretenders import Pretender, each, pretending
from tests.live.public import ALSO_PUBLIC, PUBLIC, in_public_network, needs_network
from tests.live.servers import Binary, Server, available, running, until

pytestmark = pytest.mark.live

PASSWORD = "a4f09c1be77d4c55b12f8e02d9c3a6e1"
WANTS_A_PASSWORD = each(b"-NOAUTH Authentication required.\r\n")


@contextmanager
def with_a_rogue(
    binary: Binary, folder: Path, *, host: str, config: str = ""
) -> Iterator[tuple[Server, Pretender]]:
    """A primary that lists a rogue among its replicas: one of them announces the rogue's address."""
    with pretending(WANTS_A_PASSWORD, host=host) as rogue:
        secret = f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\n{config}"
        with running(binary, folder / "primary", f"repl-diskless-sync-delay 0\n{secret}") as primary:
            told = f"replicaof 127.0.0.1 {primary.port}\nreplica-announce-ip {host}\n"
            told += f"replica-announce-port {rogue.port}\n{secret}"
            with running(binary, folder / "replica", told):
                until(partial(has_replicas, primary, 1, PASSWORD), what="the replica")
                yield primary, rogue


@pytest.fixture
def binary() -> Binary:
    return available()[0]


def test_a_rogue_elsewhere_is_not_shown_it(binary: Binary, tmp_path: Path) -> None:
    with with_a_rogue(binary, tmp_path, host="127.0.0.2") as (primary, rogue):
        told = doctor(primary, password=PASSWORD)
        assert b"PING" in rogue.heard
        assert b"AUTH" not in rogue.heard
        assert PASSWORD.encode() not in rogue.heard
        assert any("--trust-discovered" in f.evidence for f in told.of("not-checked")), told.told
        doctor(primary, password=PASSWORD, trust_discovered=True)
        assert PASSWORD.encode() in rogue.heard


@needs_network
def test_never_in_clear_text_to_a_public_address(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        config = f"bind 127.0.0.1 {PUBLIC}\n"
        with with_a_rogue(binary, tmp_path, host=ALSO_PUBLIC, config=config) as (primary, rogue):
            target = f"{PUBLIC}:{primary.port}"
            doctor(target, password=PASSWORD, trust_discovered=True)
            doctor(target, password=PASSWORD, allow_clear_text=True)
            assert PASSWORD.encode() not in rogue.heard
            doctor(target, password=PASSWORD, allow_clear_text=True, trust_discovered=True)
            assert PASSWORD.encode() in rogue.heard

    in_public_network(body)


def test_neighbours_on_the_same_machine_are_asked(binary: Binary, tmp_path: Path) -> None:
    secret = f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\n"
    with replicated(binary, tmp_path, primary=secret, replicas=(secret,), password=PASSWORD) as (primary, _):
        assert doctor(primary, password=PASSWORD).checked.servers == 2
        assert not doctor(primary, password=PASSWORD).of("not-checked"), doctor(
            primary, password=PASSWORD
        ).told


def test_a_name_stands_for_its_addresses(binary: Binary, tmp_path: Path) -> None:
    """``localhost`` may mean ::1 first, where nobody listens; the replica is known by the address."""
    secret = f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\n"
    with replicated(binary, tmp_path, primary=secret, replicas=(secret,), password=PASSWORD) as (primary, _):
        told = doctor(f"localhost:{primary.port}", password=PASSWORD)
        assert told.checked.servers == 2
        assert not told.of("not-checked"), told.told


def test_sentinels_with_a_password_of_their_own(binary: Binary, tmp_path: Path) -> None:
    """Each of both is given once, and is enough for all servers and all Sentinels, in whatever order they are named."""
    secret, other = f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\n", PASSWORD[::-1]
    more = f"sentinel auth-pass shop {PASSWORD}\nrequirepass {other}\nsentinel sentinel-pass {other}\n"
    with (
        replicated(binary, tmp_path, primary=secret, replicas=(secret,), password=PASSWORD) as (primary, _),
        watched(binary, tmp_path / "a", primary, extra=more) as a,
        watched(binary, tmp_path / "b", primary, extra=more) as b,
    ):
        for sentinel in (a, b):
            commands = sentinel.client(password=other)
            until(partial(known, commands), what="the other Sentinel")
        server = f"redis://:{PASSWORD}@127.0.0.1:{primary.port}"
        watcher = f"sentinel://:{other}@127.0.0.1:{a.port}/shop"
        for targets, password in (((watcher, server), ""), ((server, watcher), ""), ((watcher,), PASSWORD)):
            told = doctor(*targets, password=password)
            assert (told.checked.servers, told.checked.sentinels) == (2, 2)
            assert not told.of("not-checked"), told.told
        told = doctor(server)
        assert "WRONGPASS" in told.only("not-checked").evidence
        b.process.kill()
        b.process.wait()
        told = doctor(server, watcher)  # one that does not answer is a Sentinel all the same
        assert (told.checked.servers, told.checked.sentinels) == (2, 2)


def known(sentinel: Any) -> bool:
    return len(sentinel.execute_command("SENTINEL", "SENTINELS", "shop")) == 1


@pytest.mark.parametrize("scheme", ["rediss", "sentinels"])
def test_where_tls_was_named_it_is_not_sent_in_clear_text(scheme: str) -> None:
    """Whoever sits in between could take the place of a server, and speak no TLS."""
    with pretending(WANTS_A_PASSWORD) as rogue:
        target = f"{scheme}://:{PASSWORD}@127.0.0.1:{rogue.port}"
        with pytest.raises(RefusedError, match="no TLS there"):
            doctor(target)
        assert PASSWORD.encode() not in rogue.heard
        with pytest.raises(Exception, match="not let in"):
            doctor(target, allow_clear_text=True)
        assert PASSWORD.encode() in rogue.heard


def test_a_named_pretender_that_refuses_is_an_error_and_no_clean_bill(tmp_path: Path) -> None:
    with pretending(WANTS_A_PASSWORD) as rogue, pytest.raises(Exception, match="not let in"):
        doctor(f"127.0.0.1:{rogue.port}")


def test_a_certificate_that_nobody_vouches_for_is_not_shown_it(binary: Binary, tmp_path: Path) -> None:
    from tests.live.test_rules_access import tls_files

    encrypted = [b for b in available() if b.engine.tls]
    if not encrypted:
        pytest.skip("no server with TLS here")
    config = f"{tls_files(tmp_path, 'a.example')}requirepass {PASSWORD}\n"
    with running(encrypted[0], tmp_path, config, tls=True) as server:
        with pytest.raises(RefusedError, match="certificate is not trusted"):
            doctor(f"rediss://127.0.0.1:{server.port}", password=PASSWORD)
        assert doctor(
            f"rediss://127.0.0.1:{server.port}", password=PASSWORD, ca=tmp_path / "ca.crt"
        ).checked.servers
