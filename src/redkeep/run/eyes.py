"""Visits that start here and at other hosts as well: what one place does not get through to, another may."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from redkeep.model.checkup import Vantage, Visit
from redkeep.model.topology import Address
from redkeep.planning.evidence.trust import is_loopback
from redkeep.planning.placing.probes import HERE
from redkeep.run.visits import Seen, Visitor
from redkeep.wire.client import Opener


@dataclass
class Eyes:
    """``here`` asks every node; whom it does not get through to is asked from the first of ``others`` that does.

    ``visits`` has what came of it from each place. Loopback is that of this machine, unless only ``home`` has a server
    at the loopback address that was named.
    """

    here: Visitor
    others: Mapping[str, Visitor] = field(default_factory=dict)
    visits: dict[str, dict[Address, Visit]] = field(default_factory=lambda: defaultdict(dict))
    through: dict[Address, str] = field(default_factory=dict)
    home: str = HERE

    async def ask(self, address: Address, *, vouched: bool, seed: bool) -> tuple[Visit, Seen | None]:
        """Who answers there, as ``Visitor.ask``."""
        if is_loopback(address.host) and self.home != HERE:
            return await self._ask_from(self.home, address, vouched)
        if not self.others:
            visit, seen = await self.here.ask(address, vouched=vouched)
            self.visits[HERE][address] = visit
            return visit, seen
        (visit, seen), others = await asyncio.gather(
            self.here.ask(address, vouched=vouched),
            asyncio.gather(*(v.visit(address, vouched=vouched) for v in self.others.values())),
        )
        self.visits[HERE][address] = visit
        for name, other in zip(self.others, others, strict=True):
            self.visits[name][address] = other
        if visit.connects or (is_loopback(address.host) and not seed):
            return visit, seen
        name = next((n for n in self.others if self.visits[n][address].connects), "")
        if not name:
            return visit, seen
        if is_loopback(address.host):
            self.home = name
        return await self._ask_from(name, address, vouched)

    async def _ask_from(self, name: str, address: Address, vouched: bool) -> tuple[Visit, Seen | None]:
        visitor = self.others[name]
        if is_loopback(address.host):
            visitor.meant.add(address)
        self.through[address] = name
        visit, seen = await visitor.ask(address, vouched=vouched)
        self.visits[name][address] = visit
        return visit, seen

    def visitor(self, address: Address) -> Visitor:
        """The one that this address was asked by."""
        return self.others[self.through[address]] if address in self.through else self.here

    @property
    def whole(self) -> Visitor:
        """One visitor who takes for each address the way that led there."""

        def way(ip: str, port: int) -> Opener:
            return self.visitor(Address(ip, port)).way(ip, port)

        return replace(self.here, way=way) if self.through else self.here

    def vantages(self, names: list[str]) -> dict[str, Vantage]:
        """Without the buses."""
        return {name: Vantage(dict(self.visits[name])) for name in names}
