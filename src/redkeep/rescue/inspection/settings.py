"""Settings of applications as flat text: YAML, properties, .env, PHP and JSON. No value is ever given another type.

A password written ``0123`` stays ``0123``, and ``@placeholder@`` or ``${NAME}`` stays what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

#: More than this is no settings file but a bomb, or data.
MOST_KEYS = 5_000
MOST_BYTES = 1 << 20
MOST_DEPTH = 60

_SECRET = re.compile(
    r"(?:pass(?:wd|word|phrase)?|pwd|secret|token|credential|access[-_.]?key(?:[-_.]?id)?|api[-_.]?key|private[-_.]?key|"
    r"secret[-_.]?(?:key|id)|auth|key[-_.]?base|(?:encrypt(?:ion)?|sign(?:ing)?|jwt)[-_.]?key)(?:e?s)?(?:[-_.]?\d+)?$|"
    r"(?<![a-z])(?:db|user|root)?_?pw$|requirepass|masterauth|primaryauth|(?:APP|AUTH|LOGGED_IN|NONCE)_KEY$|_(?:SALT|SK|AK)$",
    re.IGNORECASE,
)
#: What stands behind a key's own name: its place in a list, or the profile that it is of.
_BEHIND = re.compile(r"(?:\[\d*\]|\s+\([^)]*\))+$")
#: Keys that open a whole cloud account, by how their names begin; as the clouds' own documentation of them shows.
CLOUD_KEYS = {
    "Alibaba Cloud": re.compile(r"\bLTAI[A-Za-z0-9]{12,30}\b"),
    "Tencent Cloud": re.compile(r"\bAKID[A-Za-z0-9]{13,40}\b"),
    "AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
}
_WITHIN_URL = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/@]*:)(?P<secret>[^\s@/]+)(?=@)", re.IGNORECASE
)
_PARAMETER = re.compile(
    r"(?P<before>(?:^|[?&;])(?:password|pwd|token|secret)=)(?P<secret>[^&;\s]+)", re.IGNORECASE
)
#: Lettuce's older form: a password alone.
_ALONE = re.compile(r"(?P<before>rediss?(?:-[a-z]+)?://)(?P<secret>[^\s:/@]+)(?=@)", re.IGNORECASE)
#: A placeholder that says what it is without a setting: that is the value, then.
_WITH_DEFAULT = re.compile(r"\$\{[^}:]*:-?(?P<default>[^}]+)\}")
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}|@[\w.-]+@|%\w+%|<[^>]+>")


def shown(key: str, value: str, *, reveal: bool) -> dict[str, Any]:
    """A setting for a report: secrets only as how long they are. A placeholder is no secret."""
    cloud = cloud_of(value)
    default = _WITH_DEFAULT.fullmatch(value)
    itself = default["default"] if default else value
    if value and (cloud or is_secret(key)) and not _PLACEHOLDER.fullmatch(itself):
        document: dict[str, Any] = {"key": key, "secret": True, "characters": len(itself)}
        document |= {"cloud": cloud} if cloud else {}
        return document | ({"value": value} if reveal else {})
    return {"key": key, "value": value if reveal else masked(value)}


def is_secret(key: str) -> bool:
    """Whether a setting of that name is nobody else's business."""
    return bool(_SECRET.search(_BEHIND.sub("", key)))


def cloud_of(text: str) -> str:
    """Whose access key is in a text; empty where none is."""
    return next((cloud for cloud, pattern in CLOUD_KEYS.items() if pattern.search(text)), "")


def masked(text: str) -> str:
    """Text with the secrets inside of it replaced by how long they are: in URLs, and in their parameters."""
    for pattern in (_WITHIN_URL, _PARAMETER, _ALONE):
        text = pattern.sub(lambda m: f"{m['before']}({len(m['secret'])} characters)", text)
    return text


_WORD = r"""(?P<secret>"[^"\n]*"|'[^'\n]*'|[^\s"'|;&)]+)"""
_NAMED = (
    r"[\w.-]*(?:pass(?:wd|word|phrase)?|pwd|secret|token|credentials?|requirepass|masterauth|"
    r"(?:api|access|secret)[-_.]?key)"
)
#: Where commands have secrets: as a setting, as an option of that name, and as the options of programs that have their own.
_IN_COMMANDS = tuple(
    re.compile(pattern, re.IGNORECASE if i < 2 else 0)
    for i, pattern in enumerate(
        (
            rf"(?P<before>(?<![\w.-]){_NAMED}=)(?![$(]){_WORD}",
            rf"(?P<before>(?<!\S)--?{_NAMED}\s+)(?![$(-]){_WORD}",
            rf"(?P<before>\b(?:mysql\w*|mariadb[\w-]*|mongo\w*)\b[^|;&\n]*?\s-p)(?![$(]){_WORD}",
            rf"(?P<before>\b(?:redis-cli|valkey-cli)\b[^|;&\n]*?\s-a\s+)(?![$(]){_WORD}",
            rf"(?P<before>\bsshpass\s+-p\s*)(?![$(]){_WORD}",
            rf"(?P<before>\b(?:curl|wget)\b[^|;&\n]*?\s(?:-u|--user)[\s=]*[^\s:]+:)(?![$(]){_WORD}",
        )
    )
)


def masked_command(text: str) -> str:
    """A command line, such as cron's and services', with the secrets in it replaced by how long they are."""
    for pattern in _IN_COMMANDS:
        text = pattern.sub(lambda m: f"{m['before']}({len(m['secret'].strip(_QUOTES))} characters)", text)
    return masked(text)


_QUOTES = "\"'"


def read_settings(name: str, text: str) -> dict[str, str]:
    """By the file's name. What cannot be parsed gives what its lines say. Never raises."""
    text = text[:MOST_BYTES]
    name = name.lower()
    try:
        if name.endswith((".yml", ".yaml")):
            return from_yaml(text)
        if name.endswith(".json"):
            return _flat(json.loads(text))
        if name.endswith(".php"):
            return from_php(text)
        if name.endswith((".py", ".js", ".cjs", ".mjs", ".ts")):
            return from_python(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        pass
    if name.endswith(".properties"):
        return {k: _ESCAPED.sub(_unescaped, v) for k, v in from_lines(_CONTINUED.sub(r"\1", text)).items()}
    return from_lines(text)


#: As java.util.Properties has them: a line that goes on in the next one, and characters that are written otherwise.
_CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\\r?\n[ \t\f]*")
_ESCAPED = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))")


def _unescaped(match: re.Match[str]) -> str:
    return (
        chr(int(match[1], 16))
        if match[1]
        else {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(match[2], match[2])
    )


#: A value that begins with ``@`` or a backquote is not YAML; Maven's placeholders do.
_RESERVED = re.compile(
    r"^(\s*(?:- +)?(?:[^\s:#\"'][^:#\n]*:[ \t]+)?)([@`][^\n]*?)([ \t]+#[^\n]*)?$", re.MULTILINE
)


def from_yaml(text: str) -> dict[str, str]:
    """All documents in one; a key of a later one with a profile is ``key (profile)``. Raises ``YAMLError``."""
    quoted = _RESERVED.sub(lambda m: m[1] + "'" + m[2].replace("'", "''") + "'", text.replace("\t", "  "))
    found: dict[str, str] = {}
    for document in yaml.load_all(quoted, Loader=_Bounded):
        flat = _flat(document)
        profile = next(
            (flat[k] for k in flat if k in ("spring.profiles", "spring.config.activate.on-profile")), ""
        )
        for key, value in flat.items():
            found[f"{key} ({profile})" if profile and key in found else key] = value
    return found


class _Bounded(yaml.BaseLoader):
    """Everything is text; nesting and aliases are bounded, so that a few lines cannot become a billion."""

    _depth = 0
    _aliases = 0
    _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            self._aliases += 1
        self._depth += 1
        self._nodes += 1
        if self._depth > MOST_DEPTH or self._aliases > 1000 or self._nodes > 4 * MOST_KEYS:
            raise yaml.YAMLError("nested too deeply, or too much for settings")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _flat(document: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _leaves(document, "", [0]):
        found[key] = value
    return found


def _leaves(value: Any, key: str, count: list[int], depth: int = 0) -> Iterator[tuple[str, str]]:
    """``a.b[0].c`` and its text. Ends quietly when there is too much."""
    count[0] += 1
    if count[0] > MOST_KEYS or depth > MOST_DEPTH:
        return
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _leaves(below, f"{key}.{name}" if key else str(name), count, depth + 1)
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _leaves(below, f"{key}[{i}]", count, depth + 1)
    elif key:
        yield key, "" if value is None else value if isinstance(value, str) else json.dumps(value)


#: With a comment behind it.
_QUOTED = re.compile(r"""("[^"]*"|'[^']*')\s+#.*$""")
_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][\w.\[\]-]*)\s*[=:]\s*(.*?)\s*$")


def from_lines(text: str) -> dict[str, str]:
    """properties, .env, ini: ``key=value`` or ``key: value``; quotes around a value are left out."""
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1] + "."
        if not stripped or stripped[0] in "#!;[" or len(found) >= MOST_KEYS:
            continue
        match = _LINE.match(line)
        if match:
            value = match[2]
            if quoted := _QUOTED.match(value):
                value = quoted[1]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[section + match[1]] = value
    return found


_DEFINE = re.compile(r"define\s*\(\s*['\"](\w+)['\"]\s*,\s*['\"]([^'\"]*)['\"]\s*\)")
_ARROW = re.compile(r"['\"]([\w.-]+)['\"]\s*=>\s*(?:env\([^)]*\)|['\"]([^'\"]*)['\"]|(\d+))")
_VARIABLE = re.compile(r"\$([\w\[\]'\"]+)\s*=\s*['\"]([^'\"]*)['\"]\s*;")


def from_php(text: str) -> dict[str, str]:
    """Constants, variables and arrays of literals; code is not run, and what it would make is not known."""
    found: dict[str, str] = {}
    for pattern in (_DEFINE, _VARIABLE, _ARROW):
        for match in pattern.finditer(text):
            value = next((g for g in match.groups()[1:] if g is not None), "")
            if len(found) < MOST_KEYS:
                found.setdefault(re.sub(r"['\"\]]", "", match[1]).replace("[", "."), value)
    return found


_ASSIGNED = re.compile(
    r"""(?:^|[\s{,])['"]?([A-Za-z_][\w.-]*)['"]?\s*[:=]\s*[rb]?['"]([^'"\n]*)['"]""", re.MULTILINE
)


def from_python(text: str) -> dict[str, str]:
    """Names and keys of dictionaries that are given a literal text, as a Django's settings.py and Node's config.js have."""
    found: dict[str, str] = {}
    for match in _ASSIGNED.finditer(text):
        if len(found) < MOST_KEYS:
            found.setdefault(match[1], match[2])
    return found


#: What a report shows of an application's settings: where it listens, what it connects to, where it keeps files.
_TELLING = re.compile(
    r"redis|valkey|datasource|jdbc|database|mysql|mongo|rabbit|kafka|elastic|nacos|consul|server\.port|(^|[._])port$|"
    r"(^|[._-])(host|url|uri|addr|endpoint|name|profiles?)\b|upload|path|dir|bucket|oss|cos|profile|user|db_",
    re.IGNORECASE,
)


def telling(settings: Mapping[str, str], *, reveal: bool, most: int = 200) -> list[dict[str, Any]]:
    chosen = [(k, v) for k, v in settings.items() if _TELLING.search(k) or is_secret(k) or cloud_of(v)]
    return [shown(k, v, reveal=reveal) for k, v in chosen[:most]]
