"""Finds a whole deployment from some of its addresses, and asks every node of it.

It goes in waves: what one wave of nodes hands out is the next one's work. Nothing is written anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from redkeep.errors import WireError
from redkeep.model.checkup import Checkup, Greeting, Node, Vantage, Visit
from redkeep.model.topology import Address, NodeView
from redkeep.planning.evidence.aliases import recognised
from redkeep.planning.evidence.handouts import handed_out_by, handouts
from redkeep.planning.evidence.trust import is_loopback, is_public
from redkeep.planning.placing.probes import HERE
from redkeep.run.eyes import Eyes
from redkeep.run.guesses import Guesses
from redkeep.wire.doorstep import peek
from redkeep.wire.examine import hello_sentinels, listeners

if TYPE_CHECKING:
    from redkeep.run.visits import Seen, Visitor

#: A deployment that goes on for longer than this is not one: somebody invents nodes.
_MOST_NODES = 2000


@dataclass
class _Found:
    """What is known so far."""

    watched: frozenset[str] = frozenset()
    nodes: dict[Address, Node] = field(default_factory=dict)
    visits: dict[Address, Visit] = field(default_factory=dict)
    guesses: Guesses = field(default_factory=Guesses)


async def explore(
    target: str, seeds: Iterable[Address], visitor: Visitor, watched: frozenset[str] = frozenset()
) -> Checkup:
    """Everything that the seeds lead to. ``watched``: of what Sentinels watch, only what has these names, if they do."""
    return await explore_with(target, seeds, Eyes(visitor), watched)


async def explore_with(
    target: str,
    seeds: Iterable[Address],
    eyes: Eyes,
    watched: frozenset[str] = frozenset(),
    vantages: Sequence[str] = (),
) -> Checkup:
    """The same from several places; reachability is judged from ``vantages``, else from here."""
    found = _Found(watched)
    named = tuple(seeds)
    pending = dict.fromkeys(named, True)
    local = any(is_loopback(a.host) for a in pending)
    greeted, seed, unasked = False, True, 0
    while pending and len(found.visits) < _MOST_NODES:
        room = _MOST_NODES - len(found.visits)
        pending, unasked = dict(islice(pending.items(), room)), unasked + max(0, len(pending) - room)
        told = await _wave(pending, found, eyes, seed)
        if seed:  # a name may be one of loopback
            local = local or any(v.ip and is_loopback(v.ip) for v in found.visits.values())
        pending, seed = _fresh(told, found, local), False
        pending = pending or _fresh(await _guess(found, eyes), found, local)
        if not pending and not greeted:
            greeted = True
            pending = _fresh(await _sentinels(found, eyes), found, local)
            pending = pending or _fresh(await _guess(found, eyes), found, local)
    unasked += len(pending)
    nodes = tuple(_placed(n, found.visits, eyes) for n in found.nodes.values())
    checkup = Checkup(target, datetime.now(UTC), nodes, found.visits, unasked=unasked)
    checkup = recognised(checkup, eyes.here.named)
    if not vantages:
        return await with_buses(checkup, eyes.here)
    visitors = {HERE: eyes.here, **eyes.others}
    places = eyes.vantages(list(vantages))
    buses = await asyncio.gather(*(_buses(checkup, visitors[name]) for name in places))
    elsewhere = {n: replace(p, buses=b) for (n, p), b in zip(places.items(), buses, strict=True)}
    return replace(checkup, elsewhere=elsewhere)


async def _wave(
    pending: Mapping[Address, bool], found: _Found, eyes: Eyes, seed: bool
) -> dict[Address, bool]:
    """Asks all of these; returns what they hand out, with whether somebody who may know vouches for it."""
    answers = await asyncio.gather(*(eyes.ask(a, vouched=v, seed=seed) for a, v in pending.items()))
    trusted: dict[bool, list[tuple[Node, NodeView]]] = {True: [], False: []}
    for (address, vouched), (visit, seen) in zip(pending.items(), answers, strict=True):
        found.visits[address] = visit
        if seen := seen or found.guesses.strangers.get(address):
            _take(address, visit, seen, found, trusted[vouched and visit.login != "withheld"])
    return _told(trusted, found)


def _take(
    address: Address, visit: Visit, seen: Seen, found: _Found, among: list[tuple[Node, NodeView]]
) -> None:
    found.visits[address] = visit
    view = _narrowed(seen.view, found.watched) if isinstance(seen.view, NodeView) else seen.view
    node = Node(str(address), address, address.host, view, seen.details)
    found.nodes[address] = node
    if isinstance(view, NodeView):
        among.append((node, view))


def _told(trusted: Mapping[bool, list[tuple[Node, NodeView]]], found: _Found) -> dict[Address, bool]:
    """Who was not shown the password cannot vouch for others."""
    told: dict[Address, bool] = {}
    for vouches in (False, True):
        for handout in handed_out_by(trusted[vouches]):
            told[handout.address] = vouches
            found.guesses.wonder(handout)
    return told


async def _guess(found: _Found, eyes: Eyes) -> dict[Address, bool]:
    """Asks where ours may be as well, and keeps who proves to be one of ours; returns what these hand out."""
    told: dict[Address, bool] = {}
    while pending := found.guesses.pending(found.nodes.values(), found.visits):
        answers = await asyncio.gather(*(eyes.ask(a, vouched=v, seed=False) for a, v in pending.items()))
        trusted: dict[bool, list[tuple[Node, NodeView]]] = {True: [], False: []}
        for (address, vouched), (visit, seen) in zip(pending.items(), answers, strict=True):
            if seen and found.guesses.holds(address, seen):
                _take(address, visit, seen, found, trusted[vouched and visit.login != "withheld"])
        told |= _told(trusted, found)
    return told


def _narrowed(view: NodeView, watched: frozenset[str]) -> NodeView:
    """A Sentinel may watch several deployments; one of them was asked for."""
    wanted = tuple(e for e in view.monitored if e.name in watched)
    return replace(view, monitored=wanted) if wanted else view


def _fresh(told: Mapping[Address, bool], found: _Found, local: bool) -> dict[Address, bool]:
    return {a: v for a, v in told.items() if a not in found.visits and _worth(a, local)}


def _worth(address: Address, local: bool) -> bool:
    """Loopback is another machine for whoever says it, unless the user means this one."""
    return bool(address.port) and (local or not is_loopback(address.host))


async def _sentinels(found: _Found, eyes: Eyes) -> dict[Address, bool]:
    """Where no Sentinel is known yet: those that greet each other through a primary."""
    views = [(n, n.view) for n in found.nodes.values() if isinstance(n.view, NodeView)]
    if any(v.role == "sentinel" or v.cluster for _, v in views):
        return {}
    for node, view in views:
        heard = await _greetings(node.address, eyes.visitor(node.address)) if view.role == "primary" else ()
        if heard:
            details = replace(node.details, greetings=heard)
            found.nodes[node.address] = replace(node, details=details)
            found.guesses.lost |= {(g.address.port, g.sentinel_id) for g in heard}
            vouched = found.visits[node.address].login != "withheld"
            return {g.address: vouched for g in heard}
    return {}


async def _greetings(address: Address, visitor: Visitor) -> tuple[Greeting, ...]:
    with contextlib.suppress(WireError, ValueError, TypeError):
        async with visitor.at(address, vouched=True) as met:
            if met.client is not None and (count := await listeners(met.client)):
                return await hello_sentinels(met.client, count)
    return ()


def _placed(node: Node, visits: Mapping[Address, Visit], eyes: Eyes) -> Node:
    """A node that was asked by a loopback address is on the host that others know it by, or that has this loopback."""
    if not is_loopback(node.host) or node.seen is None:
        return node
    known = [a.host for a, v in visits.items() if v.run_id == node.seen.run_id and not is_loopback(a.host)]
    return replace(node, host=known[0] if known else eyes.through.get(node.address, node.host))


async def with_visits(checkup: Checkup, visitor: Visitor) -> Checkup:
    """Also visits what a known deployment hands out, from the vantage point."""
    visits, buses = await _from_one(checkup, visitor, checkup.visits)
    return replace(checkup, visits=visits, buses=buses)


async def with_vantages(checkup: Checkup, visitors: Mapping[str, Visitor]) -> Checkup:
    """Visits what a known deployment hands out from each of these places."""
    found = await asyncio.gather(*(_from_one(checkup, v, {}) for v in visitors.values()))
    elsewhere = {n: Vantage(visits, buses) for n, (visits, buses) in zip(visitors, found, strict=True)}
    return replace(checkup, elsewhere={**checkup.elsewhere, **elsewhere})


async def _from_one(
    checkup: Checkup, visitor: Visitor, known: Mapping[Address, Visit]
) -> tuple[Mapping[Address, Visit], Mapping[Address, Visit]]:
    wanted = {n.address: True for n in checkup.nodes}
    for handout in handouts(checkup):
        wanted.setdefault(handout.address, False)
    local = checkup.spec is not None and checkup.spec.is_local
    todo = {a: v for a, v in wanted.items() if a not in known and _worth(a, local)}
    answers, buses = await asyncio.gather(
        asyncio.gather(*(visitor.visit(a, vouched=v) for a, v in todo.items())), _buses(checkup, visitor)
    )
    return {**known, **dict(zip(todo, answers, strict=True))}, buses


async def with_buses(checkup: Checkup, visitor: Visitor) -> Checkup:
    """Tries the bus ports that clients can see: those at public addresses, where a stranger may come from."""
    return replace(checkup, buses=await _buses(checkup, visitor))


async def _buses(checkup: Checkup, visitor: Visitor) -> dict[Address, Visit]:
    wanted: dict[Address, None] = {}
    for node, view in checkup.servers:
        if view.cluster:
            lines = [n for n in view.cluster.nodes if n.bus_port and is_public(n.address.host)]
            wanted |= {Address(n.address.host, n.bus_port): None for n in lines}
            if (port := view.cluster.me.bus_port) and is_public(checkup.ip_of(node)):
                wanted[Address(node.address.host, port)] = None  # whatever it announces

    async def one(bus: Address) -> Visit:
        return await peek(visitor.way(bus.host, bus.port), timeout=visitor.timeout)

    answers = await asyncio.gather(*map(one, wanted))
    return dict(zip(wanted, answers, strict=True))
