"""Whether an address that is handed out is of any use, and who may be told another one."""

from __future__ import annotations

from redkeep.model.checkup import Checkup, Node, Visit
from redkeep.model.topology import Address
from redkeep.planning.evidence.trust import is_loopback
from redkeep.planning.rules.meant import meant_for_others


def useless(checkup: Checkup, address: Address, owner: Node) -> bool:
    """From one of the places that are asked from, nobody gets there, or to somebody else than the owner."""
    if is_loopback(address.host):
        return meant_for_others(checkup)
    found = [vantage.visits.get(address) for vantage in checkup.vantages.values()]
    return any(visit is not None and _is_wrong(checkup, visit, owner) for visit in found)


def _is_wrong(checkup: Checkup, visit: Visit, owner: Node) -> bool:
    if visit.outcome == "untried":
        return False
    if not visit.connects or visit.ping.startswith("DENIED"):
        return True
    answering = checkup.by_id(visit.run_id) if visit.run_id else None
    return answering is not None and answering is not owner


def rule_of(address: Address) -> str:
    """The rule that says so."""
    return "announce-loopback" if is_loopback(address.host) else "announce-unroutable"
