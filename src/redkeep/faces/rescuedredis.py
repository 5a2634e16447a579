"""What came back of a Redis, as text for people. Whatever the data say is escaped."""

from __future__ import annotations

from typing import Any

from redkeep.faces.output import clean
from redkeep.faces.render import size

_MOST = 20


def rescued_redis_text(document: dict[str, Any]) -> str:
    d = document
    parts = [_heading(d), _contents(d), _losses(d), _intruders(d), _result(d), _into(d)]
    return "\n\n".join(part for part in parts if part)


def _heading(d: dict[str, Any]) -> str:
    files = ", ".join(f"{f['path']} ({size(f['bytes'])})" for f in d["files"][:4])
    more = f" and {len(d['files']) - 4} more" if len(d["files"]) > 4 else ""
    kind = {"rdb": "RDB file", "aof": "append-only file"}[d["kind"]]
    lines = [f"{clean(d['source'])}: {kind} {clean(files)}{more}"]
    rdb = d["written_by"]
    if rdb:
        written = f"RDB version {rdb['rdb_version']}"
        written += f", {rdb['flavor'].capitalize()} {clean(rdb['written_by'])}" if rdb["written_by"] else ""
        lines.append(f"written as {written}; read with {d['engine']}")
    else:
        lines.append(f"read with {d['engine']}")
    return "\n".join(lines)


def _contents(d: dict[str, Any]) -> str:
    contents = d["contents"]
    lines = [f"{contents['keys']:,} keys, digest {contents['digest'][:32]}..."]
    for number, database in contents["databases"].items():
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in database["kinds"].items())
        expiring = f"; {database['expiring']:,} with an expiry" if database["expiring"] else ""
        lines.append(f"  database {number}: {database['keys']:,} keys ({clean(kinds)}{expiring})")
    if d["expired_at_load"]:
        lines.append(
            f"  {d['expired_at_load']:,} keys had expired since, and are gone as their server meant it"
        )
    if d["scripts"]:
        state = "loaded, as asked" if d["scripts_loaded"] else "not loaded"
        lines.append(f"  {d['scripts']:,} functions and scripts in scripts.jsonl, {state}")
    return "\n".join(lines)


def _losses(d: dict[str, Any]) -> str:
    lines = [f"note: {clean(note)}" for note in d["notes"]]
    for one in d["refused_values"][:_MOST]:
        lines.append(f"left out: {clean(one['key'])} in database {one['database']}: {clean(one['why'])}")
    for one in d["unreadable"][:_MOST]:
        lines.append(f"unreadable: {clean(one['key'])} in database {one['database']}: {clean(one['why'])}")
    if not d["complete"]:
        lines.insert(0, "INCOMPLETE: part of the data was damaged")
    return "\n".join(lines)


def _intruders(d: dict[str, Any]) -> str:
    if not d["intruder_count"]:
        return ""
    state = "left out" if d["intruders_left_out"] else "STILL IN IT; --without-intruders leaves them out"
    lines = [f"{d['intruder_count']} keys that look like an intruder's ({state}; values in intruders.jsonl):"]
    for one in d["intruders"][:_MOST]:
        lines.append(f"  {clean(one['key'][:60])} in database {one['database']}: {clean(one['line'][:100])}")
    return "\n".join(lines)


def _result(d: dict[str, Any]) -> str:
    result = d["result"]
    return "\n".join(
        [
            f"{clean(result['rdb'])}: {size(result['bytes'])}, sha256 {result['sha256']}",
            f"  loads on {result['loads_on']} (with appendonly no)",
        ]
    )


def _into(d: dict[str, Any]) -> str:
    into = d["into"]
    if not into:
        return ""
    lines = [
        f"{clean(into['target'])} ({into['engine']}, primaries: {len(into['nodes'])}): {into['equal']:,} keys compared "
        f"and equal",
        f"  {into['copied_now']:,} written in this run ({into['method']})",
    ]
    if into["replaced"]:
        lines.append(f"  {into['replaced']:,} that were there with another value were replaced")
    if into["expired_meanwhile"]:
        lines.append(f"  {into['expired_meanwhile']:,} expired meanwhile")
    if into["field_expiry_lost"]:
        lines.append(
            f"  {into['field_expiry_lost']:,} fields of hashes do not expire there: that server has no such thing"
        )
    if into["pending_entries_lost"]:
        lines.append(
            f"  {into['pending_entries_lost']:,} pending entries of streams, deleted there, could not be made again"
        )
    for function in into.get("functions", []):
        lines.append(f"  functions {clean(function['library'])}: {clean(function['refused']) or 'loaded'}")
    if into["conflict_count"]:
        lines.append(
            f"NOT COPIED: {into['conflict_count']:,} keys are there with another value (conflicts.jsonl; --replace "
            "replaces them):"
        )
        lines += [f"  {clean(c['key'][:80])} in database {c['database']}" for c in into["conflicts"][:_MOST]]
    if into["differing_count"]:
        lines.append(f"DIFFERENT: {into['differing_count']:,} keys; does an application write there already?")
        lines += [
            f"  {clean(c['key'][:80])} in database {c['database']}: {c['difference']}"
            for c in into["differing"][:_MOST]
        ]
    return "\n".join(lines)
