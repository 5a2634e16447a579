"""Scripts of faults on a real kernel: what a lost host still answers at, and who undoes what."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redkeep.planning.drills.faults import Process, armed, cut_off, hang, undone

from .servers import until

pytestmark = pytest.mark.live

NAME = "redkeep-drill-test"


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "120"], cwd="/")
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
@pytest.mark.parametrize(
    ("connection", "ports"),
    [("198.51.100.1 50000 10.0.0.1 2222", {"2201", "2222"}), ("", {"2201"})],
    ids=["forwarded", "not by SSH"],
)
def test_a_lost_host_keeps_the_port_that_ssh_came_in_by(
    tmp_path: Path, connection: str, ports: set[str]
) -> None:
    """In a network namespace of its own. The inner shell has a clear environment, as below sudo."""
    script = tmp_path / "fault.sh"
    variables = {k: v for k, v in os.environ.items() if k != "SSH_CONNECTION"}
    with process() as child:
        script.write_text("set -e\n" + cut_off([Process(child.pid, "/")], name=NAME, ssh_port=2201).cause)
        command = 'env -i PATH="$PATH" sh "$0" && nft list ruleset; exit $?'
        done = subprocess.run(
            ["unshare", "-n", "sh", "-c", command, str(script)],
            env=variables | ({"SSH_CONNECTION": connection} if connection else {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert child.wait(timeout=10) == -9
    chains = done.stdout.split("chain ")[1:]
    assert len(chains) == 2
    for chain in chains:
        assert set(re.findall(r"dport (\d+) accept", chain)) == ports
        assert set(re.findall(r"sport (\d+) accept", chain)) == ports
        assert 'iifname "lo" accept' in chain or 'oifname "lo" accept' in chain
        assert chain.split("}")[0].rstrip().endswith("drop")


def test_the_timer_has_the_last_word_where_the_fault_may_still_be_caused(tmp_path: Path) -> None:
    """A connection that is lost, or Ctrl-C, in the middle of the script: it may go on after the fault was undone."""
    with process() as child:
        fault = hang(Process(child.pid, "/"))
        folder = str(tmp_path)
        script = armed(fault, name=NAME, seconds=-5, systemd=False, folder=folder)  # in ten seconds
        timer, _, cause = script.partition(fault.cause)
        _shell(timer)
        _shell(undone(fault, name=NAME, systemd=False, folder=folder, over=False))
        _shell(f"set -e\n{fault.cause}{cause}")
        until(lambda: _state(child.pid) == "T", seconds=8)
        until(lambda: _state(child.pid) != "T", seconds=30)
        assert not (tmp_path / f"{NAME}.pid").exists()


def _shell(script: str) -> None:
    subprocess.run(["sh", "-c", script], check=True, timeout=60, capture_output=True)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
