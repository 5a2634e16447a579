"""``source: tarball``: built on the host from the sources of Redis or Valkey that the operator has.

The host needs a compiler but no internet. The build runs as an unprivileged user in a temporary folder, is tried out
before it is installed, and appears under its final name by one rename, with its log beside it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import EngineError
from redkeep.model.engine import Engine, EngineWant, Installed
from redkeep.run.engines.common import Ask, Note, alternatives, fits, identify, identify_like, judge, prefix
from redkeep.run.engines.sources import Sources, digest, read, repack
from redkeep.run.engines.toolchain import Toolchain, prepare

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.topology import HostFacts

#: Seconds for a build on a small machine, and for the server's own test suite on top of it.
_BUILD_LIMIT, _TEST_LIMIT = 3600.0, 3 * 3600.0

#: The script's exit status by the stage that failed.
_STAGES = {
    71: "the build failed",
    72: "the server was built and does not work",
    73: "the server's own tests failed",
}

#: A line of a build's output that tells why it failed.
_TELLING = re.compile(
    r"\berror\b:|fatal error|undefined reference|cannot find -l|No space left|not found|Killed|\[err\]|No such file"
)

_BUILD = """\
set -eu
export LC_ALL=C
umask 022
log=$prefix/$name.log
work=$(mktemp -d /var/tmp/redkeep-build.XXXXXX)
trap 'exit 130' HUP INT TERM
trap '' PIPE  # a lost session is no reason to give up
trap 'rm -rf "$work" "$archive"' EXIT
mkdir -p "$prefix"
: >"$log"
tar -xzf "$archive" -C "$work"
as=
if [ "$(id -u)" = 0 ] && runuser -u nobody -- true 2>/dev/null; then
  chown -R nobody "$work"
  as='runuser -u nobody --'
fi
jobs=$(nproc 2>/dev/null || echo 1)
make_() { $as env HOME="$work" make -C "$work/source" CC="$cc" BUILD_TLS="$tls" USE_SYSTEMD=no "$@" >>"$log" 2>&1; }
fail() { tail -n 200 "$log"; exit "$1"; }

if ! make_ -j"$jobs" MALLOC="$malloc"; then
  [ "$malloc" = jemalloc ] && tail -n 100 "$log" | grep -q 'deps/jemalloc\\|jemalloc.*Error' || fail 71
  make_ distclean || true
  malloc=libc
  make_ -j"$jobs" MALLOC=libc || fail 71
fi
echo "malloc=$malloc" || true

src=$work/source/src
server=$src/$flavor-server cli=$src/$flavor-cli socket=$work/s
$as "$server" --version >>"$log" 2>&1 || fail 72
$as timeout 30 "$server" --check-system >>"$log" 2>&1 || true  # advice about the machine; 6.x does not know it
cd "$work"
$as "$server" --port 0 --unixsocket "$socket" --save '' --appendonly no >>"$log" 2>&1 &
tries=0
until $as timeout 5 "$cli" -s "$socket" ping >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || fail 72
  sleep 0.1
done
$as timeout 5 "$cli" -s "$socket" set redkeep works >>"$log" 2>&1 || fail 72
[ "$($as timeout 5 "$cli" -s "$socket" get redkeep)" = works ] || fail 72
$as timeout 5 "$cli" -s "$socket" shutdown nosave >>"$log" 2>&1 || true
wait

if [ "$tests" = yes ]; then make_ test MALLOC="$malloc" || fail 73; fi

stage=$(mktemp -d "$prefix/.$name.XXXXXX")
mkdir "$stage/bin"
for program in server cli benchmark; do cp "$src/$flavor-$program" "$stage/bin/"; done
for program in sentinel check-rdb check-aof; do ln -s "$flavor-server" "$stage/bin/$flavor-$program"; done
mv "$log" "$stage/build.log"
chmod 755 "$stage"
sync
[ -e "$prefix/$name" ] && rm -rf "$stage" || mv -T "$stage" "$prefix/$name"
"""


async def find(host: Host, facts: HostFacts, want: EngineWant) -> Installed | None:
    """The server that was built of exactly these sources."""
    found = digest(_path(want))[:12]
    pattern = f"{want.flavor}-*-{found}/bin/{want.flavor}-server"
    there = await identify_like(host, prefix(host, facts), pattern)
    return there if there and fits(want, there.engine) else None


async def install(host: Host, facts: HostFacts, want: EngineWant, note: Note, ask: Ask | None) -> Installed:
    """Builds and installs; a minute or more. What was built before is found and used."""
    sources = await asyncio.to_thread(read, _path(want))
    judge(host, want, sources.engine, note)
    if not fits(want, sources.engine):
        raise EngineError(
            f"the sources are {sources.engine}, and version {want.version} was asked for",
            where=str(sources.path),
            next="correct version: or path: under engine:",
        )
    there = await find(host, facts, want)
    if there is not None:
        return there
    tools = await prepare(host, facts, sources, want, note, ask)
    note(f"building {sources.engine} on {host.name}")
    await _build(host, facts, sources, want, tools, note)
    server = f"{prefix(host, facts)}/{sources.name}/bin/{want.flavor}-server"
    built = await identify(host, server)
    if built is None or built.engine.version != sources.engine.version:
        raise EngineError(
            f"the build says that it is {built.engine if built else 'nothing'}, not {sources.engine}",
            where=f"host {host.name}",
            next=f"see {Path(server).parent.parent}/build.log there",
        )
    return built


async def expected(want: EngineWant) -> Engine:
    """What the sources declare themselves to be; with TLS, which the host's headers decide in the end."""
    return (await asyncio.to_thread(read, _path(want))).engine


async def _build(
    host: Host, facts: HostFacts, sources: Sources, want: EngineWant, tools: Toolchain, note: Note
) -> None:
    base = prefix(host, facts)
    archive = f"/var/tmp/redkeep-{secrets.token_hex(8)}.tar.gz"
    if not sources.jemalloc:
        note(f"the sources bring no jemalloc: {sources.engine} is built with libc's allocator")
    settings = {
        "prefix": base,
        "name": sources.name,
        "flavor": sources.engine.flavor,
        "archive": archive,
        "cc": tools.cc,
        "tls": "yes" if tools.tls else "no",
        "malloc": "jemalloc" if sources.jemalloc else "libc",
        "tests": "yes" if want.run_tests else "no",
    }
    packed = await asyncio.to_thread(repack, sources)
    try:
        await host.upload(str(packed), archive, mode=0o600)
    finally:
        packed.unlink()
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    limit = _BUILD_LIMIT + (_TEST_LIMIT if want.run_tests else 0)
    done = await host.run(head + _BUILD, check=False, timeout=limit)
    if done.ok:
        if sources.jemalloc and "malloc=libc" in done.stdout:
            note(f"jemalloc could not be built on {host.name}: libc's allocator is used")
        return
    stage = _STAGES.get(done.status, "the build broke off")
    raise EngineError(
        f"{sources.engine}: {stage}: {_telling(done.stdout or done.stderr)}",
        where=f"host {host.name}, whole log: {base}/{sources.name}.log",
        next="mend what it says and run it again; " + alternatives(EngineWant(want.flavor, "tarball")),
    )


def _telling(output: str) -> str:
    """The last line that says why, without the build folder's name."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and "ing directory '" not in line]
    telling = [line for line in lines if _TELLING.search(line) and not line.startswith("make")]
    chosen = (telling or [line for line in lines if not line.startswith("make")] or lines or ["no output"])[
        -1
    ]
    return re.sub(r"/var/tmp/redkeep-build\.\w+/source/", "", chosen)


def _path(want: EngineWant) -> Path:
    if not want.path:
        raise EngineError(
            "source: tarball needs the sources",
            where="engine.path",
            next="write path: redis-7.2.5.tar.gz under engine:",
        )
    return Path(want.path).expanduser()
