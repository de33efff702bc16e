"""API keys as they are stored, the codes that are exchanged for one, and the store of both."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from twincast.core.audit import AuditRecord
from twincast.errors import JournalUnavailable


class Key(Struct, frozen=True, forbid_unknown_fields=True):
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


class Pairing(Struct, frozen=True, forbid_unknown_fields=True):
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


class AccessStore(Protocol):
    """The keys, the pairing codes and the audit trail, as a running server uses them: apart from the log."""

    @property
    def problem(self) -> JournalUnavailable | None:
        """Why the keys could not be read the last time; None if they could."""

    async def keyring(self, unless_version: int = -1) -> Keyring | None:
        """Return all API keys as they are now, whichever process wrote them; None if their version is the given one.

        Raises:
            JournalUnavailable: the disk does not return them; `problem` says so until it does.
        """

    async def audit(self, limit: int, before: int | None = None) -> Sequence[tuple[int, AuditRecord]]:
        """Return the newest `limit` records of the audit trail with their numbers, newest first.

        Args:
            limit: how many at most.
            before: a record's number; only older ones are returned.

        Raises:
            JournalUnavailable: the disk does not return them.
        """

    async def pair(
        self, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int
    ) -> Key:
        """Use up a pairing code: store the key that `make` returns for it, and record the address in the audit trail.

        Args:
            digest: of the code.
            now_s: seconds since 1970.
            make: makes the key; called at most once.
            address: the address that presented the code.
            life_s: for how long a code is good at most.

        Raises:
            Unauthenticated: there is no such code.
            CredentialExpired: the code was used already, or has expired.
            ValidationFailed: a key of its name is in use. The code stays good.
            JournalUnavailable: the disk does not take the key. The code stays good.
        """

    async def close(self) -> None:
        """Finish what is under way, and release connections and threads."""
