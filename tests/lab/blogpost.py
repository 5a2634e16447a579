"""What a blog post says, done by hand on the lab's hosts: all of it "works", and none of it survives its first failure.

A primary and two replicas over two clouds with the distribution's packages, Sentinels that watch 127.0.0.1, and a Cluster
created by private addresses, for clients that are outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import Sentinel

from . import Lab
from .site import eventually

SENTINEL_HOSTS = ("a11", "a12", "b21")
CLUSTER_HOSTS = ("a11", "a12", "a13")
CLUSTER_PORTS = (7000, 7001)
NAME = "mymaster"
WEAK = "redis123"

_SERVER = "bind 0.0.0.0\nprotected-mode no\nrequirepass {password}\n"
_SENTINEL = """\
port 26379
bind 0.0.0.0
protected-mode no
dir {dir}
supervised systemd
pidfile /run/sentinel/{flavor}-sentinel.pid
sentinel monitor {name} 127.0.0.1 6379 2
sentinel auth-pass {name} {password}
sentinel down-after-milliseconds {name} 3000
"""
_NODE = """\
port {port}
bind 0.0.0.0
protected-mode no
dir /srv/{port}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 3000
appendonly yes
requirepass {password}
masterauth {password}
"""
_UNIT = """\
[Service]
ExecStart=/usr/bin/{flavor}-server /srv/{port}/node.conf
Restart=always
[Install]
WantedBy=multi-user.target
"""


@dataclass
class BlogPost:
    """The recipe on a lab whose layer is ``flavor`` (redis, valkey)."""

    lab: Lab
    flavor: str
    password: str = WEAK

    def follow(self) -> None:
        for name in SENTINEL_HOSTS:
            self._server(name)
        eventually(lambda: self._linked("a12") and self._linked("b21"))
        for name in SENTINEL_HOSTS:
            folder, file = f"/var/lib/{self.flavor}", f"/etc/{self.flavor}/sentinel.conf"
            text = _SENTINEL.format(dir=folder, flavor=self.flavor, name=NAME, password=WEAK)
            (self.lab.root_of(name) / file[1:]).write_text(text)
            self.lab.exec(name, f"systemctl restart {self.flavor}-sentinel")
        self._cluster()

    def _server(self, name: str) -> None:
        lab, flavor = self.lab, self.flavor
        file = f"/etc/{flavor}/{flavor}.conf"
        text = _SERVER.format(password=WEAK)
        if name != "a11":  # beside the primary by its private address, from the other cloud by its public one
            primary = lab["a11"].private if lab[name].cloud == lab["a11"].cloud else lab["a11"].public
            text += f"replicaof {primary} 6379\nmasterauth {WEAK}\n"
        with (lab.root_of(name) / file[1:]).open("a") as target:
            target.write(text)
        lab.exec(name, f"sed -i '0,/^bind .*/s///' {file}")
        lab.exec(
            name, f"systemctl enable {flavor}-server {flavor}-sentinel; systemctl restart {flavor}-server"
        )

    def _cluster(self) -> None:
        lab, addresses = self.lab, []
        for port in CLUSTER_PORTS:
            for name in CLUSTER_HOSTS:
                root = lab.root_of(name)
                (root / f"srv/{port}").mkdir(parents=True)
                (root / f"srv/{port}/node.conf").write_text(_NODE.format(port=port, password=WEAK))
                unit = root / f"etc/systemd/system/node{port}.service"
                unit.write_text(_UNIT.format(flavor=self.flavor, port=port))
                lab.exec(name, f"systemctl daemon-reload; systemctl enable --now node{port}")
                addresses.append(f"{lab[name].private}:{port}")
        create = f"--cluster create {' '.join(addresses)} --cluster-replicas 1 --cluster-yes"
        eventually(lambda: lab.exec("a11", f"{self.cli} {create}"))
        eventually(lambda: self._has("a11", 7000, "CLUSTER INFO", "cluster_state:ok"))

    @property
    def cli(self) -> str:
        return f"{self.flavor}-cli -a {self.password} --no-auth-warning"

    def _has(self, name: str, port: int, command: str, words: str) -> bool:
        said = self.lab.exec(name, f"{self.cli} -p {port} {command}").stdout
        assert words in said, said
        return True

    def _linked(self, name: str, port: int = 6379) -> bool:
        self._has(name, port, "INFO replication", "role:slave")
        return self._has(name, port, "INFO replication", "master_link_status:up")

    def has_rejoined(self, name: str, port: int) -> bool:
        """A replica again, without our help."""
        return bool(eventually(lambda: self._linked(name, port), 90))

    def servers(self) -> list[str]:
        return [f"redis://:{self.password}@{self.lab[n].public}:6379" for n in SENTINEL_HOSTS]

    def sentinels(self) -> list[str]:
        return [f"sentinel://{self.lab[n].public}:26379/{NAME}" for n in SENTINEL_HOSTS]

    def cluster(self) -> list[str]:
        where = [f"{self.lab[n].public}:{p}" for n in CLUSTER_HOSTS for p in CLUSTER_PORTS]
        return [f"redis://:{self.password}@{w}" for w in where]

    @property
    def _common(self) -> dict[str, Any]:
        retry = Retry(NoBackoff(), 0)
        limits = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
        return {"password": self.password, "decode_responses": True, "retry": retry, **limits}

    def client(self) -> Any:
        """An application's client, which knows the Sentinels' public addresses; inside its network."""
        where = [(self.lab[n].public, 26379) for n in SENTINEL_HOSTS]
        limits = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
        sentinel: Any = Sentinel(where, sentinel_kwargs=limits, **self._common)  # type: ignore[no-untyped-call]
        return sentinel.master_for(NAME)

    def cluster_client(self) -> Any:
        nodes: Any = [
            ClusterNode(self.lab[n].public, p)  # type: ignore[no-untyped-call]
            for n in CLUSTER_HOSTS
            for p in CLUSTER_PORTS
        ]
        return RedisCluster(startup_nodes=nodes, **self._common)
