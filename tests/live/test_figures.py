"""Pages with the figures of a running deployment: what they foretell comes true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .servers import until
from .test_drill import Here, made

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    yield from made(tmp_path_factory.mktemp("sentinel"), "sentinel", failover="fast")


def computed(here: Here, *words: str) -> dict[str, dict[str, Any]]:
    document = here.run("explain", *words, "--json").ok().json
    assert document["computed"]["source"] == "seen"
    return {f["figure"]: f["values"] for f in document["computed"]["figures"]}


def test_who_is_said_to_be_elected_is_elected(sentinel: Here) -> None:
    nodes = sentinel.status()
    primary = next(n["name"] for n in nodes if n["role"] == "primary")
    chosen = max(n["name"] for n in nodes if n["role"] == "replica")
    sentinel.admin(_port(chosen)).config_set("replica-priority", 5)
    watchers = [sentinel.admin(sentinel.port + 7 + i) for i in range(3)]

    def known() -> bool:
        """A Sentinel asks for INFO every ten seconds."""
        lists = [w.sentinel_slaves(f"drilled-{sentinel.port}") for w in watchers]
        return all(any(int(r["slave-priority"]) == 5 for r in replicas) for replicas in lists)

    until(known, seconds=40)
    told = computed(sentinel, "election")["election.by-priority"]
    assert (told["primary"], told["heir"]) == (primary, chosen)
    (run,) = sentinel.drill("primary-hang", "--hold", "4")["runs"]
    assert [e["node"] for e in run["events"] if e["what"] == "is primary"][:1] == [chosen]
    last = computed(sentinel, "consistency")["consistency.drill"]
    assert (last["fault"], last["lost"], last["acknowledged"]) == (
        "primary-hang",
        run["lost"],
        run["acknowledged"],
    )


def test_by_address_and_in_chinese(sentinel: Here) -> None:
    reader = {
        "REDKEEP_PASSWORD": sentinel.run("url", "--user", "admin", "--reveal", "--json").ok().json["password"]
    }
    found = sentinel.run(
        "explain",
        "quorum",
        f"redis://127.0.0.1:{sentinel.port}",
        "--user",
        "redkeep",
        "--lang",
        "zh",
        env=reader,
    ).ok()
    assert "3 个 Sentinel；2 个须认为主节点已下线" in found.stdout, found.stdout


def test_what_cannot_be_computed_is_refused(sentinel: Here, tmp_path: Path) -> None:
    run = sentinel.run
    run("explain", "bind", "redkeep.yaml").error(2, "nothing is computed on the page 'bind'", "election")
    run("explain", "slots", "missing.yaml").error(2, "no missing.yaml here")
    run("explain", "slots", "redkeep.yaml", "-f", "redkeep.yaml").error(2, "a file twice")
    run("explain", "slots", "127.0.0.1:1").error(1, "refused")


def _port(name: str) -> int:
    return int(name.rpartition(":")[2])
