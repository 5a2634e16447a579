"""``redkeep init --from``: the deployment file of what runs already, as far as its servers tell."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from redkeep.errors import SpecError, UsageError
from redkeep.model.spec import Eviction, load
from redkeep.model.topology import Unreachable
from redkeep.planning.evidence.trust import is_loopback, is_public
from redkeep.planning.rules.sentinels import groups
from redkeep.planning.rules.words import number
from redkeep.usecases.check import Access, examine, require_one
from redkeep.usecases.init import one_line, scalar

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup, Node
    from redkeep.model.targets import Target

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
_COLUMN = 32


async def describe(targets: Sequence[Target], access: Access) -> str:
    """The file's text. Raises as a check does, and ``UsageError`` where the file cannot say what runs there."""
    checkup, _ = await examine(targets, access)
    if not checkup.seen:
        require_one(checkup)
    text = render(checkup)
    try:
        load(text, "redkeep.yaml")
    except SpecError as error:
        raise UsageError(
            f"the file cannot say this: {error.what}", where=", ".join(map(str, targets)), next=error.next
        ) from None
    return text


@dataclass(frozen=True)
class _Line:
    """``key: value   # comment``; without a value, the comment alone."""

    key: str
    value: str = ""
    comment: str = ""

    def __str__(self) -> str:
        comment = one_line(self.comment)
        if not self.value:
            return f"# {self.key}: {comment}"
        text = f"{self.key}: {self.value}"
        return f"{text:<{_COLUMN - 1}} # {comment}" if comment else text


def render(checkup: Checkup) -> str:
    mode = _mode(checkup)
    parts = [
        _HEAD.format(when=f"{checkup.time:%Y-%m-%d}", seen=len(checkup.seen)),
        "adopted: true\n",
        *map(str, _shape(checkup, mode)),
        "",
        *map(str, _settings(checkup)),
        *map(str, _timing(checkup, mode)),
        "",
        *_hosts(checkup),
    ]
    return "\n".join(parts) + "\n"


_HEAD = """\
# A deployment that runs already, as its servers told on {when} (nodes that answered: {seen}). Redkeep did not make it: with
# adopted: true, redkeep status and redkeep check look at it by the addresses below, and apply and destroy refuse.
# The password is not in here: REDKEEP_PASSWORD, or you are asked.
"""


def _mode(checkup: Checkup) -> str:
    if any(v.cluster for _, v in checkup.servers):
        return "cluster"
    return "sentinel" if checkup.sentinels else "standalone"


def _shape(checkup: Checkup, mode: str) -> Iterable[_Line]:
    watched = groups(checkup)
    name = next((g.name for g in watched if _NAME.fullmatch(g.name)), "main")
    yield _Line("name", scalar(name))
    yield _Line("mode", mode)
    yield _engine(checkup)
    if mode == "cluster":
        shards = [n for n, v in checkup.primaries if v.cluster and v.cluster.me.slots]
        yield _Line("shards", str(max(1, len(shards))))
    counts = [max(len(list(checkup.replicas_of(n))), len(v.replicas)) for n, v in checkup.primaries] or [0]
    uneven = f"not the same everywhere: {min(counts)} to {max(counts)}" if len(set(counts)) > 1 else ""
    yield _Line("replicas", str(max(counts)), uneven or "of each primary")
    yield _ports("port", [n.address.port for n, _ in checkup.servers])
    if mode == "sentinel":
        yield _Line("sentinels", str(max(len(g.voters) for g in watched) if watched else 0))
        yield _ports("sentinel_port", [n.address.port for n, _ in checkup.sentinels])


def _ports(key: str, ports: list[int]) -> _Line:
    if not ports:
        return _Line(key, comment="none was seen")
    rest = f"up to {max(ports)}" if len(set(ports)) > 1 else ""
    return _Line(key, str(min(ports)), rest)


def _engine(checkup: Checkup) -> _Line:
    """What most run. Where the host shows the package, that; else the program that the servers name."""
    seen = checkup.servers or checkup.seen
    engines = Counter((v.engine.flavor, str(v.engine.version)) for _, v in seen)
    (flavor, version), _ = engines.most_common(1)[0]
    others = ", ".join(f"{f} {v}" for f, v in engines if (f, v) != (flavor, version))
    package = next((n.process.package for n, _ in seen if n.process and n.process.package), None)
    program = next((v.info.get("executable", "") for _, v in seen if v.info.get("executable")), "")
    more = f"; also {others}" if others else ""
    if package is None and program.startswith("/"):
        value = f"{{flavor: {flavor}, source: binary, version: {scalar(version)}, path: {scalar(program)}}}"
        return _Line("engine", value, f"the program as the servers name it{more}")
    told = f"{package.name} {package.version}" if package else "a guess"
    value = f"{{flavor: {flavor}, source: package, version: {scalar(version)}}}"
    return _Line("engine", value, f"{told}{more}")


def _settings(checkup: Checkup) -> Iterable[_Line]:
    memory = _common(checkup, "maxmemory")
    if number(memory) >= 1024**2:
        yield _Line("maxmemory", str(number(memory)), "bytes, of each node")
    else:
        yield _Line("maxmemory", comment=_different(checkup, "maxmemory", "no limit is set"))
    eviction = _common(checkup, "maxmemory-policy")
    if eviction in get_args(Eviction):
        yield _Line("eviction", str(eviction))
    else:
        yield _Line("eviction", comment=_different(checkup, "maxmemory-policy", "not known"))
    yield _persistence(checkup)
    fsync = _common(checkup, "appendfsync")
    if fsync in ("everysec", "always", "no"):
        yield _Line("appendfsync", str(fsync))
    yield _Line("tls", "true" if _encrypted(checkup) else "false")


def _encrypted(checkup: Checkup) -> bool:
    return any(visit.tls for n, _ in checkup.seen if (visit := checkup.visit(n)))


def _common(checkup: Checkup, setting: str) -> str | None:
    """The value that all servers have; ``None`` where they differ, or none was read."""
    values = {n.setting(setting) for n, _ in checkup.servers}
    return values.pop() if len(values) == 1 else None


def _different(checkup: Checkup, setting: str, otherwise: str) -> str:
    values = sorted({value for n, _ in checkup.servers if (value := n.setting(setting)) is not None})
    return f"it differs: {', '.join(values[:4])}" if len(values) > 1 else otherwise


def _persistence(checkup: Checkup) -> _Line:
    found = Counter(_persisted(n) for n, _ in checkup.servers if n.setting("appendonly") is not None)
    if not found:
        return _Line("persistence", comment="not known")
    (most, _), *others = found.most_common()
    return _Line("persistence", most, f"some have {', '.join(o for o, _ in others)}" if others else "")


def _persisted(node: Node) -> str:
    parts = ["rdb"] if node.setting("save") else []
    parts += ["aof"] if node.setting("appendonly") == "yes" else []
    return "+".join(parts) or "none"


def _timing(checkup: Checkup, mode: str) -> Iterable[_Line]:
    values: set[str] = set()
    if mode == "cluster":
        values = {value for n, _ in checkup.servers if (value := n.setting("cluster-node-timeout"))}
        source = "cluster-node-timeout"
    elif mode == "sentinel":
        entries = [e for _, v in checkup.sentinels for e in v.monitored]
        values = {v for e in entries if (v := e.settings.get("down-after-milliseconds"))}
        source = "down-after-milliseconds"
    else:
        return
    usable = [v for v in values if 200 <= number(v) <= 600_000]
    if len(values) == 1 and usable:
        yield _Line("failover", str(number(usable[0])), f"milliseconds: {source}")
    else:
        yield _Line("failover", comment=f"{source} is {', '.join(sorted(values)) or 'not known'}")


def _hosts(checkup: Checkup) -> Iterable[str]:
    addresses = list(dict.fromkeys(n.host for n, _ in checkup.seen))
    others = [a for a in addresses if not is_loopback(a)]
    if not others:
        yield "clients: private"
        yield "hosts: [local]"
        return
    public = all(map(is_public, others))
    yield f"clients: {'public' if public else 'private'}"
    yield ""
    yield "# Where to log in is not known: fill in ssh (user@host) and zone, for what will need the hosts one day."
    yield "hosts:"
    for index, address in enumerate(others, start=1):
        yield f"  - {{name: h{index}, {_place(address)}}}   # ssh: root@{one_line(address)}, zone: CLOUD/ZONE"
    for node in checkup.nodes:
        if not node.seen:
            yield f"  # {one_line(node.name)} was not asked: {one_line(_reason(checkup, node))}"


def _reason(checkup: Checkup, node: Node) -> str:
    visit = checkup.visit(node)
    if visit is not None and visit.login_detail:
        return visit.login_detail
    return node.view.reason if isinstance(node.view, Unreachable) else ""


def _place(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return f"ssh: {scalar(address)}"
    return f"{'public' if is_public(address) else 'private'}: {scalar(address)}"
