"""Who can get in? Passwords, exposure, encryption."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatchcase

from redkeep.model.checkup import Certificate, Checkup, Node, Visit
from redkeep.model.engine import Capability
from redkeep.model.topology import Address, NodeView
from redkeep.planning.evidence.aclrights import AclUser, harmless, permitted, users
from redkeep.planning.evidence.handouts import handouts
from redkeep.planning.evidence.passwords import COMMON_DIGESTS, weakness
from redkeep.planning.evidence.trust import is_loopback, is_public
from redkeep.planning.rules.meant import door, listens_to_all, listens_to_others
from redkeep.planning.rules.mending import file_of, new_password
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import cli, listed, set_and_keep

#: What no application needs, and what takes a server over or down.
DANGEROUS = ("config", "module", "debug", "replicaof", "shutdown", "flushall")

_SOON = timedelta(days=30)


@rule("no-password", "error")
def no_password(checkup: Checkup) -> Iterator[Found]:
    for node in checkup.nodes:
        visit = checkup.visit(node)
        if visit is None or not visit.lets_strangers_in or _for_health_checks(node):
            continue
        sentinel = node.seen is not None and node.seen.role == "sentinel"
        if is_loopback(checkup.ip_of(node)):
            beyond = listens_to_others(node) and door(node, "protected-mode") == "no"
            read = "its file" if sentinel else "CONFIG GET"
            where = f"bind {door(node, 'bind') or '(all)'}, protected-mode no ({read}), and "
        else:
            beyond, where = True, ""
        if beyond:
            answered = [w for w, so in (("PING", visit.ping == "PONG"), ("INFO", visit.anonymous_info)) if so]
            were = "were" if len(answered) > 1 else "was"
            yield Found(
                node.name,
                f"{where}{' and '.join(answered)} without a password {were} answered{_at(node)}",
                _OPEN_SENTINEL if sentinel else _OPEN_SERVER,
                _password_fix(checkup, node),
            )


def _default_user(node: Node) -> AclUser | None:
    """Whom a stranger is taken for; ``None`` where the list of users could not be read."""
    return next((u for u in users(node.seen.acl) if u.name == "default"), None) if node.seen else None


def _for_health_checks(node: Node) -> bool:
    """Strangers are let in, and may do nothing. Protected mode would turn everybody away then, passwords or not."""
    default = _default_user(node)
    return default is not None and default.nopass and harmless(default)


_OPEN_SERVER = (
    "Whoever reaches this port owns the data, and often the machine: scanners find an open server within hours, erase it "
    "and write cron jobs and SSH keys through it. Nothing needs to be guessed."
)
_OPEN_SENTINEL = (
    "Whoever reaches this port may start failovers, and tell clients of a primary of his own (SENTINEL MONITOR): they send "
    "their password and their writes there."
)


def _at(node: Node) -> str:
    """The address, where the node's name is not that."""
    return "" if node.name == str(node.address) else f" at {node.address}"


def _password_fix(checkup: Checkup, node: Node) -> str:
    if checkup.spec is not None:
        return "write auth: password into the deployment file, then redkeep apply"
    if node.seen and node.seen.role == "sentinel":
        lines = "requirepass PASSWORD"
        if node.seen.engine.supports(Capability.SENTINEL_ACL):
            lines += " and sentinel sentinel-pass PASSWORD"
        return (
            f"let only clients and the other Sentinels reach port {node.address.port} (security group); or in "
            f"{file_of(node)} of all of them at once: {lines}, a restart, and the clients' password for Sentinels"
        )
    first = cli(checkup, node, "CONFIG", "SET", "masterauth", "PASSWORD")
    return f"on every server first {first}, then CONFIG SET requirepass PASSWORD, and CONFIG REWRITE; 32 random characters"


@rule("weak-password", "warning")
def weak_password(checkup: Checkup) -> Iterator[Found]:
    grouped: dict[str, list[Node]] = defaultdict(list)
    for node in checkup.nodes:
        if reason := _weakness(checkup, node):
            grouped[reason].append(node)
    for reason, nodes in grouped.items():
        yield Found(
            listed(nodes),
            reason,
            "A server checks hundreds of thousands of passwords a second and locks nobody out. Short and common "
            "ones are tried first by everybody who scans.",
            "write another source for it into the deployment file (passwords:), then redkeep apply"
            if checkup.spec
            else new_password(checkup),
        )


def _weakness(checkup: Checkup, node: Node) -> str:
    if (password := node.setting("requirepass")) and (reason := weakness(password)):
        return f"requirepass is {reason} (CONFIG GET)"
    visit = checkup.visit(node)
    if visit and visit.weakness:
        return f"the password that let us in is {visit.weakness}"
    view = node.seen
    common = [
        user.name
        for user in users(view.acl if view else ())
        if user.on and any(digest in COMMON_DIGESTS for digest in user.digests)
    ]
    return f"of user {listed(common)} it is one of the most common ones (ACL LIST)" if common else ""


@rule("protected-mode-off", "warning", needs=("config",))
def protected_mode_off(checkup: Checkup) -> Iterator[Found]:
    for node, _ in checkup.servers:
        if node.setting("protected-mode") != "no" or _for_health_checks(node):
            continue
        visit = checkup.visit(node)
        open_to_all = listens_to_all(node) and _has_public_address(checkup, node)
        fix = set_and_keep(checkup, node, "protected-mode", "yes")
        if _needs_no_password(node, visit):
            seen = "and no password is set"
            if checkup.spec is None:
                fix = f"a password first, or it turns away everybody who is not on its machine; then {fix}"
        elif open_to_all:
            seen = f"bind {node.setting('bind') or '(all)'}, and the host has a public address"
        else:
            continue
        yield Found(
            node.name,
            f"protected-mode no (CONFIG GET), {seen}",
            "Protected mode is what turns strangers away when the password is missing. Without it one slip (an ACL "
            "reset, a forgotten requirepass after a restart) opens the server to everybody who reaches the port.",
            fix,
        )


def _needs_no_password(node: Node, visit: Visit | None) -> bool:
    if visit is not None and visit.ping:
        return visit.lets_strangers_in
    default = _default_user(node)
    return default.nopass if default else node.setting("requirepass") == ""


def _has_public_address(checkup: Checkup, node: Node) -> bool:
    host = checkup.hosts.get(node.host)
    known = host.seen.addresses if host and host.seen else ()
    return is_public(checkup.ip_of(node)) or any(map(is_public, known))


@rule("bus-exposed", "error", needs=("vantage", "cluster"))
def bus_exposed(checkup: Checkup) -> Iterator[Found]:
    seen_from: dict[Address, list[str]] = defaultdict(list)
    for name, vantage in checkup.vantages.items():
        for address, visit in vantage.buses.items():
            if visit.connects and not visit.tls:
                seen_from[address].append(name)
    for address, places in seen_from.items():
        yield Found(
            str(address),
            f"the Cluster bus answers from {listed(places)}, without TLS",
            "The bus has no password. A stranger who says MEET with a high epoch takes all slots, and every client "
            "follows to him.",
            f"let only the nodes of the Cluster reach port {address.port} (security group), or tls-cluster yes on all",
        )


@rule("public-exposure", "warning", needs=("vantage",))
def public_exposure(checkup: Checkup) -> Iterator[Found]:
    for node in checkup.nodes:
        found = {name: v.visits.get(node.address) for name, v in checkup.vantages.items()}
        places = [name for name, visit in found.items() if visit and visit.connects and not visit.tls]
        if places and any(is_public(visit.ip or node.address.host) for visit in found.values() if visit):
            yield Found(
                node.name,
                f"answers from {listed(places)} without TLS{_at(node)}",
                "Passwords and data cross public networks in clear text. Whoever listens on the way has both.",
                "let only known clients reach this port (security group, allow_from), and switch TLS on (tls-port, "
                "tls-cert-file, tls-key-file, tls-ca-cert-file)",
            )


@rule("dangerous-commands", "warning", needs=("acl",))
def dangerous_commands(checkup: Checkup) -> Iterator[Found]:
    for node, view in checkup.servers:
        may = [c for c in DANGEROUS if node.details.commands is None or c in node.details.commands]
        who = _applications(view)
        if view.engine.version.major >= 6:
            may = [c for c in may if who and all(permitted(user, c) for user in who)]
        if not may:
            continue
        told = ", ".join(c.upper() for c in may)
        if view.engine.version.major < 6:
            seen, fix = (
                f"everybody may run {told} (COMMAND INFO)",
                f"in its file: rename-command, for each of {told}",
            )
        else:
            names = listed(user.name for user in who)
            seen = f"the user{'s' if len(who) > 1 else ''} {names} may run {told} (ACL LIST)"
            change = cli(checkup, node, "ACL", "SETUSER", who[0].name, *(f"-{c}" for c in may))
            fix = f"an administrator of your own first, then {change} and ACL SAVE or CONFIG REWRITE"
        yield Found(
            node.name,
            seen,
            "A leaked password or an injection into the application is then enough to load code, move the data or "
            "erase it. No application needs these.",
            fix,
        )


def _applications(view: NodeView) -> list[AclUser]:
    """The users one of whom is the application's: ``default``; where that is off or may do nothing, all who use data."""
    on = [u for u in users(view.acl) if u.on]
    default = [u for u in on if u.name == "default" and not harmless(u)]
    return default or [u for u in on if permitted(u, "get") or permitted(u, "set")]


@rule("tls-mismatch", "error")
def tls_mismatch(checkup: Checkup) -> Iterator[Found]:
    yield from _differ_in_tls(checkup)
    for setting in ("tls-replication", "tls-cluster"):
        values: dict[str, list[str]] = defaultdict(list)
        for node, view in checkup.servers:
            value = node.setting(setting)
            if value and (setting == "tls-replication" or view.cluster):
                values[value].append(node.name)
        if len(values) > 1:
            seen = "; ".join(f"{value} on {listed(names)}" for value, names in values.items())
            yield Found(
                "deployment",
                f"{setting}: {seen} (CONFIG GET)",
                "One side speaks TLS and the other does not, so they cannot talk. Replication or the Cluster breaks as "
                "soon as these two have to meet.",
                f"CONFIG SET {setting} yes on all of them, and CONFIG REWRITE",
            )
    encrypted = any(visit.certificate for visit in checkup.visits.values())
    handed_out = {handout.address for handout in handouts(checkup)} if encrypted else set()
    elsewhere = {known.name for address in handed_out if (known := checkup.at(address))}
    for address, visit in checkup.visits.items():
        certificate = visit.certificate
        if (
            visit.tls
            and certificate
            and not is_loopback(address.host)
            and not names(certificate, address.host)
        ):
            owner = checkup.at(address)
            given = address in handed_out or checkup.spec is not None
            if not given and owner and owner.name in elsewhere:
                continue  # clients are given another address than the one that was asked
            told = "it is handed out as" if given else "it was asked as"
            yield Found(
                owner.name if owner else str(address),
                f"its certificate names {listed(certificate.names) or 'nothing'}, and {told} {address.host}",
                "Clients that verify names refuse this server. Either they fail after the next redirection, or somebody "
                "switches verification off, and then anybody can pretend to be it.",
                f"issue its certificate with {address.host} as subjectAltName, then CONFIG SET tls-cert-file again",
            )


def _differ_in_tls(checkup: Checkup) -> Iterator[Found]:
    spoken: dict[bool, list[str]] = defaultdict(list)
    for node in checkup.nodes:
        visit = checkup.visit(node)
        if visit and visit.connects and (visit.tls or visit.ping):
            spoken[visit.tls].append(node.name)
    if len(spoken) > 1:
        yield Found(
            "deployment",
            f"TLS on {listed(spoken[True])}; clear text on {listed(spoken[False])}",
            "A client is set to one of both. It fails as soon as it is sent to a node that speaks the other, which "
            "happens at the next failover or redirection.",
            "give all of them tls-port with the others' certificates, and close the plain port (port 0) on all at once",
        )


def names(certificate: Certificate, host: str) -> bool:
    """Whether the certificate is for this address or name; ``*.example.com`` covers one label."""
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        return any(_covers(name.lower(), host.lower()) for name in certificate.names)
    for name in certificate.names:
        try:
            if ipaddress.ip_address(name) == wanted:
                return True
        except ValueError:
            continue
    return False


def _covers(pattern: str, host: str) -> bool:
    return fnmatchcase(host, pattern) and pattern.count(".") == host.count(".")


@rule("certificate-expiring", "warning")
def certificate_expiring(checkup: Checkup) -> Iterator[Found]:
    for address, visit in checkup.visits.items():
        certificate = visit.certificate
        if certificate is None or certificate.not_after - checkup.time > _SOON:
            continue
        node = checkup.at(address)
        ended = certificate.not_after <= checkup.time
        when = f"{certificate.not_after:%Y-%m-%d %H:%M} UTC"
        yield Found(
            node.name if node else str(address),
            f"its certificate {'ended' if ended else 'ends'} on {when}, issued by {certificate.issuer}",
            "Clients, replicas and the Cluster bus refuse an ended certificate, all at the same moment. Nothing fails "
            "over, because every node fails alike.",
            "redkeep apply renews it"
            if checkup.spec
            else "issue a new one, put it in place of the old files, and load it without a restart: "
            + (
                cli(checkup, node, "CONFIG", "SET", "tls-cert-file", "FILE")
                if node
                else "CONFIG SET tls-cert-file FILE"
            ),
            severity="error" if ended else None,
        )
