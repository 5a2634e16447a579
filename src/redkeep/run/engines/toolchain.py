"""Whether a host can build a server: compiler, make and headers; and getting what is missing, if one is let."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redkeep.errors import EngineError
from redkeep.run.engines.package import install_packages, manager

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.engine import EngineWant
    from redkeep.model.topology import HostFacts
    from redkeep.run.engines.common import Ask, Note
    from redkeep.run.engines.sources import Sources

#: C11 with <stdatomic.h>, which Redis since 6.0 (its src/Makefile compiles the same include) and Valkey are written in.
_OLDEST_GCC = (4, 9)

_SCRIPT = """\
export LC_ALL=C
cc=
for c in cc gcc clang; do if command -v $c >/dev/null; then cc=$c; break; fi; done
command -v make >/dev/null && make=yes || make=
cxx=
for c in c++ g++ clang++; do if command -v $c >/dev/null; then cxx=$c; break; fi; done
command -v tclsh >/dev/null && tclsh=yes || tclsh=
echo "cc=$cc"; echo "make=$make"; echo "c++=$cxx"; echo "tclsh=$tclsh"
[ -n "$cc" ] || exit 0
echo "version=$($cc --version 2>&1 | head -n 1)"
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
printf '#include <stdatomic.h>\\n#include <stdio.h>\\n_Atomic int x;\\nint main(void){return atomic_load(&x);}\\n' >"$t/a.c"
$cc -std=c11 -o "$t/a" "$t/a.c" >"$t/out" 2>&1 && echo c11=yes
grep -m 1 error "$t/out" | sed 's/^/error=/'
printf '#include <openssl/ssl.h>\\n' | $cc -E - >/dev/null 2>&1 && echo openssl=yes
exit 0
"""


@dataclass(frozen=True)
class Toolchain:
    """What a build may use: the compiler's name, and whether OpenSSL's headers are there."""

    cc: str
    tls: bool


async def prepare(
    host: Host, facts: HostFacts, sources: Sources, want: EngineWant, note: Note, ask: Ask | None
) -> Toolchain:
    """The toolchain, after installing what is missing where ``ask`` agrees; ``EngineError`` where it cannot do."""
    found = await _look(host)
    _refuse_old(host, facts, found, sources)
    needed = ["cc", "make", *(["c++"] if sources.cplusplus else []), *(["tclsh"] if want.run_tests else [])]
    missing = [name for name in needed if not found.get(name)]
    if found.get("cc") and not found.get("c11") and "cc" not in missing:
        missing.insert(0, "cc")  # a compiler without the C library's headers
    if missing or not found.get("openssl"):
        if await _complete(host, facts, sources, [*missing, "openssl"], note, ask):
            found = await _look(host)
            _refuse_old(host, facts, found, sources)
        elif missing:
            raise _lacking(host, facts, sources, missing, found)
    still = [name for name in needed if not found.get(name)]
    if still or not found.get("c11"):
        raise _lacking(host, facts, sources, still or ["cc"], found)
    if not found.get("openssl"):
        note(f"{host.name} has no OpenSSL headers: {sources.engine} is built without TLS")
    return Toolchain(found["cc"], tls=bool(found.get("openssl")))


async def _look(host: Host) -> dict[str, str]:
    seen = await host.run(_SCRIPT, check=False)
    return dict(line.split("=", 1) for line in seen.stdout.splitlines() if "=" in line)


def _refuse_old(host: Host, facts: HostFacts, found: dict[str, str], sources: Sources) -> None:
    """Raises ``EngineError`` for a compiler that cannot compile these sources however complete it is."""
    version = re.search(r"\b(?:gcc|cc)\b.*?(\d+)\.(\d+)(?:\.\d+)?", found.get("version", ""), re.IGNORECASE)
    if not version or (int(version[1]), int(version[2])) >= _OLDEST_GCC:
        return
    if facts.system_version.split(".")[0] == "7" and facts.system in ("centos", "rhel"):
        remedy = (
            "yum install centos-release-scl devtoolset-11-gcc, then put its bin folder first in root's PATH"
        )
    else:
        remedy = "install gcc 5 or later, so that cc is that one"
    raise EngineError(
        f"the compiler is too old for {sources.engine}: {found['version']}; it needs C11 atomics, gcc 4.9 or later",
        where=_where(host, facts),
        next=f"{remedy}; or take source: package or bundled, which need no compiler",
    )


async def _complete(
    host: Host, facts: HostFacts, sources: Sources, missing: list[str], note: Note, ask: Ask | None
) -> bool:
    """Installs what is missing where that is possible and agreed to."""
    tool = manager(facts)
    if tool is None or ask is None or not facts.root:
        return False
    packages = tool.tools(missing)
    what = ", ".join(missing)
    if not await ask(f"{host.name} lacks {what} to build {sources.engine}: {tool.command(packages)}?"):
        return False
    note(f"installing {' '.join(packages)} on {host.name}")
    await install_packages(host, facts, tool, packages)
    return True


def _lacking(
    host: Host, facts: HostFacts, sources: Sources, missing: list[str], found: dict[str, str]
) -> EngineError:
    tool = manager(facts)
    names = {"cc": "a C compiler", "c++": "a C++ compiler", "tclsh": "tclsh, which the tests are written in"}
    what = " and ".join(names.get(name, name) for name in missing)
    if found.get("cc") and "cc" in missing:
        what = f"a working C compiler ({found['cc']}: {found.get('error', 'it cannot compile C11')})"
    command = (
        tool.command(tool.tools([*missing, "openssl"])) if tool else "the distribution's package manager"
    )
    return EngineError(
        f"{sources.engine} cannot be built there: {what} is missing",
        where=_where(host, facts),
        next=f"install it: {command}; or take source: package or bundled, which need no compiler",
    )


def _where(host: Host, facts: HostFacts) -> str:
    return f"host {host.name} ({facts.system} {facts.system_version})"
