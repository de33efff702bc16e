"""Make what three NATS nodes and their servers need: an authority, certificates, and the users' keys.

    /opt/twincast/bin/python prepare.py FOLDER n1.example.org n2.example.org n3.example.org

Each node's folder has its certificate and key, the folder itself the authority and each user's seed (`servers.nk`).
The users' public keys are printed, as lines for cluster.env. Keep FOLDER/ca-key.pem away from the nodes: whoever has it
can be a node. Nothing that is there already is replaced. A name may be an address, too.
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USERS = ("servers", "admin", "sensors", "dashboard", "operator")
AUTHORITY_DAYS, NODE_DAYS = 3650, 825
PROXIED = "twincast"
"""The name that the proxies expect of every server."""


def main() -> None:
    """Make all of it in the folder that the command names."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(mode=0o700, parents=True)  # fails if it is there
    authority = ec.generate_private_key(ec.SECP256R1())
    name = named("twincast cluster")
    ca = signed(name, name, authority, authority, AUTHORITY_DAYS, is_authority=True)
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    write_secret(folder / "ca-key.pem", pem(authority))
    for node in sys.argv[2:]:
        key = ec.generate_private_key(ec.SECP256R1())
        cert = signed(named(node), name, key, authority, NODE_DAYS, names=[node, PROXIED])
        (folder / node).mkdir()
        (folder / node / "cert.pem").write_bytes(cert.public_bytes(Encoding.PEM))
        write_secret(folder / node / "key.pem", pem(key))
    for user in USERS:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        write_secret(folder / f"{user}.nk", bytes(seed))
        print(f"NKEY_{user.upper()}={nkeys.from_seed(bytearray(seed)).public_key.decode()}")


def signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    is_authority: bool = False,
    names: list[str] | None = None,
) -> x509.Certificate:
    """Return a certificate. A node's is good for both ends of a connection, as routes need it."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if names:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(
            x509.SubjectAlternativeName([alternative(each) for each in names]), critical=False
        )
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(by, SHA256())


def named(text: str) -> x509.Name:
    """Return a subject of one name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def alternative(name: str) -> x509.GeneralName:
    """Return what a certificate is for: an address, or a name."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, and that was not there."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


if __name__ == "__main__":
    main()
