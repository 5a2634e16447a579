"""Which deployment a host's folder belongs to, and which changes of the file Redkeep does not carry out yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redkeep.errors import RefusedError
from redkeep.model.topology import HostFacts, Observed, Role, Unreachable
from redkeep.planning.placing.lineup import Memory
from redkeep.planning.upgrade import check_upgrade

if TYPE_CHECKING:
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import Desired
    from redkeep.planning.placing.lineup import Lineup


#: What is remembered of a host: ``entry``, its part of the deployment file, and ``announce``, what its nodes hand out.
#: With it a host that the file no longer names is still found.
HostEntry = Mapping[str, Any]


@dataclass(frozen=True)
class Identity:
    """What lies in BASE/identity on every host: one line of JSON.

    ``places`` is who was placed where: node -> shard (``None``: a Sentinel) and first role. A file whose hosts stand in
    another order, or that has one more, keeps them. While something changes, ``leaving`` are nodes that are still there
    and shall not be, and ``joining`` shards that still get their share of the slots.
    """

    id: str
    name: str
    mode: str
    engine: str
    places: Mapping[str, tuple[int | None, Role]]
    hosts: Mapping[str, HostEntry]
    tls: bool = False
    leaving: Mapping[str, tuple[int | None, Role]] = field(default_factory=dict)
    joining: frozenset[int] = frozenset()
    #: ``port`` and ``sentinel_port`` of the file
    ports: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        lineup: Lineup,
        deployment_id: str,
        announced: Mapping[str, str] | None = None,
        *,
        tls: bool = False,
    ) -> Identity:
        """``announced``: host -> address, where it is known."""
        used = {n.host for n in lineup.nodes}
        hosts: dict[str, HostEntry] = {h: e for h, e in lineup.entries.items() if h in used}
        for host in spec.hosts:
            if host.name in used:
                entry = host.model_dump(mode="json", exclude_defaults=True)
                hosts[host.name] = {"entry": entry, "announce": (announced or {}).get(host.name, "")}
        return cls(
            deployment_id,
            spec.name,
            spec.mode,
            f"{spec.engine.flavor}/{spec.engine.source}",
            {n.name: (n.shard, n.initial_role) for n in lineup.placement.nodes},
            hosts,
            tls,
            {n.name: (n.shard, n.initial_role) for n in lineup.leaving},
            lineup.joining,
            (spec.port, spec.sentinel_port),
        )

    @property
    def nodes(self) -> frozenset[str]:
        return frozenset(self.places)

    def text(self) -> str:
        values = self.__dict__ | {
            "places": _listed(self.places),
            "hosts": dict(self.hosts),
            "leaving": _listed(self.leaving),
            "joining": sorted(self.joining),
            "ports": list(self.ports or ()),
        }
        return json.dumps({k: v for k, v in values.items() if v not in ({}, [])}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Identity | None:
        try:
            found: Any = json.loads(text)
            hosts = found["hosts"]
            entries = dict(hosts) if isinstance(hosts, dict) else {str(h): {} for h in hosts}
            port, sentinel_port = found.get("ports") or (0, 0)
            return cls(
                found["id"],
                found["name"],
                found["mode"],
                found["engine"],
                _places(found["places"]),
                entries,
                found.get("tls") is True,
                _places(found.get("leaving", {})),
                frozenset(map(int, found.get("joining", ()))),
                (port, sentinel_port) if port else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _listed(places: Mapping[str, tuple[int | None, Role]]) -> dict[str, list[Any]]:
    return {name: list(place) for name, place in places.items()}


def _places(found: Any) -> dict[str, tuple[int | None, Role]]:
    return {str(n): (shard, role) for n, (shard, role) in found.items()}


def memory_of(hosts: Mapping[str, HostFacts | Unreachable]) -> Memory | None:
    """What the hosts of a deployment that was set up remember; ``None`` before that."""
    if not any(isinstance(facts, HostFacts) and facts.set_up for facts in hosts.values()):
        return None
    return Memory.of(identities(hosts).values())


def identities(hosts: Mapping[str, Any]) -> dict[str, Identity]:
    """Host -> the identity found there."""
    found = {}
    for name, facts in hosts.items():
        if isinstance(facts, HostFacts) and facts.identity and (identity := Identity.parse(facts.identity)):
            found[name] = identity
    return found


def announced(hosts: Mapping[str, Any]) -> dict[str, str]:
    """Host -> the address that its servers hand out until now, where any is remembered."""
    return {
        host: str(entry.get("announce", ""))
        for identity in identities(hosts).values()
        for host, entry in identity.hosts.items()
    }


def check_owner(desired: Desired, observed: Observed, wanted: Identity) -> None:
    """Raises ``RefusedError`` where another deployment is in our place, so that our passwords are not its own."""
    for host, identity in identities(observed.hosts).items():
        if identity.id != wanted.id:
            raise RefusedError(
                f"the folder of {wanted.name} on this host belongs to another deployment of that name",
                where=f"{host}: {desired.hosts[host].layout.base} ({identity.id})",
                next="choose another name in the file; or, if its .redkeep/ folder was lost: redkeep recover",
            )


def check_identity(desired: Desired, observed: Observed, wanted: Identity) -> None:
    """Raises ``RefusedError`` before anything is touched: another deployment's folder, or a change not covered yet."""
    check_owner(desired, observed, wanted)
    found = identities(observed.hosts)
    for host, facts in observed.hosts.items():
        if isinstance(facts, HostFacts) and (foreign := _foreign(desired, host, facts, known=host in found)):
            raise RefusedError(
                "there is data of servers here that this deployment did not make",
                where=f"{host}: {foreign}",
                next="choose another name in the deployment file, or move it away; nothing was changed",
            )
    if not _started(observed):
        return  # nothing runs yet: the file may change as it likes
    for host, identity in found.items():
        _check_change(host, identity, wanted)
    _check_ports(desired, found.values())
    _check_logins(observed)
    check_upgrade(desired, observed)


def _foreign(desired: Desired, host: str, facts: HostFacts, *, known: bool) -> str:
    """The first path that is in our place and not ours. What we make is whole: a data folder without the server's
    own file is empty."""
    nodes = desired.on(host)
    paths = [p for p in facts.foreign if p.startswith(tuple(f"{n.paths.data}/" for n in nodes))]
    if not known:
        paths += [n.paths.own for n in nodes if n.paths.own in facts.present]
    return min(paths, default="")


def _started(observed: Observed) -> bool:
    """Some server of the deployment was set up before, wherever the file wants its nodes now."""
    identified = identities(observed.hosts)
    return any(
        isinstance(facts, HostFacts) and host in identified and facts.set_up
        for host, facts in observed.hosts.items()
    )


def _check_ports(desired: Desired, found: Iterable[Identity]) -> None:
    """Nodes keep their places, so another port in the file would be a wish that nobody hears."""
    spec = desired.spec
    told = next((i.ports for i in found if i.ports), None)
    for key, wanted, nodes, index in (
        ("port", spec.port, desired.servers, 0),
        ("sentinel_port", spec.sentinel_port, desired.sentinels, 1),
    ):
        before = told[index] if told else min((n.port for n in nodes), default=wanted)
        if nodes and before != wanted:
            raise _not_yet(
                f"{key} changed from {before} to {wanted}", nodes[0].host, f"put {key}: {before} back"
            )


def _check_logins(observed: Observed) -> None:
    """A server of ours that runs and does not let us in could be told nothing: its files would say what it is not."""
    for name, view in observed.nodes.items():
        if isinstance(view, Unreachable) and view.reason.startswith(
            ("WRONGPASS", "NOAUTH", "ERR invalid password")
        ):
            raise RefusedError(
                f"{name} runs, and does not accept the password of Redkeep's administration",
                where=f"{name}: {view.reason}",
                next="put back the password that it was deployed with (passwords: admin); nothing was changed",
            )


def _check_change(host: str, old: Identity, new: Identity) -> None:
    if old.mode != new.mode:
        raise _not_yet(
            f"the mode changed from {old.mode} to {new.mode}",
            host,
            "put it back, or make a new deployment and copy the data",
        )
    if old.tls != new.tls:
        # Plain servers and encrypted ones do not talk with each other, so there is no restarting one by one.
        raise _not_yet(
            f"TLS would be turned {'on' if new.tls else 'off'}",
            host,
            f"write tls: {str(old.tls).lower()}, or put clients and addresses back as they were",
        )


def _not_yet(what: str, host: str, hint: str) -> RefusedError:
    return RefusedError(
        f"{what}, which apply does not do on a running deployment",
        where=host,
        next=f"{hint}; nothing was changed",
    )
