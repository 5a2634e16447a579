"""For every rule there is a test with real servers that sees its finding, and sees it gone after the fix.

Read from the tests' own text: such a test names the rule, and asserts in the same function that something is not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from redkeep.planning.rules import RULES
from redkeep.planning.rules.unchecked import NOT_CHECKED

TESTS = Path(__file__).parents[2]
#: Asserts that a Cluster has no finding of its families.
ABSENCE = frozenset({"whole"})


@cache
def proved() -> dict[str, list[str]]:
    """Rule -> the tests that see it come and go."""
    found: dict[str, list[str]] = {}
    for path in sorted([*(TESTS / "live").glob("test_*.py"), *(TESTS / "lab").glob("test_*.py")]):
        for test in _tests(ast.parse(path.read_text())):
            if any(map(_is_absence, ast.walk(test))):
                for word in {c.value for c in ast.walk(test) if isinstance(c, ast.Constant)}:
                    if isinstance(word, str):
                        found.setdefault(word, []).append(f"{path.name}::{test.name}")
    return found


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _is_absence(node: ast.AST) -> bool:
    """``assert not ...``, ``... not in ...``, ``lambda: not ...``, ``== []``, or a call of what asserts it."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    if isinstance(node, ast.Compare):
        empty = any(isinstance(c, ast.List) and not c.elts for c in node.comparators)
        return empty or any(isinstance(op, ast.NotIn) for op in node.ops)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ABSENCE


@pytest.mark.parametrize("rule", [*RULES, NOT_CHECKED])
def test_it_is_seen_and_gone(rule: str) -> None:
    assert proved().get(rule), f"no test in tests/live or tests/lab sees {rule} and its end"
