from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from redkeep.errors import UsageError
from redkeep.usecases.explain import LANGUAGES, Page, explain, join_lines, language, page, pages, topics

#: The doctor's rules. Their names are part of the interface, and each has a page.
RULES = [
    "announce-loopback",
    "announce-unroutable",
    "announce-differs",
    "bus-unreachable",
    "sentinel-ghost",
    "announce-shared",
    "keepalive-off",
    "wrong-primary",
    "no-password",
    "weak-password",
    "protected-mode-off",
    "bus-exposed",
    "public-exposure",
    "dangerous-commands",
    "tls-mismatch",
    "certificate-expiring",
    "signs-of-intrusion",
    "primary-cannot-rejoin",
    "replication-auth",
    "replication-broken",
    "replication-lag",
    "backlog-too-small",
    "no-replica",
    "no-eligible-replica",
    "sentinels-too-few",
    "quorum-too-low",
    "quorum-too-high",
    "quorum-unreachable",
    "replication-not-persisted",
    "sentinels-disagree",
    "colocated-replica",
    "host-majority",
    "zone-majority",
    "failover-slow",
    "failover-hair-trigger",
    "full-coverage",
    "slots-uncovered",
    "slots-open",
    "slots-disputed",
    "epoch-collision",
    "node-failing",
    "node-stale",
    "foreign-node",
    "slots-unbalanced",
    "restart-rollback",
    "empty-restart-wipe",
    "persistence-failing",
    "maxmemory-unset",
    "maxmemory-over-host",
    "write-safety",
    "config-drift",
    "overcommit",
    "transparent-huge-pages",
    "swapping",
    "listen-backlog",
    "file-limit",
    "clock-skew",
    "disk-low",
    "not-supervised",
    "version-end-of-life",
    "versions-mixed",
    "not-checked",
]
OTHERS = [
    "bind",
    "clients",
    "consistency",
    "consistent-hashing",
    "crash-failover",
    "drill",
    "election",
    "gate",
    "gossip",
    "quorum",
    "recover",
    "reshard",
    "rotate",
    "slots",
    "switchover",
    "upgrade",
]

HEADINGS = {
    "en": ["What it means", "How it comes about", "See it by hand", "Mend it", "Prevent it"],
    "zh": ["含义", "成因", "手工查看", "修复", "预防"],
}
EVERY_PAGE = [(lang, topic) for lang in LANGUAGES for topic in sorted(RULES + OTHERS)]


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def lines(text: str) -> Iterator[tuple[bool, str]]:
    """Each line, and whether it is inside a block of code."""
    code = False
    for line in text.splitlines():
        if line.startswith("```"):
            code = not code
        else:
            yield code, line


def test_a_page_for_every_rule_and_no_other() -> None:
    assert topics() == sorted(RULES + OTHERS)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_page_without_a_topic(lang: str, root: Path) -> None:
    there = {path.stem for path in (root / "src/redkeep/pages" / lang).glob("*.md")}
    assert there == set(RULES + OTHERS)


@pytest.mark.parametrize(("lang", "topic"), EVERY_PAGE)
def test_shape(lang: str, topic: str) -> None:
    found = page(topic, lang)
    assert (found.lang, found.note, found.title) == (lang, "", topic)
    assert found.summary
    assert columns(found.summary) <= 100
    assert [line[3:] for code, line in lines(found.text) if not code and line.startswith("## ")] == HEADINGS[
        lang
    ]
    assert 15 <= found.text.count("\n") <= 40
    assert found.text.count("```") % 2 == 0
    assert found.text.endswith("\n")
    assert not re.search(r"[ \t]\n|\n\n\n", found.text)


@pytest.mark.parametrize(("lang", "topic"), EVERY_PAGE)
def test_fits_a_terminal(lang: str, topic: str) -> None:
    for code, line in lines(page(topic, lang).text):
        assert columns(line) <= (100 if code else 80), line
        assert len(line) <= 120


@pytest.mark.parametrize(("lang", "topic"), EVERY_PAGE)
def test_commands_are_in_code_blocks(lang: str, topic: str) -> None:
    text = page(topic, lang).text
    by_hand = text.split(f"## {HEADINGS[lang][2]}\n")[1].split("\n## ")[0]
    assert "```sh\n" in by_hand
    if topic != "recover":
        assert any(code and "redis-cli" in line for code, line in lines(by_hand))
    for code, line in lines(text):
        assert code or not re.match(r"\s*(redis-cli|sysctl|systemctl|openssl|printf) ", line), line


@pytest.mark.parametrize("topic", sorted(RULES + OTHERS))
def test_both_languages_show_the_same_commands(topic: str) -> None:
    english, chinese = (
        [line for code, line in lines(page(topic, lang).text) if code] for lang in ("en", "zh")
    )
    assert english == chinese


@pytest.mark.parametrize(("lang", "topic"), EVERY_PAGE)
def test_references_lead_somewhere(lang: str, topic: str) -> None:
    for named in re.findall(
        r"(?:\b[Ss]ee|见)\s`([a-z-]+)`(?:\s(?:and|和)\s`([a-z-]+)`)?", page(topic, lang).text
    ):
        assert {*named} <= {*topics(), ""}


def test_explain_is_the_page() -> None:
    assert explain("no-password", "zh").startswith("# no-password\n")
    assert explain(" No_Password ").startswith("# no-password\n")


def test_unknown_topic_with_a_near_one() -> None:
    with pytest.raises(UsageError) as raised:
        explain("no-pasword")
    assert raised.value.next == "did you mean no-password or weak-password?"


def test_unknown_topic_with_none_near() -> None:
    with pytest.raises(UsageError) as raised:
        explain("../../errors")
    assert raised.value.next == "redkeep explain lists the pages"


def test_missing_translation_shows_english_with_a_note() -> None:
    found = page("gate", "fr")
    assert found == Page(
        "gate", "en", page("gate").text, "There is no page in 'fr'; this is the English one."
    )
    assert explain("gate", "fr") == f"{found.note}\n\n{found.text}"


@pytest.mark.parametrize(
    ("wanted", "environment", "expected"),
    [
        (None, {}, "en"),
        (None, {"LANG": "zh_CN.UTF-8"}, "zh"),
        (None, {"LANG": "zh_TW"}, "zh"),
        (None, {"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "C"}, "en"),
        (None, {"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        (None, {"LC_ALL": "de_DE", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
        (None, {"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
        (None, {"LC_CTYPE": "zh_CN"}, "en"),
        ("en", {"LANG": "zh_CN"}, "en"),
        ("zh", {}, "zh"),
    ],
)
def test_language(wanted: str | None, environment: dict[str, str], expected: str) -> None:
    assert language(wanted, environment) == expected


def test_unknown_language() -> None:
    with pytest.raises(UsageError, match="no pages in 'fr'"):
        language("fr", {})


def test_summaries_are_the_first_paragraph() -> None:
    assert Page("x", "en", "# x\n\nOne\ntwo.\n\n## What it means\n").summary == "One two."
    assert Page("x", "zh", "# x\n\n一，\n二。\n").summary == "一，二。"
    assert Page("x", "en", "# x\n").summary == ""
    assert [p.topic for p in pages("zh")] == topics()


def test_join_lines() -> None:
    assert join_lines(["a", "b", "", "中", "文", "c"]) == "a b中文c"
