"""A network of its own for one test, in which this machine has public addresses; nothing of it is seen outside.

def test_x(binary, tmp_path):
    def body():
        with running(...): ...
    in_public_network(body)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lab.namespaces import call_in_network

T = TypeVar("T")

#: Addresses of the networks for documentation, on the namespace's loopback interface.
PUBLIC, ALSO_PUBLIC = "203.0.113.11", "203.0.113.12"

needs_network = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))),
    reason="needs root, unshare, nsenter and ip",
)


def in_public_network(body: Callable[[], T]) -> T:
    """Calls it in a thread that is in the network; the processes it starts are, too."""
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        _wait_until_apart(keeper.pid)
        for command in (
            ["link", "set", "lo", "up"],
            *(["addr", "add", f"{address}/32", "dev", "lo"] for address in (PUBLIC, ALSO_PUBLIC)),
        ):
            subprocess.run(
                ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", "ip", *command], check=True, timeout=10
            )
        return call_in_network(Path(f"/proc/{keeper.pid}/ns/net"), body)
    finally:
        keeper.kill()
        keeper.wait()


#: Addresses of the two ends of the line to a neighbour.
NEAR, FAR = "10.99.0.1", "10.99.0.2"


@contextmanager
def neighbour(*addresses: str) -> Iterator[Path]:
    """Another machine's network, beside that of the calling thread: it is reached at ``FAR``, and nothing else of it is.

    ``addresses`` are on its own loopback interface. Yields the path of its namespace. Call it inside
    ``in_public_network``, since it adds an interface to the network that it is called in.
    """
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    path = Path(f"/proc/{keeper.pid}/ns/net")
    try:
        _wait_until_apart(keeper.pid)
        _ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(keeper.pid))
        _ip("addr", "add", f"{NEAR}/24", "dev", "near")
        _ip("link", "set", "near", "up")
        _ip("addr", "add", f"{FAR}/24", "dev", "far", network=path)
        for device in ("lo", "far"):
            _ip("link", "set", device, "up", network=path)
        for address in addresses:
            _ip("addr", "add", f"{address}/32", "dev", "lo", network=path)
        yield path
    finally:
        keeper.kill()
        keeper.wait()


def _ip(*words: str, network: Path | None = None) -> None:
    inside = ["nsenter", f"--net={network}"] if network else []
    subprocess.run([*inside, "ip", *words], check=True, timeout=10)


def _wait_until_apart(pid: int) -> None:
    """``unshare`` leaves our network a moment after it was started."""
    ours = Path("/proc/thread-self/ns/net").stat().st_ino
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/ns/net").stat().st_ino == ours:
        assert time.monotonic() < deadline, "no network of its own"
        time.sleep(0.01)
