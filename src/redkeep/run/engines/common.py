"""What all sources of a server share: where engines live, and what a binary says about itself."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from redkeep.errors import EngineError
from redkeep.model.engine import Engine, EngineWant, Installed

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.topology import HostFacts

#: Tells the operator something in one line.
Note = Callable[[str], None]
#: Asks the operator for an ordinary approval.
Ask = Callable[[str], Awaitable[bool]]

#: Our scripts' exit status for "there is no such server".
ABSENT = 66

#: Prints the banner, ``server=PATH``, ``tls=yes|no`` and ``cli=PATH`` of the first server that WORD expands to.
#:
#: TLS is told by the libraries that the loader would take (1 ms, and ``--version`` in case a loader knows no
#: tracing). Where OpenSSL is not among them the server is asked to listen with TLS and a missing certificate: one
#: that can do TLS says "Failed to configure TLS", the others "Bad directive" (Redis, Valkey 8) or "Failed finding
#: TLS support" (Valkey 9); none of them gets as far as listening.
_IDENTITY = """\
export LC_ALL=C
set -- WORD
s=$1
[ -x "$s" ] || exit 66
"$s" --version &
libraries=$(LD_TRACE_LOADED_OBJECTS=1 "$s" --version 2>&1)
wait $! || exit
echo "server=$s"
case $libraries in
*libssl*) echo tls=yes ;;
*)
  case $(timeout 5 "$s" --port 0 --tls-port 1 --tls-cert-file /nonexistent --save '' 2>&1) in
  *"Failed to configure TLS"*) echo tls=yes ;;
  *) echo tls=no ;;
  esac ;;
esac
for c in "${s%/*}/redis-cli" "${s%/*}/valkey-cli"; do [ -x "$c" ] && echo "cli=$c"; done
exit 0
"""


def prefix(host: Host, facts: HostFacts) -> str:
    """The folder that engines are installed below: the system's, or, on one's own machine without root, one's own."""
    if facts.root or not host.is_local:
        return "/opt/redkeep/engines"
    return os.path.expanduser("~/.local/share/redkeep/engines")  # noqa: PTH111 - text for a shell


async def identify(host: Host, server: str, *, guard: str = "") -> Installed | None:
    """Asks a server binary who it is, in one command; ``None`` where there is none, or where ``guard`` exits so.

    Raises ``EngineError`` for something that cannot be run or is no server.
    """
    return await _identify(host, shlex.quote(server), guard)


async def identify_like(host: Host, folder: str, pattern: str) -> Installed | None:
    """As ``identify``, for the first server whose path below ``folder`` matches a shell pattern."""
    return await _identify(host, f"{shlex.quote(folder)}/{pattern}", "")


async def _identify(host: Host, word: str, guard: str) -> Installed | None:
    result = await host.run(guard + _IDENTITY.replace("WORD", word), check=False)
    if result.status == ABSENT:
        return None
    lines = result.stdout.splitlines()
    if not result.ok or not lines:
        raise EngineError(
            f"{word} cannot be run: {(result.stderr.strip() or 'it prints nothing').splitlines()[-1]}",
            where=f"host {host.name}",
            next="is it built for this machine's processor and C library?",
        )
    try:
        banner = Engine.from_banner(lines[0])
    except EngineError as error:
        advice = "name the server itself, redis-server or valkey-server"
        raise EngineError(error.what, where=f"{word} on host {host.name}", next=advice) from None
    engine = Engine(banner.flavor, banner.version, tls="tls=yes" in lines)
    server = next(line.removeprefix("server=") for line in lines if line.startswith("server="))
    tools = [line.removeprefix("cli=") for line in lines if line.startswith("cli=")]
    own = next((tool for tool in tools if tool.endswith(f"/{engine.cli}")), None)
    return Installed(server, own or (tools[0] if tools else None), engine)


def judge(host: Host, want: EngineWant, engine: Engine, note: Note | None = None) -> None:
    """Raises ``EngineError`` where a server is not what was asked for, or too old; tells what to know of it."""
    where = f"host {host.name}"
    if engine.flavor != want.flavor:
        raise EngineError(
            f"{want.flavor} was asked for, and this is {engine}",
            where=where,
            next=f"write flavor: {engine.flavor} under engine:, or name another source",
        )
    reason = engine.refusal(from_source=want.source == "tarball")
    if reason:
        raise EngineError(reason, where=where, next=alternatives(want))
    warning = engine.warning()
    if warning and note:
        note(warning)


def fits(want: EngineWant, engine: Engine) -> bool:
    """Whether a server is of the flavor and, as far as a pin names an upstream version, of the version asked for."""
    if engine.flavor != want.flavor:
        return False
    pin = want.version
    return pin is None or not pin[:1].isdigit() or matches(pin, str(engine.version))


def matches(pin: str, version: str) -> bool:
    """``7.0`` and ``7.0.15`` match 7.0.15 and ``5:7.0.15-1~deb12u1``; one with a revision (``-1~deb12u1``) that one alone.

    Where a server says its own version, which knows neither epoch nor revision, a distribution's counts without them.
    """
    offer, wanted = (text.partition(":")[2] or text for text in (version, pin))
    if "-" in offer and "-" in wanted:
        return offer == wanted
    offer, wanted = (
        re.split(r"[-+~]", text)[0] for text in (offer, wanted)
    )  # 8.1.1+dfsg1 is 8.1.1, repacked
    return offer == wanted or offer.startswith(wanted + ".")


def alternatives(want: EngineWant) -> str:
    """The other ways to a server of this flavor."""
    if want.source == "tarball":
        return "take the sources of a newer release"
    ways = {
        "package": "source: package",
        "bundled": "source: bundled" if want.flavor == "valkey" else "flavor: valkey with source: bundled",
        "tarball": "source: tarball with path: to its sources",
        "binary": "source: binary with path: to a server",
    }
    return "other ways, under engine: " + ", or ".join(
        way for kind, way in ways.items() if kind != want.source
    )
