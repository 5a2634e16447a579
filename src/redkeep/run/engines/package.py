"""``source: package``: the distribution's own server, without the instance that it likes to start.

The apt family was run on real systems; the dnf family (Rocky, Alma, Fedora, OpenCloudOS, Alibaba Cloud Linux) is
written from its documentation and was not.

A fresh installation leaves the distribution's units stopped and disabled, and its configuration as it came. An
instance that was there before is somebody's: it is left alone, and never restarted by an upgrade.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from redkeep.errors import EngineError
from redkeep.model.engine import Engine, EngineWant, Installed, Version
from redkeep.run.engines.apt import UNFINISHED, Apt
from redkeep.run.engines.common import ABSENT, Note, alternatives, fits, identify, judge, matches
from redkeep.run.engines.dnf import Dnf

if TYPE_CHECKING:
    from redkeep.hosts.base import Host
    from redkeep.model.topology import HostFacts

#: Seconds for a package list, and for an installation that may wait for another one to end.
_LIST_LIMIT, _INSTALL_LIMIT = 300.0, 1200.0


class Manager(Protocol):
    """A package manager as scripts to run and output to read."""

    def packages(self, flavor: str) -> tuple[str, ...]: ...
    def units(self, flavor: str) -> tuple[str, ...]: ...
    def offers(self, package: str, *, refresh: bool) -> str: ...
    def parse(self, output: str) -> tuple[str, ...]: ...
    def install(self, packages: Sequence[str], version: str | None, units: Sequence[str]) -> str: ...
    def tools(self, names: Sequence[str]) -> tuple[str, ...]: ...
    def command(self, packages: Sequence[str]) -> str: ...


def manager(facts: HostFacts) -> Manager | None:
    """The host's package manager, or ``None`` where it is none that we know."""
    if facts.family == "apt" or "apt-get" in facts.commands:
        return Apt()
    return next((Dnf(tool) for tool in ("dnf", "yum") if tool in facts.commands), None)


async def find(host: Host, want: EngineWant) -> Installed | None:
    """The packaged server where it is installed, completely, and of the version asked for."""
    found = await identify(host, f"/usr/bin/{want.flavor}-server", guard=UNFINISHED.format(status=ABSENT))
    if found is None or not fits(want, found.engine) or found.engine.refusal(from_source=False):
        return None
    return found


async def install(host: Host, facts: HostFacts, want: EngineWant, note: Note) -> Installed:
    """Installs the version on offer, or the pinned one. Needs root on the host."""
    tool = manager(facts)
    if tool is None or not facts.root:
        reason = "is not worked on as root" if tool else "has neither apt nor dnf"
        by_hand = ""
        if tool and host.is_local:  # what is installed already is used without root
            by_hand = f"as root: {tool.command(tool.packages(want.flavor))}, then apply again; "
        raise EngineError(
            f"source: package is not possible: {host.name} {reason}",
            where=_where(host, facts),
            next=by_hand + alternatives(want),
        )
    found = await find(host, want)
    if found is None:
        version = await _version(host, facts, want, note, tool)
        await _install(host, facts, want, note, tool, version)
        found = await identify(host, f"/usr/bin/{want.flavor}-server")
    if found is None:
        raise EngineError(
            f"the package is installed, and there is no /usr/bin/{want.flavor}-server",
            where=_where(host, facts),
            next=alternatives(want),
        )
    judge(host, want, found.engine, note)
    if await _runs(host, tool, want):
        note(f"the distribution's own {want.flavor} runs on {host.name} and is left alone")
    return found


async def _version(host: Host, facts: HostFacts, want: EngineWant, note: Note, tool: Manager) -> str:
    """The version to be installed, or ``EngineError`` with what is on offer instead."""
    package = tool.packages(want.flavor)[0]
    offers: tuple[str, ...] = ()
    complaint = ""
    for refresh in (False, True):
        if refresh:
            note(f"reading the package lists of {host.name} anew")
        listed = await host.run(tool.offers(package, refresh=refresh), check=False, timeout=_LIST_LIMIT)
        offers, complaint = tool.parse(listed.stdout), listed.stderr.strip()
        for offer in offers:
            if want.version is None or matches(want.version, offer):
                judge(host, want, Engine(want.flavor, Version.parse(offer.rpartition(":")[2])))
                return offer
    release = f"{facts.system} {facts.system_version}".strip()
    if offers:
        what = f"{package} {want.version} is not on offer in {release}, only {', '.join(offers)}"
    else:
        what = f"{release} has no package {package}"
        if complaint:
            what += f" (reading the lists: {complaint.splitlines()[-1]})"
    raise EngineError(what, where=_where(host, facts), next=alternatives(want))


async def _install(
    host: Host, facts: HostFacts, want: EngineWant, note: Note, tool: Manager, version: str
) -> None:
    if await _runs(host, tool, want):
        raise EngineError(
            f"{want.flavor} runs as the distribution's own instance, which installing {version} would restart",
            where=_where(host, facts),
            next="leave version: out to use the installed one, stop that instance, or take source: tarball",
        )
    packages = tool.packages(want.flavor)
    note(f"installing {packages[0]} {version} on {host.name}")
    script = tool.install(packages, version if want.version else None, tool.units(want.flavor))
    await _run_installation(host, facts, script, packages[0], alternatives(want))


async def install_packages(host: Host, facts: HostFacts, tool: Manager, packages: Sequence[str]) -> None:
    """Installs other packages than servers (a compiler), reading the package lists where they are missing."""
    listed = await host.run(tool.offers(packages[0], refresh=False), check=False, timeout=_LIST_LIMIT)
    if not tool.parse(listed.stdout):
        await host.run(tool.offers(packages[0], refresh=True), check=False, timeout=_LIST_LIMIT)
    await _run_installation(host, facts, tool.install(packages, None, ()), " ".join(packages), "")


async def _run_installation(host: Host, facts: HostFacts, script: str, subject: str, otherwise: str) -> None:
    """Runs an installation script; its failure is an ``EngineError`` with the package manager's own words."""
    done = await host.run(script, check=False, timeout=_INSTALL_LIMIT)
    if not done.ok:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("E:", "Error", "dpkg: error"))]
        raise EngineError(
            f"{subject} could not be installed: {(told or lines or ['no reason given'])[-1]}",
            where=_where(host, facts),
            next="mend what it says and run it again" + (f"; {otherwise}" if otherwise else ""),
        )


async def _runs(host: Host, tool: Manager, want: EngineWant) -> bool:
    """Whether an instance of the distribution's is at work; where there is no systemd, none is."""
    asked = await host.run(f"systemctl is-active {shlex.join(tool.units(want.flavor))}", check=False)
    return "active" in asked.stdout.split()


def _where(host: Host, facts: HostFacts) -> str:
    return f"host {host.name} ({facts.system} {facts.system_version})"
