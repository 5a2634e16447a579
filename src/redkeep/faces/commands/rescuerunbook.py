"""``rescue runbook``: the steps around a rescue, on a cloud."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from redkeep.faces.options import JsonOption, PartitionOption, VerboseOption
from redkeep.faces.output import out, out_json
from redkeep.faces.session import run


def register(rescue: typer.Typer) -> None:
    rescue.command("runbook")(runbook)


def runbook(
    evidence: Annotated[
        Path | None,
        typer.Argument(
            metavar="[EVIDENCE]",
            readable=False,
            help="The disk, or the JSON that inspect printed, where there is one.",
        ),
    ] = None,
    cloud: Annotated[str, typer.Option("--cloud", help="tencent or alibaba.")] = "",
    region: Annotated[str, typer.Option("--region", help="Where the server is, such as ap-guangzhou.")] = "",
    zone: Annotated[str, typer.Option("--zone", help="Its zone; the commands find it out otherwise.")] = "",
    instance: Annotated[str, typer.Option("--instance", help="The server's id.")] = "",
    disk: Annotated[str, typer.Option("--disk", help="Its disk's id; the system disk otherwise.")] = "",
    lang: Annotated[str | None, typer.Option(help="en or zh; default: as the locale says.")] = None,
    partition: PartitionOption = "",
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what to do before and after, with command lines of tccli or aliyun and what each must show."""
    from redkeep.usecases import rescue_runbook
    from redkeep.usecases.explain import language

    chosen = language(lang, os.environ)
    ids = rescue_runbook.Ids(region, zone, instance, disk)
    found = run(
        lambda approve, emit: rescue_runbook.runbook(
            cloud, evidence, ids, lang=chosen, partition=partition, emit=emit
        )
    )
    if json:
        out_json(found.as_json())
    else:
        from redkeep.faces.rebuilding import runbook_text

        out(runbook_text(found))
