"""Trust in one server by its public key, where no authority has signed its certificate.

The pin is the SHA-256 of the certificate's SubjectPublicKeyInfo (as RFC 7469 and `curl --pinnedpubkey` have it), not
of the certificate: one that is made anew with the same key, for other names or another year, is trusted as before.
"""

import re
import ssl
from hashlib import sha256
from typing import Any

from twincast.errors import ValidationFailed

PREFIX = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_BEFORE_THE_KEY = 6
"""Of a certificate: version, serial number, algorithm, issuer, validity and subject (RFC 5280, 4.1)."""
_SEQUENCE, _VERSION, _LONG_FORM = 0x30, 0xA0, 0x80


class NotPinned(ssl.SSLCertVerificationError):
    """Whoever answers has another key than the one that is trusted."""


def fingerprint_of(text: object) -> bytes:
    """Read a fingerprint: `sha256:` and 64 hexadecimal digits, with or without colons between them, in any case.

    Raises:
        ValidationFailed: it is none.
    """
    bare = text.strip().lower() if isinstance(text, str) else ""
    digits = bare.removeprefix(PREFIX).replace(":", "")
    if not bare.startswith(PREFIX) or not _HEX.fullmatch(digits):
        raise ValidationFailed(
            f"a fingerprint is {PREFIX} and 64 hexadecimal digits, as `twincast serve --self-signed` prints it;"
            f" not {str(text)[:80]!r}"
        )
    return bytes.fromhex(digits)


def pinned(fingerprint: str) -> ssl.SSLContext:
    """Return a context that trusts the server with this public key, by whatever name, and nobody else.

    It is checked within the handshake, so nothing is sent to anyone else, a credential neither.

    Raises:
        ValidationFailed: `fingerprint` is none.
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


def fingerprint_of_certificate(der: bytes) -> bytes:
    """Return the SHA-256 of the public key in a certificate.

    Raises:
        ValueError: it is no certificate.
    """
    _, whole = _value(der, 0)
    _, body = _value(whole, 0)
    at = 0
    if body[:1] == bytes([_VERSION]):
        at = _end(body, at)
    for _ in range(_BEFORE_THE_KEY - 1):
        at = _end(body, at)
    _value(body, at)
    return sha256(body[at : _end(body, at)]).digest()


def _check(der: bytes | None, wanted: bytes) -> None:
    try:
        found = fingerprint_of_certificate(der or b"")
    except ValueError:
        raise NotPinned("the other side shows no certificate") from None
    if found != wanted:
        raise NotPinned(f"{PREFIX}{found.hex()}")


def _value(der: bytes, at: int) -> tuple[int, bytes]:
    """Return where the value of the sequence at a place begins, and the value."""
    if der[at : at + 1] != bytes([_SEQUENCE]):
        raise ValueError("no sequence")
    begin, length = _length(der, at)
    return begin, der[begin : begin + length]


def _end(der: bytes, at: int) -> int:
    begin, length = _length(der, at)
    return begin + length


def _length(der: bytes, at: int) -> tuple[int, int]:
    """Return where a value begins, and how long it is (X.690, 8.1.3)."""
    if at + 1 >= len(der):
        raise ValueError("it ends too soon")
    first = der[at + 1]
    count = first - _LONG_FORM if first >= _LONG_FORM else 0
    begin = at + 2 + count
    length = int.from_bytes(der[at + 2 : begin]) if count else first
    if begin + length > len(der):
        raise ValueError("it ends too soon")
    return begin, length
