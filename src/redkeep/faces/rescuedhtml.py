"""The report of ``rescue inspect`` as one page: no script, nothing loaded from anywhere, everything escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from redkeep.faces.output import clean
from redkeep.faces.rescued import report_sections

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td { padding: .25rem .6rem .25rem 0; vertical-align: top;
border-top: 1px solid #e3e6ea; overflow-wrap: anywhere } td:first-child { font-family: ui-monospace, monospace; width: 30% }
.break-in td:first-child { color: #a40e26 } p { color: #57606a }
@media (prefers-color-scheme: dark) { body { background: #16191d; color: #e6e8ea } td { border-color: #30363d } }
"""


def page(document: dict[str, Any]) -> str:
    system = document["system"]
    signs = sum(f["severity"] == "error" for f in document["intrusion"])
    verdict = f"{signs} signs of a break-in" if signs else "no sure sign of a break-in was found"
    notes = "".join(f"<p>{_text(note)}</p>" for note in document["notes"])
    body = "".join(_section(title, rows) for title, rows in report_sections(document) if rows)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(document['source'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{_text(document['source'])}</h1>"
        f"<p>{_text(system['name'] or 'no known system')}; {verdict}. Passwords are not in this page unless asked for.</p>"
        f"{notes}{body}</body></html>\n"
    )


def _section(title: str, rows: list[list[str]]) -> str:
    mark = ' class="break-in"' if title.startswith("SIGNS") else ""
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{_text(title.capitalize())}</h2><table{mark}>{body}</table>"


def _text(value: object) -> str:
    return escape(clean(str(value)))
