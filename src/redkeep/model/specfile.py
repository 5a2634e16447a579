"""The YAML text of a deployment file: its values, and the line of each of them.

Scalars follow YAML 1.2's core schema rather than PyYAML's 1.1: ``no`` stays the word that ``appendfsync: no`` means,
``1:2:3:4:5:6:7:8`` stays an IPv6 address, and a version such as ``8.10`` does not become 8.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from redkeep.errors import SpecError

Path = tuple[str | int, ...]

#: Parsed by C where PyYAML has it: ten times as fast.
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
#: Characters and levels. No deployment comes near; a runaway file shall not cost memory or the stack.
_MAX_TEXT, _MAX_DEPTH = 1_000_000, 20

_MAX_MESSAGE = 300

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_WORDS: dict[str, bool | None] = {"": None, "~": None}
for _word, _value in (("null", None), ("true", True), ("false", False)):
    _WORDS |= dict.fromkeys((_word, _word.title(), _word.upper()), _value)
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in the file: at which key, what, and what to write instead.

    ``line`` where it is not the line of the key's value, as for the second of two equal keys.
    """

    path: Path
    what: str
    next: str = ""
    line: int | None = None


@dataclass
class Document:
    """The file as plain values (mappings, tuples, str, int, bool, None), and the line (from 1) of each path."""

    filename: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: Path, line: int | None = None) -> str:
        """``redkeep.yaml:12: hosts[2].private``; a missing key is shown at the mapping that lacks it."""
        place = f"{self.filename}:{line or self.line(path)}"
        return f"{place}: {_one_line(show(path))}" if path else place

    def line(self, path: Path) -> int:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, problems: list[Problem]) -> SpecError:
        """One error for all problems: the first one in the file in full, then a line for each further one."""
        ordered = sorted(problems, key=lambda problem: problem.line or self.line(problem.path))
        first, *rest = ((_one_line(p.what), self.where(p.path, p.line), _one_line(p.next)) for p in ordered)
        what, where, next = first
        further = (f"also {place}: " + "; ".join(filter(None, (bad, hint))) for bad, place, hint in rest)
        return SpecError(what, where=where, next="\n".join(filter(None, (next, *further))))


def show(path: Path) -> str:
    """``hosts[2].private``"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _one_line(text: str) -> str:
    """What the file says may hold control characters, and be long; a message must not."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= _MAX_MESSAGE else clean[:_MAX_MESSAGE] + "..."


def read(text: str, filename: str) -> Document:
    """Parses; raises ``SpecError`` where it is not YAML, notes duplicate keys and the like in ``problems``."""
    document = Document(filename)
    if len(text) > _MAX_TEXT:
        raise SpecError("too long for a deployment file", where=filename, next="is it the right file? see -f")
    _refuse_deep(text, filename)
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, filename) from None
    if root is not None:
        document.lines[()] = root.start_mark.line + 1
        document.data = _Builder(document).value(root, ())
    return document


def _refuse_deep(text: str, filename: str) -> None:
    """The composer recurses on the C stack; events do not."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise SpecError(
                    "nested too deeply", where=f"{filename}:{line}", next="see the example file for the form"
                )
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, filename) from None


def _syntax_error(error: yaml.YAMLError, text: str, filename: str) -> SpecError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = ", ".join(part for part in (error.context, error.problem) if part)
    else:  # a character that YAML forbids: the position counts bytes
        line = text.encode()[: getattr(error, "position", 0)].count(b"\n") + 1
        what = getattr(error, "reason", "") or "a character that YAML does not allow"
    lines = text.splitlines() or [""]
    line = min(line, len(lines))  # what was never closed is noticed past the end
    shown = lines[line - 1]
    hint = (
        "indent with spaces, not with tabs"
        if "\t" in shown
        else "check indentation, quotes and brackets on and above it"
    )
    return SpecError(f"not valid YAML: {what}", where=f"{filename}:{line}", next=hint)


class _Builder:
    """Turns nodes into values, and notes lines and problems on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.seen: set[int] = set()

    def value(self, node: Any, path: Path) -> Any:
        if id(node) in self.seen:
            self.problem(path, "YAML aliases (*name) are not used here", "write the value out")
            return None
        self.seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            self.problem(path, f"YAML tags are not used here: {node.tag}", "remove the tag")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.item(child, (*path, index)) for index, child in enumerate(node.value))
        return _scalar(node)

    def item(self, node: Any, path: Path) -> Any:
        self.document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def mapping(self, node: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(path, "a key must be a word", "write key: value")
                continue
            name = str(key.value)
            inner = (*path, name)
            line = key.start_mark.line + 1
            if name in found:
                first = self.document.lines[inner]
                self.problem(
                    inner, f"duplicate key: {name} is already on line {first}", "keep one of them", line
                )
                continue
            # a scalar may stand below its key; an alias has the position of what it repeats
            below = isinstance(child, yaml.ScalarNode) and child.value and id(child) not in self.seen
            self.document.lines[inner] = child.start_mark.line + 1 if below else line
            found[name] = self.value(child, inner)
        return found

    def problem(self, path: Path, what: str, next: str, line: int | None = None) -> None:
        self.document.problems.append(Problem(path, what, next, line))


def _scalar(node: Any) -> str | int | bool | None:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INT.fullmatch(text) else text
