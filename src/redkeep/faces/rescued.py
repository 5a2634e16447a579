"""What rescue found and took, as text for people. Everything that a victim's disk says is escaped."""

from __future__ import annotations

from typing import Any

from redkeep.faces.output import clean
from redkeep.faces.render import size

_MOST = 20


def extracted_text(document: dict[str, Any]) -> str:
    d = document
    done = f"{d['copied_files']} copied now" if d["copied_files"] else "all of them were there already"
    lines = [
        f"{clean(d['bundle'])}: {d['files']:,} files, {size(d['bytes'])} ({done})",
        f"read back and the same: {d['verified_files']:,} of {d['files']:,}; {d['seconds']:.1f} s",
        f"manifest.jsonl has sha256 {d['manifest_sha256']}",
    ]
    if d["skipped_devices_and_sockets"]:
        lines.append(f"left out: {d['skipped_devices_and_sockets']} devices, FIFOs and sockets")
    if d["problems"]:
        lines.append(f"\nNot taken ({len(d['problems'])}):")
        lines += [f"  {clean(p['path'])}: {clean(p['why'])}" for p in d["problems"][:_MOST]]
        if len(d["problems"]) > _MOST:
            lines.append(f"  and {len(d['problems']) - _MOST} more, in --json and the manifest")
    return "\n".join(lines)


def inspected_text(document: dict[str, Any]) -> str:
    parts = [_heading(document), *(part for part in map(_section, report_sections(document)) if part)]
    return "\n\n".join(parts)


def _heading(document: dict[str, Any]) -> str:
    system = document["system"]
    lines = [
        f"{clean(document['source'])} ({document['form']}): {clean(system['name'] or 'no known system')}"
    ]
    if "files" in system:
        lines.append(
            f"{system['files']:,} files, {size(system['bytes'])}; looked at in {document['seconds']:.1f} s"
        )
    lines += [f"note: {clean(note)}" for note in document["notes"]]
    return "\n".join(lines)


def _section(section: tuple[str, list[list[str]]]) -> str:
    title, rows = section
    if not rows:
        return ""
    shown = rows[:_ROWS]
    more = [f"  and {len(rows) - _ROWS} more, in --json and --html"] if len(rows) > _ROWS else []
    return "\n".join([f"{title} ({len(rows)})", *_lines(shown), *more])


_ROWS = 40


def _lines(rows: list[list[str]]) -> list[str]:
    """First column padded as far as that helps; what follows a break is indented."""
    width = min(max(len(clean(row[0])) for row in rows), 44)
    lines = []
    for row in rows:
        first, *rest = (clean(cell) for cell in row)
        lines.append(f"  {first.ljust(width)}  {'  '.join(filter(None, rest))}".rstrip())
    return lines


def report_sections(document: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """The report as titles and rows of text, for whatever shows it. Nothing is escaped yet."""
    d = document
    return [
        ("SIGNS OF A BREAK-IN", [_sign_row(f) for f in d["intrusion"]]),
        ("PARTITIONS", [_partition_row(p) for p in d["partitions"]]),
        ("ACCOUNTS THAT LOG IN", [_user_row(u) for u in d["system"]["users"] if u.get("logs_in")]),
        ("PACKAGES", _package_rows(d["system"]["packages"])),
        ("SERVICES, TIMERS AND CRON", [[s["name"], s["kind"], s["runs"]] for s in d["services"]]),
        ("SITES", [row for site in d["sites"] for row in _site_rows(site)]),
        ("CERTIFICATES", [_certificate_row(c) for c in d["certificates"]]),
        ("APPLICATIONS", [row for a in d["applications"] for row in _application_rows(a)]),
        ("DATABASES", [row for b in d["databases"] for row in _database_rows(b)]),
        (
            "REDIS",
            [*map(_configuration_row, d["redis"]["configurations"]), *map(_data_row, d["redis"]["files"])],
        ),
        ("NOT LOOKED AT", [[line] for line in d["not_looked_at"]]),
    ]


def _sign_row(f: dict[str, Any]) -> list[str]:
    return [
        f["subject"],
        f"{f['severity']}, {f['confidence']} confidence: {f['evidence']}",
        f"[{f['source']}]",
    ]


def _partition_row(p: dict[str, Any]) -> list[str]:
    at = f"at {p['mounted_at']}" if p["mounted_at"] else ""
    return [p["name"], f"{p['kind'] or 'unknown'}, {size(p['size_bytes'])}", p["label"], at, p["note"]]


def _user_row(u: dict[str, Any]) -> list[str]:
    return [u["name"], f"uid {u['uid']}, password {u['password']}", f"keys: {', '.join(u['keys']) or 'none'}"]


def _package_rows(found: dict[str, Any]) -> list[list[str]]:
    if not found["manager"]:
        return []
    return [[found["manager"], found["note"] or f"{found['count']} packages, listed in --json"]]


def _site_rows(site: dict[str, Any]) -> list[list[str]]:
    rows = [
        [", ".join(site["names"]) or "(no name)", f"listens on {', '.join(site['listens'])}", site["file"]]
    ]
    rows += [["", f"root {path}"] for path in site["roots"]]
    rows += [["", f"{a['location']} is {a['path']}"] for a in site["aliases"]]
    rows += [["", f"{p['location']} goes to {', '.join(p['servers'])}"] for p in site["proxies"]]
    rows += [["", f"{u['path']}: {u['files']:,} files, {size(u['bytes'])}"] for u in site["uploads"]]
    return rows


def _certificate_row(c: dict[str, Any]) -> list[str]:
    until = c["problem"] or f"until {str(c['expires'])[:10]}{', expired' if c['expired'] else ''}"
    return [", ".join(c["names"]) or c["path"], until, f"key {c['key_state']}"]


def _application_rows(a: dict[str, Any]) -> list[list[str]]:
    rows = [[a["path"], a["kind"], a["main"] or a["title"], a["problem"]]]
    for part in a["settings"]:
        rows += [["", f"{part['file'].rsplit('/', 1)[-1]}: {_value(v)}"] for v in part["values"]]
    return rows


def _value(v: dict[str, Any]) -> str:
    if v.get("secret"):
        return (
            f"{v['key']} = {v['value']}"
            if "value" in v
            else f"{v['key']}: present, {v['characters']} characters"
        )
    return f"{v['key']} = {v['value']}"


def _database_rows(b: dict[str, Any]) -> list[list[str]]:
    rows = [[b["path"], f"{b['flavor']} {b['version']}, {b['state']}", size(b["bytes"]), b["why"]]]
    for schema in b["schemas"]:
        rows.append(["", f"{schema['name']}: {len(schema['tables'])} tables, {size(schema['bytes'])}"])
    return rows


def _configuration_row(c: dict[str, Any]) -> list[str]:
    return [
        c["path"],
        f"port {c['port']}, dir {c['dir']}, appendonly {c['appendonly']}",
        c["open"] and f"OPEN: {c['open']}",
    ]


def _data_row(f: dict[str, Any]) -> list[str]:
    keys = "" if f["keys"] is None else f"{f['keys']:,} keys" + ("" if f.get("keys_exact") else ", about")
    version = f"RDB version {f['rdb_version']}" if "rdb_version" in f else ""
    return [f["path"], f"{f['kind']}, {size(f['bytes'])}", keys, version, f.get("problem", "")]
