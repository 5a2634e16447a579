"""Certificates: what they say, when they are renewed, and that nothing is issued twice. TLS itself is in tests/live."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from redkeep.errors import RefusedError, UsageError
from redkeep.run.pki import Pki, certificate_names, certificate_needs_renewal
from redkeep.run.vault import Vault

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = certificate_names("10.0.0.11", "203.0.113.11", "sz-1.example", "")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(Vault(tmp_path / "redkeep.yaml", "shop"))


def test_names() -> None:
    assert NAMES == ("10.0.0.11", "203.0.113.11", "sz-1.example", "127.0.0.1", "::1", "localhost")


def test_a_host_certificate_says_what_it_must(pki: Pki) -> None:
    issued = pki.certificate("sz-1", NAMES, NOW)
    found = x509.load_pem_x509_certificate(issued.certificate)
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(issued.trusted))
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {Usage.SERVER_AUTH, Usage.CLIENT_AUTH}
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(a) for a in names.get_values_for_type(x509.IPAddress)} == {
        "10.0.0.11",
        "203.0.113.11",
        "127.0.0.1",
        "::1",
    }
    assert set(names.get_values_for_type(x509.DNSName)) == {"sz-1.example", "localhost"}
    assert found.not_valid_before_utc < NOW
    assert found.not_valid_after_utc == NOW + timedelta(days=365)
    assert issued.key.decode() not in repr(issued)


def test_nothing_is_issued_twice(pki: Pki, tmp_path: Path) -> None:
    first = pki.certificate("sz-1", NAMES, NOW)
    again = Pki(Vault(tmp_path / "redkeep.yaml", "shop")).certificate(
        "sz-1", reversed(NAMES), NOW + timedelta(days=300)
    )
    assert again == first
    assert pki.certificate("sz-2", NAMES, NOW).certificate != first.certificate


@pytest.mark.parametrize(
    ("days", "names", "says"),
    [
        (0, NAMES, None),
        (334, NAMES, None),
        (336, NAMES, "within 30 days"),
        (366, NAMES, "it ended on 2027-03-01"),
        (-2, NAMES, "it begins on 2026-02-28 only"),
        (0, (*NAMES, "198.51.100.9"), "its names differ: 198.51.100.9"),
        (0, NAMES[1:], "its names differ: 10.0.0.11"),
        (0, ("SZ-1.example", "0:0:0:0:0:0:0:1", *NAMES[:2], "127.0.0.1", "localhost"), None),
    ],
)
def test_when_to_renew(pki: Pki, days: int, names: tuple[str, ...], says: str | None) -> None:
    issued = pki.certificate("sz-1", NAMES, NOW)
    moment = NOW + timedelta(days=days)
    why = certificate_needs_renewal(issued.certificate, names, moment, authority=pki.authority(NOW))
    assert why is None if says is None else says in (why or "")
    assert (pki.certificate("sz-1", names, moment).certificate == issued.certificate) is (says is None)


def test_another_authority_and_no_certificate(pki: Pki, tmp_path: Path) -> None:
    issued = pki.certificate("sz-1", NAMES, NOW)
    (tmp_path / "b").mkdir()
    other = Pki(Vault(tmp_path / "b" / "redkeep.yaml", "shop"))
    why = certificate_needs_renewal(issued.certificate, NAMES, NOW, authority=other.authority(NOW))
    assert why == "another authority issued it"
    assert certificate_needs_renewal(b"nonsense", NAMES, NOW) == "it is not a certificate"


def test_a_lost_vault_keeps_trusting_the_hosts_authority(pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    fresh = Pki(Vault(tmp_path / "b" / "redkeep.yaml", "shop"))
    fresh.trust_also(pki.authority(NOW))
    assert fresh.trusted(NOW) == fresh.authority(NOW) + pki.authority(NOW)
    fresh.forget_previous()
    assert fresh.trusted(NOW) == fresh.authority(NOW)


def test_an_interruption_between_certificate_and_key(pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / ".redkeep/shop/pki"
    first = pki.certificate("sz-1", NAMES, NOW)
    other = pki.certificate("sz-2", NAMES, NOW)
    (folder / "hosts/sz-1.key").write_bytes(other.key)  # the new key was written, its certificate was not
    assert pki.certificate("sz-1", NAMES, NOW).certificate != first.certificate
    (folder / "ca.key").rename(folder / "ca.key.away")
    assert pki.certificate("sz-2", NAMES, NOW) == other  # nothing to issue, no key needed
    with pytest.raises(RefusedError, match="is gone"):
        pki.certificate("sz-3", NAMES, NOW)
    (folder / "ca.key").write_bytes(other.key)
    with pytest.raises(RefusedError, match="not the key"):
        pki.certificate("sz-3", NAMES, NOW)


def test_a_host_name_does_not_lead_out_of_the_vault(pki: Pki) -> None:
    with pytest.raises(UsageError):
        pki.certificate("../../x", NAMES, NOW)


def test_importing_costs_nothing() -> None:
    code = "import redkeep.run.pki, sys; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
