"""What the tests of ``rescue redis`` share: the servers of this machine, evidence made by them, and results read back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep, Told
from tests.live.servers import Binary, Server, available, running
from tests.rescue.redisfill import contents


def valkey() -> Binary:
    """The bundled one."""
    return next(b for b in available() if b.engine.flavor == "valkey")


def redis_7_0() -> Binary:
    """Debian's."""
    found = [b for b in available() if str(b.engine).startswith("redis 7.0")]
    if not found:
        pytest.skip("no Redis 7.0 here")
    return found[0]


@contextmanager
def with_result(work: Path, folder: Path) -> Iterator[Server]:
    """A fresh server with the file that a rescue made."""
    folder.mkdir()
    shutil.copy(work / "clean.rdb", folder / "dump.rdb")
    with running(valkey(), folder) as server:
        yield server


def back(work: Path, folder: Path, database: int = 0) -> dict[bytes, Any]:
    with with_result(work, folder) as server:
        return contents(server, database)


def rescue(run: Redkeep, *arguments: object) -> Told:
    return run("rescue", "redis", *map(str, arguments), timeout=400)


def rescued(run: Redkeep, *arguments: object) -> Any:
    """The document of one that must succeed."""
    return rescue(run, *arguments, "--json").ok().json


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"
