"""Will it fail over? The Sentinels: how many there are, where, and whether they can agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import SentinelEntry
from redkeep.model.values import Value
from redkeep.planning.rules.places import machine
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import and_on, cli, listed

_FEWEST = 3


def majority(voters: int) -> int:
    return voters // 2 + 1


class Group(Value):
    """One name that Sentinels watch. ``voters``: all that anybody knows of, by name or address, with their machines."""

    name: str
    entries: tuple[tuple[Node, SentinelEntry], ...]
    voters: Mapping[str, str]

    @property
    def majority(self) -> int:
        return majority(len(self.voters))


def groups(checkup: Checkup) -> list[Group]:
    found: dict[str, list[tuple[Node, SentinelEntry]]] = defaultdict(list)
    for node, view in checkup.sentinels:
        for entry in view.monitored:
            found[entry.name].append((node, entry))
    return [Group(name, tuple(entries), _voters(checkup, entries)) for name, entries in found.items()]


def _voters(checkup: Checkup, entries: list[tuple[Node, SentinelEntry]]) -> dict[str, str]:
    voters = {node.name: machine(checkup, node) for node, _ in entries}
    for _, entry in entries:
        for watched in entry.watched_sentinels:
            known = checkup.by_id(watched.run_id) or checkup.at(watched.address)
            if known is not None:
                voters[known.name] = machine(checkup, known)
            else:
                voters[str(watched.address)] = watched.address.host
    return voters


def sentinel_set(checkup: Checkup, nodes: list[Node], name: str, *options: str) -> str:
    """Sentinel writes it into its own file."""
    command = cli(checkup, nodes[0], "SENTINEL", "SET", name, *options) + and_on(nodes[1:])
    return f"redkeep apply sets it again; by hand: {command}" if checkup.spec is not None else command


@rule("sentinels-too-few", "error", needs=("sentinel",))
def sentinels_too_few(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[str, list[Group]] = defaultdict(list)
    for group in groups(checkup):
        count = len(group.voters)
        host, most = Counter(group.voters.values()).most_common(1)[0]
        where = f"{listed(group.voters)} (SENTINEL SENTINELS)"
        if count < _FEWEST:
            grouped[f"{count} Sentinel{'s' if count > 1 else ''}: {where}"].append(group)
        elif count - most < group.majority:
            grouped[
                f"{most} of {count} Sentinels are on host {host}, and {group.majority} must agree: {where}"
            ].append(group)
    for seen, members in grouped.items():
        entry = members[0].entries[0][1]
        yield Found(
            listed(g.name for g in members),
            seen,
            "A failover needs the votes of a majority of all Sentinels. Losing the one host, often the primary's own, "
            "takes the vote away with it, and the primary stays down.",
            f"have three on three hosts that fail apart, each with: sentinel monitor {entry.name} "
            f"{entry.address.host} {entry.address.port} 2"
            if checkup.spec is None
            else "write sentinels: 3 and at least three hosts into the deployment file, then redkeep apply",
        )


@rule("quorum-too-low", "warning", needs=("sentinel",))
def quorum_too_low(checkup: Checkup) -> Iterator[Found]:
    yield from _quorum(
        checkup,
        lambda quorum, needed: quorum < needed,
        "So few Sentinels can start a failover: the others vote for whoever asks first and do not look for themselves. "
        "One with a bad line replaces a healthy primary.",
    )


@rule("quorum-too-high", "warning", needs=("sentinel",))
def quorum_too_high(checkup: Checkup) -> Iterator[Found]:
    yield from _quorum(
        checkup,
        lambda quorum, needed: quorum > needed,
        "A failover needs the larger of quorum and majority. One Sentinel that restarts, or sits on the lost host, is "
        "enough to keep the primary down until it is back.",
    )


def _quorum(checkup: Checkup, wrong: Callable[[int, int], bool], why: str) -> Iterator[Found]:
    grouped: dict[tuple[int, int], tuple[dict[str, None], dict[str, Node]]] = {}
    for group in groups(checkup):
        for node, entry in group.entries:
            if wrong(entry.quorum, group.majority):
                names, nodes = grouped.setdefault((entry.quorum, len(group.voters)), ({}, {}))
                names[group.name] = None
                nodes[node.name] = node
    for (quorum, count), (names, nodes) in grouped.items():
        needed = str(majority(count))
        yield Found(
            listed(names),
            f"quorum {quorum} at {listed(nodes)} (SENTINEL MASTER); there are {count} Sentinels, and {needed} are their "
            "majority",
            why,
            sentinel_set(checkup, list(nodes.values()), next(iter(names)), "quorum", needed)
            + (f"; the same for {listed(list(names)[1:])}" if len(names) > 1 else ""),
        )


@rule("quorum-unreachable", "error", needs=("sentinel",))
def quorum_unreachable(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for group in groups(checkup):
        for node, entry in group.entries:
            down = [w.address for w in entry.watched_sentinels if w.flags & {"s_down", "o_down"}]
            voters = 1 + len(entry.watched_sentinels)
            up, needed = voters - len(down), majority(voters)
            if up < max(entry.quorum, needed):
                missing = f"; down for it: {listed(down)}" if down else ""
                seen = f"{up} of {voters} Sentinels are up, quorum {entry.quorum}, majority {needed}{missing}"
                grouped[group.name, seen].append(node)
    for (name, seen), nodes in grouped.items():
        yield Found(
            name,
            f"as {listed(nodes)} see it: {seen} (SENTINEL SENTINELS {name})",
            "No failover can happen now. If the primary is lost, writes stop until enough Sentinels are back or somebody "
            "promotes a replica by hand.",
            "start the missing Sentinels and open their port between their hosts; retired ones: SENTINEL RESET; then "
            + cli(checkup, nodes[0], "SENTINEL", "CKQUORUM", name),
        )


@rule("sentinels-disagree", "error", needs=("sentinel",))
def sentinels_disagree(checkup: Checkup) -> Iterator[Found]:
    for group in groups(checkup):
        aspects = {
            "primary": _by(group, lambda _, e: _whom(checkup, e)),
            "quorum": _by(group, lambda _, e: str(e.quorum)),
            "config-epoch": _by(group, lambda _, e: str(e.config_epoch)),
            "auth-pass": _passwords(group),
        }
        differing = {what: values for what, values in aspects.items() if len(values) > 1}
        if differing:
            yield Found(
                group.name,
                "; ".join(_told(what, values) for what, values in differing.items()),
                "Clients are sent to one primary or another, depending on whom they ask, or a failover depends on which "
                "Sentinel notices first. Writes that went to the wrong one are lost.",
                _agree(checkup, group, differing),
            )


def _by(group: Group, what: Callable[[Node, SentinelEntry], str]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = defaultdict(list)
    for node, entry in group.entries:
        found[what(node, entry)].append(node)
    return found


def _whom(checkup: Checkup, entry: SentinelEntry) -> str:
    node = checkup.at(entry.address)
    return node.name if node else str(entry.address)


def _passwords(group: Group) -> dict[str, list[Node]]:
    """From the Sentinels' files, where they can be read. Passwords are compared, and never shown."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node, _ in group.entries:
        settings = node.process.settings if node.process else None
        if not settings or "sentinel" not in settings:
            continue
        words = [line.split(maxsplit=2) for line in settings["sentinel"]]
        given = [w[2] for w in words if len(w) == 3 and w[0].lower() == "auth-pass" and w[1] == group.name]
        found[given[-1].strip("\"'") if given else ""].append(node)
    return found


def _told(what: str, values: dict[str, list[Node]]) -> str:
    if what == "auth-pass":
        parts = [
            f"{'none' if not value else f'one for {listed(nodes)}' if i == 0 else f'another for {listed(nodes)}'}"
            for i, (value, nodes) in enumerate(values.items())
        ]
        return f"auth-pass differs: {', '.join(parts)} (their files)"
    told = ", ".join(f"{value} by {listed(nodes)}" for value, nodes in values.items())
    return f"{what}: {told} (SENTINEL MASTER)"


def _agree(checkup: Checkup, group: Group, differing: dict[str, dict[str, list[Node]]]) -> str:
    fixes = []
    if "primary" in differing or "config-epoch" in differing:
        newest, entry = max(group.entries, key=lambda e: e[1].config_epoch)
        late = [n for n, e in group.entries if _whom(checkup, e) != _whom(checkup, entry)]
        fixes.append(
            f"let them reach each other and wait half a minute: the newest epoch ({entry.config_epoch} at {newest.name}) "
            "wins"
        )
        for node in late[:3]:
            host, port = entry.address.host, str(entry.address.port)
            fixes.append(
                f"if {node.name} is still wrong: {cli(checkup, node, 'SENTINEL', 'REMOVE', group.name)} && "
                + cli(checkup, node, "SENTINEL", "MONITOR", group.name, host, port, str(group.majority))
                + ", then its auth-pass and timeouts again"
            )
    if "quorum" in differing:
        wrong = [n for n, e in group.entries if e.quorum != group.majority]
        fixes.append(sentinel_set(checkup, wrong, group.name, "quorum", str(group.majority)))
    if "auth-pass" in differing:
        every = [n for n, _ in group.entries]
        fixes.append(sentinel_set(checkup, every, group.name, "auth-pass", "PASSWORD"))
    return "; ".join(fixes)
