"""Visits to addresses: one connection each, bounded in number, with the password only for whoever may see it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from redkeep.errors import WireError
from redkeep.model.checkup import Details, LoginState, Visit
from redkeep.model.topology import Address, NodeView, Unreachable
from redkeep.model.values import Value
from redkeep.planning.evidence.passwords import weakness
from redkeep.planning.evidence.trust import Peer, Policy, is_loopback
from redkeep.planning.rules.pace import wants_second_look
from redkeep.wire.client import Client, Login, Opener, direct
from redkeep.wire.doorstep import Met, Trust, knock, log_in
from redkeep.wire.examine import COMMANDS, Owners, examine, later
from redkeep.wire.observe import observe_with, unreachable
from redkeep.wire.replies import Lines

#: Seconds that a node may take to connect, and for each of its answers.
TIMEOUT = 3.0

#: Visits at the same time.
ROOM = 48

#: The second look comes at least so many seconds after the first.
_LATER = 0.12

#: How to connect to an address from the vantage point.
Way = Callable[[str, int], Opener]

#: The IP addresses of a name, as the vantage point knows it.
Resolve = Callable[[str], Awaitable[list[str]]]


async def resolved(host: str) -> list[str]:
    """The IP addresses of a name. What is judged is what is connected to."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Seen(Value):
    """A node that was asked: its view and what else it told."""

    view: NodeView | Unreachable
    details: Details = field(default_factory=Details)


@dataclass
class Memory:
    """What was read before, and is the same again."""

    lines: Lines = field(default_factory=Lines)
    owners: Owners = field(default_factory=Owners)


@dataclass
class Visitor:
    """``logins``: by address, with one for all others under ``None``; where that is refused, those of other addresses are
    tried, since Sentinels may have a password of their own. ``tls`` is tried first, or what ``schemes`` say.

    ``away``: it starts on another machine, whose loopback is not the one that the user means, unless it is among ``meant``.
    """

    policy: Policy
    logins: dict[Address | None, Login] = field(default_factory=dict)
    named: frozenset[Address] = frozenset()
    tls: bool = False
    schemes: Mapping[Address, bool] = field(default_factory=dict)
    context: ssl.SSLContext | None = None
    own_ca: bool = False
    way: Way = direct
    timeout: float = TIMEOUT
    resolve: Resolve = resolved
    away: bool = False
    meant: set[Address] = field(default_factory=set)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ROOM))
    _met: set[str] = field(default_factory=set)
    _memory: Memory = field(default_factory=Memory)

    async def visit(self, address: Address, *, vouched: bool) -> Visit:
        """Who answers there."""
        async with self._room, self.at(address, vouched) as met:
            return met.visit

    async def ask(self, address: Address, *, vouched: bool) -> tuple[Visit, Seen | None]:
        """Who answers there, and everything about it; ``None`` for a server that was asked at another address."""
        async with self._room, self.at(address, vouched) as met:
            if met.client is None:
                return met.visit, Seen(Unreachable(met.visit.detail, refused=met.visit.outcome == "refused"))
            if met.visit.run_id and met.visit.run_id in self._met:
                return met.visit, None
            self._met.add(met.visit.run_id)
            seen = await look(met.client, self._memory)
            if isinstance(seen.view, NodeView):
                run_id = seen.view.run_id  # empty where a service hides it
                known = bool(run_id) and not met.visit.run_id and run_id in self._met
                self._met.add(run_id)
                return replace(met.visit, run_id=run_id), None if known else seen
            return met.visit, seen

    @contextlib.asynccontextmanager
    async def at(self, address: Address, vouched: bool) -> AsyncIterator[Met]:
        """Knocks and, where that is allowed and needed, logs in."""
        met, ip = Met(Visit("unreachable", f"no address is known for the name {address.host}")), ""
        for ip in await self.resolve(address.host):
            met = await self._knock(address, ip)
            if met.visit.connects:
                break
        met = Met(replace(met.visit, ip=ip), met.client)
        if address in self.named and ip:
            self.policy = replace(self.policy, named=self.policy.named | {ip})
        try:
            yield await self._logged_in(met, address, ip, vouched)
        finally:
            if met.client is not None:
                met.client.close()

    def _logins_for(self, address: Address) -> list[Login]:
        """Those with a password, the likeliest one first."""
        own = self.logins.get(address)
        found = [own] if own else [*filter(None, [self.logins.get(None)]), *self.logins.values()]
        return [login for login in dict.fromkeys(found) if login.password]

    async def _logged_in(self, met: Met, address: Address, ip: str, vouched: bool) -> Met:
        logins = self._logins_for(address)
        if met.client is None or (
            met.visit.anonymous_info and not any(login.user != "default" for login in logins)
        ):
            return met
        if not logins:
            return Met(replace(met.visit, login_detail="no password was given"), met.client)
        if reason := self._withheld(met.visit, address, ip, vouched):
            return Met(replace(met.visit, login="withheld", login_detail=reason), met.client)
        refusal, run_id, used = "", "", logins[0]
        try:
            for used in logins:
                said, run_id = await log_in(met.client, used)
                refusal = said and (refusal or said)
                if not refusal:
                    break
        except WireError as error:
            return Met(replace(met.visit, detail=error.what))
        state: LoginState = "refused" if refusal else "ok"
        run_id = run_id or met.visit.run_id
        weak = "" if refusal else weakness(used.password)
        visit = replace(met.visit, login=state, login_detail=refusal, run_id=run_id, weakness=weak)
        return Met(visit, met.client)

    def _withheld(self, visit: Visit, address: Address, ip: str, vouched: bool) -> str:
        """Why no password is sent there; empty where it is."""
        if self.away and is_loopback(ip) and address not in self.meant:
            return "the password was not sent: loopback of another machine than this one"
        everywhere = bool(self.schemes) and all(self.schemes.values())
        if not visit.tls and self.schemes.get(address, everywhere) and not self.policy.allow_clear_text:
            return "the password was not sent: no TLS there, where TLS was named (redis://, or --allow-clear-text)"
        certificate = visit.certificate
        peer = Peer(
            ip,
            named=address in self.named,
            vouched=vouched,
            encrypted=bool(certificate and certificate.trusted),
            own_ca=self.own_ca,
        )
        if visit.tls and not peer.encrypted:
            return "the password was not sent: its certificate is not trusted (--ca FILE names the CA)"
        return self.policy.withheld(peer)

    async def _knock(self, address: Address, ip: str) -> Met:
        trust = Trust(self.context, None if self.own_ca else address.host) if self.context else None
        return await knock(
            self.way(ip, address.port),
            where=str(address),
            tls_first=self.schemes.get(address, self.tls),
            trust=trust,
            timeout=self.timeout,
        )


async def look(client: Client, memory: Memory | None = None) -> Seen:
    """A server's view and details, over a connection that is logged in."""
    started = time.monotonic()
    shared = memory or Memory()
    try:
        view, answers = await observe_with(client, COMMANDS, shared.lines)
    except WireError as error:
        return Seen(unreachable(error))
    try:
        details = await examine(client, view, answers, shared.owners)
        if view.role == "primary" and wants_second_look(view):
            details = await later(client, details, started, _LATER)
        return Seen(view, details)
    except (WireError, ValueError, TypeError, LookupError) as error:
        words = error.what if isinstance(error, WireError) else "answers that make no sense"
        return Seen(view, Details(refused={"details": words}))
