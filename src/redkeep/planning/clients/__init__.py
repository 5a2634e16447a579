"""Settings for an application's client library, for one deployment: which libraries, and their files as text.

The texts are templates beside this package (``templates/``), which a reader edits without touching code; every one is
proven by ``tests/clients`` with the real library. What differs between deployments is in ``ClientFacts`` and ``Pace``.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from redkeep.errors import UsageError
from redkeep.planning.clients.pace import Pace
from redkeep.planning.clients.template import render

if TYPE_CHECKING:
    from redkeep.model.topology import Address

#: The environment variable that the settings read the password from.
PASSWORD_VARIABLE: Final = "REDIS_PASSWORD"


@dataclass(frozen=True)
class Library:
    """One client library, or one generation of it.

    ``files`` are pairs of the file's name for the application and the template. ``password`` is how that language reads
    the environment variable. ``aliases`` are other names that people may type. ``proven`` is what the tests run.
    """

    name: str
    title: str
    proven: str
    files: tuple[tuple[str, str], ...]
    password: str
    stack: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.name}-{self.stack}" if self.stack else self.name


LIBRARIES: Final = (
    Library(
        "lettuce",
        "Lettuce (Java)",
        "Lettuce 7.7.0",
        (("RedisSettings.java", "lettuce.java.txt"),),
        f'System.getenv("{PASSWORD_VARIABLE}")',
    ),
    Library(
        "spring-boot",
        "Spring Boot 4 (Spring Data Redis, Lettuce)",
        "Spring Boot 4.0.7 with Spring Data Redis 4.0.6 and Lettuce 6.8.2",
        (("application.yml", "spring-boot.yml.txt"), ("RedisSettings.java", "spring-boot.java.txt")),
        f"${{{PASSWORD_VARIABLE}}}",
        aliases=("spring", "springboot", "spring-boot-4"),
    ),
    Library(
        "spring-boot",
        "Spring Boot 2.1 (Spring Data Redis, Lettuce 5.3)",
        "Spring Boot 2.1.18 with Spring Data Redis 2.1.21 and Lettuce 5.3.7",
        (("application.yml", "spring-boot-2.1.yml.txt"), ("RedisSettings.java", "spring-boot-2.1.java.txt")),
        f"${{{PASSWORD_VARIABLE}}}",
        stack="2.1",
    ),
    Library(
        "jedis",
        "Jedis (Java)",
        "Jedis 8.0.2",
        (("RedisSettings.java", "jedis.java.txt"),),
        f'System.getenv("{PASSWORD_VARIABLE}")',
    ),
    Library(
        "go-redis",
        "go-redis (Go)",
        "go-redis v9.23.0",
        (("redis_settings.go", "go-redis.go.txt"),),
        f'os.Getenv("{PASSWORD_VARIABLE}")',
        aliases=("goredis",),
    ),
    Library(
        "ioredis",
        "ioredis (Node.js)",
        "ioredis 6.0.0",
        (("redis-settings.mjs", "ioredis.mjs.txt"),),
        f"process.env.{PASSWORD_VARIABLE}",
    ),
    Library(
        "redis-py",
        "redis-py (Python)",
        "redis-py 8.1.0",
        (("redis_settings.py", "redis-py.py.txt"),),
        f'os.environ["{PASSWORD_VARIABLE}"]',
        aliases=("redispy", "python"),
    ),
)


@dataclass(frozen=True)
class ClientFacts:
    """What the settings need to know of the deployment.

    ``ca`` is the CA's file, empty without TLS. ``password`` is ``None`` unless the reader asked to see it; ``login``
    says whether there is one at all.
    """

    deployment: str
    mode: str
    servers: tuple[Address, ...]
    sentinels: tuple[Address, ...]
    ca: str
    login: bool
    password: str | None = field(repr=False)
    pace: Pace


@dataclass(frozen=True)
class SettingsFile:
    """One file for the application; ``text`` holds a secret where the password was asked for."""

    name: str
    text: str = field(repr=False)

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "text": self.text}


def find(name: str, stack: str = "") -> Library:
    """The library of that name (``spring-boot``, ``spring-boot-2.1``). Raises ``UsageError`` with the list."""
    wanted = name.strip().lower().replace("_", "-")
    if stack:
        wanted = f"{wanted}-{stack.strip()}"
    for library in LIBRARIES:
        if wanted in (library.full_name, *library.aliases):
            return library
    names = [library.full_name for library in LIBRARIES]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"no settings for a client library {wanted!r}",
        where="redkeep client NAME",
        next=f"{hint}there are: {', '.join(names)}",
    )


def settings(library: Library, facts: ClientFacts) -> tuple[SettingsFile, ...]:
    """The files with which an application of this library reaches the deployment, and follows its failovers."""
    values = _values(library, facts)
    folder = files("redkeep.planning.clients").joinpath("templates")
    return tuple(
        SettingsFile(name, render(folder.joinpath(template).read_text(encoding="utf-8"), values))
        for name, template in library.files
    )


def _values(library: Library, facts: ClientFacts) -> dict[str, Any]:
    """Names of the templates: flags for ``if``, lists for ``each``, and text."""
    secret = library.password
    if facts.password is not None:
        if "${" in facts.password and secret.startswith("${"):
            raise UsageError(
                "Spring would read ${ in this password as a placeholder",
                where="redkeep client --reveal",
                next=f"leave out --reveal, and set the environment variable {PASSWORD_VARIABLE}",
            )
        secret = json.dumps(facts.password, ensure_ascii=False)
    return {
        "deployment": facts.deployment,
        "library": library.full_name,
        "proven": library.proven,
        "mode": facts.mode,
        "cluster": facts.mode == "cluster",
        "sentinel": facts.mode == "sentinel",
        "standalone": facts.mode == "standalone",
        "replicated": facts.mode == "standalone" and len(facts.servers) > 1,
        "tls": bool(facts.ca),
        "login": facts.login,
        "secret": facts.login and facts.password is None,
        "reads": bool(facts.ca) or (facts.login and facts.password is None),
        "password_argument": "password, " if facts.login else "",
        "password_parameter": "String password, " if facts.login else "",
        "password": secret,
        "variable": PASSWORD_VARIABLE,
        "ca": json.dumps(facts.ca, ensure_ascii=False),
        "ca_url": json.dumps(f"file:{facts.ca}", ensure_ascii=False),
        "servers": [_address(a) for a in facts.servers],
        "sentinels": [_address(a) for a in facts.sentinels],
        "first_host": json.dumps(facts.servers[0].host),
        "first_port": facts.servers[0].port,
        "first_address": json.dumps(str(facts.servers[0])),
        **facts.pace.values(),
    }


def _address(address: Address) -> dict[str, Any]:
    return {
        "host": json.dumps(address.host),
        "port": address.port,
        "address": json.dumps(str(address)),
        "plain": str(address),
    }
