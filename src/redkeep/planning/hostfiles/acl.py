"""Who may do what on a server and on a Sentinel, as the lines of an aclfile.

    user          on a server                                   on a Sentinel
    default       the application: no dangerous commands        discovery: where is the primary?
    redkeep       administration: everything                    administration: everything
    replication   what a replica sends to its primary           -
    sentinel      what a Sentinel sends to a server             what Sentinels send to each other
    gate          the start gate's questions                    the start gate's questions

The application is ``default`` because many clients in use send a password and no user name. Passwords are in the
lines as SHA-256 only. Every line begins with ``reset``, so that the same words do for an aclfile and for ACL SETUSER.

``acl_changes`` compares with what ACL LIST prints. Since 7.2 a server keeps the command rules as they were given; up to
7.0 it keeps a bitmap, and describes that anew with categories that fit and single commands (``ACLDescribe...Rules`` in
acl.c). The rules for those versions are therefore written as the server itself would put them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from redkeep.model.engine import Capability, Engine
from redkeep.planning.hostfiles.quoting import acl_word

APP, ADMIN, REPLICATION, SENTINEL, GATE = "default", "redkeep", "replication", "sentinel", "gate"

#: The secrets of a deployment, by the names that the deployment file and the vault use.
ROLES = ("app", "admin", "replication", "sentinel", "gate")


@dataclass(frozen=True)
class Secrets:
    """The passwords. ``app`` is ``None`` where the file says ``auth: none``.

    ``previous`` (by the same names) are passwords that still work while a rotation is under way.
    """

    app: str | None = field(repr=False)
    admin: str = field(repr=False)
    replication: str = field(repr=False)
    sentinel: str = field(repr=False)
    gate: str = field(repr=False)
    previous: Mapping[str, str] = field(default_factory=dict, repr=False)


#: Dangerous by Redis's own category, and yet what client libraries and everyday applications use: INFO and ROLE to tell
#: primary from replica, SORT of lists, CLUSTER REPLICAS of a topology refresh. Not KEYS, which blocks everybody else.
_APP_NEEDS = "+info +role +sort +sort_ro +cluster|replicas +cluster|slaves"

#: Not in that category, and yet not for applications: they end or erase what others run.
_APP_NEVER = (
    "-script|flush -script|kill -script|debug -function|flush -function|delete -function|kill -function|restore "
    "-memory +memory|usage"
)

#: What of @dangerous is not in @admin (Redis 6.0 to 7.0), without INFO and SORT, which stay.
_DANGEROUS_NOT_ADMIN = "-flushall -flushdb -keys -migrate -restore -restore-asking -swapdb"

#: Before 7.0 CLIENT and CLUSTER are dangerous as a whole, and a rule can only give back what follows them.
_APP_6 = (
    "+client|setname +client|getname +client|id +client|info +client|setinfo +client|reply +client|tracking "
    "+client|trackinginfo +client|caching +client|getredir +client|no-touch +client|help "
    "+cluster|slots +cluster|shards +cluster|nodes +cluster|info +cluster|keyslot +cluster|myid +cluster|replicas "
    "+cluster|slaves +cluster|countkeysinslot +cluster|getkeysinslot +cluster|help "
    "-script +script|load +script|exists +script|help -memory +memory|usage"
)

#: Redis documentation, "ACL rules for Sentinel and replicas"; SYNC for Valkey's dual-channel replication (measured on 8.1).
_REPLICATION = "+psync +sync +replconf +ping"

#: The same page, and sentinel.c: monitoring, hello messages, REPLICAOF in a transaction with CONFIG REWRITE and
#: CLIENT KILL, and SCRIPT KILL for a primary that hangs in a script.
_SENTINEL_ON_SERVER = (
    "+ping +info +role +publish +subscribe +multi +exec +slaveof +replicaof +config|rewrite "
    "+client|setname +client|kill +script|kill"
)

#: What client libraries ask of a Sentinel. Not PUBLISH: a forged hello message would move the primary.
_DISCOVERY = (
    "+ping +hello +auth +info +role +command +subscribe +unsubscribe +psubscribe +punsubscribe "
    "+client|setname +client|getname +client|id +client|reply "
    "+sentinel|get-master-addr-by-name +sentinel|masters +sentinel|master +sentinel|replicas +sentinel|slaves "
    "+sentinel|sentinels +sentinel|ckquorum +sentinel|myid"
)
_DISCOVERY_SETINFO = "+client|setinfo"
_DISCOVERY_PRIMARY = "+sentinel|get-primary-addr-by-name +sentinel|primaries +sentinel|primary"

#: sentinel.c: the question of the vote and hello messages, which Sentinels also send to each other.
_SENTINEL_PEER = "+ping +hello +auth +publish +client|setname +sentinel|is-master-down-by-addr"
_SENTINEL_PEER_PRIMARY = "+sentinel|is-primary-down-by-addr"


def server_users(
    engine: Engine, secrets: Secrets, *, cluster: bool, gate_rules: str, app_extra: str = ""
) -> tuple[str, ...]:
    """The lines of a server's aclfile.

    ``gate_rules`` are the commands that the start gate sends (``+role +cluster|nodes``). ``app_extra`` are rules that
    the deployment's owner grants the application on top (``+keys`` for Spring's cache eviction before 2.6).
    """
    user = _Users(engine, secrets)
    return (
        user.line(APP, "app", f"+@all {_application(engine)} {app_extra}", keys=True, channels=True),
        user.line(ADMIN, "admin", "+@all", keys=True, channels=True),
        _replication(engine, user, cluster),
        user.line(SENTINEL, "sentinel", _sentinel_on_server(engine), channels=True),
        user.line(GATE, "gate", gate_rules),
    )


def sentinel_users(engine: Engine, secrets: Secrets, *, gate_rules: str) -> tuple[str, ...]:
    """The lines of a Sentinel's aclfile; none where it knows no users (Redis 6.0: ``requirepass`` is all there is)."""
    if not engine.supports(Capability.SENTINEL_ACL):
        return ()
    discovery, peer = [_DISCOVERY], [_SENTINEL_PEER]
    if engine.supports(Capability.CLIENT_SETINFO):
        discovery.append(_DISCOVERY_SETINFO)
    if engine.supports(Capability.PRIMARY_NAMES):
        discovery.append(_DISCOVERY_PRIMARY)
        peer.append(_SENTINEL_PEER_PRIMARY)
    user = _Users(engine, secrets)
    return (
        user.line(APP, "app", " ".join(discovery), channels=True),
        user.line(ADMIN, "admin", "+@all", keys=True, channels=True),
        user.line(SENTINEL, "sentinel", " ".join(peer), channels=True),
        user.line(GATE, "gate", gate_rules),
    )


def aclfile(lines: Iterable[str]) -> str:
    """The file's text. It holds nothing but users: an aclfile knows no comments."""
    return "".join(line + "\n" for line in lines)


def _application(engine: Engine) -> str:
    if engine.supports(Capability.ACL_RULES_KEPT):
        return f"-@dangerous {_APP_NEEDS} {_APP_NEVER}"
    if engine.supports(Capability.ACL_SUBCOMMANDS):
        return f"-@admin {_DANGEROUS_NOT_ADMIN} +role +cluster|replicas +cluster|slaves {_APP_NEVER}"
    return f"-@admin {_DANGEROUS_NOT_ADMIN} {_APP_6}"


def _replication(engine: Engine, user: _Users, cluster: bool) -> str:
    if cluster and engine.supports(Capability.ATOMIC_MIGRATION_SOURCE):
        # Valkey's CLUSTER MIGRATESLOTS logs in as this user, and every key that it imports is checked (measured).
        return user.line(REPLICATION, "replication", "+@all", keys=True, channels=True)
    rules = _REPLICATION
    if cluster and engine.supports(Capability.ATOMIC_MIGRATION_TARGET):
        rules += " +cluster|syncslots"
    return user.line(REPLICATION, "replication", rules)


def _sentinel_on_server(engine: Engine) -> str:
    """SENTINEL FAILOVER name COORDINATED asks the primary itself to hand over (seen in the ACL LOG of Valkey 9.1)."""
    coordinated = engine.supports(Capability.SENTINEL_COORDINATED)
    return f"{_SENTINEL_ON_SERVER} +client|pause +failover" if coordinated else _SENTINEL_ON_SERVER


@dataclass(frozen=True)
class _Users:
    engine: Engine
    secrets: Secrets

    def line(self, name: str, role: str, rules: str, *, keys: bool = False, channels: bool = False) -> str:
        words = ["user", name, "reset", "on", *self._passwords(role)]
        if keys:
            words.append("~*")
        if self.engine.supports(Capability.PUBSUB_ACL):
            words.append("&*" if channels else "resetchannels")
        return " ".join([*words, *(acl_word(rule) for rule in rules.split())])

    def _passwords(self, role: str) -> list[str]:
        current: str | None = getattr(self.secrets, role)
        if current is None:
            return ["nopass"]
        previous = self.secrets.previous.get(role)
        return [_hashed(password) for password in dict.fromkeys((current, previous)) if password]


def _hashed(password: str) -> str:
    return f"#{digest(password)}"


def digest(password: str) -> str:
    """As ACL LIST shows it, without the ``#``."""
    return hashlib.sha256(password.encode()).hexdigest()


# What differs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AclChanges:
    """``set``: lines for ACL SETUSER (without the word ``user``); ``delete``: names for ACL DELUSER."""

    set: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.delete)


def acl_changes(wanted: Iterable[str], listed: Iterable[str]) -> AclChanges:
    """What makes a running server's users (its ACL LIST) those of ``wanted``.

    Better than ACL LOAD, which up to Redis 7.0 closes every connection but those of ``default``: replication links,
    Sentinels and our own (measured on 6.0.20, 6.2.14 and 7.0.15; 8.0 and Valkey keep them).
    """
    wanted_users = {line.split()[1]: line for line in wanted}
    listed_users = {line.split()[1]: _canonical(line) for line in listed}
    changed = [
        line.removeprefix("user ")
        for name, line in wanted_users.items()
        if listed_users.get(name) != _canonical(line)
    ]
    return AclChanges(tuple(changed), tuple(sorted(listed_users.keys() - wanted_users.keys())))


def acl_differs(wanted: Iterable[str], listed: Iterable[str]) -> bool:
    """Whether ACL LIST shows other users or other rights than ``wanted``."""
    return bool(acl_changes(wanted, listed))


#: Words that say what holds anyway, or that some versions print and others do not.
_NOISE = frozenset(("reset", "resetchannels", "resetkeys", "sanitize-payload", "-@all"))
_SPELLINGS = {"allkeys": "~*", "allchannels": "&*", "allcommands": "+@all", "nocommands": "-@all"}


#: A Sentinel knows few commands, so that up to 7.0 it describes users by these categories (6.2.14 and 7.0.15).
_SENTINEL_CATEGORIES = {
    "@pubsub": ("publish", "subscribe", "unsubscribe", "psubscribe", "punsubscribe"),
    "@fast": ("publish", "role", "ping", "auth", "hello"),
    "@read": ("role",),
    "@connection": ("auth", "hello", "ping", "command", "client"),
}


def _canonical(line: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Categories in their order, which matters, and everything else as a set.

    Older servers print single commands in the order of a hash table, another one at every start.
    """
    words = [_SPELLINGS.get(word, word) for word in line.split()[2:]]
    rules = [word for word in words if word not in _NOISE]
    if any(rule.startswith("+sentinel|") for rule in rules):
        return (), _expanded(rules)
    categories = tuple(word for word in rules if word[1:2] == "@")
    return categories, frozenset(rules) - frozenset(categories)


def _expanded(rules: list[str]) -> frozenset[str]:
    """The rules of a Sentinel's user as the commands that are left when all are applied in order."""
    left: set[str] = set()
    for rule in rules:
        names = _SENTINEL_CATEGORIES.get(rule[1:], (rule[1:],))
        if rule.startswith("-"):
            left = {word for word in left if word[1:].split("|")[0] not in names}
        else:
            left |= {rule[0] + name for name in names}
    return frozenset(left)
