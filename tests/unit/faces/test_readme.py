"""The two languages of the README say the same: nothing that one can type stands in only one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

TYPED: dict[str, Callable[[str], set[str]]] = {
    "commands": lambda text: set(re.findall(r"`(redkeep [^`]+)`", text)),
    "options": lambda text: set(re.findall(r"--[a-z][a-z-]+", text)),
    "words of code": lambda text: set(re.findall(r"`([a-z][\w-]+)`", text)),
    "lines of a terminal": lambda text: {
        re.split(r"\s{3,}", line.strip())[0] for line in text.splitlines() if line.startswith("    redkeep ")
    },
}


@pytest.mark.parametrize("what", TYPED)
def test_both_readmes_have_it(root: Path, what: str) -> None:
    english, chinese = ((root / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert TYPED[what](english)
    assert TYPED[what](english) == TYPED[what](chinese)
    assert english.count("\n## ") == chinese.count("\n## ")
