"""``demo``: see it work on this machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from redkeep.errors import UsageError
from redkeep.faces.options import JsonOption, VerboseOption
from redkeep.faces.output import err, out, out_json
from redkeep.faces.session import run


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def _mode(text: str) -> Literal["cluster", "sentinel", "standalone"]:
    match text:
        case "cluster" | "sentinel" | "standalone":
            return text
        case _:
            raise UsageError(
                f"no such mode: {text}", where="redkeep demo --mode", next="cluster, sentinel or standalone"
            )


def demo(
    mode: Annotated[str, typer.Option(help="cluster, sentinel or standalone.")] = "cluster",
    once: Annotated[bool, typer.Option("--once", help="End and clean up after the measurement.")] = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a real deployment on this machine, kill a primary, and show what a client saw."""
    chosen = _mode(mode)
    from redkeep.faces.picture import demo_text
    from redkeep.usecases.demo import Demo
    from redkeep.usecases.demo import demo as use_case

    shown = False

    def show(found: Demo) -> None:
        nonlocal shown
        shown = True
        if json:
            out_json(found.as_json())
        else:
            out(demo_text(found, staying=not once))

    async def stay() -> None:
        if once:
            return
        import asyncio

        try:
            await asyncio.Event().wait()
        finally:
            err("cleaning up")

    try:
        run(lambda approve, emit: use_case(chosen, emit=emit, show=show, stay=stay))
    except KeyboardInterrupt:
        if once or not shown:
            raise
