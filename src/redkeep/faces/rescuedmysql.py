"""What ``rescue mysql`` brought back, as text for people. Every name in it is the victim's, and escaped."""

from __future__ import annotations

from typing import Any

from redkeep.faces.output import clean
from redkeep.faces.render import size

_MOST = 40


def dumped_text(document: dict[str, Any]) -> str:
    d = document
    parts = [_heading(d), *map(_schema, d["schemas"])]
    if d["left_out"]:
        shown = [f"  {clean(one['what'])}: {clean(one['why'])}" for one in d["left_out"][:_MOST]]
        more = len(d["left_out"]) - _MOST
        parts.append("\n".join([f"LEFT OUT ({len(d['left_out'])})", *shown, *_more(more)]))
    parts.append(_what_now(d))
    return "\n\n".join(parts)


def _heading(d: dict[str, Any]) -> str:
    was, count = d["was"], d["tables"]
    total = sum(count.values())
    lines = [
        f"{clean(d['datadir'])}: {was['flavor']} {clean(was['version'])}, {was['state']} ({clean(was['why'])})"
    ]
    by = f"read by {clean(d['server']['version'])}"
    if d["recovered_by"]:
        by = f"recovered by {clean(d['recovered_by']['version'])}, {by}"
    if d["innodb_force_recovery"]:
        by += f" with innodb_force_recovery {d['innodb_force_recovery']}"
    lines.append(f"{by}; {size(was['bytes'])}; {d['seconds']:.1f} s")
    lines += [f"  refused at {one['level']}: {clean(one['why'])}" for one in d["refused"]]
    if d["complete"]:
        lines.append(f"COMPLETE: all {total} tables are exact")
    elif count["exact"] == total:
        lines.append(f"PARTIAL: all {total} tables are exact, but not everything was read (below)")
    else:
        told = ", ".join(f"{n} {state}" for state, n in count.items() if n)
        lines.append(f"PARTIAL: of {total} tables {told or 'none'}")
    if d["hint"]:
        lines.append(f"hint: {d['hint']}")
    if d["again"]:
        lines.append("this was made before, and is as it was written; --again makes it anew")
    return "\n".join(lines)


def _schema(schema: dict[str, Any]) -> str:
    tables = schema["tables"]
    exact = [t for t in tables if t["state"] == "exact"]
    lines = [
        f"{clean(schema['name'])}: {len(tables)} tables, {sum(t['rows'] or 0 for t in exact):,} rows proven"
    ]
    width = min(max((len(clean(t["name"])) for t in tables), default=0), 40)
    for table in sorted(tables, key=lambda t: t["state"] == "exact")[:_MOST]:
        rows = "" if table["rows"] is None else f"  {table['rows']:,} rows"
        why = f"  {clean(table['why'])}" if table["why"] else ""
        lines.append(f"  {clean(table['name']).ljust(width)}  {table['state']}{rows}{why}")
    lines += _more(len(tables) - _MOST)
    if schema["code"]:
        lines.append("  code: " + ", ".join(f"{n} {kind}" for kind, n in schema["code"].items()))
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"  and {count} more, in --json and rescue.json"] if count > 0 else []


def _what_now(d: dict[str, Any]) -> str:
    lines = [f"In {clean(d['out'])}:"]
    dumps = [s["dump"] for s in d["schemas"] if s["dump"]]
    doubtful = [s["uncertain_dump"] for s in d["schemas"] if s["uncertain_dump"]]
    if dumps:
        lines.append("  data/*.sql          load with: mariadb < data/SCHEMA.sql")
        lines.append(f"  verify.sql          then, there: {d['verify']}")
    if doubtful:
        lines.append("  uncertain/*.sql     tables that are not exact; look at them before you load them")
    if any(s["code"] for s in d["schemas"]):
        lines.append("  code/*.sql          views, triggers, routines, events: read them before you load any")
    if d["accounts"]:
        lines.append(f"  accounts.sql        {d['accounts']} accounts with hashes, to read; make new ones")
    lines.append("  rescue.json         all of this")
    return "\n".join(lines)
