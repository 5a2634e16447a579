"""Reads everything that a plan wants to know of a machine in one round trip, and changes nothing there.

The script asks for POSIX sh and the tools that every Linux server has; what is missing leaves its section empty. Where
the shell itself can read a file no process is started: that is most of what a look costs a small host.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from redkeep.errors import HostError
from redkeep.model.topology import HostFacts, Listener
from redkeep.model.values import Value

if TYPE_CHECKING:
    from redkeep.hosts.base import Host

#: What the servers' own logs warn about or fail for, and where it is read.
KERNEL = {
    "vm.overcommit_memory": "/proc/sys/vm/overcommit_memory",
    "vm.swappiness": "/proc/sys/vm/swappiness",
    "net.core.somaxconn": "/proc/sys/net/core/somaxconn",
    "transparent_hugepage": "/sys/kernel/mm/transparent_hugepage/enabled",
    # which ports outgoing connections take, and which of them never
    "net.ipv4.ip_local_port_range": "/proc/sys/net/ipv4/ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports": "/proc/sys/net/ipv4/ip_local_reserved_ports",
}

#: Tools whose presence decides what can be done on a host.
TOOLS = (
    "systemctl",
    "nft",
    "gcc",
    "cc",
    "make",
    "pkg-config",
    "apt-get",
    "dnf",
    "yum",
    "useradd",
    "ss",
    "flock",
    "bash",
    "sudo",
)

#: TCP_LISTEN in ``/proc/net/tcp``, and how its words are turned round.
_LISTENING, _ORDER = "0A", -1

_BRIDGES = ("lo", "docker", "br-", "virbr", "veth", "cni", "flannel", "cali", "podman", "lxc", "kube")

_SCRIPT = r"""
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
show() { [ -r "$1" ] && while IFS= read -r l || [ -n "$l" ]; do printf '%s\n' "$l"; done <"$1"; }
echo @os; show /etc/os-release
echo @machine; uname -m; u=$(id -u); echo "$u"; cat /proc/sys/kernel/random/boot_id
manager=supervise; ALLOWED && [ -d /run/systemd/system ] && [ "$u" = 0 ] && manager=systemd
echo $manager
echo @libc; getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1
echo @memory; while read -r l; do
  case $l in MemTotal:*|SwapTotal:*) echo "$l" ;; SwapFree:*) echo "$l"; break ;; esac
done </proc/meminfo
echo @clock; date +%s.%N
echo @address; ip -o addr show 2>/dev/null
echo @route; ip -o route get 192.0.2.1 2>/dev/null
echo @kernel; grep -sH . KERNEL_FILES
echo @writable; for f in KERNEL_FILES; do { true >>$f; } 2>/dev/null && echo $f; done
echo @listen; ss -HltnOWNERS 2>/dev/null
echo @sockets; command -v ss >/dev/null 2>&1 || cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
echo @tools; for t in TOOL_NAMES; do command -v $t >/dev/null 2>&1 && echo $t; done
echo @disk; d=BASE; while [ ! -e "$d" ]; do d=${d%/*}; [ -n "$d" ] || d=/; done; df -Pk "$d"
echo @files; for f in FILES; do [ -f "$f" ] && set -- "$@" "$f"; done; [ $# -gt 0 ] && sha256sum "$@"
echo @present; for f in PRESENT; do [ -e "$f" ] && echo "$f"; done
echo @set; for d in BASE/*/data; do
  if [ -e "$d/node.conf" ] || [ -e "$d/sentinel.conf" ]; then n=${d%/data}; echo "${n##*/}"; fi
done
echo @foreign; for d in BASE/*/data; do
  [ ! -d "$d" ] || [ -e "$d/node.conf" ] || [ -e "$d/sentinel.conf" ] ||
  ls -A "$d" 2>/dev/null | grep -vxE 'lost\+found|\.redkeep-.*' | head -n 3 | sed "s|^|$d/|"
done
echo @identity; show BASE/identity
echo @services; if [ $manager = systemd ]; then UNITS; else FOLDERS; fi
"""

_SYSTEMD = "systemctl show -p Id,ActiveState,SubState,UnitFileState {units}"
_SUPERVISED = (
    'for n in {folders}; do p=$(cat "$n/data/supervisor.pid" 2>/dev/null) && '
    # one that was killed and that nobody has buried yet does not supervise
    's=$(cat "/proc/$p/stat" 2>/dev/null) && [ "${{s##*) Z }}" = "$s" ] && echo "supervised $n"; done'
)


class Look(Value):
    """What to look for: the base folder, digests of ``files``, existence of ``present``, state of ``units`` or of
    the supervised ``folders``. ``systemd`` allows its use where it runs and we are root; ``owners`` are those of the
    listening ports, which takes longer than all the rest where many processes run."""

    base: str
    files: Sequence[str] = ()
    present: Sequence[str] = ()
    units: Sequence[str] = ()
    folders: Sequence[str] = ()
    systemd: bool = True
    owners: bool = True

    def script(self) -> str:
        systemd = _SYSTEMD.format(units=shlex.join(self.units)) if self.units else ":"
        supervised = _SUPERVISED.format(folders=shlex.join(self.folders)) if self.folders else ":"
        words = {
            "KERNEL_FILES": shlex.join(KERNEL.values()),
            "TOOL_NAMES": " ".join(TOOLS),
            "BASE": shlex.quote(self.base),
            "FILES": shlex.join(self.files) or "''",
            "PRESENT": shlex.join(self.present) or "''",
            "ALLOWED": "true" if self.systemd else "false",
            "OWNERS": "p" if self.owners else "",
            "UNITS": systemd,
            "FOLDERS": supervised,
        }
        text = _SCRIPT
        for word, value in words.items():
            text = text.replace(word, value)
        return text


async def look(host: Host, wanted: Look, *, root: bool = True) -> HostFacts:
    """Raises ``HostUnreachable`` or, where the answer makes no sense, ``HostError``."""
    before = time.time()
    result = await host.run(wanted.script(), check=False, root=root)
    return parse(result.stdout, host.name, asked=(before, time.time()))


async def listeners(host: Host) -> tuple[Listener, ...]:
    """The TCP ports in use, with their owners. Raises ``HostError``."""
    result = await host.run("ss -Hltnp 2>/dev/null", check=False)
    return tuple(_listeners(result.stdout.splitlines()))


def parse(output: str, name: str, *, asked: tuple[float, float]) -> HostFacts:
    """The script's output as facts. ``asked``: our own clock before and after, to tell the host's skew from its delay."""
    parts = _sections(output)
    try:
        return _facts(parts, asked=asked)
    except (ValueError, KeyError, IndexError) as error:
        raise HostError(
            f"the host's answers make no sense ({error!r:.80})",
            where=name,
            next="is it Linux with a POSIX shell, and does its login print nothing odd?",
        ) from error


def _sections(output: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if re.fullmatch(r"@[a-z]+", line):
            current = parts.setdefault(line[1:], [])
        else:
            current.append(line)
    return parts


def _facts(parts: Mapping[str, list[str]], *, asked: tuple[float, float]) -> HostFacts:
    system = {k: v.strip('"') for k, _, v in (line.partition("=") for line in parts["os"])}
    like = f"{system.get('ID', '')} {system.get('ID_LIKE', '')}".split()
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in parts["memory"]}
    tools = frozenset(parts["tools"])
    systemd = "systemd" in parts["machine"]
    services, enabled = _services(parts.get("services", []), systemd=systemd)
    kernel = {}
    for line in parts["kernel"]:
        path, _, value = line.partition(":")
        key = next((k for k, p in KERNEL.items() if p == path), "")
        if not key:
            continue
        kernel[key] = _bracketed(value)
        if path not in parts["writable"]:
            kernel[f"{key}:read-only"] = "yes"
    kernel["swap_used"] = str(memory.get("SwapTotal", 0) - memory.get("SwapFree", 0))
    clock, precision = _clock(parts["clock"][0])
    middle, half = (asked[0] + asked[1]) / 2, (asked[1] - asked[0]) / 2 + precision
    route = re.search(r"\bsrc (\S+)", " ".join(parts["route"]))
    return HostFacts(
        system=system.get("ID", "unknown"),
        system_version=system.get("VERSION_ID", system.get("VERSION_CODENAME", "")),
        family="apt"
        if "debian" in like or "ubuntu" in like
        else "dnf"
        if {"rhel", "fedora", "centos"} & set(like)
        else "other",
        architecture=parts["machine"][0],
        libc=_libc(parts["libc"]),
        systemd=systemd,
        root=parts["machine"][1] == "0",
        memory=memory["MemTotal"],
        disk_free=int(parts["disk"][-1].split()[3]) * 1024,
        clock=clock - middle,
        clock_uncertainty=half,
        addresses=tuple(_addresses(parts["address"])),
        outgoing=route[1] if route else "",
        kernel=kernel,
        listeners=tuple(_listeners(parts["listen"]) or _sockets(parts.get("sockets", []))),
        commands=tools,
        digests={
            path: digest for digest, _, path in (line.partition("  ") for line in parts.get("files", []))
        },
        present=frozenset(parts.get("present", [])),
        services=services,
        enabled=enabled,
        identity=(parts.get("identity") or [""])[0],
        set_up=frozenset(parts.get("set", [])),
        foreign=tuple(parts.get("foreign", [])),
        boot_id=parts["machine"][2],
    )


def _clock(line: str) -> tuple[float, float]:
    """Seconds, and by how much they may be wrong: BusyBox knows no fractions and prints the letter instead."""
    match = re.match(r"(\d+)(\.\d+)?", line)
    if match is None:
        raise ValueError(f"not a time: {line[:40]!r}")
    return (float(match[0]), 0.0) if match[2] else (float(match[1]) + 0.5, 0.5)


def _libc(lines: list[str]) -> str:
    first = lines[0] if lines else ""
    if "musl" in first:
        return "musl"
    return first if first.startswith("glibc") else ""


def _bracketed(value: str) -> str:
    """``always [madvise] never`` is how the kernel shows a choice; the chosen word counts."""
    match = re.search(r"\[(\w+)\]", value)
    return match[1] if match else value.strip()


def _addresses(lines: list[str]) -> list[str]:
    found = []
    for line in lines:
        words = line.split()
        if (
            len(words) > 3
            and words[2] in ("inet", "inet6")
            and not words[1].startswith(_BRIDGES)
            and "link" not in words
        ):
            found.append(words[3].split("/")[0])
    return found


def _listeners(lines: list[str]) -> list[Listener]:
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 4:
            continue
        address, _, port = words[3].rpartition(":")
        owner = re.search(r'\(\("([^"]+)",pid=(\d+)', line)
        found.append(
            Listener(
                address.split("%")[0].strip("[]"),
                int(port),
                owner[1] if owner else "",
                int(owner[2]) if owner else 0,
            )
        )
    return found


def _sockets(lines: list[str]) -> Iterator[Listener]:
    """The kernel's own table, where ``ss`` is not installed: addresses as words of the machine's byte order, in hex."""
    for line in lines:
        words = line.split()
        if len(words) < 4 or words[3] != _LISTENING:
            continue
        address, _, port = words[1].partition(":")
        raw = b"".join(bytes.fromhex(address[i : i + 8])[::_ORDER] for i in range(0, len(address), 8))
        yield Listener(str(ipaddress.ip_address(raw)), int(port, 16), "", 0)


def _services(lines: list[str], *, systemd: bool) -> tuple[dict[str, str], frozenset[str]]:
    """State by unit (or by node folder where there is no systemd); and those that start at boot."""
    if not systemd:
        folders = [line.split(" ", 1)[1] for line in lines if line.startswith("supervised ")]
        return dict.fromkeys(folders, "active"), frozenset(folders)
    states, enabled = {}, set()
    for block in "\n".join(lines).split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not unit:
            continue
        states[unit["Id"]] = unit["ActiveState"]
        if unit.get("UnitFileState") == "enabled":
            enabled.add(unit["Id"])
    return states, frozenset(enabled)
