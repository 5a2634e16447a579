"""Root file systems: a base for each distribution, and layers of preinstalled packages above it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .cache import built_once, cache_directory
from .errors import LabError, output_of
from .mirror import debian_mirror, fetch_packages, proxy_environment
from .recipe import (
    BASE_PACKAGES,
    DISTRIBUTIONS,
    LAYERS,
    Distribution,
    base_key,
    finish_script,
    layer_key,
    repository_key,
)

_SCRIPTS = Path("/usr/share/debootstrap/scripts")


def base_of(name: str) -> Path:
    """The base of a distribution: what a cloud's image is after its first login."""
    distribution = DISTRIBUTIONS[name]
    return built_once(base_key(distribution), lambda into: _bootstrap(distribution, into))


def repository_of(name: str) -> Path:
    """The packages of a distribution that hosts can install, as a flat apt repository."""
    distribution = DISTRIBUTIONS[name]
    base = base_of(name)
    groups = [LAYERS[group] for group in distribution.groups]
    return built_once(
        repository_key(distribution), lambda into: fetch_packages(distribution, base, groups, into)
    )


def layer_of(name: str, layer: str) -> Path:
    """A group of packages installed on top of the base, as one more lower directory for an overlay."""
    distribution = DISTRIBUTIONS[name]
    if layer not in distribution.groups:
        raise LabError(f"{name} has no layer {layer!r}, only {', '.join(distribution.groups)}")
    base, packages = base_of(name), repository_of(name)
    return built_once(
        layer_key(distribution, layer), lambda into: _install(base, packages, LAYERS[layer], into)
    )


def prepare(distributions: Iterable[str]) -> None:
    """Build all that hosts of these distributions need, the distributions side by side."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(repository_of, set(distributions)))


def is_prepared(distributions: Iterable[str] = DISTRIBUTIONS) -> bool:
    """Whether hosts of these distributions can start without building anything first."""
    return all((cache_directory() / repository_key(DISTRIBUTIONS[name])).is_dir() for name in distributions)


def _bootstrap(distribution: Distribution, into: Path) -> None:
    """Run debootstrap in namespaces of its own: killed half way, it leaves neither mounts nor processes.

    A release younger than the outer machine's debootstrap has no script there, but all releases share that of
    the unstable one.
    """
    script = _SCRIPTS / distribution.suite
    argv = ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
    argv += [distribution.suite, str(into), debian_mirror()]
    argv += [] if script.exists() else [str(_SCRIPTS / "sid")]
    _contained(argv, timeout=1800)
    _contained(["chroot", str(into), "sh", "-c", finish_script(distribution)])


def _install(base: Path, packages: Path, names: Iterable[str], into: Path) -> None:
    """Install packages in a throw-away overlay over the base and keep what that changed.

    What changed is copied out of memory, because the cache may itself be on an overlay, which cannot be an upper one.
    """
    script = f"""
mkdir /mnt/root/packages
mount --bind {shlex.quote(str(packages))} /mnt/root/packages
mount -t proc proc /mnt/root/proc
printf '#!/bin/sh\\nexit 101\\n' > /mnt/root/usr/sbin/policy-rc.d
chmod 0755 /mnt/root/usr/sbin/policy-rc.d
echo 'deb [trusted=yes] file:/packages ./' > /mnt/root/etc/apt/sources.list.d/layer.list
apt() {{ DEBIAN_FRONTEND=noninteractive chroot /mnt/root apt-get -q -y \
    -o Dir::Etc::SourceList=/etc/apt/sources.list.d/layer.list -o APT::Sandbox::User=root "$@"; }}
apt update
apt install --no-install-recommends {shlex.join(names)}
apt clean
umount /mnt/root/proc /mnt/root/packages
rmdir /mnt/root/packages
rm -rf /mnt/root/usr/sbin/policy-rc.d /mnt/root/etc/apt/sources.list.d/layer.list /mnt/root/var/lib/apt/lists
umount /mnt/root
cp -a /mnt/up/. {shlex.quote(str(into))}
"""
    run_over([base], script, timeout=600)


def run_over(lower: Iterable[Path], script: str, timeout: float = 300) -> None:
    """Run a shell script with /mnt/root as a copy-on-write view of directories, and its changes in /mnt/up."""
    options = f"lowerdir={':'.join(map(str, lower))},upperdir=/mnt/up,workdir=/mnt/work"
    prepared = f"""
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -t overlay overlay -o {shlex.quote(options)} /mnt/root
{script}"""
    _contained(["sh", "-c", prepared], timeout)


def _contained(argv: list[str], timeout: float = 300) -> None:
    """Run as the first process of new mount and process namespaces, which end with it."""
    unshare = [
        "unshare",
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    output_of([*unshare, *argv], timeout=timeout, env=proxy_environment())
