"""Repairs of a server's own settings, and of the logins between servers."""

from __future__ import annotations

from redkeep.model.checkup import Node
from redkeep.model.topology import SentinelEntry
from redkeep.planning.evidence.drift import differences
from redkeep.planning.repairs.base import (
    IN_SENTINELS_FILE,
    Case,
    Command,
    Linked,
    Repair,
    Repairs,
    Secret,
    Word,
    config,
)
from redkeep.planning.rules.logins import Login, login_of, refusal
from redkeep.planning.rules.machines import size
from redkeep.planning.rules.meant import listens_to_all
from redkeep.planning.rules.pace import wanted_backlog
from redkeep.planning.rules.words import number

#: Milliseconds between the last answer and the last good one, from which on answers are refusals.
_REFUSED_MS = 1000
#: Bytes. A larger backlog than this is not given without asking where the memory comes from.
_LARGEST_BACKLOG = 256 * 1024**2


def keepalive_off(case: Case) -> Repairs:
    for node, _ in case.checkup.servers:
        if node.setting("tcp-keepalive") == "0":
            commands, keeps = config(node, ("tcp-keepalive", "60"))
            yield Repair("keepalive-off", node.name, "connections that died are noticed", commands, keeps)


def protected_mode_off(case: Case) -> Repairs:
    """Only where a password is asked for: without one it would turn today's clients away."""
    for node, _ in case.checkup.servers:
        visit = case.checkup.visit(node)
        asks = visit is not None and bool(visit.ping) and not visit.lets_strangers_in
        if node.setting("protected-mode") == "no" and asks and listens_to_all(node):
            commands, keeps = config(node, ("protected-mode", "yes"))
            why = "strangers are turned away should the password ever be missing"
            yield Repair("protected-mode-off", node.name, why, commands, keeps)


def primary_cannot_rejoin(case: Case) -> Repairs:
    for primary, _ in case.checkup.primaries:
        login = login_of(primary)
        heirs = [heir for heir, _ in case.checkup.replicas_of(primary)]
        if login is None or not any(refusal(heir, login) for heir in heirs) or not case.may_see(primary):
            continue
        known = [(heir.name, theirs) for heir in heirs if (theirs := login_of(heir))]
        if found := _accepted(case, known, heirs):
            secret, accepted = found
            commands, keeps = config(primary, *_login(login, accepted, secret))
            why = "it can log in to the next primary, as its replicas do to it"
            yield Repair("primary-cannot-rejoin", primary.name, why, commands, keeps)


def _accepted(case: Case, known: list[tuple[str, Login]], by: list[Node]) -> tuple[Secret, Login] | None:
    """A login that all of these accept: of those that the servers themselves use, else the user's."""
    candidates = [(Secret("setting", name), login) for name, login in known]
    if case.given is not None:
        candidates.append((Secret("given"), case.given))
    return next(
        (
            (secret, login)
            for secret, login in candidates
            if login.password and not any(refusal(node, login) for node in by)
        ),
        None,
    )


def _login(now: Login, wanted: Login, secret: Secret) -> tuple[tuple[str, Word], ...]:
    user: tuple[tuple[str, Word], ...] = () if now.user == wanted.user else (("masteruser", wanted.user),)
    return (*user, ("masterauth", secret))


def replication_auth(case: Case) -> Repairs:
    for node, view in case.checkup.replicas:
        primary, login = case.checkup.primary_of(node), login_of(node)
        if primary is None or login is None or not refusal(primary, login) or not case.may_see(node):
            continue
        others = [(n.name, theirs) for n, _ in case.checkup.replicas_of(primary) if (theirs := login_of(n))]
        if found := _accepted(case, others, [primary]):
            secret, accepted = found
            commands, keeps = config(node, *_login(login, accepted, secret))
            settled = None if view.cluster else Linked(node.name, primary.name)
            why = f"it can log in to its primary {primary.name}"
            yield Repair("replication-auth", node.name, why, commands, keeps, settled=settled)
    yield from _sentinels_refused(case)


def _sentinels_refused(case: Case) -> Repairs:
    """A Sentinel that is answered, and not with what it asked for; the user's password is the one."""
    if case.given is None or case.given.user:
        return
    for sentinel, view in case.checkup.sentinels:
        for entry in view.monitored:
            if _is_refused(case, entry) and case.may_see(sentinel):
                command: Command = ("SENTINEL", "SET", entry.name, "auth-pass", Secret("given"))
                why = f"it can log in to the servers of {entry.name}"
                yield Repair("replication-auth", sentinel.name, why, (command,), IN_SENTINELS_FILE)


def _is_refused(case: Case, entry: SentinelEntry) -> bool:
    watched = [(entry.address, entry.settings), *((w.address, w.fields) for w in entry.watched_replicas)]
    for address, fields in watched:
        silent = number(fields.get("last-ok-ping-reply")) - number(fields.get("last-ping-reply"))
        node = case.checkup.at(address)
        visit = case.checkup.visit(node) if node else None
        if silent > _REFUSED_MS and visit is not None and visit.login == "ok":
            return True
    return False


def backlog_too_small(case: Case) -> Repairs:
    """As large as the rule says, on the primary and on who may be the next one; memory beyond that is a person's to give."""
    for primary, view in case.checkup.primaries:
        wanted = wanted_backlog(primary, view)
        nodes = [primary, *(n for n, _ in case.checkup.replicas_of(primary))] if wanted else []
        for node in nodes:
            has = number(node.setting("repl-backlog-size"))
            if 0 < has < wanted <= _LARGEST_BACKLOG:
                commands, keeps = config(node, ("repl-backlog-size", str(wanted)))
                why = f"it holds two minutes of what is written now, {size(wanted)} beyond maxmemory"
                yield Repair("backlog-too-small", node.name, why, commands, keeps)


def replication_not_persisted(case: Case) -> Repairs:
    """Where its file names no primary at all, and the running one is trusted: who follows a stranger is a victim.

    Not where its file differs in more than that: CONFIG REWRITE would settle all of it.
    """
    for node, view in case.checkup.replicas:
        process, primary = node.process, case.checkup.primary_of(node)
        if view.cluster or not view.link_up or primary is None or not process or process.settings is None:
            continue
        written = process.settings.keys() & {"replicaof", "slaveof"}
        if process.config_file and not written and case.may_see(primary) and not any(differences(node)):
            why = f"after a restart it follows {view.primary} again"
            keeps = f"it stands in {process.config_file} then"
            yield Repair("replication-not-persisted", node.name, why, (("CONFIG", "REWRITE"),), keeps)
