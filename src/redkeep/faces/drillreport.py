"""A drill as one HTML page that opens offline: no script, no font, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

#: Seconds without writes after kill -9 of a primary with the engines' own settings (cluster-node-timeout 15000;
#: down-after-milliseconds 30000), measured with Redis 7.0.15 on one machine, a client writing every millisecond.
ENGINE_DEFAULTS = {"cluster": 17.9, "sentinel": 30.6}

_HEIGHT, _BAND = 120, 70

_STYLE = """
:root { color-scheme: light dark; --ink:#1d1d1f; --soft:#6b6b70; --line:#d9d9de; --page:#fff; --card:#f6f6f8;
  --ack:#2a6fb0; --late:#8a8a90; --bad:#c62f2f; --mark:#7a4fb5; --good:#1c7c3c; }
@media (prefers-color-scheme: dark) { :root { --ink:#ececf0; --soft:#a0a0a8; --line:#3a3a40; --page:#161618;
  --card:#202024; --ack:#6aaef0; --late:#85858c; --bad:#ff7a70; --mark:#c3a0ff; --good:#6fd08c; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  padding: 1rem; max-width: 62rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: .2rem 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
h3 { font-size: .95rem; margin: 1rem 0 .2rem; font-weight: 600; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: .6rem 0; }
.tile { background: var(--card); border-radius: .5rem; padding: .5rem .8rem; min-width: 8rem; flex: 1 1 8rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.tile.bad b { color: var(--bad); } .tile.good b { color: var(--good); }
svg { display: block; width: 100%; height: 8rem; background: var(--card); border-radius: .3rem; }
.axis { display: flex; justify-content: space-between; color: var(--soft); font-size: .8rem;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { overflow-wrap: normal; } td.n, th.n { text-align: right; } td.n { white-space: nowrap; }
b.bad { color: var(--bad); }
.events td { width: 1%; white-space: nowrap; } .events td:last-child { width: auto; white-space: normal; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; color: var(--soft); font-size: .85rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem;
  margin-right: .35rem; vertical-align: -.08rem; }
.key i.out { border-left: 3px solid var(--bad); background: color-mix(in srgb, var(--bad) 16%, transparent); }
details summary { cursor: pointer; color: var(--soft); }
"""


def page(record: dict[str, Any], before: Sequence[dict[str, Any]]) -> str:
    """``record``: ``Drill.as_json`` with each shard's series; ``before``: the drills on record, the oldest first."""
    title = f"{record['fault']} on {record['name']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=soft>{escape(record['began'])} · {escape(record['mode'])} · {escape(record['engine'])} · detection after "
        f"{record['settings']['detection_ms']:,} ms · clients: {escape(str(record['settings']['clients']))}</p>",
        _summary(record),
        "<h2>Compared</h2>",
        _compared(record, before),
        *_clients(record),
        "<p class=key><span><i style='background:var(--ack)'></i>writes acknowledged</span>"
        "<span><i style='background:var(--late)'></i>highest latency</span>"
        "<span><i style='background:var(--bad)'></i>errors</span>"
        "<span><i style='background:var(--mark)'></i>events</span>"
        "<span><i class=out></i>from the fault until writes came back</span></p>",
    ]
    for number, run in enumerate(record["runs"], 1):
        body += _run(number, run, float(record["slice_ms"]))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _summary(record: dict[str, Any]) -> str:
    runs = record["runs"]
    lost, acknowledged = record["lost"], sum(r["acknowledged"] for r in runs)
    stale = sum(r["stale_reads"] for r in runs)
    well = max((r["redundant_again_ms"] for r in runs), default=0.0)
    spread = (
        f"median of {len(runs)}, {_time(record['shortest_window_ms'])} to {_time(record['longest_window_ms'])}"
        if len(runs) > 1
        else "the shard that was hit"
    )
    tiles = [
        ("", _time(record["median_window_ms"]), f"without writes ({spread})"),
        ("bad" if lost else "good", f"{lost:,}", f"of {acknowledged:,} acknowledged writes lost"),
        ("bad" if stale else "good", f"{stale:,}", "stale reads"),
        ("", _time(well), "until every node was well again"),
    ]
    return (
        "<div class=tiles>"
        + "".join(
            f"<div class='tile {kind}'><b>{escape(value)}</b><span>{escape(what)}</span></div>"
            for kind, value, what in tiles
        )
        + "</div>"
    )


def _compared(record: dict[str, Any], before: Sequence[dict[str, Any]]) -> str:
    rows = [("this drill", record["median_window_ms"], record["lost"], record["settings"]["detection_ms"])]
    earlier = [r for r in before if r.get("fault") == record["fault"] and r.get("mode") == record["mode"]]
    if earlier:
        last = earlier[-1]
        rows.append(
            (
                f"the one before, {str(last['began']).replace('T', ' ').removesuffix('Z')}",
                last["median_window_ms"],
                last["lost"],
                last.get("settings", {}).get("detection_ms", 0),
            )
        )
    cells = "".join(
        f"<tr><td>{escape(str(name))}</td><td class=n>{_time(window)}</td><td class=n>{lost:,}</td>"
        f"<td class=n>{detection:,} ms</td></tr>"
        for name, window, lost, detection in rows
    )
    default = ENGINE_DEFAULTS.get(record["mode"])
    if default and record["fault"] in ("primary-kill", "primary-hang", "host-loss"):
        detection = 15_000 if record["mode"] == "cluster" else 30_000
        cells += (
            f"<tr><td>the engine's defaults (kill -9, Redis 7.0)</td>"
            f"<td class=n>{_time(default * 1000)}</td><td class=n></td><td class=n>{detection:,} ms</td></tr>"
        )
    return (
        "<div class=scroll><table><tr><th></th><th class=n>without writes</th><th class=n>lost</th>"
        f"<th class=n>detection</th></tr>{cells}</table></div>"
    )


def _clients(record: dict[str, Any]) -> list[str]:
    """A row for each run and client: our own writer, and the user's library where one rode along."""
    rows = []
    for number, run in enumerate(record["runs"], 1):
        its = run.get("client")
        if not its:
            continue
        back = (
            f"<b class=bad>not back within {_time(its['watched_ms'])}</b>"
            if its["window_ms"] is None
            else _time(its["window_ms"])
            if its["window_ms"]
            else "under 250 ms"
        )
        errors = "".join(
            f"<tr><td></td><td colspan=3 class=soft>{escape(e)}</td></tr>" for e in its["errors"][:3]
        )
        rows.append(
            f"<tr><td>{number}</td><td>Redkeep's writer, without retries</td><td class=n>{_time(run['window_ms'])}</td>"
            f"<td class=n>{run['errors']:,}</td></tr>"
            f"<tr><td>{number}</td><td>{escape(its['library'])}, printed settings</td><td class=n>{back}</td>"
            f"<td class=n>{its['failed']:,}</td></tr>{errors}"
        )
    if not rows:
        return []
    head = "<tr><th>run</th><th>client</th><th class=n>without writes</th><th class=n>failed</th></tr>"
    return ["<h2>Clients</h2>", f"<div class=scroll><table>{head}{''.join(rows)}</table></div>"]


def _run(number: int, run: dict[str, Any], slice_ms: float) -> list[str]:
    parts = [
        f"<h2>Run {number}: {escape(run['fault'])} of {escape(run['subject'])}</h2>",
        f"<p>No writes for {_time(run['window_ms'])}"
        + (f"; a replica was primary after {_time(run['voted_ms'])}" if run["voted_ms"] is not None else "")
        + f"; {run['lost']:,} of {run['acknowledged']:,} acknowledged writes lost; "
        f"{run['errors']:,} errors; {run['stale_reads']:,} of {run['reads']:,} reads stale.</p>",
    ]
    every = [s for shard in run["shards"] for s in shard["series"]]
    if not every:
        return parts
    first, last = min(s[0] for s in every), max(s[0] for s in every) + slice_ms
    most = max((s[1] for s in every), default=1) or 1
    slowest = max((s[2] for s in every), default=1.0) or 1.0
    for shard in run["shards"]:
        parts.append(
            f"<h3>{escape(shard['shard'])} <span class=soft>no writes for {_time(shard['window_ms'])}, "
            f"{shard['lost']:,} lost</span></h3>"
        )
        out = shard["window_ms"] if shard["errors"] else 0.0
        parts.append(_chart(shard["series"], run["events"], out, (first, last), (most, slowest), slice_ms))
        parts.append(
            f"<div class=axis><span>{first / 1000:.1f} s</span><span>up to {most * 1000 / slice_ms:,.0f} writes/s above, "
            f"{slowest:,.0f} ms below</span><span>{last / 1000:+.1f} s</span></div>"
        )
    parts.append(_events(run["events"]))
    return parts


def _chart(
    series: Sequence[Sequence[float]],
    events: Sequence[dict[str, Any]],
    out: float,
    span: tuple[float, float],
    tops: tuple[float, float],
    slice_ms: float,
) -> str:
    """Acknowledged writes grow up from the middle line, latency hangs down from it, errors stand across both. The time
    without writes since the fault (``out``, in milliseconds) is shaded."""
    first, last = span
    most, slowest = tops
    scale = 1000 / (last - first)
    width = max(slice_ms * scale, 0.6)
    fault = (0 - first) * scale
    shapes = [
        f"<rect x='{fault:.1f}' y='0' width='{out * scale:.1f}' height='{_HEIGHT}' fill='var(--bad)' opacity='.16'/>",
        f"<line x1='{fault:.1f}' x2='{fault:.1f}' y1='0' y2='{_HEIGHT}' stroke='var(--bad)' stroke-width='3' "
        "vector-effect='non-scaling-stroke'><title>the fault</title></line>",
    ]
    for at, acknowledged, latency, errors in series:
        x = (at - first) * scale
        if acknowledged:
            high = acknowledged / most * (_BAND - 4)
            shapes.append(
                f"<rect x='{x:.1f}' y='{_BAND - high:.1f}' width='{width:.1f}' height='{high:.1f}' fill='var(--ack)'/>"
            )
            low = latency / slowest * (_HEIGHT - _BAND - 4)
            shapes.append(
                f"<rect x='{x:.1f}' y='{_BAND}' width='{width:.1f}' height='{low:.1f}' fill='var(--late)'/>"
            )
        if errors:
            shapes.append(
                f"<rect x='{x:.1f}' y='{_BAND - 3}' width='{max(width, 1.5):.1f}' height='6' fill='var(--bad)'/>"
            )
    for event in events:
        x = (event["at_ms"] - first) * scale
        note = escape(f"{event['at_ms']:,.0f} ms: {event['node']} {event['what']}")
        shapes.append(
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{_HEIGHT}' stroke='var(--mark)' stroke-width='1' "
            f"vector-effect='non-scaling-stroke'><title>{note}</title></line>"
        )
    return (
        f"<svg viewBox='0 0 1000 {_HEIGHT}' preserveAspectRatio='none' role=img "
        f"aria-label='writes acknowledged and latency over time'>{''.join(shapes)}</svg>"
    )


def _events(events: Sequence[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td class=n>{e['at_ms']:,.0f} ms</td><td>{escape(e['node'])}</td><td>{escape(e['what'])}</td></tr>"
        for e in events
    )
    opened = " open" if len(events) <= 20 else ""
    table = f"<div class=scroll><table class=events>{rows}</table></div>"
    return f"<details{opened}><summary>{len(events)} events</summary>{table}</details>"


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:,.2f} s" if milliseconds >= 1000 else f"{milliseconds:,.0f} ms"
