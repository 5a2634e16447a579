"""Debian, Ubuntu and their like: the scripts by which a server package is looked up and installed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: Kept on the host while an installation runs: the policy-rc.d of before, and the units to be disabled after it.
_STATE = "/var/lib/redkeep-apt"
_POLICY = "/usr/sbin/policy-rc.d"

#: Exits with ``{status}`` where an installation was interrupted, so that it is taken up again.
UNFINISHED = f"[ ! -e {_STATE} ] || exit {{status}}\n"

_HEAD = """\
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
trap 'exit 130' HUP INT TERM
"""

#: The lock of the lists is not waited for by apt itself, as the one of dpkg is; unattended-upgrades holds it for long.
_REFRESH = """\
log=$(mktemp)
tries=0
until apt-get update -q >"$log" 2>&1; do
  tries=$((tries + 1))
  grep -q 'Could not get lock' "$log" && [ $tries -lt 60 ] || { grep '^[EW]:' "$log" >&2 || true; break; }
  sleep 2
done
rm -f "$log"
"""

#: policy-rc.d is Debian's way to keep a package from starting a service (invoke-rc.d, deb-systemd-invoke). Other
#: services are decided as before. Afterwards the units that came new are disabled as an administrator would do it,
#: which later upgrades respect; deb-systemd-helper does that
#: also where systemd does not run. The log is a file because a lost session must not break a running dpkg.
_INSTALL = """\
new_policy() {
  cat >POLICY.new <<'END'
#!/bin/sh
# Redkeep installs a server package: its own instance must not start. Removed when that is done.
case $1 in redis-server*|redis-sentinel*|valkey-server*|valkey-sentinel*) exit 101 ;; esac
[ ! -x STATE/original ] || exec STATE/original "$@"
exit 0
END
  chmod 755 POLICY.new
  mv -f POLICY.new POLICY
}
finish() {
  status=$?
  [ -d /run/systemd/system ] || export SYSTEMD_OFFLINE=1
  while read -r unit; do
    systemctl disable "$unit" >/dev/null 2>&1 || deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
    [ ! -e "/etc/init.d/${unit%.service}" ] || update-rc.d "${unit%.service}" disable >/dev/null 2>&1 || true
  done <STATE/units
  if [ -e STATE/original ]; then cp -p STATE/original POLICY.new && mv -f POLICY.new POLICY; else rm -f POLICY; fi
  rm -rf STATE
  [ $status = 0 ] || tail -n 40 "$log"
  rm -f "$log"
}
log=$(mktemp)
if [ ! -e STATE ]; then
  rm -rf STATE.new
  mkdir -m 755 STATE.new
  [ ! -e POLICY ] || cp -p POLICY STATE.new/original
  for unit in UNITS; do [ -e "/lib/systemd/system/$unit" ] || echo "$unit"; done >STATE.new/units
  mv -T STATE.new STATE
fi
trap finish EXIT
new_policy
[ -z "$(ls /var/lib/dpkg/updates)" ] || dpkg --configure -a >>"$log" 2>&1
apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \\
  -o Dpkg::Options::=--force-confold PACKAGES >>"$log" 2>&1 </dev/null
"""


class Apt:
    """The package manager of the family."""

    def packages(self, flavor: str) -> tuple[str, ...]:
        return f"{flavor}-server", f"{flavor}-tools"

    def units(self, flavor: str) -> tuple[str, ...]:
        return f"{flavor}-server.service", f"{flavor}-sentinel.service"

    def offers(self, package: str, *, refresh: bool) -> str:
        """Prints what is on offer; with ``refresh`` after reading the package lists anew."""
        name = shlex.quote(package)
        return f"{_HEAD}{_REFRESH if refresh else ''}apt-cache policy {name}; apt-cache madison {name}"

    def parse(self, output: str) -> tuple[str, ...]:
        """Versions on offer, the one that apt would take first."""
        candidate = re.findall(r"^ *Candidate: (\d\S*)", output, re.MULTILINE)
        others = re.findall(r"^ *\S+ \| (\d\S*) \|", output, re.MULTILINE)
        return tuple(dict.fromkeys(candidate + others))

    def install(self, packages: Sequence[str], version: str | None, units: Sequence[str]) -> str:
        """Installs; the end of the log goes to standard output where that fails."""
        wanted = [f"{package}={version}" if version else package for package in packages]
        text = _HEAD + _INSTALL
        words = {
            "PACKAGES": shlex.join(wanted),
            "UNITS": shlex.join(units),
            "STATE": _STATE,
            "POLICY": _POLICY,
        }
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    def tools(self, names: Sequence[str]) -> tuple[str, ...]:
        """The packages that hold a compiler, make and the headers for TLS."""
        known = {"cc": "gcc", "c++": "g++", "make": "make", "openssl": "libssl-dev", "tclsh": "tcl"}
        return tuple(dict.fromkeys(["libc6-dev", "pkg-config", *(known[name] for name in names)]))

    def command(self, packages: Sequence[str]) -> str:
        """What a person would type."""
        return f"apt-get install -y {' '.join(packages)}"
