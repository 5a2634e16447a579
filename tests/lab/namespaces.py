"""Entering the namespaces of a lab, by a command or by a thread of this process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def network_path(keeper: int, name: str) -> Path:
    """A network namespace of a lab, seen from outside through the root of the lab's first process."""
    return Path(f"/proc/{keeper}/root/run/netns/{name}")


def within_lab(keeper: int, *argv: str) -> list[str]:
    """A command line that runs in the mounts and the process namespace of the lab."""
    return ["nsenter", "--target", str(keeper), "--mount", "--pid", "--", *argv]


def within_network(keeper: int, name: str, *argv: str) -> list[str]:
    """A command line that runs here (our files, our processes) but with the network of a namespace."""
    return ["nsenter", f"--net={network_path(keeper, name)}", "--", *argv]


@contextmanager
def network(path: Path) -> Iterator[None]:
    """The calling thread is in that network namespace; sockets made meanwhile stay in it for good."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(path, os.O_RDONLY)
        try:
            _set_network(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _set_network(home)
    finally:
        os.close(home)


def call_in_network(path: Path, function: Callable[[], T]) -> T:
    """Call the function on a new thread in that network namespace, and hand back what it returned or raised."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            with network(path):
                results.append(function())
        except BaseException as failure:
            failures.append(failure)

    thread = Thread(target=body, name=f"in {path.name}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _set_network(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
