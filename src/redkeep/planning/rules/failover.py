"""Will it fail over, and will everyone follow? Replication: who copies whom, and who can take over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import NodeView
from redkeep.planning.rules.eligible import barred
from redkeep.planning.rules.logins import login_of, refusal
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import and_on, cli, listed, number, set_and_keep, set_and_keep_on


@rule("primary-cannot-rejoin", "error", needs=("config",))
def primary_cannot_rejoin(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[tuple[str, str], list[tuple[Node, Node]]] = defaultdict(list)
    for primary, _ in checkup.primaries:
        login = login_of(primary)
        heirs = [node for node, _ in checkup.replicas_of(primary)]
        if login is None:
            continue
        for heir in heirs or ([primary] if primary.seen and primary.seen.replicas else []):
            if reason := refusal(heir, login):
                grouped[str(login), reason].append((primary, heir))
                break
    for (login_words, reason), pairs in grouped.items():
        primaries = [primary for primary, _ in pairs]
        whose = f"{listed(heir for _, heir in pairs)}, the next primary"
        if all(
            heir is primary for primary, heir in pairs
        ):  # nobody could ask its replicas; mostly they are as it is
            whose = "its replicas could not be asked, and it would refuse this itself"
        yield Found(
            listed(primaries),
            f"{login_words} (CONFIG GET masterauth); {whose}: {reason}",
            "Today nothing is wrong, since a primary follows nobody. After a failover it comes back, cannot log in to "
            "the new primary, and stays empty or old: the next failure is the last.",
            _login_fix(checkup, primaries, reason),
        )


def _login_fix(checkup: Checkup, nodes: list[Node], reason: str) -> str:
    if "AUTH is an error" in reason:
        return "set requirepass on every server, or clear masterauth: " + set_and_keep_on(
            checkup, nodes, "masterauth", ""
        )
    if "has no user" in reason or "switched off" in reason or "may not use" in reason:
        return "on every server: ACL SETUSER USER on >PASSWORD +psync +replconf +ping, then ACL SAVE"
    return set_and_keep_on(checkup, nodes, "masterauth", "PASSWORD")


@rule("replication-broken", "error")
def replication_broken(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[tuple[str, str], list[tuple[Node, str]]] = defaultdict(list)
    for node, view in checkup.replicas:
        if view.link_up or view.primary is None:
            continue
        if view.syncing:
            seen, fix = "a full copy is being made (master_sync_in_progress 1)", _wait_fix(checkup, node)
        else:
            seen, fix = f"its primary {view.primary}: {_at_primary(checkup, node, view)}", ""
        since = view.info.get("master_link_down_since_seconds", "")
        grouped[seen, fix].append((node, since))
    for (seen, fix), members in grouped.items():
        since = ", ".join(dict.fromkeys(f"{s} s" for _, s in members if s and s != "-1"))
        down = f", down for {since}" if since else ""
        yield Found(
            listed(node for node, _ in members),
            f"master_link_status down{down} (INFO replication); {seen}",
            "It serves older and older data and gets nothing of what is written now. A failover to it would lose "
            "everything since the link broke, and without it one copy less is left.",
            fix or _link_fix(checkup, members[0][0]),
        )


def _at_primary(checkup: Checkup, node: Node, view: NodeView) -> str:
    """What is known of the other end."""
    primary = checkup.primary_of(node)
    if primary is not None and primary.seen is not None:
        login = login_of(node)
        refused = refusal(primary, login) if login else ""
        return (
            refused or "it is up, and the link is not: its port, as the replica sees it, or its log tells why"
        )
    visit = checkup.visits.get(view.primary) if view.primary else None
    if visit is None or visit.outcome == "untried":
        return "not known here"
    return visit.detail or ("it answers here" if visit.connects else visit.outcome)


def _link_fix(checkup: Checkup, node: Node) -> str:
    view = node.seen
    primary = checkup.primary_of(node)
    login = login_of(node)
    address = view.primary if view else None
    if primary is not None and login and refusal(primary, login):
        return "mend what replication-auth says; it connects again within a second"
    if primary is not None and primary.seen is not None:
        return (
            f"let {node.host} through to {address}, and read the replica's log; if copies begin again and again: "
            f"{cli(checkup, primary, 'CONFIG', 'SET', 'client-output-buffer-limit', 'replica 1gb 512mb 120')}"
        )
    return f"start the server at {address}, or let {node.host} through to it; if it is gone for good, promote a replica"


def _wait_fix(checkup: Checkup, node: Node) -> str:
    return (
        f"wait, and look at master_sync_left_bytes: {cli(checkup, node, 'INFO', 'replication')}; if it begins again and "
        "again, the primary's client-output-buffer-limit for replicas or repl-timeout is too small"
    )


@rule("replication-auth", "error", needs=("config",))
def replication_auth(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[tuple[str, str], list[tuple[Node, Node]]] = defaultdict(list)
    for node, view in checkup.replicas:
        primary, login = checkup.primary_of(node), login_of(node)
        if primary is None or login is None:
            continue
        if reason := refusal(primary, login):
            state = (
                "the link of before still stands, and will not come back once it breaks"
                if view.link_up
                else "the link is down"
            )
            grouped[f"{login} (CONFIG GET masterauth)", f"{reason}; {state}"].append((node, primary))
    for (login_words, reason), pairs in grouped.items():
        nodes = [node for node, _ in pairs]
        yield Found(
            listed(nodes),
            f"{login_words}; its primary {listed(primary for _, primary in pairs)}: {reason}",
            "Whoever cannot log in to its primary gets nothing of what is written. It falls behind for good, and a "
            "failover to it brings back old data.",
            _login_fix(checkup, nodes, reason),
        )
    yield from _sentinels_refused(checkup)


#: Milliseconds between the last answer and the last good one, from which on answers are refusals.
_REFUSED_MS = 1000


def _sentinels_refused(checkup: Checkup) -> Iterator[Found]:
    """A Sentinel does not show passwords; but it shows that it is answered, and not with what it asked for."""
    grouped: dict[tuple[str, str], dict[str, list[Node]]] = defaultdict(lambda: defaultdict(list))
    for sentinel, view in checkup.sentinels:
        for entry in view.monitored:
            watched = [("primary", entry.address, entry.settings)]
            watched += [("replica", w.address, w.fields) for w in entry.watched_replicas]
            for kind, address, fields in watched:
                answered = number(fields.get("last-ping-reply"))
                well = number(fields.get("last-ok-ping-reply"))
                other = checkup.at(address)
                if well - answered > _REFUSED_MS and other is not None and _asks_for_password(checkup, other):
                    grouped[entry.name, f"{kind} {other.name}"][f"{well // 1000} s"].append(sentinel)
    for (name, whom), by_time in grouped.items():
        sentinels = [s for group in by_time.values() for s in group]
        first = cli(checkup, sentinels[0], "SENTINEL", "SET", name, "auth-pass", "PASSWORD")
        yield Found(
            listed(sentinels),
            f"the {whom} answers its PING, but not with PONG, for {', '.join(by_time)} (last-ok-ping-reply of SENTINEL "
            f"{'MASTER' if whom.startswith('primary') else 'REPLICAS'} {name}), and asks for a password",
            "A Sentinel that cannot log in takes a healthy server for down. Its vote starts needless failovers, or is "
            "missing when one is needed.",
            f"{first}, and auth-user where it is a user of its own (6.0){and_on(sentinels[1:])}",
        )


def _asks_for_password(checkup: Checkup, node: Node) -> bool:
    visit = checkup.visit(node)
    return visit is not None and visit.connects and not visit.lets_strangers_in


@rule("no-replica", "error", needs=("cluster",))
def no_replica(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[str, list[Node]] = defaultdict(list)
    for node, view in checkup.primaries:
        if any(checkup.replicas_of(node)):
            continue
        if view.cluster:
            me = view.cluster.me
            listing = [n for n in view.cluster.nodes if n.primary_id == me.id]
            if me.slots and all("fail" in n.flags for n in listing):
                gone = listed(n.address for n in listing)
                grouped[f"its replica {gone} is marked fail" if gone else "no replica"].append(node)
        elif not view.replicas and not view.cluster_hidden:
            grouped["connected_slaves 0"].append(node)
    for seen, nodes in grouped.items():
        cluster = nodes[0].seen is not None and nodes[0].seen.cluster is not None
        yield Found(
            listed(nodes),
            f"{seen} ({'CLUSTER NODES' if cluster else 'INFO replication'})",
            "When this server or its host is lost, so is everything since the last copy elsewhere, and nobody takes "
            "over. Its keys cannot be read or written until it is back.",
            _add_replica(checkup, nodes[0], "marked fail" in seen),
        )


def _add_replica(checkup: Checkup, primary: Node, down: bool) -> str:
    if down:
        return "start the replica again; if it is gone for good, add another one"
    if checkup.spec is not None:
        return "write replicas: 1 (or more) into the deployment file, then redkeep apply"
    view = primary.seen
    if view and view.cluster:
        return (
            f"redis-cli --cluster add-node NEW:PORT {primary.address} --cluster-slave "
            f"--cluster-master-id {view.cluster.my_id}"
        )
    host, port = primary.address.host, primary.address.port
    return f"on a server of another host: REPLICAOF {host} {port}, then CONFIG REWRITE"


@rule("no-eligible-replica", "error", needs=("cluster", "sentinel"))
def no_eligible_replica(checkup: Checkup) -> Iterator[Found]:
    for primary, _ in checkup.primaries:
        replicas = list(checkup.replicas_of(primary))
        reasons = [barred(checkup, primary, node, view) for node, view in replicas]
        if not replicas or not all(reasons):
            continue
        grouped: dict[str, list[str]] = defaultdict(list)
        for (node, _), reason in zip(replicas, reasons, strict=True):
            assert reason is not None
            grouped[reason.seen].append(node.name)
        seen = "; ".join(f"{listed(names)}: {reason}" for reason, names in grouped.items())
        first = next(reason for reason in reasons if reason)
        yield Found(
            primary.name,
            f"every replica is barred from promotion: {seen}",
            "There are replicas, and still nobody takes over when this primary is lost. It comes to light on that day.",
            set_and_keep(checkup, replicas[0][0], first.setting, first.value)
            if first.setting
            else "mend the link first, as replication-broken says",
        )


@rule("replication-not-persisted", "error", needs=("process",))
def replication_not_persisted(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[str, list[Node]] = defaultdict(list)
    for node, view in checkup.replicas:
        process = node.process
        if view.cluster or view.primary is None or process is None or process.settings is None:
            continue
        if process.options & {"replicaof", "slaveof"}:  # its unit says it at every start
            continue
        written = (*process.settings.get("slaveof", ()), *process.settings.get("replicaof", ()))
        running = f"{view.primary.host} {view.primary.port}"
        if written and " ".join(written[-1].split()) == running:
            continue
        if written:
            grouped[f"its file says replicaof {written[-1]}, and it follows {view.primary}"].append(node)
        elif process.config_file:
            grouped["its file has no replicaof"].append(node)
        elif not process.supervisor:  # whoever starts it again may say --replicaof
            grouped["it was started without a file"].append(node)
    for seen, nodes in grouped.items():
        files = listed(n.process.config_file for n in nodes if n.process and n.process.config_file)
        yield Found(
            listed(nodes),
            f"{seen} ({files or 'INFO server: config_file'}), role slave (INFO replication)",
            "After a restart it is an empty or old primary that takes writes, or follows another one. Clients that know "
            "its address read and write in the wrong place, and Sentinels may find two primaries.",
            cli(checkup, nodes[0], "CONFIG", "REWRITE") + and_on(nodes[1:])
            if files
            else "give it a file of its own that it may write, start it with that, then REPLICAOF and CONFIG REWRITE",
        )
