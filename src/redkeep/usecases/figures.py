"""The figures of a page, for one deployment: running, as its file has it, or an example where none was named.

Sentences are data, ``pages/<language>/figures.txt``: a key in brackets, then the sentence, with ``{words}`` to fill in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, UsageError
from redkeep.model.topology import Address, Unreachable
from redkeep.planning.figures import TOPICS, figures
from redkeep.planning.figures.shape import Entry, Shape, example, planned, seen
from redkeep.planning.placing.placement import place

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup
    from redkeep.model.events import Approve
    from redkeep.model.spec import Spec
    from redkeep.model.targets import Target
    from redkeep.usecases.check import Access

__all__ = ["TOPICS", "Figures", "Line", "check_topic", "of_example", "of_file", "of_targets", "sentences"]


@dataclass(frozen=True)
class Line:
    """One sentence, and what it was made of."""

    key: str
    values: Mapping[str, object]
    text: str


@dataclass(frozen=True)
class Figures:
    """``about`` says of what they are; ``source`` is ``seen``, ``planned`` or ``example``."""

    source: str
    heading: str
    about: str
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "about": self.about,
            "figures": [{"figure": ln.key, "values": dict(ln.values), "text": ln.text} for ln in self.lines],
        }


def check_topic(topic: str) -> None:
    """Raises ``UsageError`` for a page that has nothing to compute."""
    if topic not in TOPICS:
        raise UsageError(
            f"nothing is computed on the page {topic!r}",
            where="redkeep explain",
            next=f"redkeep explain {topic}; these have figures: {', '.join(TOPICS)}",
        )


def of_example(topic: str, lang: str) -> Figures:
    return _told(topic, example(), lang)


async def of_targets(topic: str, targets: Sequence[Target], access: Access, lang: str) -> Figures:
    """Of whatever runs there. Raises as ``check`` does."""
    from redkeep.usecases.check import examine

    checkup, _ = await examine(targets, access)
    return _told(topic, _shape_of(checkup, checkup.target), lang)


async def of_file(topic: str, spec: Spec, file: Path, access: Access, approve: Approve, lang: str) -> Figures:
    """Of what runs; where nothing of it can be asked, of what the file plans, which the figures then say."""
    from redkeep.usecases.drill import history

    drills = history(spec, file)
    if spec.adopted:
        from redkeep.usecases.adopted import examine_adopted

        checkup, _ = await examine_adopted(spec, file, access)
        return _told(topic, _shape_of(checkup, spec.name), lang, drills)
    try:
        shape, why = await _own(spec, file, approve), "not set up yet"
    except UsageError:
        raise
    except RedkeepError as error:
        shape, why = None, error.what
    return _told(topic, shape or planned(spec, place(spec)), lang, drills, why)


async def _own(spec: Spec, file: Path, approve: Approve) -> Shape | None:
    from redkeep.run.opening import opened
    from redkeep.run.sessions import key_question

    async with opened(spec, file, keep=False, accept_key=key_question(approve)) as deployment:
        sight = await deployment.look()
        entries = [
            Entry(
                n.name,
                n.host,
                Address(*n.announced),
                sight.observed.nodes.get(n.name, Unreachable("not asked")),
            )
            for n in sight.desired.everyone
        ]
        found = seen(spec.name, entries, hook=spec.crash_failover)
        return found and replace(found, mode=spec.mode)


def _shape_of(checkup: Checkup, name: str) -> Shape:
    entries = [Entry(n.name, n.host, n.address, n.view) for n in checkup.nodes]
    found = seen(name, entries)
    if found is None:
        raise RedkeepError(
            "no server answered, so there is nothing to compute from",
            where=name,
            next="redkeep check tells why",
        )
    return found


def _told(
    topic: str, shape: Shape, lang: str, drills: Sequence[Mapping[str, Any]] = (), why: str = ""
) -> Figures:
    texts = sentences(lang)
    lines = tuple(
        Line(f.key, f.values, texts[f.key].format(**f.values)) for f in figures(topic, shape, drills)
    )
    about = texts[f"about.{shape.source}"].format(name=shape.name, why=why, topic=topic)
    return Figures(shape.source, texts["heading"], about, lines)


def sentences(lang: str) -> dict[str, str]:
    """All of a language; English where there are none."""
    entry = files("redkeep").joinpath("pages", lang, "figures.txt")
    if not entry.is_file():
        entry = files("redkeep").joinpath("pages", "en", "figures.txt")
    found, key = {}, ""
    for line in entry.read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            key = line[1:-1]
        elif line and key:
            found[key] = line
    return found
