"""Templates of text files, as small as they can be: lines beginning with ``%%`` decide, ``{{name}}`` is replaced.

%% if tls                 until %% else or %% end; ``if not tls``, ``if tls or login``
%% each sentinels         once for each; its own names come first, and {{,}} is a comma except on the last
%% end
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_NAME = re.compile(r"\{\{([a-z_]+|,)\}\}")


def render(text: str, values: Mapping[str, Any]) -> str:
    """Raises ``KeyError`` for a name that the template uses and nobody gave, ``ValueError`` for a block left open."""
    return "\n".join(_rendered(text.splitlines(), values)) + "\n"


def _rendered(text: Iterable[str], values: Mapping[str, Any]) -> Iterator[str]:
    lines = iter(text)
    for line in lines:
        if not line.startswith("%%"):
            yield _NAME.sub(lambda match: str(values[match[1]]), line)
            continue
        word, *condition = line.split()[1:]
        if word == "if":
            yes, end = _until(lines, "else", "end")
            no, _ = _until(lines, "end") if end == "else" else ([], "")
            yield from _rendered(yes if _holds(condition, values) else no, values)
        elif word == "each":
            body, _ = _until(lines, "end")
            every = values[condition[0]]
            for number, its in enumerate(every, start=1):
                comma = {",": "" if number == len(every) else ","}
                yield from _rendered(body, {**values, **its, **comma})
        else:
            raise ValueError(f"not a line of a template: {line}")


def _until(lines: Iterator[str], *ends: str) -> tuple[list[str], str]:
    """The lines of a block, with the blocks in it whole, and the word that ended it."""
    found: list[str] = []
    depth = 0
    for line in lines:
        word = line.split()[1] if line.startswith("%%") else ""
        if depth == 0 and word in ends:
            return found, word
        depth += {"if": 1, "each": 1, "end": -1}.get(word, 0)
        found.append(line)
    raise ValueError(f"no {' or '.join(ends)} in a template")


def _holds(condition: list[str], values: Mapping[str, Any]) -> bool:
    if condition[0] == "not":
        return not values[condition[1]]
    return any(values[word] for word in condition if word != "or")
