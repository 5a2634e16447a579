"""Scripts that run on the hosts (start gate, stop hook, crash hook, the simple supervisor), and the settings they read.

``hooks/gate.sh`` says why a restart is gated and by which rules, ``hooks/leave.sh`` how a primary hands over before it
stops, and ``hooks/crashed.sh`` what happens when it dies; this module renders what they need to know about the
deployment. All run as the server's own user (or as root,
and then become the owner of the data folder).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from redkeep.model.engine import Capability, Engine

if TYPE_CHECKING:
    from redkeep.model.topology import Address

Mode = Literal["standalone", "sentinel", "cluster"]
Persistence = Literal["none", "rdb", "aof", "rdb+aof"]

#: The name of the settings file in a node's ``conf`` folder.
GATE_ENV = "gate.env"


@dataclass(frozen=True)
class TlsFiles:
    """Paths on the host: the CA that signed the deployment's certificates, and a client certificate."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True)
class GateSettings:
    """What one node's gate knows about its deployment.

    ``address`` is what this node announces (what Sentinels report when it is the primary), ``aliases`` other names
    of it. ``peers`` are all other servers of the deployment, since in a Cluster they may change shards. ``server`` is
    the engine's binary. Without a ``cli`` the gate speaks the protocol itself, which needs a deployment without TLS.
    """

    mode: Mode
    address: str
    port: int
    peers: tuple[Address, ...]
    server: str
    aliases: tuple[str, ...] = ()
    sentinels: tuple[Address, ...] = ()
    primary_name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    cli: str | None = None
    tls: TlsFiles | None = None
    #: Whether the crash hook asks for a failover at once.
    crash_failover: bool = False
    persistence: Persistence = "rdb"
    appendfsync: str = "everysec"
    #: Seconds to wait for peers that do not answer (after a power cut of everything), and for one silent peer.
    wait_peers_seconds: int = 5
    ask_seconds: int = 2

    def __post_init__(self) -> None:
        if self.tls and not self.cli:
            raise ValueError("the gate needs the engine's command-line client where TLS is on")


def gate_env(settings: GateSettings) -> str:
    """``gate.env``: one ``KEY='value'`` a line, for bash. It holds a password: mode 0600."""
    tls = settings.tls or TlsFiles("", "", "")
    values = {
        "MODE": settings.mode,
        "ADDRESS": settings.address,
        "PORT": str(settings.port),
        "ALIASES": " ".join(settings.aliases),
        "PEERS": _addresses(settings.peers),
        "SENTINELS": _addresses(settings.sentinels),
        "PRIMARY_NAME": settings.primary_name,
        "GATE_USER": settings.user,
        "GATE_PASSWORD": settings.password,
        "SERVER": settings.server,
        "CLI": settings.cli or "",
        "TLS_CA": tls.ca,
        "TLS_CERT": tls.cert,
        "TLS_KEY": tls.key,
        "CRASH_FAILOVER": "yes" if settings.crash_failover and settings.mode != "standalone" else "no",
        "PERSISTENCE": settings.persistence,
        "APPENDFSYNC": settings.appendfsync,
        "WAIT_PEERS": str(settings.wait_peers_seconds),
        "ASK_SECONDS": str(settings.ask_seconds),
    }
    return "".join(f"{key}={_quote(value)}\n" for key, value in values.items())


def gate_script() -> str:
    """The text of B/bin/gate (mode 0755): ``gate N`` before the server of node folder N starts."""
    return _hook("gate.sh")


def leave_script() -> str:
    """The text of B/bin/leave (mode 0755): ``leave N`` before the server of node folder N is stopped."""
    return _hook("leave.sh")


def crashed_script() -> str:
    """The text of B/bin/crashed (mode 0755): ``crashed N`` after the server of node folder N died."""
    return _hook("crashed.sh")


def supervise_script() -> str:
    """The text of B/bin/supervise (mode 0755): ``supervise N COMMAND...`` where there is no systemd."""
    return _hook("supervise.sh")


def gate_acl_rules(engine: Engine, *, sentinel: bool = False, watched: bool = False) -> str:
    """What the gate's user may do on a server, or on a Sentinel, without name and password.

    ``watched``: on a server that Sentinels watch, where the gate may have to make its own server a replica, and the stop
    hook holds writes while it hands over. In a Cluster either asks the best replica for the engine's failover.

    ``+command|subcommand`` is understood since Redis 6.0; ``resetchannels`` since 6.2, which without it would let
    a new user listen to every channel.
    """
    servers = (
        "+info +replicaof +config|rewrite +client|pause +client|unpause"
        if watched
        else "+info +cluster|nodes +cluster|failover"
    )
    commands = "+sentinel|master +sentinel|ckquorum +sentinel|failover" if sentinel else servers
    channels = "resetchannels " if engine.supports(Capability.PUBSUB_ACL) else ""
    return f"resetkeys {channels}-@all +ping {commands}"


def _addresses(addresses: tuple[Address, ...]) -> str:
    """``host,port host,port``: a comma, since IPv6 addresses are full of colons."""
    return " ".join(f"{address.host},{address.port}" for address in addresses)


def _quote(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _hook(name: str) -> str:
    """What hooks share is put in where they say so: each is one file on the host."""
    folder = files("redkeep.planning.hostfiles").joinpath("hooks")
    shared = folder.joinpath("talk.sh").read_text(encoding="utf-8")
    return folder.joinpath(name).read_text(encoding="utf-8").replace("#include talk.sh\n", shared)
