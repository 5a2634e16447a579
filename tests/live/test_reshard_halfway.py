"""Slots that somebody left in the middle of a move, in every state there is: the next ``redkeep reshard`` finishes or
heals them, and no key is lost."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.live.resharding import ENGINES, Cluster, cluster, key_in
from tests.live.servers import until

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=ENGINES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("halfway"), request.param, keys=900) as found:
        yield found


class Slot:
    """A slot of the first shard with a few keys of its own, about to go to the second."""

    def __init__(self, on: Cluster, count: int = 4) -> None:
        self.on = on
        self.number = random.choice(sorted(on.owners_loosely()[0]))
        self.copy = key_in(self.number, "s:copy")
        self.keys = [key_in(self.number, f"s:slot{i}") for i in range(count)]
        self.source, self.target = on.admin(0), on.admin(1)
        self.source_id, self.target_id, self.third_id = on.ids()
        for key in self.keys:
            self.source.set(key, f"value of {key}")
            on.model[key] = f"value of {key}"

    def importing(self) -> None:
        self.target.execute_command("CLUSTER", "SETSLOT", self.number, "IMPORTING", self.source_id)

    def importing_from_nobody(self) -> None:
        """The target knows no owner of it, and hears of none: as when the source died and its replica took over."""
        with self.target.pipeline(transaction=True) as together:
            together.execute_command("CLUSTER", "DELSLOTS", self.number)
            together.execute_command("CLUSTER", "SETSLOT", self.number, "IMPORTING", self.source_id)
            together.execute()

    def migrating(self) -> None:
        self.source.execute_command("CLUSTER", "SETSLOT", self.number, "MIGRATING", self.target_id)

    def move(self, *keys: str) -> None:
        arguments = ("127.0.0.1", self.on.first + 1, "", 0, 5000, "AUTH2", "redkeep", self.on.admin_password)
        self.source.execute_command("MIGRATE", *arguments, "KEYS", *keys)

    def move_all(self) -> None:
        """Also those that were in the slot before: an engine deletes what a former owner still has."""
        self.move(*self.source.execute_command("CLUSTER", "GETKEYSINSLOT", self.number, 1000))

    def write_at_target(self, key: str, value: str) -> None:
        connection = self.target.connection_pool.get_connection()
        try:
            for command in (("ASKING",), ("SET", key, value)):
                connection.send_command(*command)
                connection.read_response()
        finally:
            self.target.connection_pool.release(connection)

    def lose_marks(self, at: Any) -> None:
        at.execute_command("CLUSTER", "SETSLOT", self.number, "STABLE")


def healed(made: Cluster) -> dict[str, Any]:
    found = made.reshard()
    if not found["settled_slots"]:
        # the servers did it before we came, and their news may still be on its way
        until(made.agreed, what="views that agree")
    made.owners()
    made.check()
    assert made.reshard()["settled_slots"] == 0
    return found


def test_migrating_at_the_source_only(made: Cluster) -> None:
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.move(*slot.keys[:2])
    slot.lose_marks(slot.target)  # as after a failover of the target
    found = healed(made)
    assert found["settled_slots"] == 1
    assert made.owner_of(slot.number) == 1


def test_importing_at_the_destination_only(made: Cluster) -> None:
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.move(*slot.keys[:2])
    slot.lose_marks(slot.source)  # as after a failover of the source
    assert healed(made)["settled_slots"] == 1
    assert made.owner_of(slot.number) == 0


def test_importing_at_the_destination_without_a_key_there(made: Cluster) -> None:
    slot = Slot(made)
    slot.importing()
    assert healed(made)["settled_slots"] == 1
    assert made.owner_of(slot.number) == 0


@pytest.mark.parametrize("marked", [True, False], ids=["open at both sides", "at the destination only"])
def test_a_destination_that_knows_no_owner(made: Cluster, marked: bool) -> None:
    """It answers CLUSTERDOWN to everybody who asks for the slot's keys."""
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.move(*slot.keys[:2])
    slot.importing_from_nobody()
    if not marked:
        slot.lose_marks(slot.source)
    assert healed(made)["settled_slots"] == 1
    assert made.owner_of(slot.number) == (1 if marked else 0)


def test_open_at_both_sides(made: Cluster) -> None:
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.move(*slot.keys[:3])
    assert healed(made)["settled_slots"] == 1
    assert made.owner_of(slot.number) == 1


@pytest.mark.parametrize("marked", [True, False], ids=["open", "no marks"])
def test_a_key_on_both_sides(made: Cluster, marked: bool) -> None:
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.write_at_target(slot.keys[0], "what the target has")
    if not marked:
        slot.lose_marks(slot.source)
        slot.lose_marks(slot.target)
    found = healed(made)
    assert found["both_sides"]["keys"] == 1
    saved = Path(found["both_sides"]["saved"])
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert saved.is_relative_to(made.run.folder / ".redkeep")
    (line,) = saved.read_text().splitlines()
    entry = json.loads(line)
    assert base64.b64decode(entry["key"]).decode() == slot.keys[0]
    assert entry["differ"]
    # what was given up can be had again
    for side, value in (("kept", f"value of {slot.keys[0]}"), ("given_up", "what the target has")):
        owner = made.admin(made.owner_of(slot.number))
        owner.restore(slot.copy, 0, base64.b64decode(entry[side]["dump"]), replace=True)
        assert owner.get(slot.copy) == value
        owner.delete(slot.copy)


def test_the_owner_changed_at_the_target_only(made: Cluster) -> None:
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.move_all()
    slot.target.execute_command("CLUSTER", "SETSLOT", slot.number, "NODE", slot.target_id)
    healed(made)
    assert made.owner_of(slot.number) == 1


def test_the_owner_changed_at_the_source_only(made: Cluster) -> None:
    slot = Slot(made)
    slot.importing()
    slot.migrating()
    slot.move_all()
    slot.source.execute_command("CLUSTER", "SETSLOT", slot.number, "NODE", slot.target_id)
    assert healed(made)["settled_slots"] in (
        0,
        1,
    )  # a target of Valkey takes it by itself, sometimes before we come
    assert made.owner_of(slot.number) == 1


def test_many_slots_that_another_tool_left_open(made: Cluster) -> None:
    """As ``redkeep`` does not, and redis-cli does when it is stopped: one half way, others marked in advance."""
    slots = [Slot(made) for _ in range(6)]
    for slot in {s.number: s for s in slots}.values():  # one may have been drawn twice
        slot.importing()
        slot.migrating()
    slots[0].move(slots[0].keys[0])
    third = made.admin(2)
    strange = random.choice(sorted(made.owners_loosely()[2]))
    third.execute_command("CLUSTER", "SETSLOT", strange, "MIGRATING", slots[0].source_id)
    assert healed(made)["settled_slots"] == len({s.number for s in slots}) + 1


#: How often a test kills; more of them for a longer soak.
TOOL_KILLS = int(os.environ.get("REDKEEP_TOOL_KILLS", "4"))
SERVER_KILLS = int(os.environ.get("REDKEEP_SERVER_KILLS", "2"))


@pytest.mark.timeout(600 + 30 * TOOL_KILLS)
@pytest.mark.parametrize("options", [[], ["--max-pause", "15ms"]], ids=["fastest", "short pause"])
def test_the_tool_killed_at_random_instants(made: Cluster, options: list[str]) -> None:
    """kill -9, again and again; in the end each wish is fulfilled as it was decided at first."""
    killed = 0
    while killed < TOOL_KILLS:
        made.reshard("--rebalance", *options)
        before = made.owners()
        wish = ["--from", made.name(0), "--to", made.name(2), "--slots", "2000", "--yes", *options]
        while killed < TOOL_KILLS:
            process = _started(made, *wish)
            ended = _after(process, "stage", random.uniform(0.0, 0.5))
            process.kill()
            process.communicate()
            if ended:
                break
            killed += 1
            wish = ["--yes", *options]  # go on
        made.reshard(*options)
        assert len(made.owners()[2] - before[2]) == 2000
        made.check()


@pytest.mark.timeout(600 + 60 * SERVER_KILLS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_killed_at_random_instants(tmp_path: Path, engine: str) -> None:
    """Each comes back from its append-only file. The next run finishes."""
    with cluster(tmp_path, engine, keys=900, persistence="aof") as made:
        for count in range(SERVER_KILLS):
            options = [] if count % 2 else ["--max-pause", "15ms"]
            before = made.owners()
            source, target = ((0, 2), (2, 0))[len(before[0]) < len(before[2])]
            victim = made.admin(random.choice((source, target))).info("server")["process_id"]
            wish = ["--from", made.name(source), "--to", made.name(target), "--slots", "2000", *options]
            process = _started(made, *wish, "--yes")
            _after(process, "stage", random.uniform(0.0, 0.5))
            os.kill(int(victim), signal.SIGKILL)
            process.communicate(timeout=300)
            if process.returncode:
                until(partial(_finishes, made, options), seconds=120, what="the next run")
            until(lambda: settled(made), seconds=60, what="the views")
            assert len(made.owners()[target] - before[target]) == 2000
            made.check()


def _finishes(made: Cluster, options: list[str]) -> bool:
    return made.run("reshard", *options, "--yes").status == 0


def settled(made: Cluster) -> bool:
    try:
        made.owners()
    except (AssertionError, redis.RedisError):
        return False
    return True


def _started(made: Cluster, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        list(made.run.argv("reshard", *arguments)),
        cwd=made.run.folder,
        env=made.run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _after(process: subprocess.Popen[str], word: str, seconds: float) -> bool:
    """So long after it said so; whether it had ended before it could."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(word):
            time.sleep(seconds)
            break
    return process.poll() is not None
