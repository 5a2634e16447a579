"""Names and addresses of the lab: two clouds, their hosts, and the internet between them.

The numbers are fixed, because every lab lives in network namespaces of its own and can never meet another.
Public addresses are from a documentation range, so a leak could not reach anybody either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import LabError
from .recipe import DISTRIBUTIONS

Cloud = Literal["a", "b"]

CLIENT = "cli"
INTERNET = "inet"
ROUTERS: dict[Cloud, str] = {"a": "rta", "b": "rtb"}
PRIVATE_NETS: dict[Cloud, str] = {"a": "10.77.0", "b": "10.88.0"}
PUBLIC_NET = "198.51.100"
ROUTER_ADDRESSES: dict[Cloud, str] = {"a": f"{PUBLIC_NET}.1", "b": f"{PUBLIC_NET}.2"}
CLIENT_ADDRESS = f"{PUBLIC_NET}.200"
PACKAGE_SERVER = f"{PUBLIC_NET}.250"

DEFAULT_HOSTS = ("a11", "a12", "a13", "a14", "a15", "a16", "b21")
_NAME = re.compile(r"([ab])(\d\d)")


@dataclass(frozen=True, slots=True)
class Host:
    """One host as a deployment file would describe it."""

    name: str
    cloud: Cloud
    distribution: str
    private: str
    public: str

    @property
    def ssh(self) -> str:
        """The login of the administrator, by the public address."""
        return f"root@{self.public}"


def hosts_of(wanted: Mapping[str, str] | Iterable[str]) -> dict[str, Host]:
    """The hosts of a request: names with a distribution each, or just names (then the oldest distribution)."""
    if not isinstance(wanted, Mapping):
        wanted = dict.fromkeys(wanted, next(iter(DISTRIBUTIONS)))
    hosts = {name: _host(name, distribution) for name, distribution in wanted.items()}
    if len({host.public for host in hosts.values()}) < len(hosts):
        raise LabError("two hosts have the same number, hence the same public address")
    return hosts


def _host(name: str, distribution: str) -> Host:
    match = _NAME.fullmatch(name)
    if match is None or not 10 < int(match[2]) < 100:
        raise LabError(f"a host is named a11 to a99 or b11 to b99, not {name!r}")
    if distribution not in DISTRIBUTIONS:
        raise LabError(f"no distribution {distribution!r}, only {', '.join(DISTRIBUTIONS)}")
    cloud: Cloud = "a" if match[1] == "a" else "b"
    return Host(name, cloud, distribution, f"{PRIVATE_NETS[cloud]}.{match[2]}", f"{PUBLIC_NET}.{match[2]}")
