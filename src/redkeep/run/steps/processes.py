"""Processes: starts of servers and Sentinels, and what their logs say when one fails."""

from __future__ import annotations

import asyncio
import shlex
from functools import partial
from typing import TYPE_CHECKING

from redkeep.errors import EngineError, RedkeepError, WireError
from redkeep.model.topology import NodeView
from redkeep.run.steps.context import Context, until
from redkeep.run.steps.tryout import verdict

if TYPE_CHECKING:
    from redkeep.model.plan import Step
    from redkeep.planning.desired import DesiredNode

#: Seconds for a server to answer after its start (it may have data to load), and for a stop to end.
START_LIMIT = 120.0
STOP_LIMIT = 150.0
#: Seconds that a start waits for a replica's copy; a large one goes on by itself.
FIRST_COPY_LIMIT = 20.0
#: What servers say when they give up at once.
_FATAL = (
    *("FATAL", "Can't open", "Bad directive", "# Fatal", "Failed listening on port", "because of ACL errors"),
    *("aborting now", "Aborting now", "server aborting"),
)


async def start(context: Context, step: Step) -> None:
    node = context.desired.node(step.node)
    await launch(context, node)
    await ready(context, node)
    if node.initial_role == "replica" and context.desired.spec.mode != "cluster":
        await _first_copy(context, node)


async def _first_copy(context: Context, node: DesiredNode) -> None:
    """Waits a while for the link: Sentinels that start now see the replica at once, and not ten seconds later."""
    try:
        async with asyncio.timeout(FIRST_COPY_LIMIT):
            await until(
                partial(linked, context, node), seconds=FIRST_COPY_LIMIT, failure=partial(_stays, node)
            )
    except (TimeoutError, EngineError):
        pass  # a large copy goes on by itself


async def launch(context: Context, node: DesiredNode) -> None:
    host, machine = context.desired.hosts[node.host], context.host(node.host)
    if host.systemd:
        await machine.run(_start_script(node.paths.unit))
        return
    command = shlex.join([host.layout.supervise, node.paths.folder, *node.command])
    await machine.run(f"setsid {command} </dev/null >/dev/null 2>&1 &", root=False)


def _start_script(unit: str) -> str:
    """Enabled and started. To read all units anew is the most that a small host does in a whole deployment, and it is
    not needed for a unit that systemd has not seen yet; only where it did not notice that is it told."""
    return (
        f"systemctl enable -q --no-reload {unit} || exit; systemctl reset-failed {unit} 2>/dev/null; "
        f"systemctl start --no-block {unit} && "
        f'[ "$(systemctl show -p UnitFileState --value {unit})" = enabled ] && exit; '
        f"systemctl daemon-reload; systemctl start --no-block {unit}"
    )


async def ready(context: Context, node: DesiredNode, *, limit: float = START_LIMIT) -> None:
    """Waits until the server answers, with its data loaded. Raises ``EngineError`` with what its log says."""
    last = "no reason known"
    held = ""
    looked = 0.0

    async def answers() -> bool:
        nonlocal last, held, looked
        try:
            await context.fleet.call(node, "PING")
            return True
        except WireError as error:
            last = error.what
            context.fleet.drop(node)
        now = asyncio.get_running_loop().time()
        if now - looked > 1.0:
            looked = now
            held = await _why_not(context, node)
        return False

    def failure() -> RedkeepError:
        where = f"{node.host}: {node.paths.folder}"
        if held:
            return EngineError(f"{node.name} is held back: {held}", where=where, next="redkeep explain gate")
        return EngineError(
            f"{node.name} does not answer {limit:.0f} s after its start ({last})",
            where=where,
            next=f"see its log on the host: {_log_command(context, node)}",
        )

    await until(answers, seconds=limit, failure=failure)


async def _why_not(context: Context, node: DesiredNode) -> str:
    """What its gate waits for, or an empty text. A server that dies at every start need not be waited for at all."""
    lines = (await log_tail(context, node)).splitlines()
    fatal = [line for line in lines if any(word in line for word in _FATAL)]
    if fatal:
        named = verdict("\n".join(lines))
        reason = f"{named[0]}: {named[1]}" if named else fatal[-1].strip()
        raise EngineError(
            f"{node.name} does not start: {reason[:300]}",
            where=f"{node.host}: {node.paths.folder}",
            next=f"its log: {_log_command(context, node)}",
        )
    gate = [line.partition("gate: ")[2] for line in lines if "gate: " in line]
    return gate[-1] if gate and gate[-1].startswith("waiting") else ""


def _log_command(context: Context, node: DesiredNode) -> str:
    if context.desired.hosts[node.host].systemd:
        return f"journalctl -u {node.paths.unit} -n 50; tail -n 50 {node.paths.data}/server.log"
    return f"tail -n 50 {shlex.quote(node.paths.data)}/*.log"


async def log_tail(context: Context, node: DesiredNode) -> str:
    """The last lines of a server's log since its last start."""
    if context.desired.hosts[node.host].systemd:
        # of this start only: an earlier one may have failed for a reason that is mended by now
        start = f"_SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value {node.paths.unit})"
        command = f"journalctl {start} -n 20 --no-pager -o cat; tail -n 20 {node.paths.data}/server.log"
    else:
        command = f"tail -q -n 20 {shlex.quote(node.paths.data)}/*.log"
    result = await context.host(node.host).run(command, check=False)
    return result.stdout.rpartition("is starting")[2]


def _stays(node: DesiredNode) -> RedkeepError:
    return EngineError(f"{node.name} has no copy of its primary yet", where=node.host, next="apply again")


async def linked(context: Context, node: DesiredNode) -> bool:
    view = await context.fleet.view(node)
    return isinstance(view, NodeView) and view.link_up and (view.cluster is None or view.cluster.state_ok)


def stop_supervised(data: str) -> str:
    """Ends a supervised server and waits for it."""
    pid = shlex.quote(f"{data}/supervisor.pid")
    return (
        f"p=$(cat {pid} 2>/dev/null) || exit 0; kill -TERM $p 2>/dev/null || exit 0; "
        "i=0; while kill -0 $p 2>/dev/null && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done; "
        "kill -0 $p 2>/dev/null && exit 1; exit 0"
    )


ACTIONS = {"start": start}
