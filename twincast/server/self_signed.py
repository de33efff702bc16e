"""A certificate that the server makes for itself and keeps beside its journal, where no authority signs one.

Its key stays, and clients pin that: by the SHA-256 of the public key, as RFC 7469 and `curl --pinnedpubkey` have it.
The certificate around it is made anew when the machine's names or addresses are others, or before it ends, and no
client notices. Were the certificate itself pinned, each new address of a laptop would turn away every device.
"""

import base64
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twincast.access.addresses import parse_bare
from twincast.errors import LoginUnusable
from twincast.machine import OWNER_ALONE

LIFE = timedelta(days=800)
"""Browsers take no server's certificate that holds for more than 825 days, also one that their user has trusted."""
RENEWED_BEFORE = timedelta(days=90)
CLOCKS_DIFFER = timedelta(days=1)


class SelfSigned(NamedTuple):
    """Where certificate and key are, and what clients pin."""

    cert_path: str
    key_path: str
    digest: bytes
    """SHA-256 of the public key (SubjectPublicKeyInfo)."""

    @property
    def fingerprint(self) -> str:
        """What clients of twincast take."""
        return f"sha256:{self.digest.hex()}"

    @property
    def curl_pin(self) -> str:
        """What `curl --pinnedpubkey` takes."""
        return f"sha256//{base64.b64encode(self.digest).decode()}"


def keep_certificate(beside: str, names: Sequence[str]) -> SelfSigned:
    """Return the certificate beside a file, made or renewed if need be: it is for these names and addresses, and holds.

    Args:
        beside: the journal's file. `-tls-key.pem`, for its owner alone, and `-tls-cert.pem` stand beside it.
        names: what the machine is reached by.

    Raises:
        LoginUnusable: what is there is none, or nothing can be written there. A key is never replaced.
    """
    cert_path, key_path = f"{beside}-tls-cert.pem", f"{beside}-tls-key.pem"
    try:
        key = _kept_key(key_path)
        wanted = {_general_name(name) for name in names}
        if not _holds(cert_path, key, wanted):
            _write(cert_path, _sign(key, sorted(wanted, key=str)).public_bytes(Encoding.PEM), 0o644)
    except OSError as error:
        raise LoginUnusable(
            f"the certificate beside the journal cannot be kept: {error.filename or cert_path}: {error.strerror}"
        ) from None
    return SelfSigned(cert_path, key_path, _digest_of(key))


def _kept_key(path: str) -> ec.EllipticCurvePrivateKey:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())  # what small devices have in hardware or in a few KB
        _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), OWNER_ALONE)
        return key
    try:
        found = load_pem_private_key(text, None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise LoginUnusable(
            f"the file {path} is not the key that was put there. Bring it back from a backup; or move it away, and a"
            " new one is made, whose fingerprint is another: every client that pins it needs that"
        )
    return found


def _holds(path: str, key: ec.EllipticCurvePrivateKey, wanted: set[x509.GeneralName]) -> bool:
    """Whether a file has a certificate with this key and these names that goes on for a while."""
    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    now = datetime.now(UTC)
    is_in_time = found.not_valid_before_utc <= now <= found.not_valid_after_utc - RENEWED_BEFORE
    return is_in_time and found.public_key() == key.public_key() and set(names) == wanted


def _sign(key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName]) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "twincast")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    address = parse_bare(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _digest_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _write(path: str, text: bytes, mode: int) -> None:
    """Write a file whole or not at all, on disk when this returns."""
    descriptor, draft = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".twincast-")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
