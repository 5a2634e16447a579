"""Pages that explain: one for each of the doctor's rules, and a few on how Redkeep works.

They are Markdown files, ``pages/<language>/<topic>.md``, that a translator edits without touching code. The first line
is the title, the next paragraph the summary; five headings follow. English is complete; where a translation is
missing, the English page is shown and says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from redkeep.errors import UsageError

#: The languages there are, with what a page in English says when it stands in for them.
LANGUAGES: Final = {"en": "", "zh": "本页暂无中文译文，以下为英文原文。"}
_ENGLISH = "en"
_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


@dataclass(frozen=True)
class Page:
    """``lang`` is the language that the text is in; ``note`` says why it is not the one asked for."""

    topic: str
    lang: str
    text: str
    note: str = ""

    @property
    def title(self) -> str:
        return self.text.split("\n", 1)[0].removeprefix("# ").strip()

    @property
    def summary(self) -> str:
        """The paragraph after the title, on one line."""
        paragraphs = self.text.split("\n\n", 2)
        lines = paragraphs[1].splitlines() if len(paragraphs) > 1 else []
        return join_lines(lines)

    def as_json(self) -> dict[str, Any]:
        shown = {"topic": self.topic, "lang": self.lang, "title": self.title, "summary": self.summary}
        return shown | {"text": self.text, "note": self.note}


def explain(topic: str, lang: str = _ENGLISH) -> str:
    """The page as Markdown text, under its note if it has one."""
    found = page(topic, lang)
    return f"{found.note}\n\n{found.text}" if found.note else found.text


def page(topic: str, lang: str = _ENGLISH) -> Page:
    """Raises ``UsageError`` for an unknown topic, with the nearest one where one is near."""
    known = topics()
    wanted = topic.strip().lower().replace("_", "-")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "redkeep explain lists the pages"
        raise UsageError(f"no page on {topic!r}", where="redkeep explain", next=hint)
    return _page(wanted, lang)


def pages(lang: str = _ENGLISH) -> list[Page]:
    """All of them, by topic."""
    return [_page(topic, lang) for topic in topics()]


def topics() -> list[str]:
    """What there are pages on, in alphabetical order."""
    names = (entry.name for entry in files("redkeep").joinpath("pages", _ENGLISH).iterdir())
    return sorted(name.removesuffix(".md") for name in names if name.endswith(".md"))


def language(wanted: str | None, environment: Mapping[str, str]) -> str:
    """``wanted``, else that of the locale: the first of its variables that is set decides."""
    if wanted is not None:
        if wanted not in LANGUAGES:
            raise UsageError(
                f"no pages in {wanted!r}",
                where="redkeep explain --lang",
                next=f"one of {', '.join(LANGUAGES)}",
            )
        return wanted
    locale = next((value for name in _LOCALE_VARIABLES if (value := environment.get(name))), "")
    return "zh" if locale.lower().startswith("zh") else _ENGLISH


def join_lines(lines: list[str]) -> str:
    """The lines of a paragraph as one: with a blank between words, and none beside Chinese punctuation."""
    joined = ""
    for line in filter(None, (line.strip() for line in lines)):
        joined += (" " if joined and not (_wide(joined[-1]) or _wide(line[0])) else "") + line
    return joined


def _page(topic: str, lang: str) -> Page:
    text = _read(lang, topic)
    if text is not None:
        return Page(topic, lang, text)
    note = LANGUAGES.get(lang) or f"There is no page in {lang!r}; this is the English one."
    return Page(topic, _ENGLISH, _read(_ENGLISH, topic) or "", note)


def _wide(character: str) -> bool:
    return character >= "\u2e80"


def _read(lang: str, topic: str) -> str | None:
    entry = files("redkeep").joinpath("pages", lang, f"{topic}.md")
    return entry.read_text(encoding="utf-8") if entry.is_file() else None
