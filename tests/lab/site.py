"""A deployment in the lab: its file, the command line on the lab's internet, and clients there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.cli import Redkeep

from . import Lab

NAME = "shop"


@dataclass
class Site:
    """``redkeep`` with the lab's SSH settings, and what an application sees from the internet."""

    lab: Lab
    run: Redkeep
    _access: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, lab: Lab, folder: Path) -> Site:
        home = folder / "home"
        (home / ".ssh").mkdir(parents=True)
        shutil.copy(lab.ssh.config, home / ".ssh/config")
        shutil.copy(lab.ssh.known_hosts, home / ".ssh/known_hosts")
        run = Redkeep(folder, runner=lab.run, environment={"HOME": str(home)}, timeout=280.0)
        return cls(lab, run)

    def write(self, text: str, *, user: str = "root", only: Collection[str] = ()) -> None:
        """The file: ``text`` and all hosts of the lab (or ``only`` these), each in a zone of its own of its cloud."""
        lines = [
            f"  - {{name: {h.name}, ssh: {user}@{h.public}, private: {h.private}, public: {h.public}, "
            f"zone: {'aliyun' if h.cloud == 'a' else 'tencent'}/z{i}}}"
            for i, h in enumerate(self.lab.hosts.values())
            if not only or h.name in only
        ]
        self.run.write(f"name: {NAME}\n{text}\nhosts:\n" + "\n".join(lines) + "\n")

    def trust_keys(self) -> None:
        """Takes over the lab's keys as they are now, for addresses that changed."""
        shutil.copy(self.lab.ssh.known_hosts, Path(self.run.environment["HOME"]) / ".ssh/known_hosts")
        self._access.clear()

    def apply(self) -> dict[str, Any]:
        return dict(self.run("apply", "--yes", "--json").ok().json)

    def status(self) -> dict[str, Any]:
        return dict(self.run("status", "--json").json)

    def wait_ok(self, seconds: float = 240.0) -> dict[str, Any]:
        """Until everything is well without our help."""
        deadline = time.monotonic() + seconds
        while (found := self.status())["state"] != "ok":
            assert time.monotonic() < deadline, found
            time.sleep(1.0)
        return found

    def primaries(self) -> list[dict[str, Any]]:
        return [n for n in self.status()["nodes"] if n["role"] == "primary"]

    def client(self) -> Any:
        """redis-py as an application has it, beginning at any host that lives; call it inside the client's network."""
        access = self.access()
        if access["mode"] == "cluster":
            nodes: Any = [ClusterNode(*pair) for pair in access["servers"]]  # type: ignore[no-untyped-call]
            return RedisCluster(startup_nodes=nodes, **access["common"])
        if access["mode"] == "sentinel":
            sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
                access["sentinels"], sentinel_kwargs=access["common"], **access["common"]
            )
            return sentinel.master_for(access["primary_name"])
        host, port = access["servers"][0]
        return Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), **access["common"])

    def access(self) -> dict[str, Any]:
        """What an application is configured with: taken once, as an application would."""
        if not self._access:
            urls = self.run("url", "--reveal", "--json").ok().json
            common: dict[str, Any] = {
                "password": urls["password"],
                "socket_timeout": 2.0,
                "socket_connect_timeout": 2.0,
                "decode_responses": True,
            }
            if urls["tls"]:
                common |= {"ssl": True, "ssl_ca_certs": urls["ca"]}
            self._access = {
                "mode": urls["mode"],
                "servers": [_pair(u.rpartition("@")[2]) for u in urls["urls"]],
                "sentinels": [_pair(s) for s in urls["sentinels"]],
                "primary_name": urls["primary_name"],
                "common": common,
            }
        return self._access

    def admin(self, node: str) -> Any:
        """A connection to one server as Redkeep's administration."""
        urls = self.run("url", "--user", "admin", "--reveal", "--json").ok().json
        host, _, port = node.partition(":")
        common = {**self.access()["common"], "password": urls["password"], "username": urls["user"]}
        return Redis(host=self.lab[host].public, port=int(port), **common)


def _pair(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def eventually(action: Callable[[], Any], seconds: float = 180.0) -> Any:
    """Repeats what fails until it works; a client's outage ends some time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except Exception:  # whatever the client library raises
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def unit(port: int, *, sentinel: bool = False) -> str:
    return f"redkeep-{NAME}-{'sentinel-' if sentinel else ''}{port}.service"
