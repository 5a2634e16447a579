"""Every secret that whoever was on the host has now: where it stands, and of what kind it is. Never itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from redkeep.rescue.disk.tree import is_directory, is_file, names, text_of
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.inspection.settings import masked_command
from redkeep.rescue.rebuild.redisfacts import sentinel_files

_MOST = 2_000

#: Files of a home that hold credentials, and of what.
_IN_HOMES = {
    ".aws/credentials": "cloud key",
    ".aliyun/config.json": "cloud key",
    ".ossutilconfig": "cloud key",
    ".tccli/default.credential": "cloud key",
    ".cos.conf": "cloud key",
    ".s3cfg": "cloud key",
    ".config/gcloud/credentials.db": "cloud key",
    ".azure/msal_token_cache.json": "cloud key",
    ".docker/config.json": "account elsewhere",
    ".kube/config": "account elsewhere",
    ".git-credentials": "account elsewhere",
    ".netrc": "account elsewhere",
    ".npmrc": "account elsewhere",
    ".pypirc": "account elsewhere",
    ".m2/settings.xml": "account elsewhere",
    ".my.cnf": "database password",
    ".pgpass": "database password",
    ".rediscli_auth": "Redis password",
}
_OF_THE_SYSTEM = {
    "/etc/mysql/debian.cnf": "database password",
    "/root/.acme.sh/account.conf": "TLS account",
    "/etc/letsencrypt/accounts": "TLS account",
    "/etc/openvpn": "VPN key",
    "/etc/wireguard": "VPN key",
}


def exposed(look: Look, document: dict[str, Any]) -> list[dict[str, str]]:
    """``document`` is that of ``inspect``. Each once: ``where``, ``what``, ``kind``."""
    found = [
        *_of_applications(document),
        *_of_redis(look, document),
        *_of_databases(look, document),
        *_of_certificates(look, document),
        *_of_accounts(look, document),
        *_of_commands(look, document),
    ]
    once = {(one["where"], one["what"], one["kind"]): one for one in found}
    return list(once.values())[:_MOST]


def _one(where: str, what: str, kind: str) -> dict[str, str]:
    return {"where": where, "what": what, "kind": kind}


def _of_applications(document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for application in document["applications"]:
        for part in application["settings"]:
            inside = part["file"]
            where = inside if inside.startswith("/") else f"{application['path']}!/{inside}"
            for value in part["values"]:
                if value.get("secret") or re.search(r"\(\d+ characters\)", str(value.get("value", ""))):
                    yield _one(where, value["key"], _kind(value))


def _kind(value: dict[str, Any]) -> str:
    key = str(value["key"]).lower()
    for pattern, kind in (
        (r"redis|jedis|lettuce|valkey", "Redis password"),
        (r"access[-_.]?key|secret[-_.]?id|\b(?:oss|cos|aliyun|tencent|qcloud|aws|s3)\b", "cloud key"),
        (
            r"datasource|jdbc|mysql|maria|mongo|postgres|(?:^|[._])db|database|druid|hikari|^password$",
            "database password",
        ),
        (r"mail|smtp", "mail password"),
        (r"rabbit|kafka|nacos|consul|elastic|zookeeper|mqtt", "password of another service"),
        (r"keystore|truststore|ssl|tls", "TLS key"),
    ):
        if value.get("cloud"):
            return "cloud key"
        if re.search(pattern, key):
            return kind
    return "application secret"


def _of_redis(look: Look, document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for config in document["redis"]["configurations"]:
        for setting in config["settings"]:
            if setting["key"] in ("requirepass", "masterauth", "user"):
                yield _one(config["path"], setting["key"], "Redis password")
    for path in sentinel_files(look):
        for match in re.finditer(
            r"^\s*(?:sentinel\s+(auth-pass|sentinel-pass)|(requirepass))\s", look.text(path), re.MULTILINE
        ):
            yield _one(text_of(path), match[1] or match[2], "Redis password")


def _of_databases(look: Look, document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for database in document["databases"]:
        yield _one(database["path"], "the accounts in its mysql schema", "database password")
    for path in (b"/etc/my.cnf", b"/etc/mysql/my.cnf", *(f for d in _MY_CNF for f in look.files(d))):
        if re.search(r"^\s*password\s*=\s*\S", look.text(path), re.MULTILINE | re.IGNORECASE):
            yield _one(text_of(path), "password", "database password")


_MY_CNF = (b"/etc/my.cnf.d", b"/etc/mysql/conf.d", b"/etc/mysql/mariadb.conf.d", b"/etc/mysql/mysql.conf.d")


def _of_certificates(look: Look, document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for certificate in document["certificates"]:
        if certificate["key_state"] in ("on the disk", "encrypted"):
            yield _one(
                certificate["key"], ", ".join(certificate["names"]) or "a certificate's key", "TLS key"
            )
    for directory in (b"/etc/nginx", b"/etc/httpd", b"/etc/apache2"):
        for path in look.files(directory):
            if b"htpasswd" in path:
                yield _one(text_of(path), "passwords of visitors", "account password")


def _of_accounts(look: Look, document: dict[str, Any]) -> Iterator[dict[str, str]]:
    system = document["system"]
    for user in system["users"]:
        if user.get("password") == "set":
            yield _one("/etc/shadow", f"the account {user['name']}", "account password")
    for path in look.files(b"/etc/ssh"):
        if re.search(rb"/ssh_host_\w+_key$", path):
            yield _one(text_of(path), "this host's own key", "SSH host key")
    homes = {b"/root", *(b"/home/" + name for name in names(look.tree, b"/home"))}
    homes |= {
        u["home"].rstrip("/").encode("utf-8", "surrogateescape") for u in system["users"] if u.get("logs_in")
    }
    for home in sorted(home for home in homes if home.count(b"/") > 0):
        yield from _of_home(look, home)
    for place, kind in _OF_THE_SYSTEM.items():
        raw = place.encode()
        if is_file(look.tree, raw) or (is_directory(look.tree, raw) and names(look.tree, raw)):
            yield _one(place, "", kind)


def _of_commands(look: Look, document: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Files of cron and of services that give passwords to what they run, as options or in the environment."""
    for file in dict.fromkeys(str(service["file"]) for service in document["services"]):
        text = look.text(file.encode("utf-8", "surrogateescape"), 256 << 10)
        if any(masked_command(line[:2000]) != line[:2000] for line in text.splitlines()):
            yield _one(file, "a password that a command is given", "application secret")


def _of_home(look: Look, home: bytes) -> Iterator[dict[str, str]]:
    for path in look.files(home + b"/.ssh"):
        head = look.text(path, 64 << 10)[:200]
        if head.startswith(("-----BEGIN", "PuTTY-User-Key-File")) and "PUBLIC" not in head:
            yield _one(text_of(path), "a private key of its user", "SSH key")
    for name, kind in _IN_HOMES.items():
        path = home + b"/" + name.encode()
        if is_file(look.tree, path):
            yield _one(text_of(path), "", kind)
    for history in (b".bash_history", b".zsh_history", b".mysql_history", b".rediscli_history"):
        path = home + b"/" + history
        if re.search(r"pass|token|secret|-p\S", look.text(path, 4 << 20), re.IGNORECASE):
            yield _one(text_of(path), "what was typed there as a password", "account password")
