"""API keys: how one is made, and what of it is stored."""

import re
import secrets
from hashlib import sha256

from twincast.core.keys import Key
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed

PREFIX = "twc_"
"""How every key begins, so that people and secret scanners recognize one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


def make_key(
    name: str, rights: Rights, *, now_utc: str, rate_per_s: float | None, expires_s: int | None
) -> tuple[Key, str]:
    """Return a new key to store, and its secret, which is shown once.

    Raises:
        ValidationFailed: see `check_terms`.
    """
    check_terms(name, rights, rate_per_s)
    key_id = secrets.token_hex(4)
    secret = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    return Key(key_id, name, digest_of(secret), rights.described(), now_utc, rate_per_s, expires_s), secret


def check_terms(name: str, rights: Rights, rate_per_s: float | None) -> None:
    """Check the name, the rights and the rate of a key that is to be made.

    Raises:
        ValidationFailed: the name is not valid, there is no right, or the rate is not above 0.
    """
    if name.startswith(PREFIX):
        raise ValidationFailed("a key's name is what you call it, such as lab/gateway; the key itself is no name")
    if not _NAME.fullmatch(name):
        raise ValidationFailed(f"a key's name must be 1 to 64 letters, digits and . _ / -, not {name[:80]!r}")
    if not rights.described():
        raise ValidationFailed("a key without a right opens nothing; --may read is the least")
    if rate_per_s is not None and not 0 < rate_per_s <= 1e9:
        raise ValidationFailed(f"a rate must be a number of updates a second above 0, not {rate_per_s}")


def digest_of(secret: str) -> str:
    """Return the digest of a secret, which is stored. A secret of 256 random bits needs no slow hash."""
    return sha256(secret.encode()).hexdigest()
