"""A cloud on one machine: hosts with a real systemd, sshd and apt behind real NAT, under one process.

with Lab(["a11", "a12", "a13"]) as lab:
    lab.run([sys.executable, "-m", "redkeep", "apply"], cwd=here)  # as an operator on the internet
    lab.power_cut("a11")
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from . import cgroups, keeper
from .bases import base_of, layer_of, prepare, repository_of
from .clock import set_clock
from .demands import why_unavailable
from .errors import LabError, LabUnavailable
from .facts import CLIENT, DEFAULT_HOSTS, INTERNET, PACKAGE_SERVER, Host, hosts_of
from .faults import DiskFaults, NetworkFaults
from .machine import Machine
from .namespaces import call_in_network, network, network_path, within_lab, within_network
from .network import Network
from .ssh import Ssh

T = TypeVar("T")

_PREFIX = "redkeep-lab-"


class Lab:
    """Some hosts in two clouds, a client on the internet, and all that can go wrong between them."""

    def __init__(
        self, hosts: Mapping[str, str] | Iterable[str] = DEFAULT_HOSTS, *, layers: Sequence[str] = ()
    ) -> None:
        """Start the hosts and return when SSH answers on all of them; build what is not in the cache first."""
        reason = why_unavailable()
        if reason is not None:
            raise LabUnavailable(reason)
        self.hosts: dict[str, Host] = hosts_of(hosts)
        self._layers = layers
        prepare(host.distribution for host in self.hosts.values())
        cgroups.sweep()
        _sweep_directories()
        self._instance = f"{os.getpid()}-{secrets.token_hex(3)}"
        self.directory = Path(tempfile.gettempdir()) / f"{_PREFIX}{self._instance}"
        self.directory.mkdir(mode=0o700)
        self._lock = _lock(self.directory)
        self._groups = cgroups.lab_groups(self._instance)
        self._keeper = self._start_keeper()
        self._children = ExitStack()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self._first = self._first_process()
        self.ssh = Ssh(self.directory / "ssh")
        self._network = Network(self._first, self.hosts)
        self.network = NetworkFaults(self._network, self.hosts, self._first)
        self._children.callback(self.network.forget)
        self.disk = DiskFaults(self._machine)
        self._network.build()
        self._serve_packages()
        logs = self.directory / "consoles"
        logs.mkdir()
        self._machines = {
            name: Machine(host, self._first, self._groups, logs / f"{name}.log")
            for name, host in self.hosts.items()
        }
        for name, host in self.hosts.items():
            self.ssh.new_host_key(name)
            machine = self._machines[name]
            self._children.callback(machine.forget)
            lower = [layer_of(host.distribution, layer) for layer in self._layers]
            machine.make_disk([*reversed(lower), base_of(host.distribution)], self.ssh)
            self._network.plug_in(host)
            machine.boot()
        self.ssh.write_client_files(self.hosts.values())
        self.wait_ready()

    def close(self) -> None:
        """Take everything down; it is all gone when this returns."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(5)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        keeper.remove_leftovers(self.directory, self._groups)
        self._children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    # --- where programs run -------------------------------------------------------------------------------

    def run(
        self, argv: Sequence[str], where: str = CLIENT, *, timeout: float | None = 120, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine with the network of the client, or of a host; output is captured."""
        options = {"capture_output": True, "text": True, **options}
        return subprocess.run(self._argv(argv, where), timeout=timeout, **options)

    def popen(self, argv: Sequence[str], where: str = CLIENT, **options: Any) -> subprocess.Popen[Any]:
        """Start such a program."""
        return subprocess.Popen(self._argv(argv, where), **options)

    def inside(self, where: str = CLIENT) -> AbstractContextManager[None]:
        """The calling thread, and threads it starts, are in that network for the time of a `with`."""
        return network(network_path(self._first, where))

    def call(self, function: Callable[[], T], where: str = CLIENT) -> T:
        """Call a function on a thread that is in that network."""
        return call_in_network(network_path(self._first, where), function)

    def exec(
        self, name: str, command: str, *, user: str = "root", timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside a host, past its network: it also works where SSH does not."""
        argv = self._machine(name).command(*([] if user == "root" else ["runuser", "-u", user, "--"]))
        done = subprocess.run([*argv, "bash", "-c", command], capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise LabError(f"{name}: exit status {done.returncode}: {command}\n{done.stdout}{done.stderr}")
        return done

    def root_of(self, name: str) -> Path:
        """A host's disk, readable and writable from here, whether the host is on or off."""
        return self._machine(name).root

    def publish(self, file: Path) -> str:
        """Put a copy of a file on the lab's web server; the result is its address for hosts and client."""
        shutil.copy(file, self.directory / "www" / file.name)
        return f"http://{PACKAGE_SERVER}/{file.name}"

    # --- power and identity -------------------------------------------------------------------------------

    def power_cut(self, name: str) -> None:
        """The host is gone from one moment to the next: its network first, so that no FIN or RST tells anyone."""
        self.network.cut(name)
        self._machine(name).kill()

    def power_on(self, name: str) -> None:
        """Switch a host on again, with its disk as it was, and wait until SSH answers."""
        machine = self._machine(name)
        if machine.is_on:
            raise LabError(f"{name} is on already")
        self._network.plug_in(self.hosts[name])
        self.network.heal(name)
        machine.boot()
        self.wait_ready(name)

    def crash(self, name: str) -> None:
        """All processes of the host die at once, but its network stays and tells the peers (FIN, RST)."""
        self._machine(name).kill()

    def freeze(self, name: str) -> None:
        """The host hangs: connections are accepted, and nothing ever answers."""
        self._machine(name).freeze(True)

    def thaw(self, name: str) -> None:
        """A frozen host goes on as if no time had passed."""
        self._machine(name).freeze(False)

    def change_host_key(self, name: str) -> str:
        """Give a host another SSH host key, as a reinstalled (or a false) one has; the new fingerprint.

        The lab's own known_hosts keeps the old key: that is the point.
        """
        self.ssh.new_host_key(name)
        self._machine(name).install_host_key(self.ssh)
        return self.ssh.fingerprint(name)

    def change_public(self, name: str, public: str) -> None:
        """From now on the host is reached at another public address, as after a new elastic IP; connections end."""
        host = self.hosts[name]
        self.network.forward(host, public)
        self.hosts[name] = replace(host, public=public)
        self.ssh.write_client_files(self.hosts.values())

    def set_clock(self, name: str, seconds: float) -> None:
        """Put the time of day of a host that much ahead (or behind, if negative), for programs that start from now on.

        SSH commands are such programs; a server must be restarted once. Another call moves both at once.
        """
        set_clock(self.root_of(name), seconds)

    def wait_ready(self, *names: str, timeout: float = 60) -> None:
        """Return when SSH answers on these hosts, or on all."""
        deadline = time.monotonic() + timeout
        for name in names or self.hosts:
            self._machine(name).wait_ready(deadline)

    # --- how it is made -----------------------------------------------------------------------------------

    @property
    def keeper_pid(self) -> int:
        """The process that holds the lab up."""
        return self._keeper.pid

    def _machine(self, name: str) -> Machine:
        return self._machines[name]

    def _argv(self, argv: Sequence[str], where: str) -> list[str]:
        return within_network(self._first, where, *map(str, argv))

    def _start_keeper(self) -> subprocess.Popen[str]:
        ourselves = os.pidfd_open(os.getpid())
        argv = [sys.executable, "-I", keeper.__file__, str(ourselves), str(self.directory)]
        try:
            return subprocess.Popen(
                [*argv, *map(str, self._groups)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[ourselves, self._lock],
            )
        finally:
            os.close(ourselves)
            os.close(self._lock)

    def _first_process(self) -> int:
        assert self._keeper.stdout is not None
        with self._keeper.stdout as said:
            first = said.readline().strip()
        if not first:
            raise LabError("the lab's keeper does not start")
        return int(first)

    def _serve_packages(self) -> None:
        """Start the package server on the internet; it ends with the lab."""
        www = self.directory / "www"
        www.mkdir()
        for distribution in {host.distribution for host in self.hosts.values()}:
            (www / distribution).symlink_to(repository_of(distribution))
        serve = ["-m", "http.server", "--directory", str(www), "--bind", PACKAGE_SERVER, "80"]
        server = subprocess.Popen(
            within_lab(self._first, "ip", "netns", "exec", INTERNET, sys.executable, *serve),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._children.enter_context(server)


def _lock(directory: Path) -> int:
    """Mark a lab's directory as in use, for as long as anyone has this descriptor: the keeper inherits it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep_directories() -> None:
    """Remove the directories of labs whose keeper was killed together with its owner."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        try:
            unused = _lock(directory)
        except OSError:
            continue
        shutil.rmtree(directory, ignore_errors=True)
        os.close(unused)
