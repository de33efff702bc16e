"""API keys as they are stored, and the trail of who did what with them."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct


class Key(Struct, frozen=True):
    """An API key, without the secret that it is known by."""

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
    """What a code is good for: a key that is made when somebody brings it."""

    digest: str
    """Of the code, by a slow hash: the code is short."""
    name: str
    """Of the key, as its grants and rate."""
    grants: dict[str, list[str]]
    rate_per_s: float | None
    lives_s: int | None
    """For how long the key is good, from when it is made."""
    until_s: int
    """Seconds since 1970; from then on the code is not."""


class Keyring(NamedTuple):
    """All keys that were ever added, the revoked ones too, and a number that changes with them."""

    version: int
    keys: Sequence[Key]


class Actor(NamedTuple):
    """Who does something, and from where. `who` is never a credential."""

    who: str
    address: str


class CommandOrigin(NamedTuple):
    """That somebody sent a command or deleted a device: which of a batch's entries it is, counted from 0, and who."""

    place: int
    who: str
    address: str


OF_DEVICES = frozenset({"command", "delete"})
"""The actions of the audit records that are about a device; the others are about the keys."""


class AuditRecord(Struct, frozen=True):
    """One line of the audit trail."""

    at_utc: str
    who: str
    address: str
    action: str
    """`command`, `delete`, `keys add`, `keys revoke`, `keys clear`, or of a code `pair` and, once used, `paired`."""
    target: str
    detail: str
    seq: int | None = None
    """Of a command or a deletion: where it stands in the log."""
