"""Credentials for tests: keys in a journal's file, and an issuer of tokens."""

import json
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm

from tests.running import eventually
from twincast.access.jwks import Jwks, StaticKey
from twincast.access.tokens import Tokens
from twincast.core.rights import Rate
from twincast.testing import Server
from twincast.testing.keys import add_key, revoke_key

__all__ = [
    "Issuer",
    "add_key",
    "bearer",
    "certificate",
    "fingerprint_of",
    "jwks",
    "revoke_key",
    "set_ahead",
    "trusting",
    "until_known",
]

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
ISSUER, AUDIENCE = "https://login.example.org", "twincast"


def bearer(secret: str) -> dict[str, str]:
    """Return the header that presents a credential."""
    return {"Authorization": f"Bearer {secret}"}


def until_known(server: Server, secret: str) -> None:
    """Wait until a server lets a key in."""
    eventually(lambda: httpx.get(f"{server.url}/api/status", headers=bearer(secret)).is_success, "the key is known")


def set_ahead(server: Server, seconds: float) -> None:
    """Have a server compare when credentials expire with a clock that is ahead, as if so much time had passed."""
    server._app.parts.admission.authenticator.now_s = lambda: time.time() + seconds


class Issuer:
    """Somebody elsewhere who signs tokens with a key of his own."""

    def __init__(self, key_id: str = "first") -> None:
        self.key_id = key_id
        self._key = ec.generate_private_key(ec.SECP256R1())

    def pem(self) -> str:
        """Return the public key."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def jwk(self) -> dict[str, Any]:
        """Return the public key as an issuer publishes it."""
        return {**json.loads(ECAlgorithm.to_jwk(self._key.public_key())), "kid": self.key_id, "alg": "ES256"}

    def token(self, subject: str = "alice", *, lives_s: float = 600, algorithm: str = "ES256", **claims: Any) -> str:
        """Return a token; claims of None are left out."""
        told = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + lives_s, **claims}
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, self._key, algorithm=algorithm, headers={"kid": self.key_id})


def jwks(*issuers: Issuer) -> str:
    """Return a key set."""
    return json.dumps({"keys": [issuer.jwk() for issuer in issuers]})


def trusting(keys: Jwks | StaticKey, *, rate: Rate | None = None) -> Tokens:
    """Return what verifies the tokens of the issuer of tests."""
    return Tokens(keys, issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256", "RS256"], rate=rate)


def fingerprint_of(cert: Path) -> str:
    """Return what clients pin of a certificate, by another library than theirs."""
    key = x509.load_pem_x509_certificate(cert.read_bytes()).public_key()
    return f"sha256:{sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()}"


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Write a certificate for this machine and a name, signed by itself, and its key, and return where."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    named = [x509.DNSName(each) for each in dict.fromkeys(["localhost", name])]
    names = x509.SubjectAlternativeName([*named, x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(signed.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_path, key_path
