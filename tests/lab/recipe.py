"""What a host is made of. Everything that decides the content of the cache is here, and only here.

The cache is keyed by a hash of these values, so a change of this file's data rebuilds what it touches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

REPOSITORY_URL = "http://198.51.100.250"
"""Where the hosts find packages: the package server on the lab's internet (see facts.PACKAGE_SERVER)."""

BASE_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "bash",
    "iproute2",
    "iputils-ping",
    "ca-certificates",
    "procps",
    "nftables",
)

LAYERS: dict[str, tuple[str, ...]] = {
    "builder": ("gcc", "make", "libc6-dev", "libssl-dev", "libsystemd-dev", "pkg-config"),
    "redis": ("redis-server", "redis-tools", "redis-sentinel"),
    "web": ("nginx", "mariadb-server"),
    "valkey": ("valkey-server", "valkey-tools", "valkey-sentinel"),
}
"""Groups of packages: downloadable inside every host by apt, and optionally preinstalled as a layer."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A Debian release and the groups of packages that it has; ``security``: the suite of its security archive."""

    suite: str
    groups: tuple[str, ...]
    security: str = ""


DISTRIBUTIONS: dict[str, Distribution] = {
    "bookworm": Distribution("bookworm", ("redis", "builder", "web"), "bookworm-security"),
    "trixie": Distribution("trixie", ("redis", "valkey", "builder"), "trixie-security"),
    "forky": Distribution("forky", ("redis", "valkey", "builder")),
}

_FINISH = """
set -e
for user in ops nosudo; do
    useradd --create-home --shell /bin/bash --password '*' "$user"
done
echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
printf '127.0.0.1 localhost\\n::1 localhost\\n' > /etc/hosts
rm -f /etc/ssh/ssh_host_* /etc/hostname
: > /etc/machine-id
# What a login on a real host does not wait for, and what would wake up in the middle of a measurement.
systemctl mask getty.target console-getty.service systemd-logind.service systemd-networkd.service \\
    systemd-resolved.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer \\
    dpkg-db-backup.timer e2scrub_all.timer systemd-tmpfiles-clean.timer > /dev/null 2>&1
rm -rf /etc/apt/sources.list.d/* /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
echo 'deb [trusted=yes] {url}/{suite} ./' > /etc/apt/sources.list
echo 'Acquire::Languages "none";' > /etc/apt/apt.conf.d/90lab
"""


def finish_script(distribution: Distribution) -> str:
    """The shell script that turns a bare debootstrap into a base."""
    return _FINISH.replace("{url}", REPOSITORY_URL).replace("{suite}", distribution.suite)


def base_key(distribution: Distribution) -> str:
    """The name of the base in the cache."""
    return _key("base", distribution, BASE_PACKAGES, finish_script(distribution))


def repository_key(distribution: Distribution) -> str:
    """The name of the packages in the cache; they complete one base, so its key is part of theirs."""
    groups = [LAYERS[group] for group in distribution.groups]
    return _key("repository", distribution, base_key(distribution), groups, distribution.security)


def layer_key(distribution: Distribution, layer: str) -> str:
    """The name of a layer of preinstalled packages in the cache."""
    return _key(f"layer-{layer}", distribution, repository_key(distribution), LAYERS[layer])


def _key(kind: str, distribution: Distribution, *parts: object) -> str:
    digest = hashlib.sha256(repr((distribution.suite, *parts)).encode()).hexdigest()
    return f"{kind}-{distribution.suite}-{digest[:12]}"
