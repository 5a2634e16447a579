"""The deployment file as values: what someone wants to run, with every default filled in.

``load`` is the way in. Fields that the file may leave out depend on ``mode`` and ``hosts`` only; nothing here asks a
host or reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr, model_validator
from pydantic import ValidationError as _ValidationError

from redkeep.model import ownsettings, specparts
from redkeep.model.hostspec import LOCAL, HostSpec, Name, Values
from redkeep.model.specfile import Problem, read
from redkeep.model.specparts import EngineSpec, Passwords, SecretSource, Suppression
from redkeep.model.specproblems import Conflicts, problems_of
from redkeep.model.timing import Timing, timing_of
from redkeep.model.topology import BUS_OFFSET

Mode = Literal["standalone", "sentinel", "cluster"]
Persistence = Literal["none", "rdb", "aof", "rdb+aof"]
Eviction = Literal[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]


def _without_default(schema: dict[str, Any]) -> None:
    """The default depends on other keys; the description tells it."""
    schema.pop("default", None)


class Spec(Values):
    """A deployment, with every default filled in."""

    name: Name = Field(
        default="main", description="Of the deployment; folders and services on the hosts carry it."
    )
    mode: Mode = Field(
        description="standalone: one primary, with replicas if wanted, no automatic failover; sentinel: one primary, "
        "its replicas, and Sentinels that promote one; cluster: several primaries that share the keys."
    )
    engine: EngineSpec = Field(
        default=EngineSpec(flavor="redis", source="package"),
        json_schema_extra=_without_default,
        description="The server software. Default: redis from the distribution's package; on local the bundled valkey.",
    )
    shards: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        default=1,
        json_schema_extra=_without_default,
        description="Primaries. Default: 3 in a cluster, else 1.",
    )
    replicas: Annotated[StrictInt, Field(ge=0, le=20)] = Field(
        default=0,
        json_schema_extra=_without_default,
        description="Replicas of each primary. Default: 1 in a cluster, 2 with sentinel, 0 standalone.",
    )
    maxmemory: Annotated[
        int | None, BeforeValidator(specparts.size, json_schema_input_type=str | int | None)
    ] = Field(
        default=None,
        description="Memory for data, of each node: 2GiB, 512mb, or bytes; units as in redis.conf. Default: the engine's.",
    )
    persistence: Persistence = Field(
        default="rdb", description="What is written to disk: snapshots, the append-only file."
    )
    appendfsync: Literal["everysec", "always", "no"] = Field(
        default="everysec", description="When the append-only file is forced to disk."
    )
    eviction: Eviction = Field(
        default="noeviction", description="What goes when memory is full (maxmemory-policy)."
    )
    clients: Literal["private", "public"] = Field(
        default="private", description="Where the applications are: inside the hosts' networks, or outside."
    )
    sentinels: Annotated[StrictInt, Field(ge=0, le=15)] = Field(
        default=0,
        json_schema_extra=_without_default,
        description="Sentinel mode: how many, on distinct hosts. Default: 3. Other modes have none, whatever it says.",
    )
    sentinel_port: Annotated[StrictInt, Field(ge=1024, le=65535)] = Field(
        default=26379, description="The Sentinels' port; on local, the first of them."
    )
    allow_from: tuple[Annotated[StrictStr, AfterValidator(specparts.network)], ...] = Field(
        default=(),
        description="Addresses and ranges that may connect. Default: whoever the cloud's security group lets through.",
    )
    auth: Literal["password", "none"] = Field(
        default="password",
        description="none: for applications that cannot send a password; with clients: private and allow_from only.",
    )
    crash_failover: StrictBool = Field(
        default=True,
        json_schema_extra=_without_default,
        description="The host of a primary whose process died asks for a failover at once. Default: true in a cluster, "
        "but not with appendfsync: always, where a restart brings back what a failover would lose.",
    )
    suppress: tuple[Suppression, ...] = Field(
        default=(), description="Findings of the doctor that are accepted."
    )
    tls: Literal["auto", True, False] = Field(
        default="auto", description="auto: where traffic crosses public addresses and the engine can."
    )
    failover: Annotated[
        Any,
        BeforeValidator(
            specparts.failover, json_schema_input_type=Literal["fast", "balanced", "patient"] | int
        ),
    ] = Field(default="balanced", description="How soon a silent primary is given up; or milliseconds.")
    port: Annotated[StrictInt, Field(ge=1024, le=65535 - BUS_OFFSET)] = Field(
        default=6379, description="The first port on each host; a host's further nodes take the next ones."
    )
    drills: Literal["refused", "allowed"] = Field(
        default="refused", description="allowed: drills may break this deployment on purpose."
    )
    accept_risk: StrictBool = Field(
        default=False, description="true: deploy even where the plan says that a loss is not survived."
    )
    adopted: StrictBool = Field(
        default=False,
        description="true: it runs already, and Redkeep did not make it. status and check look at it by its addresses; "
        "apply and destroy refuse.",
    )
    passwords: Passwords = Field(default=Passwords(), description="Passwords that come from elsewhere.")
    settings: Annotated[
        Mapping[str, str], BeforeValidator(ownsettings.checked, json_schema_input_type=dict[str, str | int])
    ] = Field(
        default={},
        description="Further server settings, as in redis.conf; none of those that Redkeep writes.",
    )
    hosts: tuple[HostSpec, ...] = Field(description="The machines, or local for this one.")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        return _with_defaults(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        from redkeep.model.specchecks import conflicts

        if problems := list(conflicts(self)):
            raise Conflicts(problems)
        return self

    @property
    def is_local(self) -> bool:
        """All nodes run on this machine."""
        return self.hosts[0].is_local

    @property
    def nodes_total(self) -> int:
        """Data nodes: primaries and replicas, without Sentinels."""
        return self.shards * (1 + self.replicas)

    @property
    def quorum(self) -> int:
        """How many Sentinels must agree that the primary is down: a majority. 0 without Sentinels."""
        return self.sentinels // 2 + 1 if self.sentinels else 0

    @property
    def timing(self) -> Timing:
        """``failover`` in milliseconds, for this mode."""
        return timing_of(self.failover, cluster=self.mode == "cluster")

    @property
    def rdb(self) -> bool:
        return "rdb" in self.persistence

    @property
    def aof(self) -> bool:
        return "aof" in self.persistence

    def host(self, name: str) -> HostSpec:
        """The host of that name; ``KeyError`` where the file has none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)


def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Fills what depends on other keys. A key without a value counts as left out; wrong types are left for validation."""
    filled = {key: value for key, value in data.items() if value is not None}
    hosts = filled.get("hosts")
    if hosts == LOCAL:
        hosts = filled["hosts"] = (LOCAL,)
    local = isinstance(hosts, tuple | list) and any(map(_is_local, hosts))
    engine = filled.setdefault("engine", {})
    if isinstance(engine, dict):
        filled["engine"] = _engine_defaults(engine, local)
    mode = filled.get("mode")
    cluster, sentinel = mode == "cluster", mode == "sentinel"
    filled.setdefault("shards", 3 if cluster else 1)
    filled.setdefault("replicas", 1 if cluster else 2 if sentinel else 0)
    filled.setdefault("crash_failover", cluster and not _every_write_synced(filled))
    filled.setdefault("sentinels", 3 if sentinel else 0)
    if not sentinel and type(filled["sentinels"]) is int:
        filled["sentinels"] = 0
    return filled


def _every_write_synced(filled: dict[str, Any]) -> bool:
    return "aof" in str(filled.get("persistence", "")) and filled.get("appendfsync") == "always"


def _is_local(host: Any) -> bool:
    """Of a host as the file has it, or as code made it."""
    if isinstance(host, HostSpec):
        return host.is_local
    return bool(host == LOCAL or (isinstance(host, dict) and (host.get("ssh") or host.get("name")) == LOCAL))


def _engine_defaults(engine: dict[str, Any], local: bool) -> dict[str, Any]:
    filled = {key: value for key, value in engine.items() if value is not None}
    bundled = filled.get("source") == "bundled" or (local and filled.get("flavor", "valkey") == "valkey")
    filled.setdefault("source", "bundled" if bundled else "package")
    filled.setdefault("flavor", "valkey" if filled["source"] == "bundled" else "redis")
    return filled


#: The known keys at each place of the file.
_KEYS: dict[str, list[str]] = {
    "": list(Spec.model_fields),
    "engine": list(EngineSpec.model_fields),
    "hosts": list(HostSpec.model_fields),
    "passwords": list(Passwords.model_fields),
    "suppress": list(Suppression.model_fields),
} | {f"passwords.{user}": list(SecretSource.model_fields) for user in Passwords.model_fields}


def load(text: str, filename: str = "redkeep.yaml") -> Spec:
    """The deployment that the text describes. ``SpecError`` names every problem, with line and key."""
    document = read(text, filename)
    problems = list(document.problems)
    if document.data is None:
        nothing = Problem(
            (), "the file is empty", "write at least mode and hosts, or start from redkeep init"
        )
        raise document.error([*problems, nothing])
    try:
        spec = Spec.model_validate(document.data)
    except _ValidationError as error:
        problems += problems_of(error.errors(include_url=False), _KEYS)
        raise document.error(problems) from None
    if problems:
        raise document.error(problems)
    return spec


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema (draft 2020-12), for editors."""
    schema = Spec.model_json_schema(mode="validation")
    schema["properties"]["hosts"]["items"] = {"anyOf": [{"$ref": "#/$defs/HostSpec"}, {"const": LOCAL}]}
    schema["title"] = "Redkeep deployment file"
    schema["description"] = "What to deploy, and on which hosts."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
