"""Certificates that sites name, and those of Let's Encrypt: for whom, until when, and whether the key is there."""

from __future__ import annotations

import datetime
import re
from typing import Any

from cryptography import x509

from redkeep.rescue.disk.tree import names, read_all, reason
from redkeep.rescue.inspection.looking import Look

_MOST = 500
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def certificates(look: Look, sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted: dict[str, str] = {}
    for site in sites:
        for i, path in enumerate(site["certificates"]):
            wanted.setdefault(path, site["keys"][i] if i < len(site["keys"]) else "")
    for name in names(look.tree, b"/etc/letsencrypt/live"):
        path = b"/etc/letsencrypt/live/" + name + b"/fullchain.pem"
        if look.text(path, 1 << 20):
            text = path.decode("utf-8", "backslashreplace")
            wanted.setdefault(text, text.replace("fullchain.pem", "privkey.pem"))
            look.want("sites", b"/etc/letsencrypt")
    return [_certificate(look, path, key) for path, key in list(wanted.items())[:_MOST]]


def _certificate(look: Look, path: str, key: str) -> dict[str, Any]:
    document: dict[str, Any] = {"path": path, "names": [], "issuer": "", "expires": None, "expired": None}
    document |= {"key": key, "key_state": _key(look, key), "problem": ""}
    try:
        match = _PEM.search(read_all(look.tree, path.encode("utf-8", "surrogateescape"), 1 << 20))
        if match is None:
            raise ValueError("no certificate in it")
        found = x509.load_pem_x509_certificate(match[0])
        document["expires"] = found.not_valid_after_utc.isoformat()
        document["expired"] = found.not_valid_after_utc < datetime.datetime.now(datetime.UTC)
        document["issuer"] = found.issuer.rfc4514_string()
        document["names"] = _names(found)
    except OSError as error:
        document["problem"] = reason(error)
    except ValueError as error:
        document["problem"] = f"cannot be read: {error}"
    return document


def _names(found: x509.Certificate) -> list[str]:
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [str(n) for n in extension.value.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        common = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [str(c.value) for c in common]


def _key(look: Look, path: str) -> str:
    """``missing``, ``encrypted``, or ``on the disk``: whoever got in has it."""
    if not path:
        return "not named"
    try:
        raw = read_all(look.tree, path.encode("utf-8", "surrogateescape"), 1 << 20)
    except OSError:
        return "missing"
    if b"PRIVATE KEY-----" not in raw:
        return "not a key"
    return "encrypted" if b"ENCRYPTED" in raw else "on the disk"
