"""A host in the deployment file."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, model_validator

from redkeep.model.specproblems import Bad

LOCAL = "local"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
_SSH = re.compile(
    r"(?:(?P<user>[A-Za-z_][\w.-]*)@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_][\w.-]*)|(?P<bare_ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*))"
    r"(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


class Values(BaseModel):
    """What all parts of the file share: no unknown keys, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def safe_name(value: str) -> str:
    """It becomes part of paths, unit names and server names, so it can be none of their special words."""
    if not _NAME.fullmatch(value):
        raise Bad(
            f"not a usable name: {value}",
            "write a lower-case letter, then at most 30 lower-case letters, digits and hyphens, such as sz-1",
        )
    return value


def address(value: str) -> str:
    """The canonical spelling of an IPv4 or IPv6 address."""
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        raise Bad(f"not an IP address: {value}", "write an IPv4 or IPv6 address, such as 10.0.0.11") from None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    nowhere = parsed.is_unspecified or parsed.is_multicast or (parsed.version == 6 and parsed.is_link_local)
    if nowhere or "%" in value or str(parsed) == "255.255.255.255":
        raise Bad(
            f"not the address of a host: {value}", "write an address at which other hosts reach this one"
        )
    return str(parsed)


def ssh_target(value: str) -> str:
    match = _SSH.fullmatch(value)
    if not match:
        raise Bad(
            f"not an SSH destination: {value}",
            "write user@host, user@host:port, or a name from ~/.ssh/config; an IPv6 address with a port in [brackets]",
        )
    if match["port"] and not 0 < int(match["port"]) < 65_536:
        raise Bad(f"not a port: {match['port']}", "write one from 1 to 65535, or none for the usual one")
    return value


def _matching(pattern: str, what: str, example: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise Bad(f"not {what}: {value}", f"write it like {example}")
        return value

    return AfterValidator(check)


def _text(value: Any) -> Any:
    """A plain number in the file is text here: ``zone: 1``."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[
    StrictStr, AfterValidator(safe_name), Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})
]
Text = Annotated[StrictStr, BeforeValidator(_text)]
Address = Annotated[StrictStr, AfterValidator(address)]
Zone = Annotated[
    Text, _matching(r"[\w.-]+(/[\w.-]+)?", "a zone", "aliyun/sz-a: cloud or region, then the zone in it")
]
Network = Annotated[Text, _matching(r"[\w.:/-]+", "the name of a network", "aliyun-vpc1")]
Fingerprint = Annotated[
    StrictStr,
    _matching(
        r"SHA256:[A-Za-z0-9+/]{43}=?", "a fingerprint", "ssh-keygen -l prints it: SHA256: and 43 characters"
    ),
    AfterValidator(lambda value: value.rstrip("=")),  # as OpenSSH writes it; other tools pad
]


class HostSpec(Values):
    """A machine that carries servers. The word ``local`` alone stands for this one."""

    name: Name = Field(description="How plans, logs and other keys call this host.")
    ssh: Annotated[StrictStr, AfterValidator(ssh_target)] = Field(
        default="",
        description="Where to log in: user@host, user@host:port, or a name from ~/.ssh/config. Default: the host's name.",
    )
    private: Address | None = Field(
        default=None, description="Address inside its network. Default: found out on the host."
    )
    public: Address | None = Field(
        default=None, description="Address as the internet sees it; needed with clients: public."
    )
    zone: Zone | None = Field(
        default=None,
        description="cloud/zone: hosts of one zone may be lost together, and are kept apart where possible.",
    )
    network: Network | None = Field(
        default=None,
        description="Hosts of one network reach each other by private addresses. Default: the part of zone before the "
        "slash; without a zone, the /16 (IPv6: /48) of the private address.",
    )
    fingerprint: Fingerprint | None = Field(
        default=None, description="The host key's SHA256 fingerprint. Without it, the first contact asks."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if data == LOCAL:
            return {"name": LOCAL, "ssh": LOCAL}
        if isinstance(data, str):
            raise Bad(
                f"a host needs a name: {data}", f"write {{name: h1, ssh: {data}}}, and keep the name for good"
            )
        if isinstance(data, dict) and data.get("ssh") is None:
            name = data.get("name")
            usable = isinstance(name, str) and _NAME.fullmatch(name)  # else the name's own message is enough
            return {**data, "ssh": name if usable else LOCAL}
        return data

    @property
    def is_local(self) -> bool:
        """This machine: commands run here, without SSH."""
        return self.ssh == LOCAL

    @property
    def ssh_user(self) -> str | None:
        return self._ssh_part("user")

    @property
    def ssh_host(self) -> str:
        """A host name, an address without brackets, or a name from ``~/.ssh/config``."""
        return self._ssh_part("host") or self._ssh_part("ipv6") or self._ssh_part("bare_ipv6") or self.ssh

    @property
    def ssh_port(self) -> int | None:
        port = self._ssh_part("port")
        return int(port) if port else None

    def _ssh_part(self, part: str) -> str | None:
        match = _SSH.fullmatch(self.ssh)
        return match[part] if match else None

    @property
    def network_name(self) -> str:
        """Hosts with the same one talk by private addresses. Empty: unknown before the host was asked."""
        if self.network:
            return self.network
        if self.zone:
            return self.zone.split("/", 1)[0]
        return network_of(self.private) if self.private else ""


def network_of(private: str) -> str:
    """The network that an address is taken to be in: its /16, or /48 for IPv6."""
    parsed = ipaddress.ip_address(private)
    return str(ipaddress.ip_network((parsed, 16 if parsed.version == 4 else 48), strict=False))
