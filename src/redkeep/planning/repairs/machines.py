"""Repairs of kernel settings: of this machine, where a deployment file says that the deployment is here and we are root, and
of hosts where the user's login is root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from redkeep.model.plan import Step
from redkeep.planning.repairs.base import Case
from redkeep.planning.rules.machines import Machine, machines
from redkeep.planning.rules.words import number

#: Read at every start of the machine; ours alone, so that they can be taken away again.
_SYSCTL = "/etc/sysctl.d/90-redkeep-check.conf"
_BACKLOG = "/etc/sysctl.d/90-redkeep-check-backlog.conf"
_TMPFILES = "/etc/tmpfiles.d/redkeep-check.conf"
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


@dataclass(frozen=True)
class MachineRepair:
    """A script for a machine, as root; as ``Repair`` in the rest. ``node`` is its name."""

    rule: str
    node: str
    why: str
    shown: str
    keeps: str
    #: the session with it that the user gave; empty for this machine
    login: str = ""

    @property
    def script(self) -> str:
        return f"set -e; {self.shown}"

    def step(self) -> Step:
        args = {"rule": self.rule, "commands": self.shown}
        return Step("host", "repair-machine", self.node, why=f"{self.rule}: {self.why}", args=args)


#: The kernel keeps no more (16 bits).
_MOST = 65_535
#: rule -> (the kernel setting as facts name it, the value that is mended, why, what is run, the file that keeps it)
_KERNEL = {
    "overcommit": (
        "vm.overcommit_memory",
        "0",
        "a fork for a snapshot or a copy is not refused",
        f"sysctl -q -w vm.overcommit_memory=1; echo vm.overcommit_memory = 1 >{_SYSCTL}",
        _SYSCTL,
    ),
    "transparent-huge-pages": (
        "transparent_hugepage",
        "always",
        "a write during a snapshot copies 4 KiB and not 2 MiB, for servers that start from now on",
        f"echo madvise >{_HUGE_PAGES}; echo w {_HUGE_PAGES} - - - - madvise >{_TMPFILES}",
        _TMPFILES,
    ),
}


def machine_repairs(case: Case) -> Iterator[MachineRepair]:
    for machine in machines(case.checkup):
        if not machine.facts.root or not (case.is_here or machine.login):
            continue
        kernel = machine.facts.kernel
        for rule, (setting, bad, why, command, file) in _KERNEL.items():
            if rule in case.rules and kernel.get(setting) == bad and not _is_fixed(machine, setting):
                keeps = f"{file} is read at every start"
                yield MachineRepair(rule, machine.name, why, command, keeps, machine.login)
        if "listen-backlog" in case.rules:
            yield from _listen_backlog(machine)


def _listen_backlog(machine: Machine) -> Iterator[MachineRepair]:
    setting = "net.core.somaxconn"
    limit = machine.facts.kernel.get(setting, "")
    wanted = [backlog for n in machine.servers if (backlog := number(n.setting("tcp-backlog")))]
    if limit.isdigit() and wanted and int(limit) < max(wanted) <= _MOST and not _is_fixed(machine, setting):
        value = max(wanted)
        yield MachineRepair(
            "listen-backlog",
            machine.name,
            "as many connections may wait as the servers ask for, once they start again",
            f"sysctl -q -w {setting}={value}; echo {setting} = {value} >{_BACKLOG}",
            f"{_BACKLOG} is read at every start",
            machine.login,
        )


def _is_fixed(machine: Machine, setting: str) -> bool:
    """A container's host decides it."""
    return f"{setting}:read-only" in machine.facts.kernel
