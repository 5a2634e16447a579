"""A deployment opened for work: its file, its secrets, its hosts, and the look that plans are made from."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from redkeep.errors import HostUnreachable, RefusedError, SpecError
from redkeep.hosts.facts import Look
from redkeep.model.engine import Engine, EngineWant, Installed, Version
from redkeep.model.topology import HostFacts, NodeView, Observed, Unreachable
from redkeep.planning.compose import HostCertificate, Parts, compose
from redkeep.planning.hostfiles.acl import ADMIN, Secrets
from redkeep.planning.identity import Identity, announced, identities, memory_of
from redkeep.planning.placing.addresses import AddressPlan, TlsDecision, addresses, decide_tls, remembered
from redkeep.planning.placing.lineup import Lineup, Seen, lineup, seen_of
from redkeep.planning.provision import gone
from redkeep.planning.replication import current_primary
from redkeep.planning.upgrade import runs_for_now
from redkeep.run import engines
from redkeep.run.fleet import Fleet
from redkeep.run.journal import Journal
from redkeep.run.pki import Pki, certificate_names
from redkeep.run.rotation import advance
from redkeep.run.sessions import reach
from redkeep.run.vault import Contents, Vault, secrets_of
from redkeep.wire.client import Login
from redkeep.wire.tls import client_context

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.spec import Spec
    from redkeep.planning.desired import Desired, DesiredNode
    from redkeep.planning.hostfiles.layout import Layout
    from redkeep.planning.placing.placement import Placement


@dataclass(frozen=True)
class Sight:
    """One look at everything, with what follows from it."""

    observed: Observed
    installed: Mapping[str, Installed]
    addresses: AddressPlan
    tls: TlsDecision
    desired: Desired
    identity: Identity


@dataclass
class Deployment:
    """Made by ``opening.opened``. Reads only, unless its vault may ``keep`` what it makes."""

    spec: Spec
    file: Path
    vault: Vault
    contents: Contents
    secrets: Secrets
    lineup: Lineup
    layout: Layout
    fleet: Fleet
    systemd: bool
    keep: bool
    #: a demo: nothing of it may stay behind, so the bundled server is used where it is
    temporary: bool = False
    #: node -> the run ID of the process that somebody wants restarted
    renew: Mapping[str, str] = field(default_factory=dict)
    _facts: dict[str, HostFacts | Unreachable] = field(default_factory=dict)
    _running: dict[str, Engine] = field(default_factory=dict)
    _installed: dict[str, Installed] = field(default_factory=dict)
    _primary: tuple[str, int] | None = None
    _seen: dict[str, Seen] = field(default_factory=dict)
    _expected: Engine = field(default_factory=lambda: Engine("redis", Version(7, 0)))

    @property
    def placement(self) -> Placement:
        return self.lineup.placement

    @property
    def want(self) -> EngineWant:
        engine = self.spec.engine
        path = engine.path
        if path and (engine.source == "tarball" or self.spec.is_local):
            # links stay as they are: what a server is follows from its name
            path = os.path.abspath(self.file.parent / os.path.expanduser(path))  # noqa: PTH100, PTH111
        return EngineWant(
            engine.flavor, engine.source, engine.version, path, engine.run_tests, in_place=self.temporary
        )

    def remember(self) -> None:
        """From now on passwords and certificates are kept. Raises ``RefusedError`` where somebody was faster."""
        if not self.keep or self.vault.contents() != self.contents:
            self.vault.adopt(self.contents)
            self.keep = True

    def take(self, contents: Contents) -> None:
        """Other passwords count from now on. They are kept with the next ``remember``."""
        self.contents = contents
        self.secrets = secrets_of(contents, auth=self.spec.auth == "password")

    @property
    def rotating(self) -> bool:
        """Passwords are being changed, and the change is not done yet."""
        return bool(self.contents.phases)

    def next_passwords(self) -> bool:
        """The next state of a rotation, kept before anything is done; ``False`` where nothing is left to do."""
        contents = advance(self.contents)
        if contents is None:
            return False
        same = (contents.made, contents.previous) == (self.contents.made, self.contents.previous)
        self.take(contents)
        self.remember()
        return not same

    def check_passwords(self) -> None:
        """Under the lock: raises ``RefusedError`` where somebody changed the passwords since we read them."""
        if self.keep and self.vault.contents() != self.contents:
            raise RefusedError(
                "somebody changed the passwords of this deployment meanwhile",
                where=str(self.vault.path),
                next="run the same command again",
            )

    def journal(self, command: str) -> Journal:
        return Journal(self.vault.folder / "journal.jsonl" if self.keep else None, command)

    async def look(self, *, hosts: bool = True, engine: bool = True) -> Sight:
        """Asks every host (unless told that nothing there changed) and every node, at the same time.

        ``engine``: where hosts are asked, also which server is installed there.
        Raises ``HostUnreachable`` naming every host that could not be asked.
        """
        if hosts or not self._facts:
            await self._look_at_hosts(engine=engine or not self._installed)
        await self._line_up()
        expected = self.expected
        plan = self._addresses(expected)
        tls = decide_tls(self.spec, plan, expected)
        certificates = self._certificates(plan) if tls.on else {}
        self._log_in(certificates)
        identity = self._identity(plan, tls)
        self._running = {}
        desired = self._compose(plan, tls, certificates, identity)
        views = await self.fleet.views(n for n in desired.everyone if self._was_set_up(n))
        self.fleet.hang_up()
        self._seen = seen_of(
            self.lineup, views, {n.name for n in desired.leaving if gone(n, Observed(self._facts, {}))}
        )
        if await self._line_up():  # who leaves depends on what they are
            identity = self._identity(plan, tls)
            desired = self._compose(plan, tls, certificates, identity)
        missing = Unreachable("not started", refused=True)
        observed = Observed(self._facts, {n.name: views.get(n.name, missing) for n in desired.everyone})
        found = runs_for_now(self.want, self._installed, observed)
        self._running = {n: e for n, e in found.items() if n not in self.renew}
        if self._has_one_primary() and any(isinstance(v, NodeView) for v in views.values()):
            with suppress(
                RefusedError
            ):  # two of them: whoever plans is told, whoever only looks has to see it
                self._primary = current_primary(desired, observed).announced
            desired = self._compose(plan, tls, certificates, identity)
        elif self._running or self.renew:
            desired = self._compose(plan, tls, certificates, identity)
        return Sight(observed, self._installed, plan, tls, desired, identity)

    async def _line_up(self) -> bool:
        """Who stays, comes and leaves. Where that is not what the last look assumed, hosts are asked about the rest.

        Returns whether it is another one than before.
        """
        found = lineup(self.spec, memory_of(self._of_file()), self._seen)
        if found == self.lineup:
            return False
        self.lineup = found
        unknown = {h: e for h, e in found.entries.items() if h not in self.fleet.hosts}
        if unknown:
            self.fleet.join(await reach(unknown, self.vault.root))
        await self._look_at_hosts(engine=False)
        return True

    def _of_file(self) -> dict[str, HostFacts | Unreachable]:
        """A host that has been taken out of the file has no say any more."""
        return {h.name: self._facts[h.name] for h in self.spec.hosts}

    def _identity(self, plan: AddressPlan, tls: TlsDecision) -> Identity:
        hands_out = {host: its.announce for host, its in plan.hosts.items()}
        return Identity.of(self.spec, self.lineup, self.contents.deployment_id, hands_out, tls=tls.on)

    def _has_one_primary(self) -> bool:
        """By the file, and by what its hosts remember: a file whose mode changed says nothing about what runs."""
        modes = {self.spec.mode, *(i.mode for i in identities(self._facts).values())}
        return "cluster" not in modes

    async def _look_at_hosts(self, *, engine: bool) -> None:
        """Facts, engines, and connections to servers that may be there, in as few round trips as possible."""
        names = (*(h.name for h in self.spec.hosts), *self.lineup.entries)
        wanted = {name: self._wanted(name) for name in names}
        first = not self._facts
        ours = {h.name: self.fleet.hosts[h.name] for h in self.spec.hosts if h.name not in self.fleet.failed}
        self._facts, early, _ = await asyncio.gather(
            self.fleet.facts(wanted),
            engines.find_early(ours if engine else {}, self.want),
            self.fleet.dial(self.placement.nodes if first else ()),
        )
        if engine:
            found = await engines.find_all(ours, self._facts, self.want) if early is None else early
            self._installed = found
        if not self._installed:
            self._expected = await engines.expected(self.want) or engines.presumed(self.want)

    def _addresses(self, expected: Engine) -> AddressPlan:
        """An address that is missing because its host could not be asked is no fault of the file."""
        try:
            return addresses(self.spec, self._facts, expected, announced(self._facts))
        except SpecError as error:
            self._require(self._facts)
            error.where = f"{self.file}: {error.where}"
            raise

    def require_all(self, sight: Sight) -> None:
        """Raises ``HostUnreachable`` for hosts that could not be asked: nothing is planned around a gap."""
        self._require(sight.observed.hosts)

    def _require(self, hosts: Mapping[str, HostFacts | Unreachable]) -> None:
        named = {h.name for h in self.spec.hosts}
        lost = {n: f for n, f in hosts.items() if isinstance(f, Unreachable) and n in named}
        if not lost:
            return
        first = self.fleet.silent.get(next(iter(lost)))
        if len(lost) == 1 and first is not None:
            raise first
        raise HostUnreachable(
            f"{len(lost)} of {len(hosts)} hosts cannot be reached: "
            + "; ".join(f"{n} ({f.reason})" for n, f in list(lost.items())[:6]),
            where=f"{self.file}: hosts",
            next=first.next
            if first is not None and first.next
            else "are they up, and does ssh reach them? then run it again",
        )

    @property
    def expected(self) -> Engine:
        """The engine on the hosts; before it is installed, what the source is known or expected to bring.

        With several versions the oldest counts: what it lacks cannot be used.
        """
        found = [i.engine for i in self._installed.values()]
        if found:
            return min(found, key=lambda e: e.version)
        return self._expected

    def _wanted(self, host: str) -> Look:
        layout = self.layout
        nodes = [layout.node(n.port, sentinel=n.kind == "sentinel") for n in self.lineup.on(host)]
        files = [*layout.files, *(file for node in nodes for file in node.files)]
        present = [p for n in nodes for p in (n.data, n.own, n.members)]
        units = [n.unit for n in nodes] + [layout.firewall_unit]
        return Look(layout.base, files, present, units, [n.folder for n in nodes], self.systemd)

    def _certificates(self, plan: AddressPlan) -> dict[str, HostCertificate]:
        pki, now = Pki(self.vault), datetime.now(UTC)
        if not self.keep and self.vault.read("pki/ca.crt") is None:
            return {}  # a plan writes nothing: certificates are made when it is carried out
        found = {}
        for host in self.spec.hosts:
            its = plan[host.name]
            if not its.announce:
                continue
            issued = pki.certificate(
                host.name,
                certificate_names(its.announce, its.client_announce, its.private, its.public, host.name),
                now,
            )
            der = ssl.PEM_cert_to_DER_cert(issued.certificate.decode())
            found[host.name] = HostCertificate(
                issued.trusted, issued.certificate, issued.key, hashlib.sha256(der).hexdigest()
            )
        return found

    def _log_in(self, certificates: Mapping[str, HostCertificate]) -> None:
        self.fleet.login = Login(ADMIN, self.secrets.admin)
        if certificates and self.fleet.tls is None:
            self.fleet.tls = client_context(next(iter(certificates.values())).ca)

    def _compose(
        self,
        plan: AddressPlan,
        tls: TlsDecision,
        certificates: Mapping[str, HostCertificate],
        identity: Identity,
    ) -> Desired:
        return compose(
            Parts(
                spec=self.spec,
                lineup=self.lineup,
                addresses=plan,
                leavers=remembered(self.lineup.entries),
                tls=tls.on,
                secrets=self.secrets,
                identity=identity,
                layout=self.layout,
                want=self.want,
                expected=self.expected,
                installed=self._installed,
                certificates=certificates,
                systemd=self.systemd,
                primary=self._primary,
                secrets_file=self.contents.for_hosts(),
                running=self._running,
                renew=self.renew,
                backlog={
                    n: int(f.kernel.get("net.core.somaxconn", "0"))
                    for n, f in self._facts.items()
                    if isinstance(f, HostFacts)
                },
            )
        )

    def _was_set_up(self, node: DesiredNode) -> bool:
        """Whether a node can answer, as far as its host tells. Where we made none, somebody else's may listen: it is
        not asked, and our passwords are not shown to it."""
        facts = self._facts[node.host]
        return not isinstance(facts, HostFacts) or Path(node.paths.folder).name in facts.set_up


def twins(sight: Sight) -> list[tuple[str, str]]:
    """Two names of one machine: one kernel's boot and the same addresses (containers share the former alone). One of
    them may be a name that the file had before."""
    seen: dict[tuple[str, frozenset[str]], str] = {}
    found = []
    for name, facts in sight.observed.hosts.items():
        if isinstance(facts, HostFacts) and facts.boot_id and facts.addresses:
            first = seen.setdefault((facts.boot_id, frozenset(facts.addresses)), name)
            found += [(first, name)] if first != name else []
    return found


def check_twins(sight: Sight) -> None:
    """Raises ``SpecError`` for two names of one machine."""
    named = {h.name for h in sight.desired.spec.hosts}
    for first, second in twins(sight):
        former = next((n for n in (first, second) if n not in named), "")
        raise SpecError(
            f"{first} and {second} are the same machine",
            where=f"hosts: {first}, {second}",
            next=f"a host's name stays for good: put {former} back; nothing was changed"
            if former
            else "one host carries several nodes by itself; list it once",
        )


def check_hosts(sight: Sight) -> None:
    """Raises ``RefusedError`` for machines that cannot carry servers at all, ``SpecError`` for one that is listed twice."""
    check_twins(sight)
    for name, facts in sight.observed.hosts.items():
        if isinstance(facts, HostFacts) and sight.desired.hosts[name].systemd and not facts.systemd:
            raise RefusedError(
                "no systemd runs on this host (or we are not root there)",
                where=f"{name}: {facts.system} {facts.system_version}",
                next="use a host with systemd, and a login that is root or may sudo without a password",
            )


def hosts_of(deployment: Deployment) -> list[tuple[Host, str]]:
    """Every reachable host of the file with its base folder, in order, as the lock wants them."""
    fleet = deployment.fleet
    names = [h.name for h in deployment.spec.hosts if h.name not in fleet.failed]
    return [(fleet.hosts[n], deployment.layout.base) for n in names]
