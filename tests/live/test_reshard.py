"""``redkeep reshard`` on real Clusters, under a writer's load: what moves, how, and that nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redkeep.model.slots import SLOTS
from tests.cli import Redkeep
from tests.live.resharding import ENGINES, Cluster, Writer, cluster, key_in
from tests.live.servers import until

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=ENGINES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("reshard"), request.param) as found:
        yield found


def is_valkey(made: Cluster) -> bool:
    return "valkey" in made.run.file.read_text()


@pytest.mark.parametrize("options", [(), ("--max-pause", "15ms")], ids=["fastest", "short pause"])
def test_slots_move_while_a_client_writes(made: Cluster, options: tuple[str, ...]) -> None:
    before = made.owners()
    with Writer(made) as writer:
        moved = made.reshard(
            "--from", f"{made.name(0)},{made.name(1)}", "--to", made.name(2), "--slots", "900", *options
        )
    assert moved["moved_slots"] == 900
    assert moved["moved_keys"] > 0
    assert moved["method"] == ("atomic" if is_valkey(made) and not options else "migrate")
    assert moved["longest_pause_ms"] is None
    after = made.owners()
    assert len(after[2] - before[2]) == 900
    assert len(before[0] - after[0]) == len(before[1] - after[1]) == 450
    assert writer.writes
    assert not writer.errors
    made.check()


def test_even_shares_and_nothing_the_second_time(made: Cluster) -> None:
    made.reshard("--rebalance")
    assert sorted(map(len, made.owners())) == [5461, 5461, 5462]
    assert made.reshard("--rebalance")["moved_slots"] == 0
    made.check()


def test_weights_and_keys(made: Cluster) -> None:
    made.reshard("--rebalance", "--by", "keys", "--weight", f"{made.name(0)}=2", "--max-pause", "20ms")
    keys = [int(made.admin(i).dbsize()) for i in range(3)]
    assert abs(keys[0] / sum(keys) - 0.5) < 0.04, keys
    assert made.reshard("--rebalance", "--by", "keys", "--weight", f"{made.name(0)}=2")["moved_slots"] == 0
    made.reshard("--rebalance", "--by", "memory")
    made.check()


def test_a_shard_is_emptied_and_filled_again(made: Cluster) -> None:
    made.reshard("--empty", made.name(1))
    assert [len(own) for own in made.owners()][1] == 0
    assert int(made.admin(1).dbsize()) == 0
    made.reshard("--rebalance")
    made.check()


def test_functions_come_with_the_first_slots(made: Cluster) -> None:
    """Applications load them on every primary; a new one has none."""
    code = "#!lua name=ours\nredis.register_function('twice', function(keys, args) return 2 * args[1] end)"
    for index in range(made.shards):
        made.admin(index).function_load(code)
    try:
        made.reshard("--empty", made.name(2))
        made.admin(2).function_flush()
        made.reshard("--rebalance")
        key = key_in(min(made.owners()[2]), "s:any")
        assert made.admin(2).fcall("twice", 1, key, 21) == 42
    finally:
        for index in range(made.shards):
            made.admin(index).function_flush()


def test_what_a_client_feels_is_measured(made: Cluster) -> None:
    moved = made.reshard("--from", made.name(0), "--to", made.name(1), "--slots", "300", "--probe")
    assert moved["longest_pause_ms"] > 0
    assert moved["acknowledged"] > 0
    assert moved["lost"] == 0
    made.check()


def test_ctrl_c_leaves_no_slot_open_and_the_next_run_goes_on(made: Cluster) -> None:
    before = made.owners()
    process = _started(
        made, "--from", made.name(0), "--to", made.name(2), "--slots", "3000", "--max-pause", "15ms"
    )
    until(lambda: len(_mine(made, 2)) > len(before[2]), seconds=60, what="the first slots")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "run the same command again to finish" in said
    until(lambda: _agreed(made), seconds=60, what="the views")
    half = made.owners()
    assert len(before[2]) < len(half[2]) < len(before[2]) + 3000
    # what is planned otherwise is not confused by that
    assert made.run("apply", "--yes", "--json").ok().json["steps"] == []
    assert any("unfinished" in s for s in made.run("plan", "--json").ok().json["suggestions"])
    made.run("reshard", "--rebalance", "--yes").error(4, "another reshard is unfinished", "--slots 3000")
    made.reshard()
    assert len(made.owners()[2] - before[2]) == 3000
    assert made.reshard("--rebalance")["moved_slots"] > 0
    made.check()


def test_an_unfinished_one_can_be_abandoned(made: Cluster) -> None:
    process = _started(
        made, "--from", made.name(1), "--to", made.name(2), "--slots", "3000", "--max-pause", "15ms"
    )
    before = len(made.owners()[2])
    until(lambda: len(_mine(made, 2)) > before, seconds=60, what="the first slots")
    process.kill()
    process.communicate()
    made.reshard("--abandon")
    assert len(made.owners()[2]) < before + 3000
    assert made.reshard()["moved_slots"] == 0
    made.reshard("--rebalance")
    made.check()


def test_an_unfinished_one_whose_shard_is_gone(made: Cluster) -> None:
    """As where the file took the shard away meanwhile."""
    note = next((made.run.folder / ".redkeep").glob("*/secrets.json")).parent / "reshard.json"
    note.write_text(
        '{"version": 1, "at": "2026-01-01T00:00:00+00:00", "request": "--rebalance", "slots": {"local:1": "5-9"}}'
    )
    made.run("reshard", "--yes").error(4, "to bring slots to local:1", "--rebalance", "--abandon")
    made.run("reshard", "--rebalance", "--yes").error(4, "to bring slots to local:1")
    made.reshard("--abandon")
    assert not note.exists()
    made.check()


def test_a_target_that_stops_answering_for_a_while(made: Cluster) -> None:
    before = made.owners()
    process = _started(
        made, "--from", made.name(0), "--to", made.name(1), "--slots", "2500", "--max-pause", "15ms"
    )
    until(lambda: len(_mine(made, 1)) > len(before[1]), seconds=60, what="the first slots")
    pid = int(made.admin(1).info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.2)
    os.kill(pid, signal.SIGCONT)
    _, said = process.communicate(timeout=180)
    if process.returncode:  # it gave up at the wrong moment: then the next run finishes
        made.reshard()
    assert len(made.owners()[1] - before[1]) == 2500, said
    made.reshard("--rebalance")
    made.check()


def test_a_large_key_is_told_before_it_goes(made: Cluster) -> None:
    slot = max(made.owners()[0])
    key = key_in(slot, "h:huge")
    client = made.client()
    fields = 120_000
    for start in range(0, fields, 10_000):
        client.hset(key, mapping={f"f{n}": n for n in range(start, start + 10_000)})
    try:
        arguments = ("--from", made.name(0), "--to", made.name(1), "--slots", "5", "--max-pause", "15ms")
        refused = made.run("reshard", *arguments)
        assert refused.status == 4, refused.everything  # nobody to ask
        moved = made.reshard(*arguments)
        assert moved["moved_slots"] == 5
        assert client.hlen(key) == fields
        if not is_valkey(made):
            assert moved["method"] == "migrate"
    finally:
        client.delete(key)
        client.close()
    made.check()


def test_a_large_key_goes_while_others_move_key_by_key(made: Cluster) -> None:
    """The engine imports the one as a whole; until it has, it marks no other slot as importing at that node."""
    key = key_in(max(made.owners()[0]), "h:huge")
    with made.client() as client:
        for start in range(0, 300_000, 10_000):
            client.hset(key, mapping={f"f{n}": n for n in range(start, start + 10_000)})
        try:
            sources = f"{made.name(0)},{made.name(1)}"
            moved = made.reshard(
                "--from", sources, "--to", made.name(2), "--slots", "1200", "--max-pause", "15ms"
            )
            assert moved["moved_slots"] == 1200
            assert moved["method"] == ("atomic+migrate" if is_valkey(made) else "migrate")
            assert client.hlen(key) == 300_000
        finally:
            client.delete(key)
    made.check()


def test_wishes_that_make_no_sense(made: Cluster) -> None:
    run = made.run
    run("reshard", "--to", made.name(0)).error(2, "--from, --to and --slots belong together")
    run("reshard", "--by", "keys").error(2, "--by is for --rebalance", "add --rebalance")
    run("reshard", "--rebalance", "--empty", made.name(0)).error(2, "one at a time")
    run("reshard", "--rebalance", "--by", "luck").error(2, "no such measure: luck")
    run("reshard", "--rebalance", "--weight", "x").error(2, "not a weight: x")
    run("reshard", "--rebalance", "--max-pause", "soon").error(2, "not a time: soon")
    run("reshard", "--empty", "nowhere:1", "--yes").error(2, "no such node: nowhere:1", made.name(0))
    run("reshard", "--from", made.name(0), "--to", made.name(1), "--slots", "16000", "--yes").error(
        2, "slots there"
    )
    run("reshard", "--from", made.name(0), "--to", made.name(0), "--slots", "1", "--yes").error(
        2, "are the same shard"
    )
    run("reshard", "--rebalance", "--weight", f"{made.name(0)}=2").error(4, "nobody to ask")
    assert made.reshard()["moved_slots"] == 0
    made.check()


def test_the_last_slot_of_a_shard(made: Cluster) -> None:
    """With the engine's default an emptied primary would become a replica of whoever took its last slot, for good."""
    for index in range(made.shards):
        made.admin(index).config_set("cluster-allow-replica-migration", "yes")
    made.reshard("--empty", made.name(2))
    assert made.admin(2).info("replication")["role"] == "master"
    assert made.admin(2).config_get("cluster-allow-replica-migration") == {
        "cluster-allow-replica-migration": "yes"
    }
    assert made.run("plan", "--json").ok().json["steps"] == []
    made.reshard("--rebalance")
    assert sorted(map(len, made.owners())) == [5461, 5461, 5462]
    made.check()


def _started(made: Cluster, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        list(made.run.argv("reshard", *arguments, "--yes")),
        cwd=made.run.folder,
        env=made.run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _mine(made: Cluster, index: int) -> set[int]:
    return made.owners_loosely()[index]


def _agreed(made: Cluster) -> bool:
    try:
        return sum(map(len, made.owners())) == SLOTS
    except AssertionError:
        return False


def test_only_clusters_have_slots(tmp_path: Path) -> None:
    run = Redkeep(tmp_path)
    run.write("mode: standalone\nhosts: [local]\n")
    run("reshard", "--rebalance", "--yes").error(2, "only a Cluster has hash slots")
