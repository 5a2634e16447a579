"""What a stranger meets at an address: does it connect, does it speak TLS, what does it answer without a password.

The connection stays open for a login afterwards, so that looking costs one connection a node. Nothing is sent but PING
and INFO.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import replace
from typing import Any

from redkeep.errors import HostError, NodeUnreachable, NotForwarded, RedkeepError, ReplyError, WireError
from redkeep.model.checkup import BREAKS_OFF, SILENT, Certificate, Outcome, Visit
from redkeep.model.values import Value
from redkeep.wire import replies
from redkeep.wire.client import Client, Login, Opener
from redkeep.wire.tls import over_tls


class Trust(Value):
    """How certificates are verified: against ``context``, and for ``name`` where the context checks names."""

    context: ssl.SSLContext
    name: str | None = None


class Met(Value):
    """``client`` is open and not logged in; ``None`` where nobody speaks the protocol."""

    visit: Visit
    client: Client | None = None


async def knock(opener: Opener, *, where: str, tls_first: bool, trust: Trust | None, timeout: float) -> Met:
    """Tries plain and TLS, the likelier one first; never raises for what a server does."""
    failed: dict[bool, Met] = {}
    for tls in (tls_first, not tls_first):
        found = await _try(opener, where, tls, trust, timeout)
        if found.client is not None or not found.visit.connects or found.visit.tls:
            return found
        failed[tls] = found
        if found.visit.detail == SILENT and not tls:
            break
    # nobody speaks the protocol: what an unencrypted question met says more than that TLS failed
    return failed[False]


async def peek(opener: Opener, *, timeout: float) -> Visit:
    """Only whether it connects and speaks TLS: for a Cluster's bus."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await opener()
    except (OSError, TimeoutError, EOFError, RedkeepError) as error:
        return Visit(_outcome(error), _short(error))
    try:
        async with asyncio.timeout(timeout):
            _, writer, certificate = await _handshake(opener, reader, writer, None)
        return Visit("open", tls=True, certificate=certificate)
    except (OSError, TimeoutError, EOFError, ValueError) as error:
        return Visit("open", f"no TLS: {_short(error)}")
    finally:
        writer.close()


#: Bytes of one answer, at most: the views of a Cluster of a thousand nodes are a tenth of that.
_LIMIT = 32 << 20

#: Seconds for a handshake: a server without TLS waits for the rest of what it takes for a command.
_HANDSHAKE = 1.5


async def _try(opener: Opener, where: str, tls: bool, trust: Trust | None, timeout: float) -> Met:
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await opener()
    except (OSError, TimeoutError, EOFError, RedkeepError) as error:
        return Met(Visit(_outcome(error), _short(error)))
    visit = Visit("open")
    if tls:
        try:
            async with asyncio.timeout(min(timeout, _HANDSHAKE)):
                reader, writer, certificate = await _handshake(opener, reader, writer, trust)
        except TimeoutError:
            return Met(replace(visit, detail=SILENT))
        except (OSError, EOFError, ValueError) as error:
            return Met(replace(visit, detail=f"no TLS: {_short(error)}"))
        visit = replace(visit, tls=True, certificate=certificate)
    digest = visit.certificate.sha256 if visit.certificate else ""
    client = Client(reader, writer, where=where, timeout=timeout, certificate=digest, limit=_LIMIT)
    return await _greet(client, visit)


async def _greet(client: Client, visit: Visit) -> Met:
    try:
        ping, info = await client.pipeline([("PING",), ("INFO", "server")])
    except NodeUnreachable as error:
        silent = error.what == "no answer in time"
        # a server that hangs answers neither; one that only pretends may know no more than PING
        said = BREAKS_OFF if client.was_answered else SILENT
        if visit.tls and not silent:
            said = f"{error.what}, after the TLS handshake: it may ask for a client's certificate (--cert, --key)"
        return Met(replace(visit, detail=said if silent or visit.tls else error.what))
    except WireError as error:
        return Met(replace(visit, detail=error.what))
    visit = replace(visit, ping=ping.what if isinstance(ping, ReplyError) else replies.text(ping)[:200])
    if isinstance(ping, ReplyError) and ping.code == "DENIED":
        client.close()
        return Met(replace(visit, detail="protected mode: only loopback is let in"))
    if isinstance(info, bytes):
        fields = replies.info(info)
        visit = replace(visit, anonymous_info=True, run_id=fields.get("run_id", ""))
    return Met(visit, client)


async def log_in(client: Client, login: Login) -> tuple[str, str]:
    """Logs in: the server's refusal, or an empty text and its run ID.

    The user ``default`` is left unsaid for servers before 6.0. Where nobody needs a password, that is no refusal.
    """
    words = ("AUTH", login.password) if login.user == "default" else ("AUTH", login.user, login.password)
    welcome, info = await client.pipeline([words, ("INFO", "server")])
    if isinstance(welcome, ReplyError) and not any(known in welcome.what for known in _NOT_NEEDED):
        return welcome.what, ""
    return "", replies.info(info).get("run_id", "") if isinstance(info, bytes) else ""


#: What servers since 6.0, and before, say to a password that they do not ask for.
_NOT_NEEDED = ("without any password", "no password is set")


async def _handshake(
    opener: Opener, reader: Any, writer: Any, trust: Trust | None
) -> tuple[Any, Any, Certificate | None]:
    """Verifies where there is something to verify against; else, and where that fails, looks without trusting."""
    if trust is not None:
        try:
            reader, writer, _ = await over_tls(reader, writer, trust.context, trust.name)
            return reader, writer, certificate_of(reader.der, trusted=True)
        except ssl.SSLCertVerificationError:
            reader, writer = await opener()
    reader, writer, _ = await over_tls(reader, writer, _blind())
    return reader, writer, certificate_of(reader.der, trusted=False)


def _blind() -> ssl.SSLContext:
    """Takes any certificate: for looking at it. Nothing secret is sent over such a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def certificate_of(der: bytes, *, trusted: bool) -> Certificate | None:
    """What stands in it; ``None`` for what is no certificate."""
    from cryptography import x509

    try:
        parsed = x509.load_der_x509_certificate(der)
        try:
            names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            told = [*names.get_values_for_type(x509.DNSName)]
            told += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        except x509.ExtensionNotFound:
            told = []
        return Certificate(
            tuple(told),
            parsed.not_valid_after_utc,
            parsed.issuer.rfc4514_string(),
            hashlib.sha256(der).hexdigest(),
            trusted,
        )
    except ValueError:
        return None


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, NotForwarded | HostError):
        return "untried"  # that is about the vantage point, and says nothing of the server
    if isinstance(error, TimeoutError):
        return "timeout"
    return "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"


def _short(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    words = error.what if isinstance(error, RedkeepError) else str(error)
    return (words or type(error).__name__)[:200]
