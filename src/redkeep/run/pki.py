"""The deployment's own certificate authority, and a certificate for each host.

    <vault>/pki/ca.crt  ca.key         the authority; its key never leaves the vault
    <vault>/pki/previous.crt           an authority before it, which everybody still has to trust for a while
    <vault>/pki/hosts/<host>.crt .key  what was issued, so that an unchanged apply issues nothing

A host's certificate carries both extended key usages: the cluster bus, replication and Sentinel are clients of each
other, and the bus asks for a client's certificate whatever ``tls-auth-clients`` says (measured). It names every address
that is handed out, since clients compare. ``cryptography`` takes 100 ms to import and is loaded when it is needed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from redkeep.errors import RefusedError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from redkeep.run.vault import Vault

CA_DAYS, HOST_DAYS, RENEW_DAYS = 3650, 365, 30
#: Certificates begin in the past: hosts' clocks may be behind the operator's.
_BACKDATED = timedelta(days=1)
#: Every host reaches itself by these: health checks, the start gate, redis-cli on the host.
LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class HostCertificate:
    """For one host: its certificate and key, and what it has to trust, all PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    trusted: bytes = b""


def certificate_names(*names: str) -> tuple[str, ...]:
    """The names of a host's certificate: its addresses and host names (empty ones left out), and loopback."""
    return tuple(dict.fromkeys(name for name in (*names, *LOOPBACK_NAMES) if name))


def certificate_needs_renewal(
    certificate: bytes, wanted_names: Iterable[str], now: datetime, *, authority: bytes | None = None
) -> str | None:
    """Why a certificate must be issued anew, or ``None``. ``authority`` is the CA that should have signed it."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return "it is not a certificate"
    if found.not_valid_after_utc <= now:
        return f"it ended on {found.not_valid_after_utc:%Y-%m-%d}"
    if found.not_valid_after_utc - now < timedelta(days=RENEW_DAYS):
        return f"it ends on {found.not_valid_after_utc:%Y-%m-%d}, within {RENEW_DAYS} days"
    if found.not_valid_before_utc > now:
        return f"it begins on {found.not_valid_before_utc:%Y-%m-%d} only"
    wanted = {_canonical_name(name) for name in wanted_names}
    if difference := wanted ^ _names_of(found):
        return f"its names differ: {', '.join(sorted(difference))}"
    if authority is not None:
        try:
            found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        except (ValueError, TypeError, InvalidSignature):
            return "another authority issued it"
    return None


class Pki:
    """Issues certificates, and remembers them in the vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def authority(self, now: datetime) -> bytes:
        """The CA's certificate, made on first use."""
        with self._vault.locked():
            return self._vault.read("pki/ca.crt") or self._make_authority(now)

    def trusted(self, now: datetime) -> bytes:
        """What servers and clients trust: the authority, and the one before it while its certificates are in use."""
        return self.authority(now) + (self._vault.read("pki/previous.crt") or b"")

    def trust_also(self, authority: bytes) -> None:
        """After the vault was lost: the hosts' old CA stays trusted until every host has a certificate of the new one.

        Without it, half of a deployment would refuse the other half while certificates are replaced.
        """
        self._vault.write("pki/previous.crt", authority)

    def forget_previous(self) -> None:
        self._vault.write("pki/previous.crt", b"")

    def certificate(self, host: str, names: Iterable[str], now: datetime) -> HostCertificate:
        """The host's certificate: the one issued before while it is good, else a new one."""
        authority, wanted = self.authority(now), tuple(names)
        certificate, key = (
            self._vault.read(f"pki/hosts/{host}.crt"),
            self._vault.read(f"pki/hosts/{host}.key"),
        )
        if (
            certificate is None
            or key is None
            or not _belong_together(certificate, key)
            or certificate_needs_renewal(certificate, wanted, now, authority=authority)
        ):
            certificate, key = self._issue(host, wanted, now)
        return HostCertificate(certificate, key, self.trusted(now))

    def _make_authority(self, now: datetime) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Redkeep CA of {self._vault.name}")
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            _builder(name, name, key, now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._vault.write("pki/ca.key", _private(key))  # first: the certificate means that both are there
        self._vault.write("pki/ca.crt", _public(certificate))
        return _public(certificate)

    def _issue(self, host: str, names: tuple[str, ...], now: datetime) -> tuple[bytes, bytes]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

        ca, ca_key = self._load_authority(now)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(host), ca.subject, key, now, HOST_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([Usage.SERVER_AUTH, Usage.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        certificate_pem, key_pem = _public(certificate), _private(key)
        self._vault.write(f"pki/hosts/{host}.key", key_pem)
        self._vault.write(f"pki/hosts/{host}.crt", certificate_pem)
        return certificate_pem, key_pem

    def _load_authority(self, now: datetime) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        certificate, key = self.authority(now), self._vault.read("pki/ca.key")
        where = str(self._vault.folder / "pki")
        if key is None:
            raise RefusedError(
                "the key of the deployment's certificate authority is gone",
                where=f"{where}/ca.key",
                next="put it back from your backup, or move ca.crt aside: the next apply makes a new authority",
            )
        loaded = load_pem_private_key(key, None)
        if not (isinstance(loaded, ec.EllipticCurvePrivateKey) and _belong_together(certificate, key)):
            raise RefusedError(
                "not the key of this authority", where=f"{where}/ca.key", next="put the right one back"
            )
        return x509.load_pem_x509_certificate(certificate), loaded


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATED)
        .not_valid_after(now.astimezone(UTC) + timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    # X.520 ends a common name at 64 characters; addresses are in the alternative names, and nobody compares this one.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _canonical_name(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def _names_of(certificate: x509.Certificate) -> set[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {_canonical_name(str(name.value)) for name in names}


def _belong_together(certificate: bytes, key: bytes) -> bool:
    """Whether both are of one issue: a write may have been interrupted between the two files."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return (
            x509.load_pem_x509_certificate(certificate).public_key()
            == load_pem_private_key(key, None).public_key()
        )
    except ValueError:
        return False


def _private(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)
