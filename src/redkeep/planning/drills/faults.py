"""Faults as shell scripts: how each is caused, how it is undone, and the timer on the host that undoes it in any case.

The timer is set before the fault is caused, so that neither a killed tool nor a lost connection leaves anything broken.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Seconds after which the host undoes a fault by itself, beyond the time that the drill holds it.
GRACE = 15


@dataclass(frozen=True)
class Fault:
    """``cause`` fails where it did not take hold. An empty ``undo``: it is over at once. ``tools``: needed on the host."""

    cause: str
    undo: str = ""
    tools: tuple[str, ...] = ()


def armed(fault: Fault, *, name: str, seconds: float, systemd: bool, folder: str) -> str:
    """Sets the timer, then causes the fault. ``name`` is the timer's, unique; ``folder`` is ours on the host."""
    if not fault.undo:
        return f"set -e\n{fault.cause}"
    wait = int(seconds) + GRACE
    if systemd:
        timer = (
            f"systemd-run --quiet --collect --unit={name} --on-active={wait} --timer-property=AccuracySec=100ms "
            f"/bin/sh -c {shlex.quote(fault.undo)}"
        )
    else:
        inner = f"sleep {wait}; {fault.undo}; rm -f {_pid_file(folder, name)}"
        timer = f"setsid sh -c {shlex.quote(inner)} </dev/null >/dev/null 2>&1 &\necho $! >{_pid_file(folder, name)}"
    return f"set -e\n{timer}\n{fault.cause}"


def undone(fault: Fault, *, name: str, systemd: bool, folder: str, over: bool = True) -> str:
    """Undoes the fault now, and takes the timer away. Twice in a row is fine.

    ``over``: the script that causes it is known to have ended. Where it may still run, the timer stays and undoes it again.
    """
    if not over:
        return fault.undo
    pid_file = _pid_file(folder, name)
    disarm = (
        f"systemctl stop {name}.timer 2>/dev/null || true"
        if systemd
        else f'[ ! -e {pid_file} ] || {{ kill -- -"$(cat {pid_file})" 2>/dev/null || true; rm -f {pid_file}; }}'
    )
    return f"{fault.undo}\n{disarm}"


def _pid_file(folder: str, name: str) -> str:
    return shlex.quote(f"{folder}/{name}.pid")


@dataclass(frozen=True)
class Process:
    """A server's process on its host: known by its folder too, since numbers are used again."""

    pid: int
    folder: str

    @property
    def check(self) -> str:
        return f"[ /proc/{self.pid}/cwd -ef {shlex.quote(self.folder)} ]"


def kill(processes: Iterable[Process]) -> Fault:
    """kill -9 of all of them at once."""
    every = list(processes)
    checks = "\n".join(p.check for p in every)
    return Fault(f"{checks}\nkill -KILL {' '.join(str(p.pid) for p in every)}")


def hang(process: Process) -> Fault:
    undo = f"{process.check} && kill -CONT {process.pid} || true"
    return Fault(f"{process.check}\nkill -STOP {process.pid}", undo)


#: SSH as the file has it may be forwarded, or named by an alias: the session that we came by tells the host's own port
#: (sshd(8), SSH_CONNECTION), also above sudo, which clears the environment.
_OUR_SSH = r"""
ssh={ports}
p=$$
while [ "${{p:-1}}" -gt 1 ]; do
    found=$(tr '\0' '\n' </proc/$p/environ 2>/dev/null | sed -n 's/^SSH_CONNECTION=.* //p')
    case $found in
        '' | *[!0-9]*) p=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$p/status 2>/dev/null) || true ;;
        *) ssh="$ssh $found"; break ;;
    esac
done
rules=
for port in $ssh; do
    for chain in input output; do
        rules="$rules add rule inet {table} $chain tcp sport $port accept; "
        rules="$rules add rule inet {table} $chain tcp dport $port accept; "
    done
done
"""


def cut_off(processes: Iterable[Process], *, name: str, ssh_port: int) -> Fault:
    """A host that is gone: nothing in or out but SSH, and its servers killed once nobody can hear them end."""
    table = _table(name)
    begin = "; ".join(
        f"add chain inet {table} {chain} {{ type filter hook {chain} priority -300; policy accept; }}; "
        f"add rule inet {table} {chain} {interface} lo accept"
        for chain, interface in (("input", "iifname"), ("output", "oifname"))
    )
    end = "; ".join(f"add rule inet {table} {chain} drop" for chain in ("input", "output"))
    ssh = _OUR_SSH.format(ports=ssh_port, table=table).strip()
    return Fault(
        f'{ssh}\nnft "add table inet {table}; {begin}; ${{rules}}{end}"\n{kill(processes).cause}',
        _unload(table),
        ("nft",),
    )


def partition(others: Iterable[str], ports: Iterable[int], *, name: str) -> Fault:
    """What our servers on this host say to those on ``others`` (addresses), and hear from them, is dropped.

    By the deployment's own ports, so that SSH through one of these hosts goes on.
    """
    table = _table(name)
    addresses = [ipaddress.ip_address(a) for a in others]
    listed = ", ".join(str(p) for p in sorted(set(ports)))
    rules = []
    for chain, side in (("input", "saddr"), ("output", "daddr")):
        rules.append(
            f"add chain inet {table} {chain} {{ type filter hook {chain} priority -300; policy accept; }}"
        )
        for family, version in (("ip", 4), ("ip6", 6)):
            chosen = ", ".join(sorted(str(a) for a in addresses if a.version == version))
            if chosen:
                rules += [
                    f"add rule inet {table} {chain} {family} {side} {{ {chosen} }} tcp {port} {{ {listed} }} drop"
                    for port in ("sport", "dport")
                ]
    script = "; ".join([f"add table inet {table}", *rules])
    return Fault(f"nft {shlex.quote(script)}", _unload(table), ("nft",))


def _table(name: str) -> str:
    return name.replace("-", "_")


def _unload(table: str) -> str:
    return f"nft delete table inet {table} 2>/dev/null || true"


def full_disk(folder: str, *, name: str, user: str) -> Fault:
    """All that is free under ``folder`` (a data folder) for ``user``, the servers' own; root's reserve stays.

    A file system without ``fallocate`` (some network disks) makes it fail, and nothing is filled.
    """
    path = shlex.quote(f"{folder}/{name}.fill")
    quoted = shlex.quote(folder)
    become = f"runuser -u {user} -- " if user else ""
    fill = (
        f"set -e; free=$(df --output=avail -B1 {quoted} | tail -n 1); "
        f"fallocate -l $free {path} || fallocate -l $((free - 4194304)) {path}; "
        # what is left in single blocks
        f"dd if=/dev/zero of={path}.rest bs=4096 2>/dev/null || true"
    )
    return Fault(f"{become}sh -c {shlex.quote(fill)}", f"rm -f {path} {path}.rest", ("fallocate",))


#: Writes a second that a slow disk still does for the servers on it.
SLOW_WRITES = 10
#: What a script says first where the host cannot do it at all.
REFUSED = "refused: "

_SLOW = """set -e
dev=$(findmnt -n -o MAJ:MIN -T {folder} | head -n 1 | tr -d ' ')
if [ ! -e "/sys/dev/block/$dev" ]; then
    kind=$(findmnt -n -o FSTYPE -T {folder} | head -n 1)
    echo "{refused}the data lies on $kind, not on a block device that can be slowed" >&2
    exit 1
fi
# limits are set for whole disks
if [ -e "/sys/dev/block/$dev/partition" ]; then dev=$(cat "/sys/dev/block/$dev/../dev"); fi
v1=$(awk '$(NF-2) == "cgroup" && $NF ~ /(^|,)blkio(,|$)/ {{ print $5; exit }}' /proc/self/mountinfo)
if [ -n "$v1" ]; then
    for pid in {pids}; do
        own=$(awk -F: '$2 ~ /(^|,)blkio(,|$)/ {{ print $3 }}' /proc/$pid/cgroup)
        group="$v1$own/{name}"
        mkdir -p "$group"
        echo "$dev {writes}" >"$group/blkio.throttle.write_iops_device"
        echo "$pid" >"$group/cgroup.procs"
    done
elif [ -n "{units}" ] && grep -qw io /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    for unit in {units}; do
        systemctl set-property --runtime "$unit" IOWriteIOPSMax="/dev/block/$dev {writes}"
        grep -q 'wiops={writes}' "/sys/fs/cgroup$(systemctl show -p ControlGroup --value "$unit")/io.max"
    done
else
    echo "{refused}no I/O controller of control groups here (cgroup v2 with systemd, or blkio of v1)" >&2
    exit 1
fi"""

_FAST = """for group in $(find /sys/fs/cgroup -type d -name {name} 2>/dev/null); do
    tries=0
    until rmdir "$group" 2>/dev/null || [ $tries = 50 ]; do
        for pid in $(cat "$group/cgroup.procs"); do echo "$pid" >"$group/../cgroup.procs" 2>/dev/null || true; done
        tries=$((tries + 1))
    done
done
for unit in {units}; do
    control=/run/systemd/system.control/$unit.d
    [ -e "$control/50-IOWriteIOPSMax.conf" ] || continue
    systemctl set-property --runtime "$unit" IOWriteIOPSMax= || true
    rm -f "$control/50-IOWriteIOPSMax.conf"
    rmdir "$control" 2>/dev/null || true
    systemctl daemon-reload || true
done"""


def slow_disk(processes: Sequence[Process], units: Sequence[str], folder: str, *, name: str) -> Fault:
    """For these servers only: the limit is one of their control group, so nothing else on the host is slow.

    By systemd's IOWriteIOPSMax (systemd.resource-control(5)) with cgroup v2, by blkio.throttle.write_iops_device
    (Documentation/admin-guide/cgroup-v1/blkio-controller.rst) with v1. ``units`` is empty without systemd.
    """
    listed = " ".join(map(shlex.quote, units))
    slow = _SLOW.format(
        folder=shlex.quote(folder),
        refused=REFUSED,
        pids=" ".join(str(p.pid) for p in processes),
        name=name,
        writes=SLOW_WRITES,
        units=listed,
    )
    checks = "\n".join(p.check for p in processes)
    return Fault(f"{checks}\n{slow}", _FAST.format(name=name, units=listed), ("findmnt",))
