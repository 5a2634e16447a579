"""The parts of a deployment file below its first level, and how single values are validated."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictStr, model_validator

from redkeep.model.engine import Flavor
from redkeep.model.hostspec import Text, Values
from redkeep.model.sizes import parse_size
from redkeep.model.specproblems import Bad, shorten
from redkeep.model.timing import DETECTION_MS

Source = Literal["bundled", "package", "tarball", "binary"]

#: Below this, a size without a unit was meant: no server starts with so little memory.
_LEAST_MEMORY = 1024**2
#: Far above any machine, far below where the servers' own arithmetic ends.
_MOST_MEMORY = 1024**5


def size(value: Any) -> Any:
    """Bytes, or ``None`` where nothing is said."""
    if value is None:
        return None
    hint = "write a number with a unit, such as 512MiB or 2GiB"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Bad("not a size", hint)
    try:
        parsed = parse_size(value)
    except ValueError as error:
        raise Bad(str(error), hint) from None
    if parsed < _LEAST_MEMORY:
        raise Bad(f"too little memory for a server: {value}", f"the unit may be missing; {hint}")
    if parsed > _MOST_MEMORY:
        raise Bad(f"more memory than any machine has: {value}", hint)
    return parsed


def failover(value: Any) -> Any:
    """A word for how soon, or milliseconds."""
    if isinstance(value, str) and value in DETECTION_MS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 600_000:
        return value
    raise Bad(
        f"not a value of failover: {shorten(value)}",
        "write fast, balanced, patient, or milliseconds from 200 to 600000",
    )


def network(value: str) -> str:
    """An address or a range, in its canonical spelling."""
    try:
        found = ipaddress.ip_network(value) if "/" in value else ipaddress.ip_address(value)
        if "%" in value:
            raise ValueError
        if isinstance(found, ipaddress.IPv4Address | ipaddress.IPv6Address) and found.is_unspecified:
            raise Bad(
                f"nobody has this address: {value}", f"write {value}/0 for everybody, or leave allow_from out"
            )
        return str(found)
    except Bad:
        raise
    except ValueError:
        hint = "write an address or a range, such as 198.51.100.7 or 10.0.0.0/16"
        try:
            hint = f"write {ipaddress.ip_network(value, strict=False)}"
        except ValueError:
            pass
        raise Bad(f"not an IP address or range: {value}", hint) from None


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise Bad(
            "not the name of an environment variable", "write a name such as SHOP_REDIS_PASSWORD, without $"
        )
    return value


def _package_version(value: str) -> str:
    if not re.fullmatch(r"[0-9][0-9A-Za-z.:~+_-]*", value):
        raise Bad(
            f"not a version: {value}",
            "write a version such as 7.0.15, or the package's own such as 5:7.0.15-1~deb12u1",
        )
    return value


class EngineSpec(Values):
    """Which server software, and where it comes from."""

    flavor: Flavor = Field(description="redis or valkey.")
    source: Source = Field(
        description="bundled: the Valkey server that comes with Redkeep; package: the distribution's; tarball: built from "
        "sources in path; binary: the server in path."
    )
    version: Annotated[Text, AfterValidator(_package_version)] | None = Field(
        default=None, description="Pins the version. Default: what the source has."
    )
    path: Annotated[StrictStr, Field(min_length=1)] | None = Field(
        default=None,
        description="tarball: a source archive or its folder, relative to this file; binary: the server, by its absolute "
        "path on the hosts (on local, relative to this file too).",
    )
    run_tests: StrictBool = Field(
        default=False,
        description="tarball: run the sources' own test suite after the build; it takes a while.",
    )


class SecretSource(Values):
    """Where a password comes from: exactly one of both."""

    env: Annotated[StrictStr, AfterValidator(_variable)] | None = Field(
        default=None, description="The environment variable that holds it."
    )
    command: Annotated[StrictStr, Field(min_length=1)] | None = Field(
        default=None, description="A command that prints it, run by the shell on the operator's machine."
    )

    @model_validator(mode="before")
    @classmethod
    def _one(cls, data: Any) -> Any:
        if isinstance(data, dict) and (data.get("env") is None) != (data.get("command") is None):
            return data
        if isinstance(data, dict) and set(data) - {"env", "command"}:
            return data  # the unknown key is the better message
        raise Bad("a password never stands in this file", 'write {env: NAME} or {command: "..."}')


class Passwords(Values):
    """Sources of passwords. Those left out are made on the first apply and kept in .redkeep/."""

    app: SecretSource | None = Field(default=None, description="The application's: the user default.")
    admin: SecretSource | None = Field(default=None, description="Of Redkeep's own administration.")
    replication: SecretSource | None = Field(
        default=None, description="Between the servers, and of the Sentinels."
    )


class Suppression(Values):
    """A doctor's finding that is accepted."""

    rule: StrictStr = Field(min_length=1, description="The rule's name, as check prints it.")
    subject: Text = Field(default="*", description="What the finding is about; * for whatever.")
    because: StrictStr = Field(min_length=1, description="The reason, for whoever reads this next.")
