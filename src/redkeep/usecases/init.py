"""``redkeep init``: a commented deployment file from a few answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from redkeep.errors import RefusedError, SpecError, UsageError
from redkeep.model.spec import Spec, load

_HOST_KEYS = ("private", "public", "zone", "network", "fingerprint")
#: What needs no quotes in a YAML flow mapping, and reads back as the same text.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*|[0-9]+(\.[0-9]+){3}|[0-9]+(\.[0-9]+)?[A-Za-z]+", re.ASCII)
_WORDS = ("true", "false", "null", "yes", "no", "on", "off")


@dataclass(frozen=True)
class Answers:
    """``hosts`` are mappings of the file's keys, in its order; without ``flavor`` and ``source`` the default holds."""

    mode: str
    hosts: tuple[dict[str, str], ...]
    name: str = "main"
    flavor: str | None = None
    source: str | None = None
    path: str | None = None
    clients: str = "private"
    maxmemory: str | None = None


def parse_host(text: str, index: int) -> dict[str, str]:
    """``[NAME=]SSH[,key=value]...``; the ``index``-th host (from 1) is called h1, h2 ... where it has no name."""
    first, *rest = text.split(",")
    name, equals, ssh = first.partition("=")
    if not equals:
        name, ssh = ("local" if first == "local" else f"h{index}"), first
    host = {"name": name, "ssh": ssh}
    for part in rest:
        key, _, value = part.partition("=")
        if key not in _HOST_KEYS or not value:
            hint = (
                f"write NAME=user@address, then any of {', '.join(f'{k}=...' for k in _HOST_KEYS)}, by commas"
            )
            raise UsageError(f"not a part of a host: {part}", where=f"--host {text}", next=hint)
        host[key] = value
    return host


def render(answers: Answers) -> str:
    """The file's text. ``UsageError`` where the answers make no deployment."""
    hosts = answers.hosts
    if answers.clients == "public":
        hosts = tuple(_with_public(host) for host in hosts)
    text = _TEMPLATE.format(
        name=scalar(answers.name),
        mode=scalar(answers.mode),
        engine=_engine(answers),
        maxmemory=f"maxmemory: {scalar(answers.maxmemory)}" if answers.maxmemory else "# maxmemory: 2GiB",
        clients=scalar(answers.clients),
        hosts=host_lines(hosts),
    )
    try:
        load(text, "redkeep.yaml")
    except SpecError as error:  # lines of a file that does not exist would mislead
        key = error.where.partition(": ")[2]
        more = re.sub(r"^also redkeep\.yaml:\d+: ", "also ", error.next, flags=re.MULTILINE)
        raise UsageError(
            error.what, where=f"redkeep init: {key}" if key else "redkeep init", next=more
        ) from None
    return text


def write(text: str, file: Path, *, force: bool = False) -> Spec:
    """Writes the text where nothing is, or anywhere with ``force``."""
    spec = load(text, str(file))
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        hint = "write another with -f FILE, or replace it with --force"
        raise RefusedError(f"{file.name} is already there", where=str(file), next=hint) from None
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {error.strerror}", where=str(file), next="choose another -f FILE"
        ) from None
    return spec


def _with_public(host: dict[str, str]) -> dict[str, str]:
    """Where clients are outside, the address that SSH reaches is the public one, unless another is named."""
    address = host["ssh"].rpartition("@")[2]
    if with_port := re.fullmatch(r"\[([^]]+)\](?::\d+)?|([^:]+):\d+", address):
        address = with_port[1] or with_port[2]
    try:
        found = str(ip_address(address))
    except ValueError:
        return host
    return {**host, "public": host.get("public", found)}


def _engine(answers: Answers) -> str:
    chosen = {"flavor": answers.flavor, "source": answers.source, "path": answers.path}
    given = {key: value for key, value in chosen.items() if value}
    return f"engine: {_flow(given)}" if given else "# engine: {flavor: redis, source: package}"


def host_lines(hosts: tuple[dict[str, str], ...]) -> str:
    """The key ``hosts`` with its hosts."""
    if list(hosts) == [{"name": "local", "ssh": "local"}]:
        return "hosts: [local]"
    return "\n".join(["hosts:", *(f"  - {_flow(host)}" for host in hosts)])


def _flow(mapping: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {scalar(value)}" for key, value in mapping.items()) + "}"


def scalar(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def one_line(text: str) -> str:
    """What servers and disks say stays inside its comment."""
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


_TEMPLATE = """\
# What to run, and where. Only mode and hosts are needed; every other key has a default.
# redkeep plan says what this leads to and which losses it survives; redkeep apply does it, as often as you like.
# All keys: redkeep schema

name: {name}
mode: {mode:<26}# standalone | sentinel | cluster

# Where the server comes from: bundled | package | tarball | binary. Default: the distribution's redis; on local
# the bundled valkey.
{engine}

# shards: 3                     # a cluster's primaries
# replicas: 1                   # for each primary
{maxmemory:<32}# for each node
# eviction: allkeys-lru         # what goes when memory is full; default: nothing, writes fail
# persistence: rdb              # none | rdb | aof | rdb+aof

clients: {clients:<23}# private | public: where the applications are
# allow_from: [198.51.100.7]    # who may connect; default: whoever the cloud's security group lets through

# failover: balanced            # fast | balanced | patient: how soon a silent primary is given up
# tls: auto                     # on where traffic crosses public addresses and the engine can

# Each host: a name that stays, where to log in, its private and public address, and its cloud/zone. Two hosts of one
# zone may be lost together.
{hosts}
"""
