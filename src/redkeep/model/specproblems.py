"""From pydantic's errors to problems as a person wants to read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from redkeep.model.specfile import Path, Problem

#: Below these keys a value may be a secret by mistake, and is never repeated in a message.
_SECRET = ("passwords",)

#: So many known keys fit into a message.
_FEW = 8

#: A number as other languages write it, and a word that may stand in a list.
_NUMBER = re.compile(r"0*(\d[\d_]{0,18})(?:\.0*)?", re.ASCII)
_WORD = re.compile(r"[\w.:@/-]{1,60}", re.ASCII)
#: What people write for the whole of ``engine``, and the key that it belongs to.
_ENGINES = dict.fromkeys(("redis", "valkey"), "flavor") | dict.fromkeys(
    ("bundled", "package", "tarball", "binary"), "source"
)

_TYPES = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}


class Bad(ValueError):
    """A value that a validator refuses: what is wrong, and what to write instead."""

    def __init__(self, what: str, next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.next = next


class Conflicts(ValueError):
    """Several problems found at once; their paths are relative to the value that was validated."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.what for problem in problems))
        self.problems = problems


def problems_of(
    errors: Iterable[Mapping[str, Any]], keys_of: Mapping[str, Iterable[str]]
) -> Iterator[Problem]:
    """``keys_of``: the known keys at each place, by the path without indexes (``hosts``, ``engine``, empty: the root)."""
    for error in errors:
        path: Path = tuple(error["loc"])
        cause = (error.get("ctx") or {}).get("error")
        if isinstance(cause, Conflicts):
            yield from (Problem(path + inner.path, inner.what, inner.next) for inner in cause.problems)
        elif isinstance(cause, Bad):
            yield Problem(path, cause.what, cause.next)
        else:
            yield _problem(path, error, keys_of)


def _problem(path: Path, error: Mapping[str, Any], keys_of: Mapping[str, Iterable[str]]) -> Problem:
    kind, ctx, name = error["type"], error.get("ctx") or {}, str(path[-1]) if path else ""
    value = "" if path and path[0] in _SECRET else f": {shorten(error['input'])}"
    if kind == "extra_forbidden":
        known = keys_of.get(".".join(p for p in path[:-1] if isinstance(p, str)), ())
        return Problem(path, f"unknown key: {name}", did_you_mean(name, known))
    if kind == "missing":
        return Problem(path, f"{name} is missing", f"add {name}: ... here; the example file shows it")
    if kind == "literal_error":
        allowed = (
            str(ctx.get("expected", "")).replace("'", "").replace("True", "true").replace("False", "false")
        )
        quoted = ", without quotes" if error["input"] in ("true", "false") and "true" in allowed else ""
        return Problem(path, f"not a value of {name}{value}", f"write {allowed}{quoted}")
    if kind in _TYPES:
        return Problem(path, f"not {_TYPES[kind]}{value}", f"write {_instead(path, kind, error['input'])}")
    limits = {"greater_than_equal": "at least {ge}", "less_than_equal": "at most {le}"}
    if kind in limits:
        limit = limits[kind].format(**ctx)
        return Problem(path, f"out of range{value}", f"write a number of {limit}")
    return Problem(path, f"{error['msg']}{value}")


def _instead(path: Path, kind: str, value: Any) -> str:
    """The right form of what stands there, where it can be guessed."""
    if path and path[0] not in _SECRET and isinstance(value, str):
        if kind == "int_type" and (number := _NUMBER.fullmatch(value)):
            return f"{number[1].replace('_', '')} as a plain number, without quotes"
        if kind == "bool_type" and value in ("true", "false"):
            return f"{value} without quotes"
        if kind == "tuple_type" and _WORD.fullmatch(value):
            return f"a list, such as [{value}]"
        if path == ("engine",) and value in _ENGINES:
            return f"a mapping (key: value): engine: {{{_ENGINES[value]}: {value}}}"
    return _TYPES[kind]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word; all of them where they are few."""
    import difflib  # only on the way to an error

    words = list(known)
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return (
        f"known here: {', '.join(words)}"
        if len(words) <= _FEW
        else "remove it; redkeep schema lists what there is"
    )


def shorten(value: Any) -> str:
    """A value of the file as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple | list):
        return "a list"
    return str(value)[:80]
