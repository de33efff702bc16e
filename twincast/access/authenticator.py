"""Which credentials are good at the moment."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twincast.access.keys import PREFIX, digest_of
from twincast.core.keys import Key, Keyring
from twincast.core.rights import ANYONE, EVERY_RIGHT, Principal, Rate, Rights
from twincast.core.subscription import EVERYWHERE
from twincast.errors import CredentialExpired, JournalUnavailable, TwincastError, Unauthenticated

if TYPE_CHECKING:  # most servers take no tokens
    from twincast.access.jwks import Jwks
    from twincast.access.tokens import Tokens

TOKEN_MAX_BYTES = 8 * 1024
BURST_S = 5.0
"""Size of a burst, in seconds of the sustained rate."""

READER = Principal("anonymous", Rights(read=EVERYWHERE))
"""The principal of requests without a credential under `--anonymous read`."""


class Authenticator:
    """Finds the principal of a credential. Once a server has known a key, it needs credentials until it ends."""

    def __init__(
        self,
        *,
        tokens: "Tokens | None" = None,
        is_required: bool = False,
        anonymous_may_read: bool = False,
        rate_per_s: float | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Begin without keys; `learn` brings them.

        Args:
            tokens: verifies the tokens of an issuer; None if no tokens are good.
            is_required: whether a request needs a credential even if there is no key yet.
            anonymous_may_read: whether reading needs no credential even then.
            rate_per_s: how many updates a second an identity may send unless its key has a rate of its own.
            now_s: the clock, in seconds since 1970.
        """
        self._tokens = tokens
        self._anonymous = READER if anonymous_may_read else None
        self._rate_per_s = rate_per_s
        self.now_s = now_s
        self._by_digest: dict[str, Principal] = {}
        self._by_id: dict[str, Principal] = {}
        self._by_name: dict[str, Principal | None] = {}
        self._revoked: set[str] = set()
        self.version = -1
        """Of the keyring that was learned last; see Keyring."""
        self.is_required = is_required or tokens is not None
        """Whether a request needs a credential."""
        self.doubt = ""
        """Why no API key is believed at the moment; empty while it can be seen which keys were revoked."""

    @property
    def is_open(self) -> bool:
        """Whether it is known that no request needs a credential."""
        return not self.is_required and self.version >= 0

    @property
    def anonymous(self) -> Principal | None:
        """The principal of requests without a credential; None if they are refused."""
        return self._anonymous if self.is_required else ANYONE

    @property
    def jwks(self) -> "Jwks | None":
        """The key set of the tokens' issuer, if that is one to be fetched."""
        return None if self._tokens is None else self._tokens.jwks

    def learn(self, keyring: Keyring) -> None:
        """Take the keys as they are now."""
        self.version = keyring.version
        self._by_digest = {key.digest: self._principal(key) for key in keyring.keys if key.revoked_at_utc is None}
        self._by_id = {principal.id: principal for principal in self._by_digest.values()}
        self._revoked = {key.digest for key in keyring.keys if key.revoked_at_utc is not None}
        self._by_name = {key.name: None for key in keyring.keys}
        self._by_name |= {key.name: self._by_digest[key.digest] for key in keyring.keys if key.revoked_at_utc is None}
        if keyring.keys:
            self.is_required = True

    def recognize(self, text: str) -> Principal | None:
        """Return the principal of a credential that is known already, without verifying anything; else None.

        Raises:
            CredentialExpired: it was good once.
            JournalUnavailable: it is an API key, and whether it was revoked cannot be seen.
        """
        if text.startswith(PREFIX):
            if self.doubt and self.is_required:
                raise JournalUnavailable(self.doubt)
            digest = digest_of(text)
            if digest in self._revoked:
                raise CredentialExpired("this key was revoked")
            principal = self._by_digest.get(digest)
        else:
            principal = None if self._tokens is None else self._tokens.remembered(text)
        if principal is not None and self._has_expired(principal):
            raise expired(principal)
        return principal

    def authenticate(self, text: str) -> Principal:
        """Return the principal of a credential.

        Raises:
            Unauthenticated: it is not known, or no longer good.
            KeysNotFetched: its signer is not known yet.
        """
        if not self.is_required:
            return ANYONE
        if len(text) > TOKEN_MAX_BYTES:
            raise Unauthenticated(f"a credential is at most {TOKEN_MAX_BYTES} bytes long; this one is longer")
        principal = self.recognize(text)
        if principal is not None:
            return principal
        if text.startswith(PREFIX) or self._tokens is None:
            raise Unauthenticated("the credential is not known here; `twincast keys add` makes one")
        return self._tokens.verify(text)

    def of_key(self, name: str) -> Principal:
        """Return the principal of an API key by its name, for what comes in without a credential and acts as that key.

        Raises:
            Unauthenticated: there is no such key; CredentialExpired if there was one.
            JournalUnavailable: whether it was revoked cannot be seen.
        """
        if self.doubt:
            raise JournalUnavailable(self.doubt)
        principal = self._by_name.get(name)
        if principal is None:
            if name in self._by_name:
                raise CredentialExpired(f"the key {name!r} was revoked")
            raise Unauthenticated(f"there is no key {name!r}; `twincast keys add {name}` makes one")
        if self._has_expired(principal):
            raise expired(principal)
        return principal

    def refusal(self, principal: Principal) -> TwincastError | None:
        """Return the error by which a principal that was let in would be refused now; None if it would be let in."""
        anonymous = self.anonymous
        if principal is anonymous:  # that has no end
            return None
        if principal.id.startswith("key:"):
            if self.doubt:
                return JournalUnavailable(self.doubt)
            if self._by_id.get(principal.id) != principal:
                return CredentialExpired("this key was revoked")
        elif not principal.id.startswith("jwt:") and principal != anonymous:
            return Unauthenticated("this server asks for a login from now on")  # a close frame holds 123 bytes
        return expired(principal) if self._has_expired(principal) else None

    def as_known(self, principal: Principal) -> Principal:
        """Return a principal that another server has let in, as this one knows it: its key may have a rate of here."""
        return self._by_id.get(principal.id, principal)

    def _has_expired(self, principal: Principal) -> bool:
        return principal.expires_s is not None and principal.expires_s <= self.now_s()

    def _principal(self, key: Key) -> Principal:
        rate_per_s = self._rate_per_s if key.rate_per_s is None else key.rate_per_s
        rate = None if rate_per_s is None else Rate(rate_per_s, max(1.0, BURST_S * rate_per_s))
        rights = Rights.of(key.grants)
        return Principal(f"key:{key.id}", rights if rights != EVERY_RIGHT else EVERY_RIGHT, key.expires_s, rate)


def expired(principal: Principal) -> CredentialExpired:
    """Return the error for a credential whose time is over."""
    return CredentialExpired(f"the credential of {principal.id} has expired")
