"""A certificate of the server's own: made once, its key kept, the rest of it as new as the machine's names."""

import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.credentials import certificate, fingerprint_of
from tests.running import ServerProcess, eventually
from twincast.client import Rest
from twincast.errors import LoginUnusable, ServerUnreachable
from twincast.server import self_signed
from twincast.server.self_signed import keep_certificate
from twincast.server.tls import Certificate

NAMES = ["192.168.1.10", "fd00::1", "localhost", "pi.local"]


@pytest.fixture
def beside(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


def of(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def test_it_is_made_for_the_names_that_are_given_and_its_key_is_its_owners_alone(beside: str) -> None:
    kept = keep_certificate(beside, NAMES)
    assert stat.S_IMODE(os.stat(kept.key_path).st_mode) == 0o600
    names = of(kept.cert_path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "pi.local"}
    assert set(names.get_values_for_type(x509.IPAddress)) == {ip_address("192.168.1.10"), ip_address("fd00::1")}
    assert kept.fingerprint == fingerprint_of(Path(kept.cert_path))
    assert of(kept.cert_path).not_valid_after_utc - datetime.now(UTC) < timedelta(days=825)
    assert sorted(path.name for path in Path(beside).parent.iterdir()) == [
        "journal.db-tls-cert.pem",
        "journal.db-tls-key.pem",
    ]
    Certificate(kept.cert_path, kept.key_path)  # and it can be served


def test_it_stays_as_it_is_while_nothing_changes(beside: str) -> None:
    kept = keep_certificate(beside, NAMES)
    first = Path(kept.cert_path).read_bytes()
    assert keep_certificate(beside, NAMES[::-1]) == kept
    assert Path(kept.cert_path).read_bytes() == first


@pytest.mark.parametrize("change", ["names", "soon over", "of a clock that was ahead", "gone", "torn", "another's"])
def test_a_certificate_that_serves_no_longer_is_made_anew_around_the_same_key(
    beside: str, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "soon over":
        monkeypatch.setattr(self_signed, "LIFE", timedelta(days=89))
    if change == "of a clock that was ahead":
        monkeypatch.setattr(self_signed, "CLOCKS_DIFFER", timedelta(days=-2))
    kept = keep_certificate(beside, NAMES)
    monkeypatch.undo()
    path = Path(kept.cert_path)
    if change == "gone":
        path.unlink()
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:100])
    elif change == "another's":
        (other := tmp_path / "other").mkdir()
        path.write_bytes(certificate(other)[0].read_bytes())
    first = path.read_bytes() if path.exists() else b""
    names = [*NAMES, "10.0.0.7"] if change == "names" else NAMES
    assert keep_certificate(beside, names).fingerprint == kept.fingerprint
    assert path.read_bytes() != first
    assert fingerprint_of(path) == kept.fingerprint
    Certificate(kept.cert_path, kept.key_path)


@pytest.mark.parametrize("text", [b"", b"nonsense", "rsa"])
def test_a_key_that_is_torn_or_foreign_is_never_replaced(beside: str, text: bytes | str) -> None:
    kept = keep_certificate(beside, NAMES)
    if isinstance(text, str):
        foreign = rsa.generate_private_key(65_537, 2_048)
        text = foreign.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path(kept.key_path).write_bytes(text)
    with pytest.raises(LoginUnusable, match="move it away, and a new one is made") as refused:
        keep_certificate(beside, NAMES)
    assert kept.key_path in refused.value.message
    assert Path(kept.key_path).read_bytes() == text


def test_where_nothing_can_be_written_that_is_said() -> None:
    with pytest.raises(LoginUnusable, match="cannot be kept"):
        keep_certificate("/nowhere/journal.db", NAMES)


def test_a_server_on_this_machine_alone_may_have_one_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    kept = keep_certificate(str(path), ["localhost"])
    server = ServerProcess(f"sqlite:{path}", TWINCAST_SELF_SIGNED="true")
    try:
        eventually(lambda: kept.fingerprint in server.printed(), "the server is up")
        url = f"https://127.0.0.1:{server.port}"
        with Rest(url, fingerprint=kept.fingerprint) as rest:
            assert rest.status()["ok"]
        with Rest(url) as rest, pytest.raises(ServerUnreachable, match="fingerprint"):
            rest.status()
    finally:
        server.stop()
