"""Which credentials are good at the moment."""

import time
from collections.abc import Callable

from twincast.access.keys import PREFIX, digest_of
from twincast.access.tokens import Tokens
from twincast.core.keys import Key, Keyring
from twincast.core.rights import ANYONE, EVERY_RIGHT, Principal, Rate, Rights
from twincast.core.subscription import EVERYWHERE
from twincast.errors import CredentialExpired, JournalUnavailable, Unauthenticated

TOKEN_MAX_BYTES = 8 * 1024
BURST_S = 5.0
"""A rate lets pass at once what it lets pass in so many seconds."""

READER = Principal("anonymous", Rights(read=EVERYWHERE))
"""Who comes without a credential where `--anonymous read` lets him in."""


class Authenticator:
    """The judge of credentials. A server that ever knew a key asks for one until it ends."""

    def __init__(
        self,
        *,
        tokens: Tokens | None = None,
        anonymous_may_read: bool = False,
        rate_per_s: float | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Begin without keys; `learn` brings them.

        Args:
            tokens: whose tokens are good; None for nobody's.
            anonymous_may_read: whether reading needs no credential even then.
            rate_per_s: how many updates a second an identity may send if its key says nothing else.
            now_s: the clock, in seconds since 1970.
        """
        self.tokens = tokens
        self._anonymous = READER if anonymous_may_read else None
        self._rate_per_s = rate_per_s
        self.now_s = now_s
        self._by_digest: dict[str, Principal] = {}
        self._by_id: dict[str, Principal] = {}
        self._ended: set[str] = set()
        self._version = -1
        self.is_required = tokens is not None
        """Whether a request needs a credential."""
        self.doubt = ""
        """Why no API key is believed at the moment; nothing while it can be seen which were revoked."""

    @property
    def anonymous(self) -> Principal | None:
        """Who comes without a credential; None if nobody may."""
        return self._anonymous if self.is_required else ANYONE

    @property
    def version(self) -> int:
        """Which keyring this is; see Keyring."""
        return self._version

    def learn(self, keyring: Keyring) -> None:
        """Take the keys as they are now."""
        self._version = keyring.version
        self._by_digest = {key.digest: self._principal(key) for key in keyring.keys if key.revoked_at_utc is None}
        self._by_id = {principal.id: principal for principal in self._by_digest.values()}
        self._ended = {key.digest for key in keyring.keys if key.revoked_at_utc is not None}
        if keyring.keys:
            self.is_required = True

    def recognize(self, text: str) -> Principal | None:
        """Return who a credential stands for, if that is known without work; None otherwise.

        Raises:
            CredentialExpired: it was good once.
            JournalUnavailable: it is an API key, and whether it was revoked cannot be seen.
        """
        if text.startswith(PREFIX):
            if self.doubt and self.is_required:
                raise JournalUnavailable(self.doubt)
            digest = digest_of(text)
            if digest in self._ended:
                raise CredentialExpired("this key was revoked")
            principal = self._by_digest.get(digest)
        else:
            principal = None if self.tokens is None else self.tokens.remembered(text)
        if principal is not None and principal.expires_s is not None and principal.expires_s <= self.now_s():
            raise CredentialExpired(f"the credential of {principal.id} has expired")
        return principal

    def authenticate(self, text: str) -> Principal:
        """Return who a credential stands for.

        Raises:
            Unauthenticated: it is not known, or no longer good.
            KeysNotFetched: its signer is not known yet.
        """
        if not self.is_required:
            return ANYONE
        if len(text) > TOKEN_MAX_BYTES:
            raise Unauthenticated(f"a credential takes {TOKEN_MAX_BYTES} bytes; this one is longer")
        principal = self.recognize(text)
        if principal is not None:
            return principal
        if text.startswith(PREFIX) or self.tokens is None:
            raise Unauthenticated("the credential is not known here; `twincast keys add` makes one")
        return self.tokens.verify(text)

    def still_holds(self, principal: Principal) -> bool:
        """Whether somebody who was let in would be let in now."""
        if principal.id.startswith("key:"):
            return not self.doubt and self._by_id.get(principal.id) == principal
        if principal.id.startswith("jwt:"):
            return True
        return principal == self.anonymous

    def seconds_left(self, principal: Principal) -> float | None:
        """Return for how long a credential is good; None for no end."""
        return None if principal.expires_s is None else principal.expires_s - self.now_s()

    def _principal(self, key: Key) -> Principal:
        rate_per_s = self._rate_per_s if key.rate_per_s is None else key.rate_per_s
        rate = None if rate_per_s is None else Rate(rate_per_s, max(1.0, BURST_S * rate_per_s))
        rights = Rights.of(key.grants)
        return Principal(f"key:{key.id}", rights if rights != EVERY_RIGHT else EVERY_RIGHT, key.expires_s, rate)
