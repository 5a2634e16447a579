"""Whom a deployment is meant for: this machine alone, or others as well."""

from __future__ import annotations

from redkeep.model.checkup import Checkup, Node
from redkeep.planning.evidence.handouts import handouts
from redkeep.planning.evidence.trust import is_loopback


def meant_for_others(checkup: Checkup) -> bool:
    """Somebody is asked, or handed out, at an address of more than one machine; or listens for others."""
    if any(not is_loopback(checkup.ip_of(n)) for n in checkup.nodes):
        return True
    if any(h.address.host and not is_loopback(h.address.host) for h in handouts(checkup)):
        return True
    return any(listens_to_others(n) and lets_others_in(checkup, n) for n, _ in checkup.servers)


def listens_to_others(node: Node) -> bool:
    """Its ``bind`` names more than loopback. Unknown counts as no."""
    bind = door(node, "bind")
    return bind is not None and any(not is_loopback(a) or _any(a) for a in _bound(bind))


def door(node: Node, name: str) -> str | None:
    """``bind`` or ``protected-mode``. A Sentinel has no CONFIG GET for these; where its file is silent, others come in."""
    settings = node.process.settings if node.process else None
    if node.seen is None or node.seen.role != "sentinel" or settings is None:
        return node.setting(name)
    return settings[name][-1] if settings.get(name) else _SENTINEL_DEFAULTS[name]


#: As ``initSentinelConfig`` has it: nothing is bound, and protected mode is off.
_SENTINEL_DEFAULTS = {"bind": "", "protected-mode": "no"}


def listens_to_all(node: Node) -> bool:
    bind = node.setting("bind")
    return bind is not None and any(map(_any, _bound(bind)))


def lets_others_in(checkup: Checkup, node: Node) -> bool:
    """Protected mode turns others away as long as nobody needs a password."""
    visit = checkup.visit(node)
    needs_password = visit is not None and not visit.lets_strangers_in
    return needs_password or node.setting("protected-mode") == "no"


def _bound(bind: str) -> list[str]:
    """No address at all means every one."""
    return [word.removeprefix("-") for word in bind.split()] or ["*"]


def _any(address: str) -> bool:
    return address in ("*", "0.0.0.0", "::", "::*")


def unannounced(checkup: Checkup, node: Node) -> list[str]:
    """Servers around a primary with Sentinels that announce an address, where this one of them does not."""
    if node.seen is None or node.seen.cluster or not checkup.sentinels:
        return []
    if node.setting("replica-announce-ip") != "":
        return []
    primary = node if node.seen.role == "primary" else checkup.primary_of(node)
    group = [primary, *(n for n, _ in checkup.replicas_of(primary))] if primary else []
    return [n.name for n in group if n.setting("replica-announce-ip")]
