"""``redkeep reshard`` where Redis itself moves slots: CLUSTER MIGRATION IMPORT, which 8.4 brought."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from redkeep.model.engine import Version
from tests.live.newest_redis import newest_redis
from tests.live.resharding import Cluster, Writer, cluster

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    engine = f"{{flavor: redis, source: binary, path: {newest_redis(Version(8, 4))}}}"
    with cluster(tmp_path_factory.mktemp("redis"), engine) as found:
        yield found


def test_slots_move_as_a_whole_while_a_client_writes(made: Cluster) -> None:
    before = made.owners()
    with Writer(made) as writer:
        sources = f"{made.name(0)},{made.name(1)}"
        moved = made.reshard("--from", sources, "--to", made.name(2), "--slots", "900")
    assert (moved["moved_slots"], moved["method"]) == (900, "atomic")
    assert moved["moved_keys"] > 0
    assert len(made.owners()[2] - before[2]) == 900
    assert writer.writes
    assert not writer.errors
    made.check()


def test_a_short_pause_is_kept_key_by_key(made: Cluster) -> None:
    arguments = ("--from", made.name(2), "--to", made.name(0), "--slots", "200", "--max-pause", "15ms")
    assert made.reshard(*arguments)["method"] == "migrate"
    made.check()


def test_a_tool_that_was_killed_leaves_it_to_the_engine(made: Cluster) -> None:
    arguments = ("reshard", "--from", made.name(2), "--to", made.name(1), "--slots", "600")
    tool = subprocess.Popen(
        list(made.run.argv(*arguments, "--yes")), cwd=made.run.folder, env=made.run.variables(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not made.admin(1).execute_command("CLUSTER", "MIGRATION", "STATUS", "ALL"):
        assert time.monotonic() < deadline
    tool.send_signal(signal.SIGKILL)
    tool.wait()
    made.reshard("--from", made.name(2), "--to", made.name(1), "--slots", "600")
    assert sum(map(len, made.owners())) == 16384
    made.check()


def test_a_source_that_hangs_is_waited_for(made: Cluster) -> None:
    """The engine tries again by itself, and nothing is lost by it."""
    process = int(made.admin(0).info("server")["process_id"])
    arguments = ("--from", made.name(0), "--to", made.name(2), "--slots", "300")
    with Writer(made):
        subprocess.run(
            ["sh", "-c", f"(sleep 1.4; kill -STOP {process}; sleep 3; kill -CONT {process}) &"], check=True
        )
        made.run("reshard", *arguments, "--yes")
        time.sleep(4)
    made.reshard(*arguments)
    made.check()
