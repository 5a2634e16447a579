"""Repairs of what Sentinels know and watch: one Sentinel at a time, and only while the primary is up."""

from __future__ import annotations

from collections.abc import Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import Address, NodeView, SentinelEntry, Watched
from redkeep.planning.repairs.base import (
    DOWN,
    IN_SENTINELS_FILE,
    Case,
    Command,
    Knows,
    Repair,
    Repairs,
    Secret,
    from_file,
    reachable_address,
)
from redkeep.planning.repairs.useless import rule_of, useless
from redkeep.planning.rules.ghosts import ghost
from redkeep.planning.rules.sentinels import groups, majority
from redkeep.planning.rules.words import number

#: What SENTINEL SET can say again of what SENTINEL MASTER shows.
_TIMES = ("down-after-milliseconds", "failover-timeout", "parallel-syncs")
#: RESET takes a pattern, and a name like this would mean others as well.
_PATTERN = frozenset("*?[\\")
#: Sentinels greet each other every two seconds.
_GREETS_MS = 10_000
#: Fewer Sentinels are perhaps not all: one that was just told anew knows of nobody yet.
_FEWEST = 3
#: What may not be set from afar, by default.
_SCRIPTS = ("notification-script", "client-reconfig-script")


def sentinel_ghost(case: Case) -> Repairs:
    for node, entry, ghosts in _haunted(case.checkup):
        primary = _primary(case.checkup, entry)
        if primary is None or primary.seen is None or not _is_up(entry) or set(entry.name) & _PATTERN:
            continue
        gone = [w for w in ghosts if not _comes_back(case.checkup, entry, primary, w)]
        if gone:
            addresses = ", ".join(sorted(str(w.address) for w in gone))
            living = [w for w in entry.watched_sentinels if w not in ghosts and not w.flags & DOWN]
            yield Repair(
                "sentinel-ghost",
                node.name,
                f"it forgets {addresses}, and learns the living again",
                (("SENTINEL", "RESET", entry.name),),
                IN_SENTINELS_FILE,
                stage="in-turn",
                settled=Knows(node.name, entry.name, _online(primary.seen), len(living)),
            )


def _haunted(checkup: Checkup) -> Iterator[tuple[Node, SentinelEntry, list[Watched]]]:
    """Sentinels with whom they list and should not."""
    for node, view in checkup.sentinels:
        for entry in view.monitored:
            pairs = [("replica", w) for w in entry.watched_replicas]
            pairs += [("Sentinel", w) for w in entry.watched_sentinels]
            if found := [w for kind, w in pairs if ghost(checkup, entry, kind, w)]:
                yield node, entry, found


def _comes_back(checkup: Checkup, entry: SentinelEntry, primary: Node, watched: Watched) -> bool:
    """Its primary lists it, or it goes on greeting: it has to announce another address first."""
    if primary.seen and watched.address in {line.address for line in primary.seen.replicas}:
        return True
    if watched not in entry.watched_sentinels:
        return False
    node = checkup.by_id(watched.run_id) or checkup.at(watched.address)
    monitored = node.seen.monitored if node and node.seen else ()
    silent = watched.fields.get("last-hello-message", "")
    greets = node is None and 0 <= number(silent, -1) < _GREETS_MS
    return greets or any(e.name == entry.name for e in monitored)


def _stay(checkup: Checkup, entry: SentinelEntry, ghosts: list[Watched]) -> bool:
    """Replicas that no reset drives out, and that have no vote: nothing has to wait for them."""
    primary = _primary(checkup, entry)
    return primary is not None and all(
        w not in entry.watched_sentinels and _comes_back(checkup, entry, primary, w) for w in ghosts
    )


def _is_up(entry: SentinelEntry) -> bool:
    return not entry.flags & DOWN


def _primary(checkup: Checkup, entry: SentinelEntry) -> Node | None:
    """The primary that a Sentinel means: by its run ID, or by the address; where that is a replica, whom it follows."""
    found = checkup.by_id(entry.settings.get("runid", "")) or checkup.at(entry.address)
    if found is not None and found.seen is not None and found.seen.role == "replica":
        found = checkup.primary_of(found)
    return found if found is not None and found.seen is not None and found.seen.role == "primary" else None


def _online(view: NodeView) -> int:
    return len({line.address for line in view.replicas if line.state == "online"})


def quorum(case: Case) -> Repairs:
    """Not while ghosts count as voters, or anybody was not asked: who there is decides what a majority is."""
    haunted = {e.name for _, e, ghosts in _haunted(case.checkup) if not _stay(case.checkup, e, ghosts)}
    for group in groups(case.checkup):
        asked = {node.name for node, _ in group.entries}
        if group.name in haunted or len(asked) < _FEWEST or group.voters.keys() - asked:
            continue
        wanted = majority(len(group.voters))
        for node, entry in group.entries:
            rule = "quorum-too-low" if entry.quorum < wanted else "quorum-too-high"
            if entry.quorum != wanted and rule in case.rules:
                command: Command = ("SENTINEL", "SET", group.name, "quorum", str(wanted))
                why = f"{wanted} of {len(group.voters)} Sentinels must agree"
                yield Repair(rule, node.name, why, (command,), IN_SENTINELS_FILE)


def watched_wrongly(case: Case) -> Repairs:
    """Sentinels that watch an address which is of no use to anybody else, and so hand it out."""
    for node, view in case.checkup.sentinels:
        for entry in view.monitored:
            primary = _primary(case.checkup, entry) or _only(case.checkup)
            if primary is None or not useless(case.checkup, entry.address, primary):
                continue
            address = reachable_address(case.checkup, primary)
            login = _auth(case, node, entry, primary)
            if address and login is not None and _can_be_told_again(case, node, entry):
                yield _again(case, node, entry, Address(address, primary.address.port), login)


def _only(checkup: Checkup) -> Node | None:
    """A Sentinel that never got through knows no run ID; where there is one primary, it is that."""
    found = [n for n, v in checkup.primaries if not v.cluster]
    return found[0] if len(found) == 1 else None


def _can_be_told_again(case: Case, node: Node, entry: SentinelEntry) -> bool:
    """A name that is watched anew begins at epoch 0, and what others say with a higher one would win at once."""
    fresh = all(
        e.config_epoch == 0 for _, v in case.checkup.sentinels for e in v.monitored if e.name == entry.name
    )
    # what it watches may be a server that is no primary at all: then it is down for it, and nothing is at stake
    watched = case.checkup.by_id(entry.settings.get("runid", ""))
    means_a_primary = watched is None or watched.seen is None or watched.seen.role == "primary"
    busy = means_a_primary and entry.flags & {"failover_in_progress", "o_down"}
    renamed = from_file(node, "rename-command", entry.name)
    return fresh and not busy and not renamed and not any(entry.settings.get(s) for s in _SCRIPTS)


def _auth(case: Case, node: Node, entry: SentinelEntry, primary: Node) -> tuple[Command, ...] | None:
    """How it logs in to what it watches; ``None`` where that is not known, and it must not be made to forget it."""
    visit = case.checkup.visit(primary)
    password = from_file(node, "auth-pass", entry.name)
    if password and not case.may_see(node):
        return None
    if password is not None:
        user = from_file(node, "auth-user", entry.name)
        named: tuple[Command, ...] = (("SENTINEL", "SET", entry.name, "auth-user", user),) if user else ()
        secret = Secret("file", node.name, entry.name)
        said: tuple[Command, ...] = (("SENTINEL", "SET", entry.name, "auth-pass", secret),)
        return (*named, *said) if password and user is not None else () if user == "" else None
    if visit is not None and visit.lets_strangers_in:
        return ()
    if case.given is not None and not case.given.user and visit is not None and visit.login == "ok":
        return (
            (("SENTINEL", "SET", entry.name, "auth-pass", Secret("given")),) if case.may_see(node) else None
        )
    return None


def _again(
    case: Case, node: Node, entry: SentinelEntry, right: Address, login: tuple[Command, ...]
) -> Repair:
    name, count = entry.name, str(entry.quorum)
    times: tuple[Command, ...] = tuple(
        ("SENTINEL", "SET", name, key, entry.settings[key]) for key in _TIMES if entry.settings.get(key)
    )

    def watch(address: Address) -> tuple[Command, ...]:
        monitor: Command = ("SENTINEL", "MONITOR", name, address.host, str(address.port), count)
        return (("SENTINEL", "REMOVE", name), monitor, *login, *times)

    primary = _primary(case.checkup, entry) or _only(case.checkup)
    replicas = _online(primary.seen) if primary and primary.seen else 0
    return Repair(
        rule_of(entry.address),
        node.name,
        f"it watches {right} and not {entry.address}, which it hands out to clients",
        watch(right),
        IN_SENTINELS_FILE,
        stage="in-turn",
        settled=Knows(node.name, name, replicas, _told_already(case, node, name, right)),
        undo=watch(entry.address),
    )


def _told_already(case: Case, node: Node, name: str, right: Address) -> int:
    """Those that watch the right address meet there; the others follow."""
    return sum(
        n is not node and any(e.name == name and e.address == right for e in v.monitored)
        for n, v in case.checkup.sentinels
    )
