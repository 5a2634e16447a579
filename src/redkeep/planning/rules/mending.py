"""Fixes that several rules of a family share, as commands for these nodes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from redkeep.model.checkup import Checkup, Node
from redkeep.model.engine import Capability
from redkeep.planning.evidence.handouts import Handout
from redkeep.planning.evidence.trust import is_loopback
from redkeep.planning.rules.words import cli, set_and_keep

#: Nodes that a loop names, at most.
_SHOWN = 12
#: Stands where we do not know the address either.
ADDRESS = "ITS-ADDRESS"


def address_for(checkup: Checkup, owner: Node | None) -> str:
    """An address of the node that others reach: where we asked it, or where its host is."""
    for host in (owner.address.host, owner.host) if owner else ():
        if not is_loopback(host):
            return host
    return ADDRESS


def announce_fix(checkup: Checkup, found: list[Handout], owner: Node | None) -> str:
    """Makes the owner hand out another address, by the setting that its mode has for it."""
    first = found[0] if found else None
    address = address_for(checkup, owner)
    if checkup.spec is not None:
        return "check private: and public: in the deployment file, then redkeep apply"
    if first is None:
        return f"announce {address}"
    if first.source.startswith("SENTINEL GET-MASTER"):
        return _watch_again(checkup, found, address)
    if first.sentinel:
        return _sentinel_announces(checkup, owner, address)
    setting = "cluster-announce-ip" if first.source.startswith("CLUSTER") else "replica-announce-ip"
    return set_and_keep(checkup, owner, setting, address) if owner else f"on that server: {setting} {address}"


def _sentinel_announces(checkup: Checkup, owner: Node | None, address: str) -> str:
    line = f"sentinel announce-ip {address}"
    if owner is None:  # nobody answers there from here
        return f"in the file of the Sentinel on each host: {line}, and a bind: that lets others in; then restart it"
    said = cli(checkup, owner, "SENTINEL", "CONFIG", "SET", "announce-ip", address)
    if owner.seen and owner.seen.engine.supports(Capability.SENTINEL_HOSTNAMES):
        return said
    return f"in its file {file_of(owner)}: {line}; then restart it (since 6.2: {said})"


def file_of(node: Node) -> str:
    """Where it was started with, as it says."""
    return (node.seen.info.get("config_file", "") if node.seen else "") or "(the one it is started with)"


def _watch_again(checkup: Checkup, found: list[Handout], address: str) -> str:
    """A Sentinel that was told to watch the wrong address is told anew, one after the other."""
    name = found[0].source.rpartition(" ")[2]
    port = str(found[0].address.port)
    commands = []
    for handout in found[:3]:
        sentinel = handout.by[0]
        entry = next((e for e in (sentinel.seen.monitored if sentinel.seen else ()) if e.name == name), None)
        quorum = str(entry.quorum) if entry else "2"
        commands.append(cli(checkup, sentinel, "SENTINEL", "REMOVE", name))
        commands.append(cli(checkup, sentinel, "SENTINEL", "MONITOR", name, address, port, quorum))
    more = ", and so on for each Sentinel" if len(found) > 3 else ""
    return " && ".join(commands) + more + "; then its auth-pass and timeouts again (SENTINEL SET)"


def reset_fix(checkup: Checkup, name: str, sentinels: Iterable[str]) -> str:
    """Sentinels are reset one at a time, so that the others go on watching meanwhile."""
    by_name = {n.name: n for n in checkup.nodes}
    commands = [cli(checkup, by_name[s], "SENTINEL", "RESET", name) for s in dict.fromkeys(sentinels)]
    return "one Sentinel at a time, 30 s apart, while the primary is up: " + "; ".join(commands[:5])


def new_password(checkup: Checkup) -> str:
    """Another one for all of it, while everything goes on; the shell does this as it stands, with REDISCLI_AUTH set."""
    old = any(v.engine.version.major < 6 for _, v in checkup.servers)
    servers, sentinels = [n for n, _ in checkup.servers], [n for n, _ in checkup.sentinels]
    client = f"redis-cli -u {_scheme(checkup, servers)}://$n"
    said = f"{client} CONFIG SET masterauth $NEW"
    if not old:  # a user may have two passwords since 6.0
        said = f'{client} ACL SETUSER default ">$NEW"; {said}'
    parts = ["NEW=$(openssl rand -hex 16)", _loop(servers, said)]
    for name in dict.fromkeys(e.name for _, v in checkup.sentinels for e in v.monitored):
        client_of_sentinels = f"redis-cli -u {_scheme(checkup, sentinels)}://$n"
        said = f"{client_of_sentinels} SENTINEL SET {shlex.quote(name)} auth-pass $NEW"
        parts.append(_loop(sentinels, said))
    # in one connection: the next one has to log in with the new one
    last = _loop(servers, f"printf 'CONFIG SET requirepass %s\\nCONFIG REWRITE\\n' $NEW | {client}")
    order = "with the applications at once" if old else "then give it to the applications, and in the end"
    return f"{'; '.join(parts)}; {order}: {last}"


def _scheme(checkup: Checkup, nodes: Sequence[Node]) -> str:
    visits = [checkup.visit(n) for n in nodes]
    return "rediss" if any(v and v.tls for v in visits) else "redis"


def _loop(nodes: Sequence[Node], said: str) -> str:
    """A loop of the shell over these nodes, ``$n`` in what is said."""
    shown = " ".join(shlex.quote(str(n.address)) for n in nodes[:_SHOWN])
    more = " ..." if len(nodes) > _SHOWN else ""
    return f"for n in {shown}{more}; do {said}; done"
