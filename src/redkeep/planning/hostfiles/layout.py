"""Where things lie on a host.

BASE                        /var/lib/redkeep/<deployment>; without root ~/.local/share/redkeep/<deployment>
  identity                  which deployment this folder belongs to
  bin/gate, leave, crashed  the start gate, the stop hook, the crash hook
  bin/supervise             the supervision where there is no systemd
  tls/                      the CA's certificate, the host's certificate and key
  6379/conf/                ours: managed.conf, users.acl, gate.env
  6379/data/                the server's: node.conf, nodes.conf, dump.rdb, appendonlydir
  sentinel-26379/...        the same for a Sentinel, whose data/sentinel.conf is seeded once
"""

from __future__ import annotations

from redkeep.model.values import Value

#: The system user that servers run as where we are root.
SERVICE_USER = "redkeep"

ROOT_BASE = "/var/lib/redkeep"


class NodePaths(Value):
    """The files of one server or Sentinel."""

    folder: str
    unit: str
    sentinel: bool

    @property
    def conf(self) -> str:
        return f"{self.folder}/conf"

    @property
    def data(self) -> str:
        return f"{self.folder}/data"

    @property
    def managed(self) -> str:
        return f"{self.conf}/managed.conf"

    @property
    def acl(self) -> str:
        return f"{self.conf}/users.acl"

    @property
    def gate_env(self) -> str:
        return f"{self.conf}/gate.env"

    @property
    def own(self) -> str:
        """The file that the server was started with and rewrites; its existence says that the node was set up."""
        return f"{self.data}/sentinel.conf" if self.sentinel else f"{self.data}/node.conf"

    @property
    def members(self) -> str:
        """What a Cluster's node remembers of itself and the others; it is there from the first start on."""
        return f"{self.data}/nodes.conf"

    @property
    def unit_file(self) -> str:
        return f"/etc/systemd/system/{self.unit}"

    @property
    def files(self) -> tuple[str, ...]:
        """What we write for a node, and look at again."""
        return (self.managed, self.acl, self.gate_env, self.unit_file)


class Layout(Value):
    """A deployment's paths on one host."""

    base: str
    name: str
    #: The user that owns the data and runs the servers; empty: whoever we are.
    user: str = SERVICE_USER

    @property
    def identity(self) -> str:
        return f"{self.base}/identity"

    @property
    def gate(self) -> str:
        return f"{self.base}/bin/gate"

    @property
    def leave(self) -> str:
        return f"{self.base}/bin/leave"

    @property
    def crashed(self) -> str:
        return f"{self.base}/bin/crashed"

    @property
    def drill_until(self) -> str:
        """Seconds since 1970: until then a drill may crash one primary of a shard after the other."""
        return f"{self.base}/drill-until"

    @property
    def taken_down(self) -> str:
        """While it is there, servers stop without handing over."""
        return f"{self.base}/taken-down"

    @property
    def supervise(self) -> str:
        return f"{self.base}/bin/supervise"

    @property
    def ca(self) -> str:
        return f"{self.base}/tls/ca.crt"

    @property
    def certificate(self) -> str:
        return f"{self.base}/tls/node.crt"

    @property
    def key(self) -> str:
        return f"{self.base}/tls/node.key"

    @property
    def secrets(self) -> str:
        """All passwords, for root alone: the way back when the operator's folder is lost."""
        return f"{self.base}/secrets.json"

    @property
    def firewall(self) -> str:
        return f"{self.base}/firewall.nft"

    @property
    def firewall_unit(self) -> str:
        return f"redkeep-{self.name}-firewall.service"

    @property
    def sysctl(self) -> str:
        return "/etc/sysctl.d/90-redkeep.conf"

    @property
    def logrotate(self) -> str:
        return f"/etc/logrotate.d/redkeep-{self.name}"

    @property
    def tmpfiles(self) -> str:
        return "/etc/tmpfiles.d/redkeep.conf"

    @property
    def files(self) -> tuple[str, ...]:
        """What we write for a host, and look at again."""
        return (
            *(self.identity, self.secrets, self.ca, self.certificate, self.key),
            *(self.gate, self.leave, self.crashed, self.supervise),
            *(self.sysctl, self.tmpfiles, self.logrotate),
            *(self.firewall, f"/etc/systemd/system/{self.firewall_unit}"),
        )

    def node(self, port: int, *, sentinel: bool) -> NodePaths:
        part = f"sentinel-{port}" if sentinel else str(port)
        return NodePaths(f"{self.base}/{part}", f"redkeep-{self.name}-{part}.service", sentinel)
