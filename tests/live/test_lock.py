"""The operators' lock, held by real shells on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redkeep.errors import LockedError
from redkeep.hosts.local import LocalHost
from redkeep.run import lock
from redkeep.run.lock import locked

pytestmark = pytest.mark.live


async def test_a_second_operator_is_told_who_holds_it_and_since_when(tmp_path: Path) -> None:
    hosts = [(LocalHost(), str(tmp_path))]
    async with locked(hosts, purpose="apply"):
        with pytest.raises(LockedError) as refused:
            async with locked(hosts, purpose="apply"):
                pass
        assert "(apply)" in refused.value.where
        assert "since 20" in refused.value.where
    async with locked(hosts, purpose="apply"):  # it ended with its holder
        pass


async def test_work_ends_when_the_lock_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT", 0.1)
    with pytest.raises(LockedError) as lost:
        await _work_whose_lock_dies(tmp_path)
    assert "lock was lost" in lost.value.what


async def _work_whose_lock_dies(folder: Path) -> None:
    async with locked([(LocalHost(), str(folder))], purpose="apply"):
        os.kill(_holder(folder / "lock"), signal.SIGKILL)
        await asyncio.sleep(20)
        pytest.fail("the work went on without the lock")


def _holder(path: Path) -> int:
    """The process that has the lock's file open."""
    for process in Path("/proc").glob("[0-9]*/fd/9"):
        try:
            if process.resolve() == path and "bash" in (process.parents[1] / "comm").read_text():
                return int(process.parents[1].name)
        except OSError:
            continue
    raise AssertionError("nobody holds it")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_without_a_name() -> None:
    """As in a container that runs as some number."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os; from redkeep.run import lock; os.setuid(54321); print(lock._user())",
        ],
        env={k: v for k, v in os.environ.items() if k not in ("LOGNAME", "USER", "LNAME", "USERNAME")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "uid 54321\n", done.stderr
