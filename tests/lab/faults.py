"""What a network and a disk do to those who trust them. Each fault is one call, and one call ends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import LabError, output_of
from .facts import CLIENT, CLIENT_ADDRESS, INTERNET, ROUTERS, Host
from .machine import Machine
from .namespaces import within_lab
from .network import Network

_WIRE = Path(__file__).with_name("wire.py")


class NetworkFaults:
    """Partitions, lost packets, closed ports and long ways. A host or `cli`, the client, is named by its name."""

    def __init__(self, network: Network, hosts: Mapping[str, Host], keeper: int) -> None:
        self._network = network
        self._hosts = hosts
        self._keeper = keeper
        self._losses: dict[str, int] = {}
        self._wires: dict[str, subprocess.Popen[str]] = {}

    def cut(self, name: str) -> None:
        """Silently drop all that goes to or comes from a host; connections stay open at both ends."""
        self._at(name, f"add element inet lab cut {{ {self._hosts[name].private} }}")

    def heal(self, name: str) -> None:
        """End a cut, if there is one."""
        element = f"element inet lab cut {{ {self._hosts[name].private} }}"
        self._at(name, _absent(element))

    def cut_pair(self, source: str, target: str, *, one_way: bool = False) -> None:
        """Silently drop all between two, or only what goes from the first to the second."""
        element = self._pairs(source, target, one_way)
        for router in ROUTERS.values():
            self._network.nft(router, f"add {element}\n")

    def heal_pair(self, source: str, target: str, *, one_way: bool = False) -> None:
        """End a cut between two, or only in the one direction."""
        element = self._pairs(source, target, one_way)
        for router in ROUTERS.values():
            self._network.nft(router, _absent(element))

    def forward(self, host: Host, public: str) -> None:
        """Another public address leads to a host, and the old one nowhere."""
        router = ROUTERS[host.cloud]
        self._network.ip(
            router, [f"address add {public}/32 dev wan", f"address del {host.public}/32 dev wan"]
        )
        maps = (
            f"delete element inet lab inward {{ {host.public} }}\n"
            f"add element inet lab inward {{ {public} : {host.private} }}\n"
            f"delete element inet lab outward {{ {host.private} }}\n"
            f"add element inet lab outward {{ {host.private} : {public} }}\n"
        )
        self._network.nft(router, maps)

    def loss(self, name: str, percent: int) -> None:
        """Lose that part of the packets from and to a host; 0 ends it."""
        self._losses[name] = percent
        cloud = self._hosts[name].cloud
        rules = "flush chain inet lab loss\n"
        for lossy, part in self._losses.items():
            host = self._hosts[lossy]
            if host.cloud == cloud and part:
                for side in ("saddr", "daddr"):
                    match = f"ip {side} {host.private} numgen random mod 100 < {part}"
                    rules += f"add rule inet lab loss {match} drop\n"
        self._at(name, rules)

    def close_port(self, port: int, host: str | None = None) -> None:
        """Take a port out of the security group, of one host or of both clouds. Open connections go on."""
        self._port(port, host, opened=False)

    def open_port(self, port: int, host: str | None = None) -> None:
        """Let the internet reach a port. For one host, this ends a close_port for that host."""
        self._port(port, host, opened=True)

    def delay(self, round_trip_ms: float, where: str = CLIENT, *, loss_percent: float = 0) -> None:
        """Lengthen the way between the internet and the client, or `rta` or `rtb`, a whole cloud. 0 ends it.

        The other end of the wire is moved behind a delay line in user space, so that addresses and open
        connections stay.
        """
        wire = self._wires.pop(where, None)
        if wire is not None:
            self._network.ip(INTERNET, [f"link set to-{where} master br0", f"link delete line-{where}"])
            _end(wire)
        if round_trip_ms or loss_percent:
            self._wires[where] = self._stretch(where, round_trip_ms / 2, loss_percent)

    def forget(self) -> None:
        """Collect the processes of delay lines when their lab is gone."""
        while self._wires:
            _end(self._wires.popitem()[1])

    def _stretch(self, where: str, one_way_ms: float, loss_percent: float) -> subprocess.Popen[str]:
        near, far = f"near-{where}", f"far-{where}"
        argv = ["ip", "netns", "exec", INTERNET, sys.executable, str(_WIRE), near, far]
        wire = subprocess.Popen(
            within_lab(self._keeper, *argv, str(one_way_ms), str(loss_percent)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if wire.stdout is None or not wire.stdout.readline():
            raise LabError("the delay line does not start")
        self._network.ip(
            INTERNET,
            [
                f"link add line-{where} type bridge",
                f"link set line-{where} up",
                f"link set {near} master line-{where} up",
                f"link set {far} master br0 up",
                f"link set to-{where} master line-{where}",
            ],
        )
        return wire

    def _pairs(self, source: str, target: str, one_way: bool) -> str:
        pairs = [(source, target)] if one_way else [(source, target), (target, source)]
        elements = ", ".join(
            f"{sender} . {receiver}"
            for first, second in pairs
            for sender in self._addresses(first)
            for receiver in self._addresses(second)
        )
        return f"element inet lab cut_pairs {{ {elements} }}"

    def _addresses(self, name: str) -> tuple[str, ...]:
        """All that a packet of this endpoint may be called where a router sees it."""
        if name == CLIENT:
            return (CLIENT_ADDRESS,)
        return (self._hosts[name].private, self._hosts[name].public)

    def _port(self, port: int, name: str | None, *, opened: bool) -> None:
        if name is None:
            element = f"element inet lab open_ports {{ {port} }}"
            for router in ROUTERS.values():
                self._network.nft(router, f"add {element}\n" if opened else _absent(element))
            return
        element = f"element inet lab closed_ports {{ {self._hosts[name].private} . {port} }}"
        self._at(name, _absent(element) if opened else f"add {element}")

    def _at(self, name: str, commands: str) -> None:
        self._network.nft(ROUTERS[self._hosts[name].cloud], commands + "\n")


def _absent(element: str) -> str:
    """Commands after which the element is not there; to delete what was not there would be an error."""
    return f"add {element}\ndelete {element}\n"


def _end(wire: subprocess.Popen[str]) -> None:
    with wire:
        wire.kill()


class DiskFaults:
    """Disks that are too small."""

    def __init__(self, machine_of: Callable[[str], Machine]) -> None:
        self._machine_of = machine_of

    def shrink(self, name: str, directory: str, size: str = "16M") -> None:
        """Put a small disk where the directory is, with its content, owner and mode; until the host reboots.

        Files that a process has open stay where they were: stop the server first, or do it before it is installed.
        """
        script = """
set -e
mkdir -p "$1"; cd "$1"
mount -t tmpfs -o "size=$2,mode=$(stat -c %a .),uid=$(stat -c %u .),gid=$(stat -c %g .)" tmpfs "$1"
cp -a . "$1/"
"""
        self._inside(name, script, directory, size)

    def fill(self, name: str, directory: str) -> None:
        """Fill a disk that was shrunk to its last byte."""
        script = 'mountpoint -q "$1" || exit 1; cat /dev/zero > "$1/.filler" 2>/dev/null; true'
        self._inside(name, script, directory)

    def free(self, name: str, directory: str) -> None:
        """Take back what fill took."""
        self._inside(name, 'rm -f "$1/.filler"', directory)

    def _inside(self, name: str, script: str, *arguments: str) -> None:
        output_of(self._machine_of(name).command("sh", "-c", script, "sh", *arguments), timeout=60)
