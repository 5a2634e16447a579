"""Where packages come from: the mirror that this machine's apt is configured for, downloaded once."""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import LabError, LabUnavailable, output_of
from .recipe import Distribution

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NAME_ONE = "name one in REDKEEP_LAB_MIRROR"


def debian_mirror() -> str:
    """The address that apt on this machine gets its own release from, or the one set in the environment."""
    named = os.environ.get("REDKEEP_LAB_MIRROR")
    return named or _site_of("")


def security_mirror() -> str:
    """The same for security fixes; beside a named mirror, as Debian's own are (debian, debian-security)."""
    named = os.environ.get("REDKEEP_LAB_MIRROR")
    return f"{named.rstrip('/')}-security" if named else _site_of("-security")


def _site_of(kind: str) -> str:
    system = platform.freedesktop_os_release()
    if system["ID"] != "debian":
        raise LabUnavailable(f"{system['ID']} is not Debian, so its apt knows no Debian mirror: {_NAME_ONE}")
    codename = system.get("VERSION_CODENAME", "") + kind
    form = "$(RELEASE) $(CODENAME) $(COMPONENT) $(SITE)"
    for line in output_of(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines():
        *names, component, site = line.split()
        if codename in names and component == "main":
            return site
    raise LabUnavailable(f"apt names no mirror for {codename or 'this system'}: {_NAME_ONE}")


def proxy_environment() -> dict[str, str]:
    """The environment for tools that download without apt but must take the same way out."""
    env = dict(os.environ)
    settings = output_of(["apt-config", "shell", "proxy", "Acquire::http::Proxy"])
    if settings.startswith("proxy="):
        env.setdefault("http_proxy", settings.removeprefix("proxy=").strip().strip("'"))
    return env


def fetch_packages(
    distribution: Distribution, base: Path, groups: Iterable[Sequence[str]], into: Path
) -> None:
    """Download groups of packages with all that the base lacks for them, and index them as a flat repository.

    The outer apt does it with directories of its own and the base's list of installed packages, so that a
    suite other than the machine's own needs no chroot. Groups may conflict with each other, so each is a
    download of its own. Security fixes are in, as hosts of a cloud have them.
    """
    with TemporaryDirectory(prefix="redkeep-lab-apt-") as scratch:
        apt = _private_apt(distribution, base, into, Path(scratch))
        output_of([*apt, "update"], timeout=300)
        for group in groups:
            output_of([*apt, "install", "--no-install-recommends", "--download-only", *group], timeout=900)
    for leftover in (into / "lock", into / "partial"):
        if leftover.is_dir():
            leftover.rmdir()
        else:
            leftover.unlink(missing_ok=True)
    _index(distribution.suite, into)


def _private_apt(distribution: Distribution, base: Path, archives: Path, scratch: Path) -> list[str]:
    """The beginning of an apt-get command line that touches nothing of this machine's apt state."""
    for directory in ("lists/partial", "cache", "parts"):
        (scratch / directory).mkdir(parents=True)
    (archives / "partial").mkdir(exist_ok=True)
    sources = scratch / "sources.list"
    lines = [f"deb [signed-by={_KEYRING}] {debian_mirror()} {distribution.suite} main\n"]
    if distribution.security:
        lines += [f"deb [signed-by={_KEYRING}] {security_mirror()} {distribution.security} main\n"]
    sources.write_text("".join(lines))
    settings = {
        "Dir::State": scratch,
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": base / "var/lib/dpkg/status",
        "Dir::Cache": scratch / "cache",
        "Dir::Cache::archives": archives,
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": scratch / "parts",
        "Dir::Etc::PreferencesParts": scratch / "parts",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return ["apt-get", "-q", "-y", *options]


def _index(suite: str, repository: Path) -> None:
    """Write the index and a Release file, so that apt asks for nothing that is missing."""
    output_of(["chmod", "-R", "a+rX", str(repository)])
    if not any(repository.glob("*.deb")):
        raise LabError(f"nothing was downloaded for {suite}")
    packages = output_of(
        ["sh", "-c", 'cd "$1" && exec dpkg-scanpackages --multiversion .', "sh", str(repository)], timeout=300
    ).encode()
    (repository / "Packages").write_bytes(packages)
    (repository / "Packages.gz").write_bytes(gzip.compress(packages, mtime=0))
    sums = ""
    for name in ("Packages", "Packages.gz"):
        content = (repository / name).read_bytes()
        sums += f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
    release = f"Suite: {suite}\nCodename: {suite}\nDate: {formatdate(0, usegmt=True)}\nSHA256:\n{sums}"
    (repository / "Release").write_text(release)
