"""TLS over any pair of streams, such as a channel through SSH, for which asyncio's own TLS has no transport."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

_CHUNK = 1 << 16


class _TlsStream:
    """Both halves of an encrypted stream, with the few methods that a client uses of a reader and a writer."""

    def __init__(self, reader: Any, writer: Any, context: ssl.SSLContext, name: str | None = None) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    @property
    def der(self) -> bytes:
        """The certificate that the server presented."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def certificate(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                await self._flush()
                return

    async def read(self, n: int = -1) -> bytes:
        while True:
            try:
                return self._tls.read(n if n > 0 else _CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()  # a key update may want to answer
                if not await self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
            self._writer.write(self._outgoing.read())

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
            await self._writer.drain()

    async def _fill(self) -> bool:
        data = await self._reader.read(_CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)


async def over_tls(
    reader: Any, writer: Any, context: ssl.SSLContext, name: str | None = None
) -> tuple[Any, Any, str]:
    """Shakes hands; returns the encrypted pair, and the SHA-256 of the peer's certificate (DER).

    ``name`` is what the certificate must name, where the context checks that. Raises ``ssl.SSLError`` (an ``OSError``)
    when that fails.
    """
    stream = _TlsStream(reader, writer, context, name)
    try:
        await stream.handshake()
    except BaseException:
        writer.close()
        raise
    return stream, stream, stream.certificate


def client_context(ca_pem: bytes) -> ssl.SSLContext:
    """Trusts exactly the deployment's own CA. The name is not checked: through a channel every server is 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    return context
