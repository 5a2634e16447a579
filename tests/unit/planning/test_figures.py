"""What the pages compute: where keys go, who would be elected, and how many must agree."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest

from redkeep.model.slots import SlotRange
from redkeep.planning.figures import TOPICS, figures
from redkeep.planning.figures.figure import Figure
from redkeep.planning.figures.hashing import compared
from redkeep.planning.figures.shape import Member, Shape, example
from redkeep.usecases.explain import LANGUAGES
from redkeep.usecases.figures import sentences


def one(found: tuple[Figure, ...], key: str) -> Figure:
    (figure,) = [f for f in found if f.key == key]
    return figure


def sentinel(*replicas: Member, **more: object) -> Shape:
    members = (Member("p", "h0", "primary", 0, offset=1000), *replicas)
    voters = {"s1": "h0", "s2": "h1", "s3": "h2"}
    shape = Shape("shop", "sentinel", "seen", members, voters, 1000, quorum=2)
    return replace(shape, **more)  # type: ignore[arg-type]


def replica(name: str, offset: int = 1000, priority: int = 100, *, id: str = "", barred: str = "") -> Member:
    return Member(name, "h1", "replica", 0, (), offset, priority, id or name, barred)


@pytest.mark.parametrize(
    ("replicas", "reason", "heir"),
    [
        ((replica("a"),), "only", "a"),
        ((replica("a"), replica("b", priority=10)), "by-priority", "b"),
        ((replica("a", 900), replica("b", 950)), "by-offset", "b"),
        ((replica("a", id="f"), replica("b", id="e")), "by-run-id", "b"),
        ((replica("a", barred="replica-priority 0"), replica("b", 1)), "only", "b"),
    ],
)
def test_whom_sentinels_promote(replicas: tuple[Member, ...], reason: str, heir: str) -> None:
    found = figures("election", sentinel(*replicas))
    assert one(found, f"election.{reason}").values["heir"] == heir


def test_nobody_is_elected() -> None:
    assert one(figures("election", sentinel()), "election.nobody").values["primary"] == "p"
    barred = sentinel(replica("a", barred="replica-priority 0"))
    assert one(figures("election", barred), "election.all-barred").key
    assert one(figures("election", barred), "election.barred").values["why"] == "replica-priority 0"
    assert one(figures("election", replace(sentinel(replica("a")), mode="standalone")), "election.none").key


def cluster(offsets: tuple[int, ...], *, at_once: bool) -> Shape:
    replicas = [replica(f"r{i}", offset, id=f"{9 - i}") for i, offset in enumerate(offsets)]
    primary = Member("p", "h0", "primary", 0, (SlotRange(0, 16383),), 1000)
    return replace(
        Shape("c", "cluster", "seen", (primary, *replicas), {"p": "h0"}, 2000), elects_at_once=at_once
    )


def test_ranks_and_waits_in_a_cluster() -> None:
    found = figures("election", cluster((900, 1000, 950), at_once=False))
    ranks = [f.values for f in found if f.key == "election.cluster-rank"]
    assert [(r["node"], r["rank"], r["wait"], r["behind"]) for r in ranks] == [
        ("r1", 0, "500-1000", 0),
        ("r2", 1, "1500-2000", 50),
        ("r0", 2, "2500-3000", 100),
    ]
    assert one(found, "election.cluster-time").values["soonest"] == 2500
    newer = figures("election", cluster((900, 1000), at_once=True))
    assert [f.values["wait"] for f in newer if f.key == "election.cluster-rank"] == ["0", "1500-2000"]
    assert one(newer, "election.cluster-time").values["soonest"] == 2000


def test_equal_offsets_are_told_apart_by_node_id_or_by_chance() -> None:
    assert (
        one(figures("election", cluster((7, 7), at_once=True)), "election.by-node-id").values["heir"] == "r1"
    )
    assert one(figures("election", cluster((7, 7), at_once=False)), "election.by-chance").key


def test_votes() -> None:
    found = figures("quorum", example())
    assert one(found, "quorum.cluster").values == {"voters": 3, "needed": 2, "spare": 1}
    assert one(found, "quorum.one-dead").values["left"] == 2
    assert [f.key for f in found].count("quorum.host-ok") == 3
    crowded = replace(example(), voters={"a": "h1", "b": "h1", "c": "h2"})
    assert one(figures("quorum", crowded), "quorum.host-stops").values["host"] == "h1"
    lone = replace(example(), voters={"a": "h1", "b": "h2"})
    assert one(figures("quorum", lone), "quorum.one-dead-stops").values == {"left": 1, "needed": 2}
    assert one(figures("quorum", lone), "quorum.even").key
    high = replace(sentinel(replica("a")), quorum=3)
    assert one(figures("quorum", high), "quorum.sentinel").values["spare"] == 0


def test_a_new_shard_takes_its_share_from_the_slots_that_there_are() -> None:
    found = one(figures("slots", example()), "slots.change").values
    assert (found["shards"], found["wanted"], found["slots"]) == (3, 4, 4096)
    members = (
        Member("a", "h", "primary", 0, (SlotRange(0, 12287),)),
        Member("b", "h", "primary", 1, (SlotRange(12288, 16000),)),
    )
    lopsided = replace(example(), members=members)
    assert one(figures("slots", lopsided), "slots.uncovered").values["count"] == 383
    keys = {f.values["key"]: f.values["node"] for f in figures("slots", lopsided) if f.key == "slots.key"}
    assert keys == {"user:1000": "a", "{user:1000}.cart": "a", "{user:1000}.orders": "a", "user:1001": "a"}


def test_what_each_way_moves() -> None:
    grown, shrunk = compared(4, 5), compared(4, 3)
    assert grown["slots"].moved == pytest.approx(1 / 5, abs=0.02)
    assert grown["ring"].moved == pytest.approx(1 / 5, abs=0.05)
    assert grown["modulo"].moved == pytest.approx(4 / 5, abs=0.02)
    assert shrunk["slots"].moved == pytest.approx(1 / 4, abs=0.02)
    assert grown["slots"].uneven < grown["ring"].uneven
    assert compared(1, 2)["slots"].moved == pytest.approx(1 / 2, abs=0.02)


def test_the_loss_that_drills_saw_is_the_last_of_each_fault() -> None:
    def drilled(fault: str, began: str, lost: int) -> dict[str, object]:
        runs = [{"lost": lost, "acknowledged": 500}]
        return {"fault": fault, "began": began, "runs": runs, "median_window_ms": 80.4}

    drills = [drilled("partition", "1", 9), drilled("primary-kill", "2", 0), drilled("partition", "3", 12)]
    found = [f.values for f in figures("consistency", example(), drills) if f.key == "consistency.drill"]
    assert [(f["fault"], f["lost"], f["window"]) for f in found] == [
        ("primary-kill", 0, "80"),
        ("partition", 12, "80"),
    ]
    seen = replace(example(), source="seen")
    assert one(figures("consistency", seen), "consistency.no-drill").key
    bound = replace(
        seen, settings={"min-replicas-to-write": "1", "appendonly": "yes", "appendfsync": "always"}
    )
    keys = {f.key for f in figures("consistency", bound)}
    assert {"consistency.bounded", "consistency.fsync-always"} <= keys


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sentence_in_every_language(lang: str) -> None:
    english, its = sentences("en"), sentences(lang)
    assert its.keys() == english.keys()
    for key, text in its.items():
        assert placeholders(text) == placeholders(english[key]), key


def test_every_figure_has_its_sentence() -> None:
    shapes = [
        example(),
        replace(example(), source="seen"),
        cluster((1, 2), at_once=True),
        sentinel(replica("a"), hook=True),
        replace(sentinel(replica("a")), mode="standalone", voters={}),
        replace(example(), members=(Member("r", "h", "replica", 0),), voters={}),
    ]
    texts = sentences("en")
    for topic in TOPICS:
        for shape in shapes:
            found = figures(topic, shape)
            assert found, (topic, shape)
            for figure in found:
                assert placeholders(texts[figure.key]) <= figure.values.keys(), figure
                texts[figure.key].format(**figure.values)
