"""Hosts: the engine, users, folders, kernel settings, and files."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from redkeep.errors import CommandFailed, EngineError
from redkeep.model.events import Approval
from redkeep.model.topology import HostFacts
from redkeep.planning.hostfiles.layout import SERVICE_USER
from redkeep.planning.provision import changed_files
from redkeep.run import engines
from redkeep.run.steps.tryout import try_settings

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredHost, DesiredNode
    from redkeep.run.steps.context import Context


#: As the shell has it for a program that is there and cannot be run.
_NOT_RUNNABLE = 126


async def install_engine(context: Context, step: Step) -> None:
    host = context.desired.hosts[step.host]
    facts = context.observed.hosts[step.host]
    assert isinstance(facts, HostFacts)

    async def ask(text: str) -> bool:
        return await context.approve(Approval("ordinary", text))

    await engines.install(context.host(step.host), facts, host.want, context.note, ask)


async def prepare_host(context: Context, step: Step) -> None:
    await _prepare(context, context.desired.hosts[step.host], context.desired.on(step.host))


async def tidy(context: Context, step: Step) -> None:
    """The host's files and its nodes', as they are when a change is over."""
    settled = context.desired.settled
    assert settled is not None
    host, nodes = settled.hosts[step.host], settled.on(step.host)
    facts = context.observed.hosts[step.host]
    known = facts if isinstance(facts, HostFacts) else None
    for node in nodes:
        await context.host(step.host).write(changed_files(node.files, known))
    # its identity comes last: it says that nothing is left to do
    await _prepare(context, host, nodes)


async def _prepare(context: Context, host: DesiredHost, nodes: tuple[DesiredNode, ...]) -> None:
    """The user, the folders, what the kernel is told, and the files that all nodes of the host share."""
    machine = context.host(host.name)
    await machine.run(_prepare_script(host, nodes))
    await machine.write(host.files)
    try:
        await machine.run(_after_files(host))
    except CommandFailed as error:
        if error.status != _NOT_RUNNABLE:
            raise
        raise EngineError(
            "programs cannot be run there: the file system is mounted noexec",
            where=f"{host.name}: {host.layout.base}",
            next=f"mount it without noexec (findmnt -T {host.layout.base} shows which it is), then apply again",
        ) from None


def _prepare_script(host: DesiredHost, nodes: tuple[DesiredNode, ...]) -> str:
    layout = host.layout
    folders = [f for n in nodes for f in (n.paths.folder, n.paths.conf)]
    lines = [
        "set -e",
        "umask 022",
        f"mkdir -p {shlex.quote(layout.base)} && chmod 0755 {shlex.quote(layout.base)}",
        f"mkdir -p {shlex.join([layout.base, f'{layout.base}/bin', f'{layout.base}/tls', *folders])}",
    ]
    data = shlex.join(n.paths.data for n in nodes)
    if not nodes:
        return "\n".join(lines)
    if layout.user:
        lines.insert(
            1,
            f"id {SERVICE_USER} >/dev/null 2>&1 || useradd --system --user-group --no-create-home "
            f"--home-dir /nonexistent --shell /usr/sbin/nologin {SERVICE_USER}",
        )
        lines.append(f"mkdir -p {data} && chmod 0700 {data} && chown {SERVICE_USER}: {data}")
    else:
        lines.append(f"mkdir -p {data} && chmod 0700 {data}")
    return "\n".join(lines)


def _after_files(host: DesiredHost) -> str:
    """Kernel settings now and at every boot; where the kernel is not ours to set (a container) that is no failure."""
    paths = {f.path for f in host.files}
    layout = host.layout
    lines = [f"[ -x {shlex.quote(layout.gate)} ] || exit {_NOT_RUNNABLE}"]
    if layout.sysctl in paths:
        lines.append(f"sysctl -q -p {layout.sysctl} 2>/dev/null || true")
        lines.append(f"systemd-tmpfiles --create {layout.tmpfiles} 2>/dev/null || true")
    if layout.firewall in paths:
        unit = layout.firewall_unit
        lines += [
            f"systemctl enable -q --no-reload {unit}",
            f'[ "$(systemctl show -p NeedDaemonReload --value {unit})" = no ] || systemctl daemon-reload',
            f"systemctl restart {unit} || {{ systemctl daemon-reload; systemctl restart {unit}; }}",
        ]
    elif host.systemd:
        unit = shlex.quote(f"/etc/systemd/system/{layout.firewall_unit}")
        lines.append(
            f"if [ -e {unit} ]; then systemctl disable -q --now {layout.firewall_unit}; "
            f"rm -f {unit} {shlex.quote(layout.firewall)}; systemctl daemon-reload; fi"
        )
    return "\n".join(["set -e", *lines])


async def write_files(context: Context, step: Step) -> None:
    """Our files of one node, and once its own."""
    node, host = context.desired.node(step.node), context.desired.hosts[step.host]
    facts = context.observed.hosts[step.host]
    known = facts if isinstance(facts, HostFacts) else None
    files = list(changed_files(node.files, known))
    if any(f.path == node.paths.managed for f in files):
        await try_settings(context, node)
    if known is None or node.seed.path not in known.present:
        files.append(node.seed)
    machine = context.host(step.host)
    await machine.write(files)
    if host.systemd and known is not None and node.paths.unit_file in known.digests:
        await machine.run("systemctl daemon-reload")  # a new one is read when it is started


ACTIONS = {
    "install-engine": install_engine,
    "prepare-host": prepare_host,
    "write-files": write_files,
    "tidy": tidy,
}
