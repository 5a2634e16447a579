"""The demo as a user runs it: what it tells, and that nothing of it stays behind however it ends. Its folder has a
blank and a quote in its name, as folders of temporary files may."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli import Redkeep

pytestmark = pytest.mark.live


@pytest.fixture
def here(tmp_path: Path) -> Redkeep:
    temporary = tmp_path / "it's a folder"
    temporary.mkdir()
    return Redkeep(tmp_path, environment={"TMPDIR": str(temporary)}, timeout=300)


def folder(run: Redkeep) -> Path:
    return Path(run.environment["TMPDIR"])


def left(run: Redkeep) -> list[str]:
    """Files of the demo, and processes that know its folder."""
    found = [str(p) for p in folder(run).iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + str((process / "cwd").readlink()).encode()
        except OSError:
            continue
        if str(folder(run)).encode() in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def nothing_stays(run: Redkeep) -> None:
    deadline = time.monotonic() + 60
    while what := left(run):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def staying(run: Redkeep, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        run.argv("demo", "--mode", "standalone", *arguments),
        cwd=run.folder,
        env=run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], word: str, *, error: bool = False) -> str:
    stream = process.stderr if error else process.stdout
    assert stream is not None
    said = ""
    for line in stream:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


@pytest.mark.parametrize("mode", ["standalone", "sentinel", "cluster"])
def test_once(here: Redkeep, mode: str) -> None:
    told = here("demo", "--once", "--json", "--mode", mode).ok().json
    assert told["mode"] == mode
    assert told["ready_seconds"] > 0
    assert told["nodes"]
    drill = told["drill"]
    assert set(drill) >= {"fault", "settings", "runs", "median_window_ms", "report"}
    assert set(drill["runs"][0]) >= {"window_ms", "acknowledged", "lost", "stale_reads", "errors"}
    assert drill["runs"][0]["acknowledged"] > 0
    assert drill["runs"][0]["window_ms"] > 0
    nothing_stays(here)


def test_it_stays_until_control_c(here: Redkeep) -> None:
    process = staying(here)
    said = read_until(process, "  redis://default:")
    assert "until Ctrl-C" in said
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    nothing_stays(here)


def test_as_json_it_tells_before_it_stays(here: Redkeep) -> None:
    process = staying(here, "--json")
    read_until(process, '"median_window_ms"')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 0
    nothing_stays(here)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_while_it_is_made(here: Redkeep, end: signal.Signals) -> None:
    process = staying(here)
    read_until(process, "write-files", error=True)
    process.send_signal(end)
    process.communicate(timeout=120)
    assert process.returncode == (130 if end == signal.SIGINT else -end)
    nothing_stays(here)


def test_killed_while_it_stays(here: Redkeep) -> None:
    process = staying(here)
    read_until(process, "until Ctrl-C")
    process.kill()
    process.communicate(timeout=120)
    nothing_stays(here)


def test_a_client_that_cannot_write_is_no_outage(here: Redkeep) -> None:
    """Its library lacks a module, as after an installation for another Python."""
    package = here.folder / "site/redis"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('no such part')\n")
    path = f"{package.parent}:{os.environ.get('PYTHONPATH', '')}"
    told = here("demo", "--once", "--mode", "standalone", env={"PYTHONPATH": path})
    told.error(1, "the client cannot write to shard 1: ModuleNotFoundError: no such part", "redis-py")
    nothing_stays(here)
