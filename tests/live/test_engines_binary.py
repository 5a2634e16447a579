"""A server at a path: the bundled one serves as example, and scripts that only look like servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from redkeep.errors import EngineError
from redkeep.hosts.local import LocalHost
from redkeep.model.engine import EngineWant
from redkeep.run import engines
from tests.live.engine_help import facts_of

pytestmark = pytest.mark.live


@pytest.fixture
def host() -> LocalHost:
    return LocalHost()


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_a_server_and_its_cli_beside_it(host: LocalHost, tmp_path: Path) -> None:
    facts = await facts_of(host)
    bundled = await engines.install(
        host, await facts_of(host, root=False), EngineWant("valkey", "bundled"), print
    )
    server = tmp_path / "valkey-server"
    server.symlink_to(bundled.server)
    want = EngineWant("valkey", "binary", path=str(server))
    alone = await engines.install(host, facts, want, print)
    assert (alone.server, alone.cli, alone.engine) == (str(server), None, bundled.engine)
    cli = script(tmp_path / "valkey-cli", ":")
    assert (await engines.install(host, facts, want, print)).cli == str(cli)
    found = await engines.find(host, facts, want)
    assert found is not None
    assert found.cli == str(cli)
    wrong = EngineWant("redis", "binary", path=str(server))
    assert await engines.find(host, facts, wrong) is None
    with pytest.raises(EngineError, match="redis was asked for, and this is valkey"):
        await engines.install(host, facts, wrong, print)


async def test_the_pinned_version_must_be_it(host: LocalHost) -> None:
    facts = await facts_of(host)
    bundled = await engines.install(
        host, await facts_of(host, root=False), EngineWant("valkey", "bundled"), print
    )
    major = bundled.engine.version.major
    fitting = EngineWant(
        "valkey", "binary", version=f"{major}.{bundled.engine.version.minor}", path=bundled.server
    )
    assert await engines.find(host, facts, fitting) is not None
    other = EngineWant("valkey", "binary", version="8.0", path=bundled.server)
    assert await engines.find(host, facts, other) is None
    with pytest.raises(EngineError, match=r"version 8\.0 was asked for"):
        await engines.install(host, facts, other, print)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("echo 'Redis server v=5.0.6 sha=00000000:0 malloc=libc bits=64 build=1'", r"older than 6\.2\.0"),
        ("echo 'Redis server v=6.0.16 sha=00000000:0 malloc=libc bits=64 build=1'", r"older than 6\.2\.0"),
        ("echo 'nginx version: nginx/1.22.1'", "not a Redis or Valkey server"),
        ("echo 'error while loading shared libraries: libssl.so.1.1' >&2; exit 127", "libssl"),
    ],
)
async def test_what_is_not_usable(host: LocalHost, tmp_path: Path, text: str, complaint: str) -> None:
    facts = await facts_of(host)
    server = script(tmp_path / "redis-server", text)
    with pytest.raises(EngineError, match=complaint) as refusal:
        await engines.install(host, facts, EngineWant("redis", "binary", path=str(server)), print)
    assert len(str(refusal.value).splitlines()) == 3


async def test_no_server_and_no_path(host: LocalHost, tmp_path: Path) -> None:
    facts = await facts_of(host)
    missing = EngineWant("redis", "binary", path=f"{tmp_path}/redis-server")
    assert await engines.find(host, facts, missing) is None
    with pytest.raises(EngineError, match="there is no server at"):
        await engines.install(host, facts, missing, print)
    with pytest.raises(EngineError, match="absolute path"):
        await engines.find(host, facts, EngineWant("redis", "binary", path="redis-server"))
