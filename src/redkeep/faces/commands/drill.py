"""``drill``: break a deployment on purpose, and measure what its clients felt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from redkeep.errors import UsageError
from redkeep.faces.options import DEFAULT_FILE, FileOption, JsonOption, VerboseOption, YesOption
from redkeep.faces.output import out, out_json
from redkeep.faces.session import load_spec, run


def register(app: typer.Typer) -> None:
    app.command("drill")(drill)


def drill(
    faults: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FAULT...",
            help="primary-kill, primary-hang, replica-kill, sentinel-kill, host-loss, partition, full-disk or "
            "slow-disk; several "
            "are done one after the other.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="A node, a host, or a shard: sz-1:6379, sz-1, 'shard 2'.")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", help="How often.", min=1, max=1000)] = 1,
    hold: Annotated[
        float | None,
        typer.Option(
            "--hold",
            help="Seconds until a hang, a loss, a partition, a full or slow disk is undone.",
            min=1,
            max=600,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            metavar="HOSTS[/HOSTS]",
            help="Whom a partition separates: sz-1,sz-2/gz-1. One group alone: from all the others.",
            show_default=False,
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            metavar="LIBRARY",
            help="Your client library rides through it as well, with the settings of redkeep client: lettuce, "
            "spring-boot, spring-boot-2.1, jedis, go-redis, ioredis or redis-py. Its runtime must be here.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        int, typer.Option("--rate", help="Writes a second to each shard.", min=1, max=5000)
    ] = 500,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave what it wrote, for an hour, so that others can count again.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="List the drills on record.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Where to write the report; default: beside the record in .redkeep."),
    ] = None,
    yes: YesOption = False,
    file: FileOption = DEFAULT_FILE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Break the deployment on purpose, and measure what clients saw."""
    if faults and faults[0] == "sequence":
        faults = faults[1:]
        if len(faults) < 2:
            raise UsageError(
                "a sequence of which faults?",
                where="redkeep drill sequence",
                next="redkeep drill sequence primary-kill replica-kill; the first word may be left out",
            )
    if history == bool(faults):
        raise UsageError(
            "a fault, or --history",
            where="redkeep drill",
            next="redkeep drill primary-kill; redkeep drill --help lists the faults",
        )
    spec = load_spec(file)
    from redkeep.usecases import drill as use_case

    if history:
        _history(use_case.history(spec, file), as_json=json)
        return
    kinds = tuple(use_case.check_kind(fault) for fault in faults or ())
    if groups is not None and "partition" not in kinds:
        raise UsageError(
            "only a partition has groups", where="redkeep drill --groups", next="redkeep drill partition"
        )
    if html is not None and not (html.parent.is_dir() and os.access(html.parent, os.W_OK)):
        raise UsageError(
            "the report could not be written there",
            where=f"--html {html}",
            next=f"make the folder {html.parent}, or name another place; nothing was broken",
        )
    wanted = use_case.Wanted(kinds, target, runs, hold, rate, keep, groups, client)
    before = use_case.history(spec, file)
    found = run(lambda approve, emit: use_case.drill(spec, file, wanted, approve=approve, emit=emit), yes=yes)
    from redkeep.faces.drillreport import page

    record = found.as_json() | {"slice_ms": use_case.SLICE_MS}
    for seen, shown in zip(found.runs, record["runs"], strict=True):
        for felt, shard in zip(seen.felt, shown["shards"], strict=True):
            shard["series"] = felt.series
    place = html or Path(found.report or "drill.json").with_suffix(".html")
    _write(place, page(record, before))
    if json:
        out_json(found.as_json() | {"report": str(place)})
    else:
        from redkeep.faces.drilltext import drill_text

        out(drill_text(found, str(place)))


def _write(place: Path, text: str) -> None:
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the report cannot be written: {error.strerror}",
            where=str(place),
            next="the drill is done and on record: redkeep drill --history",
        ) from None


def _history(records: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        out_json({"drills": [_without_series(r) for r in records]})
        return
    from redkeep.faces.drilltext import history_text

    out(history_text(records))


def _without_series(record: dict[str, object]) -> dict[str, object]:
    runs = record["runs"]
    assert isinstance(runs, list)
    thin = [
        run | {"shards": [{k: v for k, v in s.items() if k != "series"} for s in run.get("shards", [])]}
        for run in runs
    ]
    return record | {"runs": thin}
