"""A deployment on this machine, changed by the command line while others look at it and write to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.cli import Redkeep
from tests.live.servers import Binary
from tests.ports import free_block

ONCE = Retry(NoBackoff(), 0)

#: redis-py, whose own annotations are incomplete.
CLIENTS: Any = redis


class Site:
    """A deployment on this machine, and its servers as administration sees them."""

    def __init__(self, folder: Path, mode: str, count: int, *, engine: Binary | None = None) -> None:
        """``count`` servers; a Sentinel deployment has its three Sentinels on the ports after them."""
        self.port = free_block(count + 3)
        self.mode = mode
        self.name = f"site-{self.port}"  # a run that was cut short must not be in the way of the next
        self.servers = range(self.port, self.port + count)
        self.sentinels = range(self.port + count, self.port + count + 3)
        self.engine = engine
        self.run = Redkeep(folder, environment={"HOME": str(folder)}, timeout=300)

    def write(self, more: str = "") -> None:
        text = f"name: {self.name}\nmode: {self.mode}\nhosts: [local]\nport: {self.port}\nfailover: fast\n"
        if self.mode == "sentinel":
            text += f"sentinel_port: {self.sentinels[0]}\n"
        if self.engine is not None:
            flavor, path = self.engine.engine.flavor, self.engine.path
            text += f"engine: {{flavor: {flavor}, source: binary, path: {path}}}\n"
        self.run.write(text + more)

    def apply(self) -> list[dict[str, Any]]:
        """The steps that were done."""
        found = self.run("apply", "--yes", "--json").ok().json
        assert found["verified"]["ok"], found
        return list(found["steps"])

    def destroy(self) -> None:
        self.run("destroy", "--yes", "--delete-data").ok()

    @property
    def vault(self) -> dict[str, Any]:
        path = self.run.folder / ".redkeep" / self.name / "secrets.json"
        return dict(json.loads(path.read_text()))

    def password(self, user: str = "app") -> str:
        return str(self.vault["passwords"][user])

    def admin(self, port: int) -> Any:
        return redis.Redis(
            port=port, username="redkeep", password=self.password("admin"), decode_responses=True
        )

    def app(self, password: str, port: int | None = None) -> redis.Redis:
        return redis.Redis(port=port or self.port, password=password, retry=ONCE, socket_timeout=5)

    def rotate(self, *arguments: str) -> dict[str, Any]:
        found = self.run("rotate", *arguments, "--yes", "--json").ok().json
        assert found["verified"]["ok"], found
        return dict(found)

    def links(self) -> list[Any]:
        """What a cut connection between servers, or a restart, would change."""
        found: list[Any] = []
        for port in self.servers:
            server = self.admin(port)
            info = server.info()
            replicas = sorted(c["id"] for c in server.client_list(_type="replica"))
            found.append((info["run_id"], info["role"], info["sync_full"], info["sync_partial_ok"], replicas))
        return found

    def refuses(self, password: str, *, port: int | None = None, user: str | None = None) -> bool:
        try:
            with redis.Redis(
                port=port or self.port, username=user, password=password, retry=ONCE, socket_timeout=5
            ) as client:
                client.ping()
        except redis.AuthenticationError:
            return True
        return False

    def client(self) -> Any:
        """As an application has it: the library's own way to find primaries, and its own retries."""
        password = self.password()
        if self.mode == "cluster":
            nodes = [CLIENTS.cluster.ClusterNode("127.0.0.1", p) for p in self.servers]
            return CLIENTS.cluster.RedisCluster(startup_nodes=nodes, password=password, socket_timeout=10)
        if self.mode == "sentinel":
            watching = [("127.0.0.1", p) for p in self.sentinels]
            found = CLIENTS.sentinel.Sentinel(
                watching, sentinel_kwargs={"password": password}, password=password, socket_timeout=10
            )
            # redis-py's own retries go to the address that failed; the next command asks the Sentinels again
            return found.master_for(self.name, retry=ONCE)
        return redis.Redis(port=self.port, password=password, socket_timeout=10)

    def roles(self) -> dict[int, str]:
        return {port: self.admin(port).info("replication")["role"] for port in self.servers}
