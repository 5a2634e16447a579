"""Red Hat's family. Written from dnf's documentation; never run on a real host of that family so far."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: Fedora's presets neither start nor enable a server; a derivative's may, so what came new is put right afterwards.
_INSTALL = """\
set -eu
export LC_ALL=C
fresh=
for unit in UNITS; do [ -e "/usr/lib/systemd/system/$unit" ] || fresh="$fresh $unit"; done
log=$(mktemp)
trap 's=$?; [ $s = 0 ] || tail -n 40 "$log"; rm -f "$log"' EXIT
TOOL install -y --setopt=install_weak_deps=False PACKAGES >"$log" 2>&1 </dev/null
for unit in $fresh; do systemctl disable --now "$unit" >/dev/null 2>&1 || true; done
"""


class Dnf:
    """The package manager of the family: ``dnf``, or ``yum`` where that is all there is."""

    def __init__(self, tool: str = "dnf") -> None:
        self.tool = tool

    def packages(self, flavor: str) -> tuple[str, ...]:
        return (flavor,)

    def units(self, flavor: str) -> tuple[str, ...]:
        return f"{flavor}.service", f"{flavor}-sentinel.service"

    def offers(self, package: str, *, refresh: bool) -> str:
        """Prints what is on offer; ``refresh`` reads the repositories' lists anew."""
        return f"LC_ALL=C {self.tool} -q {'--refresh ' if refresh else ''}list --showduplicates {shlex.quote(package)}"

    def parse(self, output: str) -> tuple[str, ...]:
        """Versions on offer, the newest (which dnf lists last) first."""
        return tuple(dict.fromkeys(re.findall(r"^\S+\.\S+ +(\d\S*) +\S+", output, re.MULTILINE)[::-1]))

    def install(self, packages: Sequence[str], version: str | None, units: Sequence[str]) -> str:
        """Installs; the end of the log goes to standard output where that fails."""
        pin = version.rpartition(":")[2] if version else None
        wanted = [f"{package}-{pin}" if pin else package for package in packages]
        text = _INSTALL.replace("PACKAGES", shlex.join(wanted)).replace("UNITS", shlex.join(units))
        return text.replace("TOOL", self.tool)

    def tools(self, names: Sequence[str]) -> tuple[str, ...]:
        """The packages that hold a compiler, make and the headers for TLS."""
        known = {"cc": "gcc", "c++": "gcc-c++", "make": "make", "openssl": "openssl-devel", "tclsh": "tcl"}
        return tuple(dict.fromkeys(known[name] for name in names))

    def command(self, packages: Sequence[str]) -> str:
        """What a person would type."""
        return f"{self.tool} install -y {' '.join(packages)}"
