"""API keys as they are stored, and the codes that are exchanged for one."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct


class Key(Struct, frozen=True):
    """An API key, without its secret."""

    id: str
    name: str
    digest: str
    """SHA-256 of the secret, in hexadecimal. The secret is 256 random bits, so nobody finds it by trying."""
    grants: dict[str, list[str]]
    """Patterns by action, as `Rights.of` takes them."""
    created_at_utc: str
    rate_per_s: float | None = None
    expires_s: int | None = None
    """Seconds since 1970."""
    revoked_at_utc: str | None = None


class Pairing(Struct, frozen=True):
    """A pairing code: the key that is made when a device presents the code."""

    digest: str
    """Of the code, by a slow hash: the code is short."""
    name: str
    """Of the key, like `grants` and `rate_per_s`."""
    grants: dict[str, list[str]]
    rate_per_s: float | None
    lives_s: int | None
    """For how long the key is good, from when it is made."""
    until_s: int
    """When the code expires, in seconds since 1970."""


class Keyring(NamedTuple):
    """All keys that were ever added, the revoked ones too, and a number that changes with them."""

    version: int
    keys: Sequence[Key]
