"""The folder ``.redkeep/`` beside the deployment file: passwords, the deployment's identity, the CA.

    .redkeep/                 0700, ignored by git through its own .gitignore
        <name>/               one deployment (several files may lie side by side)
            secrets.json      identity and passwords, 0600
            pki/...           see pki.py

Every file is replaced in one rename, so an interrupted write leaves the old file or the new one. The folder's own lock
(``flock``, which ends with the process) keeps two first runs from making two sets of passwords.

The same JSON lies on every host, root only (``HOST_SECRETS`` below the base folder): whoever is root there can read the
passwords from the server's configuration anyway, and a lost folder can be read back (``recover``). The CA's key never
leaves this folder: a host that is broken into must not be able to issue certificates.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets as random
import stat
import string
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import HostError, RefusedError, UsageError
from redkeep.planning.hostfiles.acl import ROLES, Secrets
from redkeep.planning.hostfiles.quoting import check_secret
from redkeep.run.rotation import END, begin

if TYPE_CHECKING:
    from redkeep.hosts.base import Host

FOLDER = ".redkeep"
#: Below a deployment's base folder on every host; mode 0600, owner root.
HOST_SECRETS = "secrets.json"

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_COMMAND_SECONDS = 60


@dataclass(frozen=True)
class Contents:
    """What ``secrets.json`` holds: the deployment's random identity, and the passwords that it uses.

    ``made``: by role, in use now: made here, or taken from the source that the deployment file names (``given``;
    ``None`` in folders of before these were kept). ``previous``: accepted as well. ``phases``: see ``rotation``.
    """

    name: str
    deployment_id: str
    made: Mapping[str, str] = field(repr=False)
    previous: Mapping[str, str] = field(default_factory=dict, repr=False)
    phases: Mapping[str, str] = field(default_factory=dict)
    given: frozenset[str] | None = frozenset()

    @classmethod
    def fresh(cls, name: str) -> Contents:
        return cls(name, str(uuid.uuid4()), {role: make_password() for role in ROLES})

    def for_hosts(self) -> bytes:
        """Where a change of passwords stands is nothing that hosts have to know."""
        return replace(self, phases={}).as_json()

    def as_json(self) -> bytes:
        document = {"version": _FORMAT, "name": self.name, "deployment_id": self.deployment_id}
        passwords: dict[str, object] = {"passwords": dict(self.made), "previous": dict(self.previous)}
        passwords |= {"rotation": dict(self.phases)} if self.phases else {}
        passwords |= {"given": sorted(self.given)} if self.given is not None else {}
        return (json.dumps(document | passwords, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Contents:
        """Refuses what it does not understand; the error never shows the content."""
        try:
            document = json.loads(text)
            if (version := document["version"]) != _FORMAT:
                raise RefusedError(
                    f"a secrets file of format {version!r}; this Redkeep knows {_FORMAT}",
                    where=where,
                    next="use the Redkeep that wrote it, or a newer one",
                )
            made, previous = document["passwords"], document["previous"]
            phases, given = document.get("rotation", {}), document.get("given")
            words = [document["name"], document["deployment_id"], *made.values(), *previous.values()]
            words += [*(given or ()), *phases.values()]
            if not all(isinstance(word, str) and word for word in words):
                raise ValueError
            if any(phase != END and role not in previous for role, phase in phases.items()):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RefusedError(
                "not a secrets file of Redkeep, or a damaged one",
                where=where,
                next="move it aside: the passwords can be read back from the hosts",
            ) from None
        known = None if given is None else frozenset(given)
        return cls(document["name"], document["deployment_id"], made, previous, phases, known)


def make_password() -> str:
    """Letters and digits only, so that it survives every shell, URL and settings file unquoted; 190 bits."""
    return "".join(random.choice(string.ascii_letters + string.digits) for _ in range(32))


class Vault:
    """The secrets of one deployment on the operator's machine. ``notes``: what was repaired, to be told once."""

    def __init__(self, deployment_file: Path, name: str) -> None:
        if not _NAME.fullmatch(name):  # validated before; this guards the path itself
            raise UsageError(f"not a deployment's name: {name!r}", next="letters, digits, dots and dashes")
        self.root = deployment_file.absolute().parent / FOLDER
        self.folder = self.root / name
        self.name = name
        self.notes: list[str] = []
        self._holding = False

    @property
    def path(self) -> Path:
        return self.folder / "secrets.json"

    def contents(self) -> Contents | None:
        """What is there, or ``None`` before the first apply. Writes nothing but repaired modes."""
        text = self.read("secrets.json")
        return None if text is None else self._checked(Contents.from_json(text, str(self.path)))

    def ensure(self) -> Contents:
        """What is there, with everything missing made and kept."""
        with self.locked():
            old = self.contents()
            missing = [role for role in ROLES if old is None or role not in old.made]
            if old is not None and not missing:
                return old
            new = old or Contents.fresh(self.name)
            new = replace(new, made={role: new.made.get(role) or make_password() for role in ROLES})
            self._write("secrets.json", new.as_json())
            return new

    def adopt(self, contents: Contents) -> None:
        """Keeps what was recovered from the hosts. Refuses to replace another deployment's secrets."""
        with self.locked():
            old = self.contents()
            if old is not None and old.deployment_id != contents.deployment_id:
                raise RefusedError(
                    "the hosts belong to another deployment than this folder",
                    where=f"{self.path}: {old.deployment_id}; hosts: {contents.deployment_id}",
                    next="use the folder that belongs to these hosts, or another name for this deployment",
                )
            self._write("secrets.json", self._checked(contents).as_json())

    def read(self, name: str) -> bytes | None:
        """A file of this deployment's folder, its mode repaired if others could read it."""
        self._secure(self.root, 0o700)
        self._secure(self.folder, 0o700)
        path = self._inside(name)
        self._secure(path, 0o600)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replaces a file of this deployment's folder at once, mode 0600."""
        with self.locked():
            self._write(name, content)

    def remove(self, name: str) -> None:
        """A file of this deployment's folder; that it is gone already is fine."""
        with self.locked():
            self._inside(name).unlink(missing_ok=True)

    def _checked(self, contents: Contents) -> Contents:
        if contents.name != self.name:
            raise RefusedError(
                f"these are the secrets of the deployment {contents.name!r}, not of {self.name!r}",
                where=str(self.path),
                next="a deployment cannot be renamed: put the old name back, or start a new one",
            )
        return contents

    def _write(self, name: str, content: bytes) -> None:
        path = self._inside(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process changes the folder meanwhile; made where it is missing. May be nested."""
        if self._holding:
            yield
            return
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._secure(self.root, 0o700)
        folder = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._holding = True
            if not (self.root / ".gitignore").exists():
                _replace(self.root / ".gitignore", b"# Passwords and keys: never commit them.\n*\n")
            self.folder.mkdir(mode=0o700, exist_ok=True)
            yield
        finally:
            self._holding = False
            os.close(folder)

    def _inside(self, name: str) -> Path:
        """A host's name is part of the path: it must not lead out of the folder."""
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UsageError(f"not a name for a file: {name!r}", next="letters, digits, dots and dashes")
        return self.folder / name

    def _secure(self, path: Path, mode: int) -> None:
        """Takes away what group and others may do; refuses what is not ours or cannot be closed."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            what = "the folder with the passwords belongs to another user"
            raise RefusedError(what, where=str(path), next="run as its owner")
        if not stat.S_IMODE(found.st_mode) & 0o077:
            return
        path.chmod(mode)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise RefusedError(
                "others can read the passwords, and this file system keeps no permissions",
                where=str(path),
                next="move the deployment file to a file system that does (on WSL: below your home folder)",
            )
        was = stat.S_IMODE(found.st_mode)
        self.notes.append(f"{path} could be read by others (mode {was:o}); now {mode:o}")


def _replace(path: Path, content: bytes) -> None:
    """The whole new content or the old one, whatever happens meanwhile; never readable by others, not even briefly."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # of a write that was interrupted
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)  # a full disk does not say whose
        raise
    temporary.replace(path)


# The passwords that count -------------------------------------------------------------------------------------------


def resolve(
    sources: Mapping[str, Mapping[str, str]] | None = None,
    *,
    file: str = "redkeep.yaml",
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The passwords that the deployment file names, by role.

    ``sources`` are its ``passwords``: ``{"app": {"env": "NAME"}, "admin": {"command": "pass show redis"}}``.
    """
    found, variables = {}, os.environ if environment is None else environment
    for role, source in (sources or {}).items():
        where = f"{file}: passwords.{role}"
        if role not in ROLES:
            raise UsageError(f"no such password: {role}", where=where, next=f"known: {', '.join(ROLES)}")
        if "env" in source:
            found[role] = _from_environment(source["env"], variables, where)
        else:
            found[role] = _from_command(source["command"], where)
    return found


def with_given(contents: Contents, given: Mapping[str, str], *, fresh: bool, file: str) -> Contents:
    """The contents with what the deployment file's sources give; another value than the one in use begins a rotation.

    ``fresh``: nothing was ever deployed with them, so that the value is simply taken.
    """
    unknown = contents.given is None or fresh
    made = {**contents.made, **given} if unknown else contents.made
    sources = frozenset(given)
    found = replace(contents, made=made, given=sources)
    return found if unknown else begin(found, given, where=f"{file}: passwords")


def secrets_of(contents: Contents, *, auth: bool = True) -> Secrets:
    """For planning. ``auth=False`` is ``auth: none``: the application needs no password."""
    app = contents.made["app"] if auth else None
    return Secrets(app, **{role: contents.made[role] for role in ROLES[1:]}, previous=contents.previous)


def _from_environment(name: str, environment: Mapping[str, str], where: str) -> str:
    if name not in environment:
        raise UsageError(
            f"the environment variable {name} is not set",
            where=f"{where}.env",
            next=f"set it: read -rs {name} && export {name}",
        )
    return check_secret(environment[name], where=f"{where}.env ({name})")


def _from_command(command: str, where: str) -> str:
    """Its standard output without the last line break. Nothing that it prints is shown: it may be the password."""
    where = f"{where}.command"
    by_hand = "run the command by hand to see what it says"
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = f"the command gave no password within {_COMMAND_SECONDS} s"
        raise UsageError(late, where=where, next=by_hand) from None
    if done.returncode:
        raise UsageError(f"the command ended with status {done.returncode}", where=where, next=by_hand)
    try:
        password = done.stdout.decode()
    except UnicodeDecodeError:
        raise UsageError("the command's output is not UTF-8 text", where=where, next=by_hand) from None
    return check_secret(password.removesuffix("\n").removesuffix("\r"), where=where)


async def recover(host: Host, path: str) -> Contents:
    """Reads the secrets back from a host (``path``: its ``HOST_SECRETS``), for ``Vault.adopt``."""
    text = await host.read(path)
    if text is None:
        what = "no secrets of a deployment on this host"
        raise HostError(what, where=f"{host.name}: {path}", next="try another host, or rotate")
    return Contents.from_json(text, f"{host.name}: {path}")
