"""What could not be looked at, and which rules that leaves out: said, never passed over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.finding import Finding
from redkeep.model.topology import Unreachable
from redkeep.planning.rules.registry import Need, Rule
from redkeep.planning.rules.words import listed

NOT_CHECKED = "not-checked"

#: need -> (what it is, how to make it possible)
_WORDS: dict[Need, tuple[str, str]] = {
    "config": (
        "CONFIG GET",
        "use a user with +config|get, or ask the provider which of these it takes care of",
    ),
    "acl": ("ACL LIST", "use a user with +acl|list"),
    "cluster": ("CLUSTER NODES", "use a user with +cluster|nodes +cluster|info +cluster|slots"),
    "sentinel": ("SENTINEL MASTERS", "use a user with +sentinel on the Sentinels"),
    "modules": ("MODULE LIST", "use a user with +module|list"),
    "data": (
        "small values (SCAN, STRLEN, GETRANGE)",
        "use a user with +scan +strlen +getrange, and all keys: %R~*",
    ),
    "latency": ("LATENCY LATEST", "use a user with +latency|latest"),
    "vantage": ("connections from where clients are", "run it there, or name a host with --from USER@HOST"),
    "host": ("the host", "name its login with --ssh USER@HOST, or run it there"),
    "process": (
        "the server's process",
        "name the login of its host with --ssh USER@HOST, or run it there as root",
    ),
    "restart": (
        "what starts the server again",
        "look yourself: docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' CONTAINER; always and unless-stopped "
        "start it at once, no and on-failure may leave it down",
    ),
    "file": (
        "the server's configuration file",
        "name the login of its host with --ssh USER@HOST (root, or sudo without a password), or run it there as root",
    ),
}


def unchecked(checkup: Checkup, rules: Iterable[Rule]) -> Iterator[Finding]:
    yield from _silent(checkup)
    if checkup.unasked:
        yield Finding(
            NOT_CHECKED,
            "info",
            "deployment",
            f"{checkup.unasked} more addresses that nodes tell of: {len(checkup.visits)} were asked, and no more are",
            "No deployment is that large: somebody makes nodes up. No rule looked at the rest.",
            "look at what the nodes tell: CLUSTER NODES, INFO replication, SENTINEL REPLICAS",
        )
    every = list(rules)
    yield from _left_out(checkup, every)
    for need, (what, fix) in _WORDS.items():
        left_out = [r.id for r in every if need in r.needs]
        reasons: dict[str, list[str]] = defaultdict(list)
        for node in checkup.nodes:
            if left_out and (reason := _missing(checkup, node, need)):
                reasons[reason].append(node.name)
        for reason, nodes in reasons.items():
            yield Finding(
                NOT_CHECKED,
                "info",
                listed(nodes),
                f"{what}: {reason}",
                f"These rules did not look there: {', '.join(left_out)}.",
                fix,
            )


def _left_out(checkup: Checkup, rules: list[Rule]) -> Iterator[Finding]:
    """Hosts that the user named, and that were of no use."""
    for host in checkup.left_out:
        what = "connections from it" if host.need == "vantage" else "the host"
        needs = {"vantage"} if host.need == "vantage" else {"host", "process", "file"}
        ids = [r.id for r in rules if needs & {*r.needs}]
        yield Finding(
            NOT_CHECKED,
            "info",
            host.name,
            f"{what}: {host.reason}",
            f"These rules did not look there: {', '.join(ids)}.",
            host.next,
        )


def _silent(checkup: Checkup) -> Iterator[Finding]:
    """Nodes that were not asked at all, by reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for node in checkup.nodes:
        if isinstance(node.view, Unreachable):
            visit = checkup.visit(node)
            why = visit.login_detail if visit and visit.login in ("withheld", "refused") else ""
            reasons[why or node.view.reason].append(node.name)
    for reason, nodes in reasons.items():
        yield Finding(
            NOT_CHECKED,
            "info",
            listed(nodes),
            reason,
            "Nothing is known of these nodes but what others say of them. No rule looked at them.",
            _advice(reason),
        )


def _advice(reason: str) -> str:
    if "--trust-discovered" in reason or "--allow-clear-text" in reason:
        return "if these are yours, say so with the option that is named"
    if reason.startswith(("NOAUTH", "WRONGPASS", "ERR invalid password", "no password")):
        return "give the password: redis://:PASSWORD@HOST, REDKEEP_PASSWORD, or --password-file"
    return (
        "start them, or let this machine through to them; where they have another address that leads there from here, "
        "name that as well: redkeep check FIRST OTHER ..."
    )


def _missing(checkup: Checkup, node: Node, need: Need) -> str:
    """Why this node could not be looked at in this way; empty where it was, or was not asked at all."""
    if need == "restart":
        hidden = (
            node.process is not None and node.process.supervisor == "container" and not node.process.restart
        )
        return "it runs in a container, whose restart policy is not seen from the host" if hidden else ""
    if need in ("host", "process", "file"):
        return _not_on_the_host(checkup, node, need)
    if need == "vantage":
        return _not_from_there(checkup, node)
    return _refused(node, need) if node.seen else ""


def _refused(node: Node, need: Need) -> str:
    """What it said instead of an answer; empty where it gave one, or where there is nothing to ask for."""
    view, said = node.seen, node.details.refused
    if view is None or (view.role == "sentinel") != (need == "sentinel"):
        return ""
    lacking = {
        "config": not view.config,
        "acl": view.engine.version.major >= 6 and not view.acl,
        "cluster": view.cluster_hidden,
        "sentinel": "sentinel" in said and not view.monitored,
        "modules": "modules" in said or "details" in said,
        "data": "data" in said or "details" in said,
        "latency": "latency" in said or "details" in said,
    }
    return said.get(need) or said.get("details", "refused") if lacking[need] else ""


def _not_from_there(checkup: Checkup, node: Node) -> str:
    reasons = []
    for name, vantage in checkup.vantages.items():
        visit = vantage.visits.get(node.address)
        if visit is None or visit.outcome == "untried":
            reasons.append(f"from {name}: {visit.detail if visit and visit.detail else 'not tried'}")
    return "; ".join(reasons)


def _not_on_the_host(checkup: Checkup, node: Node, need: Need) -> str:
    host = checkup.hosts.get(node.host)
    if host is None:
        return "no way there: neither this machine nor one that --ssh names"
    if isinstance(host.facts, Unreachable):
        return host.facts.reason
    if need == "process" and node.seen and node.process is None:
        return "not found among the processes of its host (in a container?)"
    if need == "file" and node.process and node.process.settings is None:
        return f"{node.process.config_file} is not readable"
    return ""
