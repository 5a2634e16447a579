"""``reshard``: hash slots from one shard to another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from redkeep.errors import UsageError
from redkeep.faces.options import DEFAULT_FILE, FileOption, JsonOption, VerboseOption, YesOption
from redkeep.faces.output import err, out, out_json
from redkeep.faces.session import load_spec, run

if TYPE_CHECKING:
    from redkeep.usecases.reshard import Proposed, Request

_UNITS = {"": 0.001, "ms": 0.001, "s": 1.0}


def register(app: typer.Typer) -> None:
    app.command("reshard")(reshard)


def reshard(
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME,...", help="Take slots from these shards' nodes."),
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="The shard that gets them.")] = "",
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, max=16384, help="So many hash slots.")
    ] = None,
    rebalance: Annotated[bool, typer.Option("--rebalance", help="Even shares for all shards.")] = False,
    by: Annotated[str, typer.Option(help="With --rebalance: slots (the default), keys or memory.")] = "",
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=W", help="With --rebalance: a larger or smaller share than 1; repeat it."),
    ] = None,
    empty: Annotated[str, typer.Option(metavar="NAME", help="Give all slots of a shard to the others.")] = "",
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Forget an unfinished reshard; open slots are put right.")
    ] = False,
    max_latency: Annotated[
        str, typer.Option(help="So long may 99 of 100 commands of clients wait, moving key by key.")
    ] = "5ms",
    max_pause: Annotated[
        str, typer.Option(help="So long may a shard stand still; below 200ms no atomic migration is used.")
    ] = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Write as a client does, and measure its longest pause.")
    ] = False,
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> int:
    """Move hash slots between shards while applications go on. Without options: finish what was interrupted."""
    names = tuple(name for part in from_ or () for name in part.split(",") if name)
    if by and not rebalance:
        raise _wrong("--by is for --rebalance", "add --rebalance")
    measure = (by or "slots") if rebalance else ""
    wish = _request(names, to, slots, measure, weight or [], empty, abandon=abandon)
    spec = load_spec(file)
    from redkeep.usecases.reshard import Limits
    from redkeep.usecases.reshard import reshard as use_case

    limits = Limits(
        _seconds(max_latency, "--max-latency"),
        _seconds(max_pause, "--max-pause") if max_pause else None,
        probe,
    )

    def show(found: Proposed) -> None:
        from redkeep.faces.slots import proposed_text

        err(proposed_text(found))

    found = run(
        lambda approve, emit: use_case(spec, file, wish, limits, approve=approve, emit=emit, show=show),
        yes=yes,
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.slots import resharded_text

        out(resharded_text(found))
    return 0 if found.ok else 1


def _request(
    names: tuple[str, ...],
    to: str,
    slots: int | None,
    by: str,
    weights: list[str],
    empty: str,
    *,
    abandon: bool,
) -> Request:
    """One of the forms, and nothing that belongs to another."""
    from redkeep.usecases.reshard import Request

    forms = [bool(names or to or slots), bool(by), bool(empty), abandon]
    if sum(forms) > 1:
        raise _wrong("one at a time", "--from, --to and --slots, or --rebalance, or --empty, or --abandon")
    if forms[0] and not (names and to and slots):
        raise _wrong("--from, --to and --slots belong together", "--from NAME,... --to NAME --slots N")
    if weights and not by:
        raise _wrong("--weight is for --rebalance", "add --rebalance")
    match by:
        case "" | "slots" | "keys" | "memory":
            return Request(names, to, slots, by or None, dict(map(_weight, weights)), empty, abandon)
        case _:
            raise _wrong(f"no such measure: {by}", "--by slots, keys or memory")


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    if not name or not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", number):
        raise _wrong(f"not a weight: {text}", "--weight NAME=2, or 0.5, or 0 to empty it")
    return name, float(number)


def _seconds(text: str, option: str) -> float:
    """``15ms``, ``0.2s``, or a number of milliseconds."""
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)\s*(ms|s|)", text.strip())
    if not match or not float(match[1]):
        raise _wrong(f"not a time: {text}", f"{option} 15ms, or 0.2s")
    return float(match[1]) * _UNITS[match[2]]


def _wrong(what: str, hint: str) -> UsageError:
    return UsageError(what, where="redkeep reshard", next=hint)
