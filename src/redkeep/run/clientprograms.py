"""Programs of real client libraries, built with what ``redkeep client`` prints, where their runtime is here.

What registries (Maven, npm, Go modules) send is kept in a cache folder; what is built lies in a folder of the caller's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from redkeep.errors import RedkeepError, RefusedError

#: Seconds that a first download and build may take on a busy machine.
PATIENCE = 900.0


def cache() -> Path:
    """Where downloads are kept, for this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "redkeep" / "clients"


@dataclass(frozen=True)
class Command:
    """How a program is started: ``argv`` and then ``settings`` or ``naive``."""

    argv: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Program:
    """``name`` as ``redkeep client`` knows it. ``tools`` must be on the PATH."""

    name: str
    folder: str
    tools: tuple[str, ...]

    def missing(self) -> str:
        """Why it cannot run here; empty where it can."""
        lost = [tool for tool in self.tools if shutil.which(tool) is None]
        return f"not here: {', '.join(lost)}" if lost else ""

    @property
    def version(self) -> str:
        """What runs here, where that is not what the program's own lock file names."""
        return f"redis-py {metadata.version('redis')}" if self.name == "redis-py" else ""

    def build(self, settings: Mapping[str, str], folder: Path) -> Command:
        """``settings`` are the printed files by name; ``folder`` is made. Raises ``RedkeepError`` where a download or
        a compiler fails."""
        folder.mkdir(parents=True)
        for name, text in settings.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name in (self.folder, "java") if "javac" in self.tools else (self.folder,):
            for entry in files("redkeep").joinpath("planning/clients/programs", name).iterdir():
                if entry.is_file():
                    (folder / entry.name).write_bytes(entry.read_bytes())
        return _BUILDERS[self.tools[-1] if self.tools else ""](self.folder, folder)


PROGRAMS = (
    Program("lettuce", "lettuce", ("java", "mvn", "javac")),
    Program("spring-boot", "spring-boot", ("java", "mvn", "javac")),
    Program("spring-boot-2.1", "spring-boot-2.1", ("java", "mvn", "javac")),
    Program("jedis", "jedis", ("java", "mvn", "javac")),
    Program("go-redis", "go-redis", ("go",)),
    Program("ioredis", "ioredis", ("npm", "node")),
    Program("redis-py", "redis_py", ()),
)


def of(name: str) -> Program:
    """The program of a library by its full name. Raises ``RefusedError`` where its runtime is not here."""
    found = next(p for p in PROGRAMS if p.name == name)
    if reason := found.missing():
        raise RefusedError(
            f"the program of {name} cannot run on this machine: {reason}",
            where="redkeep drill --client",
            next=f"install {', '.join(found.tools)}, or drill without --client; nothing was broken",
        )
    return found


def _java(name: str, folder: Path) -> Command:
    """Spring reads application.yml from the class path; old frameworks open what newer Java keeps closed."""
    classes = f"{folder}:{_class_path(name, folder)}"
    java = [str(p) for p in folder.glob("*.java")]
    _run(["javac", "-nowarn", "-parameters", "-d", str(folder), "-cp", classes, *java], folder)
    small = (
        "-Xmx256m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
    )
    return Command(("java", *small, "-cp", classes, "Main"), folder)


def _class_path(name: str, folder: Path) -> str:
    pom = (folder / "pom.xml").read_bytes()
    known = cache() / f"{name}-{hashlib.sha256(pom).hexdigest()[:16]}.classpath"
    with _alone("maven"):
        if not known.exists() or not all(Path(p).exists() for p in known.read_text().split(":")):
            work = cache() / f"{known.name}.work"
            work.mkdir(parents=True, exist_ok=True)
            (work / "pom.xml").write_bytes(pom)
            made = work / "made"
            build = [
                "mvn",
                "-B",
                "-ntp",
                "-q",
                "dependency:build-classpath",
                f"-Dmdep.outputFile={made}",
            ]
            _run(build, work)
            made.replace(known)
    return known.read_text().strip()


def _go(_: str, folder: Path) -> Command:
    with _alone("go"):
        _run(["go", "build", "-o", "load", "."], folder)
    return Command((str(folder / "load"),), folder)


def _node(name: str, folder: Path) -> Command:
    lock = (folder / "package-lock.json").read_bytes()
    kept = cache() / f"{name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    with _alone("npm"):
        if not (kept / "complete").exists():
            kept.mkdir(parents=True, exist_ok=True)
            for file in ("package.json", "package-lock.json"):
                shutil.copy(folder / file, kept)
            _run(["npm", "ci", "--no-audit", "--no-fund"], kept)
            (kept / "complete").touch()
    (folder / "node_modules").symlink_to(kept / "node_modules")
    return Command(("node", "load.mjs"), folder)


def _python(_: str, folder: Path) -> Command:
    return Command((sys.executable, "load.py"), folder)


_BUILDERS = {"javac": _java, "go": _go, "node": _node, "": _python}


def _run(argv: Sequence[str], folder: Path) -> None:
    """Its last lines are in the error where it fails."""
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RedkeepError(
            f"{' '.join(argv[:3])} took longer than {PATIENCE:.0f} s",
            where=str(folder),
            next="is its registry reachable from here? what was fetched is kept; try again",
        ) from None
    if done.returncode:
        said = [ln for ln in (done.stdout + done.stderr).splitlines() if ln.strip()]
        raise RedkeepError(
            f"{' '.join(argv[:3])} failed: {' | '.join(said[-4:])[:400]}",
            where=str(folder),
            next="is its registry reachable from here? nothing was broken",
        )


@contextmanager
def _alone(what: str) -> Iterator[None]:
    """One at a time: these tools share folders, and test processes run side by side."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
