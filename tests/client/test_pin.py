"""Trust in one server by its public key: who has it is talked to, and nobody else hears a word."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.credentials import certificate, fingerprint_of
from twincast.client import Rest, connect, pair
from twincast.client import pin as pins
from twincast.client import sync as without_asyncio
from twincast.errors import ServerUnreachable, ValidationFailed, WrongFingerprint
from twincast.testing import Server

OTHER = f"sha256:{'0' * 64}"
SECRET = "twc_00000000_secret"


def signed(key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    made = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256())
    return made.public_bytes(Encoding.DER)


KEYS: dict[str, Any] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65_537, 2_048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_key_is_found_in_a_certificate_of_any_kind(kind: str, tmp_path: Path) -> None:
    der = signed(KEYS[kind])
    key = x509.load_der_x509_certificate(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert pins.fingerprint_of_certificate(der) == sha256(key).digest()


def short_length(value: bytes) -> bytes:
    """Return a length in DER, which has one way to write it."""
    digits = len(value).to_bytes(4).lstrip(b"\0")
    return bytes([len(value)]) if len(value) < 128 else bytes([0x80 + len(digits)]) + digits


def long_length(value: bytes) -> bytes:
    return b"\x84" + len(value).to_bytes(4)


def endless(value: bytes) -> bytes:
    """Return the length of a value that two zeros end, as BER has it and DER has not."""
    return b"\x80"


FIELDS = ("version", "serial number", "algorithm", "issuer", "validity", "subject", "key")


def forged(odd: str, length: Callable[[bytes], bytes]) -> bytes:
    """Return a certificate of which one field has a length that readers may differ about."""

    def tlv(tag: int, value: bytes, how: Callable[[bytes], bytes] = short_length) -> bytes:
        return bytes([tag]) + how(value) + value + (b"\0\0" if how is endless else b"")

    tags = dict(zip(FIELDS, (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30), strict=True))
    body = b"".join(tlv(tag, name.encode() * 3, length if name == odd else short_length) for name, tag in tags.items())
    body = tlv(0x30, body, length if odd == "body" else short_length)
    return tlv(0x30, body, length if odd == "whole" else short_length)


@pytest.mark.parametrize("length", [endless, long_length])
@pytest.mark.parametrize("odd", [*FIELDS, "body", "whole"])
def test_a_length_of_which_readers_make_what_they_will_is_none(odd: str, length: Callable[[bytes], bytes]) -> None:
    assert pins.fingerprint_of_certificate(forged("", length))
    with pytest.raises(ValueError):
        pins.fingerprint_of_certificate(forged(odd, length))


@pytest.mark.parametrize("at", range(len(FIELDS)))
def test_a_field_with_another_tag_is_none(at: int) -> None:
    der = bytearray(forged("", short_length))
    place = der.index(FIELDS[at].encode() * 3) - 2
    der[place] ^= 0x01
    with pytest.raises(ValueError):
        pins.fingerprint_of_certificate(bytes(der))
    with pytest.raises(ValueError):
        pins.fingerprint_of_certificate(forged("", short_length) + b"\0")


def test_whoever_hides_the_key_that_is_trusted_in_a_name_is_told_nothing(tmp_path: Path) -> None:
    """An issuer of endless length moves a reader that takes 0x80 for 128 into the subject, where that key lies."""
    real, own = (KEYS["P-256"], ec.generate_private_key(ec.SECP256R1()))
    trusted = real.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der = hiding(trusted, own)
    (tmp_path / "cert.pem").write_text(ssl.DER_cert_to_PEM_cert(der))
    (tmp_path / "key.pem").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with eavesdropper((tmp_path / "cert.pem", tmp_path / "key.pem")) as (port, heard):
        pin = f"sha256:{sha256(trusted).hexdigest()}"
        with Rest(f"https://127.0.0.1:{port}", token=SECRET, fingerprint=pin) as rest, pytest.raises(WrongFingerprint):
            rest.publish("lamp", 1)
        assert heard == []


def hiding(trusted: bytes, own: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a certificate of one's own key with another key in its subject, as far behind the issuer as 128 bytes."""

    def tlv(tag: int, value: bytes) -> bytes:
        return bytes([tag]) + short_length(value) + value

    def name(text: bytes) -> bytes:
        return tlv(0x31, tlv(0x30, bytes.fromhex("0603550403") + tlv(0x14, text)))

    issuer = b"\x30\x80" + name(b"x") + b"\0\0"
    validity = tlv(0x30, tlv(0x17, b"250101000000Z") + tlv(0x17, b"400101000000Z"))
    hidden = tlv(0x30, b"") * 2 + trusted
    where = 2 + 128 - len(issuer) - len(validity)
    subject = next(
        subject for pad in range(140) if (subject := tlv(0x30, name(b"A" * pad + hidden))).find(hidden) == where
    )
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    key = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    head = bytes.fromhex("a003020102020101")
    body = tlv(0x30, head + algorithm + issuer + validity + subject + key)
    return tlv(0x30, body + algorithm + tlv(0x03, b"\0" + bytes.fromhex("3006020101020101")))


def test_a_certificate_of_the_first_version_has_its_key_too() -> None:
    def tlv(tag: int, value: bytes) -> bytes:
        return bytes([tag]) + short_length(value) + value

    key = tlv(0x30, b"the key" * 30)
    body = tlv(0x02, b"\x01") + tlv(0x30, b"") * 4 + key + tlv(0x30, b"more")
    assert pins.fingerprint_of_certificate(tlv(0x30, tlv(0x30, body))) == sha256(key).digest()


@given(st.binary(max_size=80) | st.integers(0, 300).map(lambda cut: signed(KEYS["P-256"])[:cut]))
def test_what_is_no_certificate_is_said_to_be_none(der: bytes) -> None:
    with pytest.raises(ValueError):
        pins.fingerprint_of_certificate(der)


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "0" * 64, f"sha256:{'0' * 63}", f"sha256:{'g' * 64}", f"sha1:{'0' * 40}", f"sha512:{'0' * 128}"],
)
def test_what_is_no_fingerprint_is_refused_with_what_one_is(text: str) -> None:
    with pytest.raises(ValidationFailed, match="64 hexadecimal digits"):
        pins.fingerprint_of(text)


def test_a_fingerprint_is_taken_as_people_and_programs_write_it() -> None:
    plain = pins.fingerprint_of(f"sha256:{'ab' * 32}")
    assert plain == bytes([0xAB] * 32)
    assert pins.fingerprint_of(f" SHA256:{':'.join(['AB'] * 32)}\n") == plain


@contextmanager
def eavesdropper(own: tuple[Path, Path]) -> Iterator[tuple[int, list[bytes]]]:
    """Speak TLS with a certificate of one's own, and note all that is heard."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as secure:
                        if part := secure.recv(65_536):
                            heard.append(part)
                except OSError:
                    continue

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


async def test_another_server_is_told_nothing_and_that_is_final(tmp_path: Path) -> None:
    with eavesdropper(certificate(tmp_path)) as (port, heard):
        url = f"https://127.0.0.1:{port}"
        with pytest.raises(WrongFingerprint, match="not the server whose fingerprint you gave") as refused:
            async with connect(url, token=SECRET, fingerprint=OTHER, timeout_s=5):
                pass
        assert fingerprint_of(tmp_path / "cert.pem") in refused.value.message

        def without_a_loop() -> None:
            with (
                pytest.raises(WrongFingerprint),
                without_asyncio.connect(url, token=SECRET, fingerprint=OTHER, timeout_s=5),
            ):
                pass
            with Rest(url, token=SECRET, fingerprint=OTHER) as rest, pytest.raises(WrongFingerprint):
                rest.publish("lamp", 1)
            with Rest(url, token=SECRET, fingerprint=OTHER) as rest, pytest.raises(WrongFingerprint):
                list(rest.twins())
            with pytest.raises(WrongFingerprint):
                pair(url, "7KQ4-9XTM", fingerprint=OTHER)

        await asyncio.to_thread(without_a_loop)
        assert heard == []

        def trusting() -> None:  # and it would have heard
            pin = fingerprint_of(tmp_path / "cert.pem")
            with Rest(url, token=SECRET, fingerprint=pin) as rest, pytest.raises(ServerUnreachable):
                rest.status()

        await asyncio.to_thread(trusting)
        assert SECRET.encode() in b"".join(heard)


def test_a_server_that_comes_back_with_another_key_is_not_talked_to_again(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    pin = fingerprint_of(cert)
    with (
        Server(tls_cert=str(cert), tls_key=str(key)) as server,
        without_asyncio.connect(server.url, fingerprint=pin) as client,
    ):
        client.publish("lamp", 1)
        certificate(tmp_path)
        server.restart()
        with pytest.raises(WrongFingerprint):
            client.publish("lamp", 2)


def test_two_ways_to_trust_are_one_too_many() -> None:
    with pytest.raises(ValidationFailed, match="one of them"):
        Rest("https://127.0.0.1:1", tls=ssl.create_default_context(), fingerprint=OTHER)


def test_what_is_given_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    monkeypatch.setenv("TWINCAST_FINGERPRINT", OTHER)
    with Server(tls_cert=str(cert), tls_key=str(key)) as server:
        with Rest(server.url, fingerprint=fingerprint_of(cert)) as rest:
            assert rest.status()["ok"]
        with Rest(server.url, tls=ssl.create_default_context(cafile=str(cert))) as rest:
            assert rest.status()["ok"]
        with Rest(server.url) as rest, pytest.raises(WrongFingerprint):
            rest.status()
    with pytest.raises(ValidationFailed, match="https://"):
        Rest("http://127.0.0.1:1")
