"""The client against servers that behave badly, each a few lines in this process."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from redkeep.errors import NodeUnreachable, ReplyError, WireError
from redkeep.wire.client import Client, Login, direct
from redkeep.wire.observe import observe, unreachable
from redkeep.wire.tls import client_context

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: Short, so that a server that stays silent does not hold the tests up.
SOON = 0.3


def saying(*answers: bytes, stay: bool = False) -> Serve:
    """Sends one answer for each thing that it is sent; then it closes, or stays and is silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(65536)
            writer.write(answer)
            await writer.drain()
        if stay:
            await reader.read()

    return serve


@asynccontextmanager
async def server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


@asynccontextmanager
async def client(serve: Serve, *, login: Login | None = None, timeout: float = SOON) -> AsyncIterator[Client]:
    async with (
        server(serve) as port,
        await Client.open(direct("127.0.0.1", port), where="n1", login=login, timeout=timeout) as found,
    ):
        yield found


async def test_a_reply_and_an_error() -> None:
    async with client(
        saying(b"+PONG\r\n", b"-NOPERM no\r\n", b":7\r\n-ERR x\r\n*2\r\n$1\r\na\r\n$-1\r\n")
    ) as found:
        assert await found.call("PING") == b"PONG"
        with pytest.raises(ReplyError) as raised:
            await found.call("GET", "a")
        assert (raised.value.code, raised.value.where) == ("NOPERM", "n1")
        seven, error, pair = await found.pipeline([("A",), ("B",), ("C",)])
        assert (seven, pair) == (7, [b"a", None])
        assert isinstance(error, ReplyError)
        assert error.what == "ERR x"
        assert not found.closed


async def test_a_reply_in_pieces() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        for byte in b"$5\r\nhello\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with client(slowly, timeout=10) as found:
        assert await found.call("GET", "a") == b"hello"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed by the server"),
        (b"$10\r\nabc", "closed by the server"),
        (b"*2\r\n+a\r\n", "closed by the server"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not this protocol"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "not this protocol"),
        (b":abc\r\n", "not this protocol"),
        (b"*4294967296\r\n", "not this protocol"),
        (b"$-7\r\n", "not this protocol"),
    ],
)
async def test_answers_cut_short_and_other_protocols(answer: bytes, reason: str) -> None:
    async with client(saying(answer), timeout=10) as found:
        with pytest.raises(NodeUnreachable, match=reason) as raised:
            await found.call("PING")
        assert raised.value.where == "n1"
        assert not raised.value.refused
        assert found.closed


@pytest.mark.parametrize("answer", [b"", b"$999999999999\r\nabc", b"*2147483647\r\n+a\r\n", b"+half"])
async def test_silence_and_promises_of_more(answer: bytes) -> None:
    """A length is a promise, not a reason to take memory or to wait for ever."""
    async with client(saying(answer, stay=True)) as found:
        with pytest.raises(NodeUnreachable, match="no answer in time"):
            await found.call("PING")
        assert found.closed


async def test_nobody_listens() -> None:
    async with server(saying()) as port:
        pass
    with pytest.raises(NodeUnreachable) as raised:
        await Client.open(direct("127.0.0.1", port), where="n1")
    assert raised.value.refused
    assert unreachable(raised.value).refused


async def test_nobody_answers_the_door() -> None:
    async def never() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(NodeUnreachable, match="no answer in time"):
        await Client.open(never, where="n1", timeout=0.01)


async def test_the_login_goes_first_and_is_not_repeated() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"+OK\r\n+PONG\r\n", b"+PONG\r\n"):
            heard.append(await reader.read(65536))
            writer.write(answer)

    async with client(serve, login=Login("redkeep", "p w#'\xe9"), timeout=10) as found:
        assert await found.call("PING") == b"PONG"
        assert await found.call("PING") == b"PONG"
    assert heard[0].startswith(b"*3\r\n$4\r\nAUTH\r\n$7\r\nredkeep\r\n$7\r\np w#'\xc3\xa9\r\n")
    assert b"AUTH" not in heard[1]


async def test_a_refused_login() -> None:
    async with client(saying(b"-WRONGPASS invalid\r\n-NOAUTH first\r\n"), login=Login("u", "wrong")) as found:
        with pytest.raises(ReplyError, match="WRONGPASS") as raised:
            await found.call("PING")
        assert found.closed
    assert "wrong" not in repr(Login("u", "wrong")).lower()
    assert raised.value.code == "WRONGPASS"


async def test_no_password_no_login() -> None:
    async with client(saying(b"+PONG\r\n"), login=Login()) as found:
        assert await found.call("PING") == b"PONG"


async def test_tasks_take_turns() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(0.001)
            writer.write(b"$%d\r\n%s\r\n" % (len(data), data))

    async with client(echo, timeout=10) as found:
        answers = await asyncio.gather(*(found.call("ECHO", str(i)) for i in range(20)))
        assert [str(i).encode() in a for i, a in enumerate(answers)] == [True] * 20


async def test_a_task_that_is_cancelled_leaves_no_reply_for_the_next() -> None:
    async with client(saying(stay=True), timeout=10) as found:
        task = asyncio.create_task(found.call("DEBUG", "SLEEP", "1"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert found.closed


async def test_a_task_that_is_cancelled_while_it_waits_disturbs_nobody() -> None:
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        await release.wait()
        writer.write(b"+PONG\r\n")

    async with client(serve, timeout=10) as found:
        first = asyncio.create_task(found.call("PING"))
        second = asyncio.create_task(found.call("PING"))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        release.set()
        assert await first == b"PONG"


# What observe makes of answers of the wrong kind ---------------------------------------------------------------------

NO = b"-ERR unknown command\r\n"


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


INFO = bulk(b"redis_version:7.0.15\r\nrole:master\r\nredis_mode:standalone\r\n")


@pytest.mark.parametrize(
    "answers",
    [
        bulk(b"") + NO * 5,
        b":1\r\n" * 6,
        b"+OK\r\n" * 6,
        bulk(b"redis_version:old\r\nrole:master\r\n") + NO * 5,
        bulk(b"redis_version:7.0.0\r\nrole:slave\r\n") + NO * 5,
        bulk(b"redis_version:7.0.0\r\nrole:slave\r\nmaster_host:h\r\nmaster_port:x\r\n") + NO * 5,
        INFO + b"*1\r\n+odd\r\n" + NO * 4,
        INFO + NO + b":5\r\n" + NO * 3,
        INFO + NO * 2 + bulk(b"no cluster") + NO * 2,
        INFO + NO * 4 + b"*1\r\n:1\r\n",
        bulk(b"redis_version:7.0.0\r\nrole:master\r\ndb0:keys=x\r\n") + NO * 5,
        bulk(b"redis_version:7.0.0\r\nrole:master\r\nslave0:port=1\r\n") + NO * 5,
    ],
)
async def test_answers_of_something_else(answers: bytes) -> None:
    async with client(saying(answers, stay=True), timeout=10) as found:
        with pytest.raises(WireError, match="make no sense"):
            await observe(found)


async def test_what_may_not_be_read_stays_empty() -> None:
    async with client(saying(INFO + b"-NOPERM no\r\n" * 5, stay=True), timeout=10) as found:
        view = await observe(found)
    assert (view.role, str(view.engine), view.config, view.acl, view.cluster) == (
        "primary",
        "redis 7.0.15",
        {},
        (),
        None,
    )


async def test_a_server_that_is_loading_is_not_half_seen() -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    async with client(saying(INFO + b"*0\r\n*0\r\n" + loading * 3, stay=True), timeout=10) as found:
        with pytest.raises(ReplyError) as raised:
            await observe(found)
    assert raised.value.code == "LOADING"


# TLS -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A CA of the test's own, and certificates that it signed, as files."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, folder: Path, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(folder, key, _signed(name, key.public_key(), name, key, ca=True))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server_context(self, name: str) -> tuple[ssl.SSLContext, str]:
        """For a server, with the SHA-256 of its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, key.public_key(), "ca", self.key, ca=False)
        path = self.folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        der = certificate.public_bytes(serialization.Encoding.DER)
        return context, hashlib.sha256(der).hexdigest()


def _signed(
    name: str, public: ec.EllipticCurvePublicKey, issuer: str, key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=ca,
                crl_sign=ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )


async def test_tls(tmp_path: Path) -> None:
    ours = Authority.new(tmp_path, "ca")
    context, digest = ours.server_context("node")
    large = b"x" * 300_000
    serve = saying(b"+PONG\r\n", bulk(large))
    async with (
        server(serve, context) as port,
        await Client.open(
            direct("127.0.0.1", port), where="n1", tls=client_context(ours.pem), timeout=10
        ) as found,
    ):
        assert found.certificate == digest
        assert await found.call("PING") == b"PONG"
        assert await found.call("GET", "a") == large


async def test_tls_with_much_to_send(tmp_path: Path) -> None:
    ours = Authority.new(tmp_path, "ca")
    context, _ = ours.server_context("node")
    heard = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        while heard < 1_000_000:
            heard += len(await reader.read(65536))
        writer.write(b"+OK\r\n")
        await reader.read()

    async with (
        server(serve, context) as port,
        await Client.open(
            direct("127.0.0.1", port), where="n1", tls=client_context(ours.pem), timeout=20
        ) as found,
    ):
        assert await found.call("SET", "a", b"y" * 1_000_000) == b"OK"


async def test_a_certificate_of_somebody_else(tmp_path: Path) -> None:
    ours, theirs = Authority.new(tmp_path, "ca"), Authority.new(tmp_path, "ca")
    context, _ = theirs.server_context("node")
    async with server(saying(), context) as port:
        with pytest.raises(NodeUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await Client.open(direct("127.0.0.1", port), where="n1", tls=client_context(ours.pem), timeout=10)


@pytest.mark.parametrize("answer", [b"", b"-ERR unknown command\r\n", b"\x16\x03\x03"])
async def test_a_server_that_speaks_no_tls(tmp_path: Path, answer: bytes) -> None:
    ours = Authority.new(tmp_path, "ca")
    async with server(saying(answer)) as port:
        with pytest.raises(NodeUnreachable, match="connection failed"):
            await Client.open(direct("127.0.0.1", port), where="n1", tls=client_context(ours.pem), timeout=10)


async def test_a_server_that_shakes_no_hands(tmp_path: Path) -> None:
    ours = Authority.new(tmp_path, "ca")
    async with server(saying(stay=True)) as port:
        with pytest.raises(NodeUnreachable, match="no answer in time"):
            await Client.open(
                direct("127.0.0.1", port), where="n1", tls=client_context(ours.pem), timeout=SOON
            )


async def test_a_tls_server_that_hangs_up_in_the_middle(tmp_path: Path) -> None:
    ours = Authority.new(tmp_path, "ca")
    context, _ = ours.server_context("node")
    async with (
        server(saying(b"$10\r\nabc"), context) as port,
        await Client.open(
            direct("127.0.0.1", port), where="n1", tls=client_context(ours.pem), timeout=10
        ) as found,
    ):
        with pytest.raises(NodeUnreachable):
            await found.call("GET", "a")
