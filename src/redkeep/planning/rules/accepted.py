"""What the deployment file accepts or asks for: findings about that are information, with the reason.

A reason that depends on more than the file (a distribution's patched version) is said by the rule itself
(``Found.accepted``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
from redkeep.planning.rules.spread import CLUSTER_HAIR_MS, SENTINEL_HAIR_MS, SLOW_MS

#: The reason, or an empty text where the file says nothing about it.
Reason = Callable[["Spec"], str]


def reason(rule: str, spec: Spec | None) -> str:
    """Why the deployment file's owner wants it so; empty where nothing says that."""
    said = _REASONS.get(rule) if spec is not None else None
    return said(spec) if said and spec is not None else ""


def _one_host(spec: Spec) -> str:
    return "the deployment file has one host" if len(spec.hosts) == 1 else _risk(spec)


def _few_hosts(spec: Spec) -> str:
    return "the deployment file has two hosts" if len(spec.hosts) == 2 else _one_host(spec)


def _zones(spec: Spec) -> str:
    zones = {host.zone for host in spec.hosts}
    return "the deployment file has one zone" if len(zones) == 1 else _risk(spec)


def _risk(spec: Spec) -> str:
    return "the deployment file says accept_risk: true" if spec.accept_risk else ""


def _no_replica(spec: Spec) -> str:
    return "the deployment file says replicas: 0" if spec.replicas == 0 else ""


def _patient(spec: Spec) -> str:
    return _failover(spec) if spec.timing.detection_ms > SLOW_MS else ""


def _hasty(spec: Spec) -> str:
    floor = CLUSTER_HAIR_MS if spec.mode == "cluster" else SENTINEL_HAIR_MS
    return _failover(spec) if spec.timing.detection_ms < floor else ""


def _failover(spec: Spec) -> str:
    return f"the deployment file says failover: {spec.failover}"


def _not_persistent(spec: Spec) -> str:
    return "the deployment file says persistence: none" if not (spec.rdb or spec.aof) else ""


def _without_password(spec: Spec) -> str:
    return "the deployment file says auth: none, with allow_from" if spec.auth == "none" else ""


def _clear_text(spec: Spec) -> str:
    if spec.tls is False:
        return "the deployment file says tls: false"
    return "the deployment file limits who may connect (allow_from)" if spec.allow_from else _risk(spec)


def _no_limit(spec: Spec) -> str:
    return "" if spec.maxmemory else "the deployment file sets no maxmemory"


def _this_machine(spec: Spec) -> str:
    return (
        "the deployment file says hosts: [local], and apply leaves this machine as it is"
        if spec.is_local
        else ""
    )


_REASONS: dict[str, Reason] = {
    "colocated-replica": _one_host,
    "host-majority": _few_hosts,
    "zone-majority": _zones,
    "sentinels-too-few": _one_host,
    "no-replica": _no_replica,
    "failover-slow": _patient,
    "failover-hair-trigger": _hasty,
    "empty-restart-wipe": _not_persistent,
    "restart-rollback": _not_persistent,
    "no-password": _without_password,
    "protected-mode-off": _without_password,
    "public-exposure": _clear_text,
    "bus-exposed": _clear_text,
    "maxmemory-unset": _no_limit,
    "overcommit": _this_machine,
    "transparent-huge-pages": _this_machine,
    "listen-backlog": _this_machine,
    "swapping": _this_machine,
    "file-limit": _this_machine,
    "disk-low": _this_machine,
    "not-supervised": _this_machine,
}
