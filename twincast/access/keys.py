"""API keys: how they are made, and what of them is kept."""

import re
import secrets
from hashlib import sha256

from twincast.core.keys import Key
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed

PREFIX = "twc_"
"""By this, people and secret scanners know one when they see it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


def make_key(
    name: str, rights: Rights, *, now_utc: str, rate_per_s: float | None, expires_s: int | None
) -> tuple[Key, str]:
    """Return a new key, and the secret that is shown once.

    Raises:
        ValidationFailed: the name is not one, or there is no right.
    """
    check_terms(name, rights, rate_per_s)
    key_id = secrets.token_hex(4)
    secret = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    return Key(key_id, name, digest_of(secret), rights.described(), now_utc, rate_per_s, expires_s), secret


def check_terms(name: str, rights: Rights, rate_per_s: float | None) -> None:
    """See whether a key can be of this name, these rights and this rate.

    Raises:
        ValidationFailed: the name is not one, there is no right, or the rate is none.
    """
    if name.startswith(PREFIX):
        raise ValidationFailed("a key's name is what you call it, such as lab/gateway; the key itself is no name")
    if not _NAME.fullmatch(name):
        raise ValidationFailed(f"a key's name takes 1 to 64 letters, digits and . _ / -; not {name[:80]!r}")
    if not rights.described():
        raise ValidationFailed("a key without a right opens nothing; --may read is the least")
    if rate_per_s is not None and not 0 < rate_per_s <= 1e9:
        raise ValidationFailed(f"a rate is a number of updates a second above 0, not {rate_per_s}")


def digest_of(secret: str) -> str:
    """Return what is stored of a secret. It is as random as the digest is long, so a slow hash would add nothing."""
    return sha256(secret.encode()).hexdigest()
