"""``explain``: what a finding means and how to mend it."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.errors import UsageError
from redkeep.faces.options import (
    DEFAULT_FILE,
    CaOption,
    CertOption,
    ClearTextOption,
    JsonOption,
    KeyOption,
    PasswordFileOption,
    TrustOption,
    UserOption,
    VerboseOption,
)
from redkeep.faces.output import clean, out, out_json
from redkeep.faces.passwords import asked_password, given_password
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from redkeep.usecases.check import Access
    from redkeep.usecases.explain import Page
    from redkeep.usecases.figures import Figures

WIDTH = 80

_FOOTERS = {
    "en": "redkeep explain NAME shows a page. Its commands leave out what depends on you:\n"
    "set REDISCLI_AUTH to the password, and add --user and --tls where you need them.\n"
    "valkey-cli takes the same (VALKEYCLI_AUTH).",
    "zh": "redkeep explain NAME 显示对应页面。页面中的命令省略了因环境而异的部分：\n"
    "请用 REDISCLI_AUTH 传入密码，需要时加上 --user 和 --tls。\n"
    "valkey-cli 用法相同（VALKEYCLI_AUTH）。",
}


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    rule: Annotated[
        str | None, typer.Argument(help="A finding's rule, or another topic of the list.")
    ] = None,
    about: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|ADDRESS]",
            help="For slots, gossip, election, quorum, consistency, consistent-hashing: figures of this deployment. "
            "Without: of redkeep.yaml, where there is one.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="The deployment file.")] = None,
    lang: Annotated[str | None, typer.Option(help="en or zh; default: as the locale says.")] = None,
    user: UserOption = "",
    password_file: PasswordFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    trust_discovered: TrustOption = False,
    allow_clear_text: ClearTextOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Explain a finding, or what the engine does, with figures of a deployment. Without RULE: the list."""
    from redkeep.usecases.explain import language, page, pages
    from redkeep.usecases.figures import TOPICS

    chosen = language(lang, os.environ)
    if rule is None:
        found = pages(chosen)
        if json:
            out_json({"lang": chosen, "topics": [{"topic": p.topic, "summary": p.summary} for p in found]})
        else:
            out(_list(found) + "\n\n" + _FOOTERS[chosen])
        return
    shown = page(rule, chosen)
    computed = None
    if about is not None or file is not None or shown.topic in TOPICS:
        from redkeep.usecases.check import Access

        access = Access(
            user, given_password(password_file), ca, trust_discovered, allow_clear_text, cert=cert, key=key
        )
        computed = _figures(shown.topic, about, file, access, chosen)
    if json:
        out_json(shown.as_json() | ({"computed": computed.as_json()} if computed else {}))
    elif sys.stdout.isatty():
        _render(shown, _figures_text(computed))
    else:
        page_text = f"{shown.note}\n\n{shown.text}" if shown.note else shown.text
        out(page_text + (f"\n{_figures_text(computed)}" if computed else ""))


def _figures(topic: str, about: str | None, file: Path | None, access: Access, lang: str) -> Figures:
    """Of the address or file that was named, else of the file that lies here, else of an example."""
    from redkeep.usecases import figures
    from redkeep.usecases.check import targets_of

    figures.check_topic(topic)
    if about is not None and file is not None:
        raise UsageError("a file twice", where=f"{about}, -f {file}", next="name one of them")
    if about is not None and not _is_file(about):
        targets = targets_of([about])
        return run(lambda approve, emit: figures.of_targets(topic, targets, access, lang))
    named = file or (Path(about) if about else None)
    if named is None and not DEFAULT_FILE.exists():
        return figures.of_example(topic, lang)
    place = named or DEFAULT_FILE
    spec = load_spec(place)
    if spec.adopted and not access.password:
        from dataclasses import replace

        access = replace(access, password=asked_password())
    return run(lambda approve, emit: figures.of_file(topic, spec, place, access, approve, lang))


def _is_file(text: str) -> bool:
    """A path, whether or not it is there; not ``HOST:PORT``."""
    return "://" not in text and (text.endswith((".yaml", ".yml")) or "/" in text or Path(text).exists())


def _figures_text(found: Figures | None) -> str:
    """Under a heading of its own, broken for 80 columns."""
    if found is None:
        return ""
    lines = [f"## {found.heading}", *_broken(clean(found.about), WIDTH), ""]
    for line in found.lines:
        mark = "  - " if line.text.startswith("- ") else "- "
        first, *more = _broken(clean(line.text.removeprefix("- ")), WIDTH - len(mark))
        lines += [mark + first, *(" " * len(mark) + text for text in more)]
    return "\n".join(lines)


def _list(found: list[Page]) -> str:
    """Names in one column, summaries in another, broken where they would leave the screen."""
    left = max(len(p.topic) for p in found) + 2
    lines: list[str] = []
    for p in found:
        for name, part in zip(_names(p.topic), _broken(p.summary, WIDTH - left), strict=False):
            lines.append(name.ljust(left) + part)
    return "\n".join(lines)


def _names(topic: str) -> Iterator[str]:
    yield topic
    while True:
        yield ""


def _broken(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns. Chinese characters take two, and a line may end after each of them."""
    lines, line = [], ""
    for word in _words(text):
        if line and _columns(line + word.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += word
    return [*lines, line.rstrip()]


def _words(text: str) -> Iterator[str]:
    """What a line may not break inside of: a word with the blank behind it, or one Chinese character.

    Closing punctuation stays with what it follows.
    """
    word = ""
    for character in text:
        ends = word and (word[-1] == " " or _is_wide(word[-1]) or _is_wide(character))
        if ends and not (character in "，。；：、）」”？！" and word[-1] != " "):
            yield word
            word = ""
        word += character
    yield word


def _columns(text: str) -> int:
    return sum(2 if _is_wide(character) else 1 for character in text)


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in ("W", "F")


def _render(shown: Page, more: str = "") -> None:
    """For a terminal: headings stand out, code is indented instead of fenced. Pages are written for 80 columns."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if shown.note:
        console.print(Text(shown.note, "italic"))
    code = False
    for line in [*shown.text.splitlines(), "", *more.splitlines()]:
        if line.startswith("```"):
            code = not code
        elif code:
            console.print(Text(f"    {line}", "cyan"), soft_wrap=True)
        elif line.startswith("#"):
            console.print(Text(line.lstrip("# "), "bold"), soft_wrap=True)
        else:
            console.print(Text(line), soft_wrap=True)
