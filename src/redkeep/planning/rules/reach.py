"""Can clients get there? What servers and Sentinels hand out, and who follows whom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from redkeep.model.checkup import SILENT, Checkup, Node, Visit
from redkeep.model.topology import Address, NodeView
from redkeep.planning.evidence.handouts import Handout, believed, handouts
from redkeep.planning.evidence.trust import is_loopback
from redkeep.planning.rules.ghosts import ghost
from redkeep.planning.rules.meant import meant_for_others, unannounced
from redkeep.planning.rules.mending import address_for, announce_fix, reset_fix
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import cli, listed, number, set_and_keep


def _by_address(found: Iterable[Handout]) -> dict[Address, list[Handout]]:
    grouped: dict[Address, list[Handout]] = defaultdict(list)
    for handout in found:
        grouped[handout.address].append(handout)
    return grouped


def _sources(found: Iterable[Handout]) -> str:
    """``CLUSTER SLOTS of a, b; INFO replication of c``"""
    by_source: dict[str, list[str]] = defaultdict(list)
    for handout in found:
        by_source[handout.source] += [node.name for node in handout.by]
    return "; ".join(f"{source} of {listed(names)}" for source, names in by_source.items())


def _owner(checkup: Checkup, found: list[Handout]) -> Node | None:
    return next((n for h in found if h.identity and (n := checkup.by_id(h.identity))), None)


@rule("announce-loopback", "error", needs=("cluster", "sentinel"))
def announce_loopback(checkup: Checkup) -> Iterator[Found]:
    if not meant_for_others(checkup):
        return
    given = [h for h in handouts(checkup) if is_loopback(h.address.host) and h.audience != "servers"]
    for address, found in _by_address(given).items():
        owner = _owner(checkup, found)
        yield Found(
            owner.name if owner else str(address),
            f"{address} is handed out ({_sources(found)})",
            "Whoever is told this address connects to its own machine instead. Clients elsewhere fail at the first "
            "redirection or after the first failover, and replicas and Sentinels on other hosts do not find each other.",
            announce_fix(checkup, found, owner),
        )


@rule("announce-unroutable", "error", needs=("vantage", "cluster", "sentinel"))
def announce_unroutable(checkup: Checkup) -> Iterator[Found]:
    grouped = _by_address(h for h in believed(checkup) if h.audience == "clients")
    for node in checkup.nodes if checkup.spec else ():
        grouped.setdefault(node.address, [])
    limited = bool(checkup.spec and checkup.spec.allow_from)
    for address, found in grouped.items():
        for (wrong, connects), places in _wrong_from(checkup, address, found).items():
            owner = _owner(checkup, found)
            accepted = ""
            if limited and not connects:
                accepted = "allow_from limits who may connect, and this may be none of them"
            yield Found(
                owner.name if owner else str(address),
                f"{address} ({_sources(found) or 'announced'}), from {listed(places)}: {wrong}",
                "Clients are sent to this address and cannot use it. They work until they are redirected or the primary "
                "changes, and then hang or fail, although every server is up.",
                _hung(checkup, address)
                if SILENT in wrong
                else f"open port {address.port} of {address.host} to clients, or hand out an address that they reach: "
                + announce_fix(checkup, found, owner),
                accepted=accepted,
            )


def _hung(checkup: Checkup, address: Address) -> str:
    node = checkup.at(address)
    ask = cli(checkup, node, "PING") if node else f"redis-cli -h {address.host} -p {address.port} PING"
    return (
        f"look at its process on its host (stopped, swapping, a full disk, one long command): {ask}; where it stays so, "
        "restart it, after a replica was promoted"
    )


def _wrong_from(
    checkup: Checkup, address: Address, found: list[Handout]
) -> dict[tuple[str, bool], list[str]]:
    """What is wrong, and whether it connects all the same -> the vantage points that it is so from."""
    told: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for name, vantage in checkup.vantages.items():
        visit = vantage.visits.get(address)
        if visit and (wrong := _wrong_there(checkup, address, found, visit)):
            told[wrong, visit.connects].append(name)
    return told


def _wrong_there(checkup: Checkup, address: Address, found: list[Handout], visit: Visit) -> str:
    if visit.outcome == "untried":
        return ""
    if not visit.connects:
        return visit.detail or visit.outcome
    if visit.silent:
        return f"it {SILENT}"
    if visit.ping.startswith("DENIED"):
        return "protected mode turns away whoever is not on loopback"
    answering = checkup.by_id(visit.run_id) if visit.run_id else None
    if answering is None or answering.seen is None:
        return _stranger(checkup, address, found, visit)
    view = answering.seen
    own = {view.run_id, answering.details.sentinel_id, view.cluster.my_id if view.cluster else ""}
    wanted = {h.identity for h in found if h.identity}
    # before 6.2 a Sentinel does not tell the ID that others know it by
    untold = view.role == "sentinel" and not answering.details.sentinel_id and all(h.sentinel for h in found)
    if not wanted or wanted & own or untold:
        return ""
    return f"another server answers there (run ID {view.run_id[:12]}, {view.role}), not {listed(wanted)}"


def _stranger(checkup: Checkup, address: Address, found: list[Handout], visit: Visit) -> str:
    """Somebody answers who is none of those that were asked; empty where it may be the right one all the same."""
    owners = [n for h in found if h.identity and (n := checkup.by_id(h.identity))]
    if visit.run_id and owners:
        return f"another server answers there (run ID {visit.run_id[:12]}), not {listed(owners)}"
    usual = checkup.visits.get(address)
    if visit.login == "refused" and usual and usual.login == "ok":
        return f"another server answers there: it refuses the password ({visit.login_detail})"
    return ""


@rule("announce-differs", "warning", needs=("cluster",))
def announce_differs(checkup: Checkup) -> Iterator[Found]:
    yield from _cluster_differs(checkup)
    for node, view in checkup.replicas:
        configured = node.setting("replica-announce-ip") or node.setting("slave-announce-ip")
        primary = checkup.primary_of(node)
        if view.cluster or not configured or primary is None or primary.seen is None or not view.link_up:
            continue
        port = number(node.setting("replica-announce-port")) or node.address.port
        listed_there = [line.address for line in primary.seen.replicas]
        if Address(configured, port) not in listed_there:
            yield Found(
                node.name,
                f"replica-announce-ip is {configured}, and {primary.name} lists {listed(listed_there) or 'nobody'} "
                "(INFO replication)",
                "The setting counts only from the next connection to the primary. Until then Sentinels and clients are "
                "given the old address.",
                f"let it connect anew: {cli(checkup, primary, 'CLIENT', 'KILL', 'TYPE', 'replica')}",
            )
    yield from _unannounced(checkup)


def _unannounced(checkup: Checkup) -> Iterator[Found]:
    for node, _ in checkup.servers:
        if announcing := unannounced(checkup, node):
            yield Found(
                node.name,
                f"replica-announce-ip is empty, and set on {listed(announcing)} (CONFIG GET)",
                "As a replica it is known by whatever address a NAT in between shows, and that is another one after the "
                "next failover. Clients and Sentinels are sent there.",
                set_and_keep(checkup, node, "replica-announce-ip", address_for(checkup, node)),
            )


_CLIENT_ADDRESSES = ("cluster-announce-client-ipv4", "cluster-announce-client-ipv6")


def _cluster_differs(checkup: Checkup) -> Iterator[Found]:
    told: dict[str, dict[Address, list[str]]] = defaultdict(lambda: defaultdict(list))
    for handout in handouts(checkup):
        if handout.source == "CLUSTER NODES" and handout.address.host:
            told[handout.identity][handout.address] += [node.name for node in handout.by]
    for node_id, addresses in told.items():
        owner = checkup.by_id(node_id)
        configured = (owner.setting("cluster-announce-ip") if owner else "") or ""
        # Valkey shows clients an address of their own where it has one (cluster-announce-client-ipv4, since 8.1).
        fine = {configured, *(owner.setting(s) for s in _CLIENT_ADDRESSES)} if owner else {configured}
        others = [a for a in addresses if configured and a.host not in fine]
        if len(addresses) < 2 and not others:
            continue
        seen = "; ".join(f"{address} by {listed(names)}" for address, names in addresses.items())
        wanted = f"; cluster-announce-ip is {configured}" if others else ""
        yield Found(
            owner.name if owner else node_id,
            f"{seen} (CLUSTER NODES){wanted}",
            "Nodes disagree on where this one is. Clients are redirected to another address by each of them, and those "
            "who hold the wrong one do not hear of its failure or its recovery.",
            _say_again(checkup, owner, configured),
        )


def _say_again(checkup: Checkup, owner: Node | None, configured: str) -> str:
    if owner is None:
        return "CLUSTER MEET it from a node that knows its right address"
    address = configured or owner.address.host
    return f"make it say its address again: {set_and_keep(checkup, owner, 'cluster-announce-ip', address)}"


@rule("bus-unreachable", "error", needs=("cluster",))
def bus_unreachable(checkup: Checkup) -> Iterator[Found]:
    cut: dict[str, list[str]] = defaultdict(list)
    for (host, name), visit in checkup.paths.items():
        if visit.outcome not in ("open", "refused"):
            cut[name].append(f"{host} ({visit.detail or visit.outcome})")
    for node, view in checkup.servers:
        for line in view.cluster.nodes if view.cluster else ():
            if line.link_up or "handshake" in line.flags:
                continue
            other = checkup.by_id(line.id)
            if other is not None and other is not node:
                cut[other.name].append(f"{node.name} (link disconnected in its CLUSTER NODES)")
    by_name = {n.name: n for n in checkup.nodes}
    for name, seen_by in cut.items():
        target = by_name.get(name)
        bus = _bus_port(target)
        yield Found(
            name,
            f"its bus, port {bus}, cannot be reached from {listed(seen_by)}",
            "It serves clients, but who cannot reach its bus takes it for dead. It is failed over needlessly, or cannot "
            "vote when another primary is lost.",
            f"open TCP port {bus} of {target.address.host if target else name} to all nodes of the Cluster, and check "
            "cluster-announce-bus-port where a NAT or a container is in between",
        )


def _bus_port(node: Node | None) -> int:
    view = node.seen if node else None
    if node and view and view.cluster and (me := view.cluster.by_id(view.cluster.my_id)):
        return me.bus_port
    return node.address.port + 10_000 if node else 0


@rule("sentinel-ghost", "warning", needs=("sentinel",))
def sentinel_ghost(checkup: Checkup) -> Iterator[Found]:
    gone: dict[tuple[str, str, Address], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for node, view in checkup.sentinels:
        for entry in view.monitored:
            pairs = [("replica", w) for w in entry.watched_replicas]
            pairs += [("Sentinel", w) for w in entry.watched_sentinels]
            for kind, watched in pairs:
                if reason := ghost(checkup, entry, kind, watched):
                    gone[entry.name, kind, watched.address][reason].append(node.name)
    for (name, kind, address), reasons in gone.items():
        names = [n for who in reasons.values() for n in who]
        seen = "; ".join(f"{reason}, listed by {listed(who)}" for reason, who in reasons.items())
        yield Found(
            f"{kind} {address}",
            f"{seen} (SENTINEL {'REPLICAS' if kind == 'replica' else 'SENTINELS'} {name})",
            "Sentinels never forget by themselves. A ghost counts in the majority that a failover needs, and clients "
            "that read from replicas are sent to it."
            if kind == "Sentinel"
            else "Sentinels never forget by themselves. Clients that read from replicas are sent to it, and it is tried "
            "again after every failover.",
            reset_fix(checkup, name, names),
        )


@rule("announce-shared", "error", needs=("cluster", "sentinel"))
def announce_shared(checkup: Checkup) -> Iterator[Found]:
    owners: dict[Address, dict[str, None]] = defaultdict(dict)
    for handout in believed(checkup):
        owner = checkup.by_id(handout.identity) if handout.identity else None
        if owner is not None:
            owners[handout.address][owner.name] = None
    for address, names in owners.items():
        if len(names) > 1:
            yield _shared(address, listed(names), "handed out for each of them")
    for node, view in checkup.servers:
        for address, count in Counter(line.address for line in view.replicas).items():
            if count > 1 and len(owners[address]) < 2:
                yield _shared(
                    address,
                    f"{count} replicas of {node.name}",
                    f"INFO replication of {node.name} lists it twice",
                )


def _shared(address: Address, who: str, seen: str) -> Found:
    return Found(
        who,
        f"{address}: {seen}",
        "Peers and clients take them for one. Half of what is meant for one reaches the other, and Sentinels throw one "
        "of them out of their lists, so that votes and failovers fail.",
        "give each its own address and port: cluster-announce-ip and -port, replica-announce-ip and -port, or "
        "sentinel announce-ip and announce-port, as the NAT or the containers publish them",
    )


@rule("keepalive-off", "warning", needs=("config",))
def keepalive_off(checkup: Checkup) -> Iterator[Found]:
    for node, _ in checkup.servers:
        if node.setting("tcp-keepalive") == "0":
            yield Found(
                node.name,
                "tcp-keepalive 0 (CONFIG GET)",
                "Clouds forget idle connections after some minutes without telling either end. The server keeps the dead "
                "ones for hours, until maxclients is reached and nobody gets in.",
                set_and_keep(checkup, node, "tcp-keepalive", "60"),
            )


@rule("wrong-primary", "error")
def wrong_primary(checkup: Checkup) -> Iterator[Found]:
    for node, view in checkup.replicas:
        if found := _wrongly_follows(checkup, node, view):
            wanted, seen = found
            yield Found(
                node.name,
                seen,
                "It is not a copy of what clients write, or loses its source together with another replica. A failover "
                "to it brings back old data, or none.",
                _follow(checkup, node, view, wanted),
            )
    yield from _primaries_among_replicas(checkup)
    if checkup.spec and checkup.spec.mode != "cluster" and len(checkup.primaries) > 1:
        names = [n.name for n, _ in checkup.primaries]
        yield Found(
            listed(names),
            f"{len(names)} primaries (INFO replication), where the deployment file has one",
            "Each takes writes of whoever finds it. One of both loses all of them when it follows the other again.",
            "find out which one clients use (redkeep status), and let the others follow it: REPLICAOF ADDRESS PORT",
        )


def _primaries_among_replicas(checkup: Checkup) -> Iterator[Found]:
    """What Sentinels list as a replica, and nobody follows it: until a Sentinel makes it follow, there are two."""
    told: dict[str, dict[str, list[Node]]] = defaultdict(lambda: defaultdict(list))
    for sentinel, view in checkup.sentinels:
        for entry in view.monitored:
            right = checkup.at(entry.address)
            if right is None or right.seen is None or right.seen.role != "primary" or entry.flags & _CHANGING:
                continue
            for watched in entry.watched_replicas:
                node = checkup.at(watched.address)
                if node is not None and node is not right and node.seen and node.seen.role == "primary":
                    told[node.name][f"{entry.name} at {right.name}"].append(sentinel)
    by_name = {n.name: n for n in checkup.nodes}
    for name, whom in told.items():
        node, (shard, sentinels) = by_name[name], next(iter(whom.items()))
        right = by_name[shard.rpartition(" at ")[2]]
        yield Found(
            name,
            f"role master (INFO replication), and {listed(sentinels)} list it as a replica of {shard} (SENTINEL REPLICAS)",
            "It takes writes of whoever finds it, and all of them are lost when it follows the other one again. Sentinels "
            "make it follow within some seconds; where it stays, they are refused there.",
            f"keep what only it has, if anything; then {_follow(checkup, node, node.seen, right) if node.seen else ''}",
        )


#: Flags of SENTINEL MASTERS while roles are changing.
_CHANGING = frozenset({"failover_in_progress", "o_down", "s_down"})


def _wrongly_follows(checkup: Checkup, node: Node, view: NodeView) -> tuple[Node | None, str] | None:
    """Whom it should follow, where that is known, and what was seen; ``None`` where all is well."""
    primary = checkup.primary_of(node)
    trail = [node]
    while primary is not None and primary.seen is not None and primary.seen.role == "replica":
        if primary in trail:
            return (
                None,
                f"follows itself in a loop: {' -> '.join(n.name for n in (*trail, primary))} (INFO replication)",
            )
        trail.append(primary)
        primary = checkup.primary_of(primary)
    if len(trail) > 1:
        names = " -> ".join(n.name for n in (*trail, *([primary] if primary else [])))
        return primary, f"follows a replica: {names} (INFO replication)"
    return None if view.cluster else _not_the_watched(checkup, node, view, primary)


def _not_the_watched(
    checkup: Checkup, node: Node, view: NodeView, primary: Node | None
) -> tuple[Node | None, str] | None:
    """Compared with what Sentinels watch, where all of them watch one primary."""
    entries = [e for _, v in checkup.sentinels for e in v.monitored]
    watched = {e.address for e in entries}
    if len({e.name for e in entries}) != 1 or len(watched) != 1 or view.primary in watched:
        return None
    (address,) = watched
    right = checkup.at(address)
    if right is None or right is primary or right is node:
        return None
    return right, f"follows {view.primary} (INFO replication), and Sentinels watch {address} ({right.name})"


def _follow(checkup: Checkup, node: Node, view: NodeView, wanted: Node | None) -> str:
    if wanted is None:
        return "decide which of them is the primary (the one with the newest data): REPLICAOF NO ONE there"
    if view.cluster and wanted.seen and wanted.seen.cluster:
        return cli(checkup, node, "CLUSTER", "REPLICATE", wanted.seen.cluster.my_id)
    host, port = wanted.address.host, str(wanted.address.port)
    return f"{cli(checkup, node, 'REPLICAOF', host, port)} && {cli(checkup, node, 'CONFIG', 'REWRITE')}"
