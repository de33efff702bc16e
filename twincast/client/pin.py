"""How a server's certificate is checked: as the system does, or by its public key where no authority has signed it.

The pin is the SHA-256 of the certificate's SubjectPublicKeyInfo (as in RFC 7469 and `curl --pinnedpubkey`), not of the
certificate: a new certificate with the same key, for other names or another year, is trusted too.
"""

import os
import re
import ssl
from hashlib import sha256
from typing import Any

from twincast.errors import ValidationFailed

PREFIX = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_INTEGER, _SEQUENCE, _VERSION = 0x02, 0x30, 0xA0
_BEFORE_THE_KEY = (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE)
"""The fields of a certificate before its key: serial number, algorithm, issuer, validity, subject (RFC 5280, 4.1)."""
_LONG_FORM = 0x80


class NotPinned(ssl.SSLCertVerificationError):
    """The server that answers has another key than the one that is trusted."""


def fingerprint_of(text: object) -> bytes:
    """Read a fingerprint: `sha256:` and 64 hexadecimal digits, with or without colons between them, in any case.

    Raises:
        ValidationFailed: it is something else.
    """
    bare = text.strip().lower() if isinstance(text, str) else ""
    digits = bare.removeprefix(PREFIX).replace(":", "")
    if not bare.startswith(PREFIX) or not _HEX.fullmatch(digits):
        raise ValidationFailed(
            f"a fingerprint must be {PREFIX} and 64 hexadecimal digits, as `twincast serve --self-signed` prints it;"
            f" not {str(text)[:80]!r}"
        )
    return bytes.fromhex(digits)


def pinned(fingerprint: str) -> ssl.SSLContext:
    """Return a context that trusts the server with this public key, under any name, and no other.

    The key is checked within the handshake, so nothing is sent to another server, no credential either.

    Raises:
        ValidationFailed: `fingerprint` is not a fingerprint.
    """
    wanted = fingerprint_of(fingerprint)

    class Socket(ssl.SSLSocket):
        def do_handshake(self, *how: Any) -> None:
            super().do_handshake(*how)
            _check(self.getpeercert(binary_form=True), wanted)

    class Object(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            _check(self.getpeercert(binary_form=True), wanted)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the key says more than a name
    context.sslsocket_class, context.sslobject_class = Socket, Object
    return context


def trust_of(base: str, tls: ssl.SSLContext | None, fingerprint: str | None = None) -> ssl.SSLContext | None:
    """Return how a server's certificate is checked; None without TLS.

    By `tls` or `fingerprint`, whichever is given; else by TWINCAST_FINGERPRINT, if set; else as the system does.

    Raises:
        ValidationFailed: `fingerprint` is not one, or is given with `tls`, or for an address without TLS.
    """
    if fingerprint and tls is not None:
        raise ValidationFailed("`tls` and `fingerprint` are two ways to trust a server; give one of them")
    pin = fingerprint or ("" if tls is not None else os.environ.get("TWINCAST_FINGERPRINT", ""))
    if pin:
        context = pinned(pin)
        if not base.startswith("https:"):
            raise ValidationFailed(
                f"a fingerprint needs a server with TLS, so the address must begin with https://; not {base}"
            )
        return context
    if not base.startswith("https:"):
        return None
    return tls or ssl.create_default_context()


def fingerprint_of_certificate(der: bytes) -> bytes:
    """Return the SHA-256 of the public key in a certificate.

    Only DER is read, each field by its tag. If a length could be read in two ways, this and the TLS library might find
    different keys in one certificate, and an attacker could show the trusted key, which is public, to this one only.

    Raises:
        ValueError: it is not a certificate.
    """
    at, end = _field(der, 0, len(der), _SEQUENCE)
    if end != len(der):
        raise ValueError("something follows the certificate")
    at, end = _field(der, at, end, _SEQUENCE)
    if der[at : at + 1] == bytes([_VERSION]):
        _, at = _field(der, at, end, _VERSION)
    for tag in _BEFORE_THE_KEY:
        _, at = _field(der, at, end, tag)
    _, key_end = _field(der, at, end, _SEQUENCE)
    return sha256(der[at:key_end]).digest()


def _check(der: bytes | None, wanted: bytes) -> None:
    try:
        found = fingerprint_of_certificate(der or b"")
    except ValueError:
        raise NotPinned("the other side shows no certificate") from None
    if found != wanted:
        raise NotPinned(f"{PREFIX}{found.hex()}")


def _field(der: bytes, at: int, container_end: int, tag: int) -> tuple[int, int]:
    """Return where the value of a field with this tag begins and ends, in DER: the shortest length (X.690, 10.1)."""
    if at + 2 > container_end or der[at] != tag:
        raise ValueError("another field is there")
    length, begin = der[at + 1], at + 2
    if length >= _LONG_FORM:
        begin += length - _LONG_FORM
        digits = der[at + 2 : begin]
        length = int.from_bytes(digits)
        if not digits.lstrip(b"\0") == digits or length < _LONG_FORM:
            raise ValueError("a length that is not in DER")
    if begin + length > container_end:
        raise ValueError("it ends too soon")
    return begin, begin + length
