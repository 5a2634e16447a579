"""The user's own YARA rules over the victim's files."""

from __future__ import annotations

import time
from collections.abc import Iterator

from redkeep.errors import RedkeepError, UsageError
from redkeep.rescue.disk.tree import reason, text_of, walk
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.intrusion.sign import Sign, sign

_MOST_BYTES = 32 << 20
_SECONDS = 1800
_MOST_MATCHES = 1_000


def matches(look: Look, rules: str) -> Iterator[Sign]:
    """Files up to 32 MiB. Raises ``UsageError`` for rules that do not compile, ``RedkeepError`` without yara-python."""
    try:
        import yara
    except ImportError:
        raise RedkeepError(
            "yara-python is not installed", where="--yara", next="pip install 'redkeep[yara]'"
        ) from None
    try:
        compiled = yara.compile(filepath=rules)
    except (yara.Error, OSError) as error:
        raise UsageError(f"these rules do not compile: {error}", where=rules, next="mend the rules") from None
    until = time.monotonic() + _SECONDS
    left_out = found = 0
    for path, entry in walk(look.tree, b"/", skipped=lambda s: None):
        if entry.kind != "file" or not entry.size:
            continue
        if entry.size > _MOST_BYTES or time.monotonic() > until or found >= _MOST_MATCHES:
            left_out += 1
            continue
        try:
            with look.tree.open(path) as content:
                told = compiled.match(data=content.read(0, entry.size), timeout=30)
        except (OSError, yara.Error) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            look.unseen.append(f"{text_of(path)}: not matched: {why}")
            continue
        for match in told:
            found += 1
            yield sign(
                "intrusion-yara",
                "error",
                path,
                f"matches {match.rule}" + (f" ({', '.join(match.tags)})" if match.tags else ""),
                str(match.meta.get("description", "One of your rules matches.")),
                str(match.meta.get("confidence", "as sure as your rules")),
                rules,
            )
    if left_out:
        look.unseen.append(
            f"YARA: {left_out} files larger than 32 MiB, or after the limits of time and matches"
        )
