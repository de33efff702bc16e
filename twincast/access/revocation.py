"""Leases end with their credentials: what follows the keys and the clock while the server runs."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from twincast.access.authenticator import Authenticator, expired
from twincast.access.leases import Lease, Leases
from twincast.core.keys import Keyring
from twincast.errors import JournalUnavailable, TwincastError, Unavailable

KEYRING_LOOK_S = 0.1
"""How often the keyring is read. SQLite does not notify a process of what another one has written."""
KEYS_UNSEEN_MAX_S = 5.0
"""For how long reading the keyring may fail before no API key is believed any more."""
KEYRING_WAIT_S = 2.0
"""A read that takes longer counts as one that failed: a disk may also hang."""
SWEEP_S = 1.0
"""How often, at least, expiries are compared with the clock of the day, which may have been set meanwhile."""

ReadKeyring = Callable[[int], Awaitable[Keyring | None]]
"""Returns the keyring, or None if it still has the version that is given; see `AccessStore.keyring`."""
logger = logging.getLogger("twincast.admission")


class Revocation:
    """Ends leases whose credential was revoked, has expired, or is needed from now on.

    The keyring, seen from here, is in one of three states:

    - **seen**: the last read succeeded. A key that was revoked ends its leases within KEYRING_LOOK_S.
    - **unseen**: reads fail, for less than KEYS_UNSEEN_MAX_S. Keys are believed as they were: a disk that stalls for a
      moment must not disconnect every client.
    - **in doubt**: reads have failed for longer. No API key is believed and their leases have ended, for one of them
      may have been revoked.

    The first read that succeeds leads from any state back to seen.
    """

    def __init__(self, authenticator: Authenticator, leases: Leases, clock_s: Callable[[], float]) -> None:
        """Make it; `run` starts it. `clock_s` is a monotonic clock."""
        self._authenticator = authenticator
        self._leases = leases
        self._clock_s = clock_s

    def learn(self, keyring: Keyring) -> None:
        """Take the keys as they are now, and end the leases of those that are not good any more."""
        self._authenticator.learn(keyring)
        self._end_refused()

    def sweep(self) -> float:
        """End the leases whose credential has expired by the clock of the day.

        All leases are looked at, since a timer for each would not notice that the clock was set; 10,000 take 1 ms.

        Returns:
            In how many seconds the next one expires.
        """
        now_s, next_s = self._authenticator.now_s(), math.inf
        for lease in self._leases:
            principal = lease.principal
            if principal is None or principal.expires_s is None:
                continue
            if principal.expires_s <= now_s:
                _end(lease, expired(principal))
            else:
                next_s = min(next_s, principal.expires_s)
        return next_s - now_s

    async def run(self, read_keyring: ReadKeyring) -> None:
        """Keep the keys up to date and end leases, until cancelled.

        Args:
            read_keyring: reads the keys; while it raises Unavailable they stay as they are, for KEYS_UNSEEN_MAX_S.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_keyring(read_keyring), name="keyring")
            group.create_task(self._follow_clock(), name="clock of the day")
            if self._authenticator.jwks is not None:
                group.create_task(self._authenticator.jwks.run(), name="issuer's keys")

    async def _follow_keyring(self, read_keyring: ReadKeyring) -> None:
        unseen_since_s: float | None = None
        while True:
            await asyncio.sleep(KEYRING_LOOK_S)
            look = asyncio.ensure_future(read_keyring(self._authenticator.version))
            try:
                while not (await asyncio.wait({look}, timeout=KEYRING_WAIT_S))[0]:
                    unseen_since_s = self._unseen(unseen_since_s, JournalUnavailable("the disk does not answer"))
                news = look.result()
            except Unavailable as failure:
                unseen_since_s = self._unseen(unseen_since_s, failure)
                continue
            finally:
                look.cancel()
            unseen_since_s, self._authenticator.doubt = None, ""
            if news is not None:
                self.learn(news)

    def _unseen(self, since_s: float | None, why: Unavailable) -> float:
        """Note that the keyring could not be read, and return since when; after a while come to doubt the keys."""
        now_s = self._clock_s()
        if since_s is None:
            logger.warning("a key that is revoked now would not be noticed: %s", why)
            return now_s
        if now_s - since_s >= KEYS_UNSEEN_MAX_S and not self._authenticator.doubt:
            logger.error("no API key is believed until the keys can be read again: %s", why)
            self._authenticator.doubt = f"whether an API key was revoked cannot be seen: {why}"
            self._end_refused()
        return since_s

    async def _follow_clock(self) -> None:
        while True:
            next_s = self.sweep()
            await asyncio.sleep(min(next_s, SWEEP_S))

    def _end_refused(self) -> None:
        for lease in self._leases:
            if lease.principal is not None:
                refusal = self._authenticator.refusal(lease.principal)
                if refusal is not None:
                    _end(lease, refusal)


def _end(lease: Lease, error: TwincastError) -> None:
    try:
        lease.end(error)
    except Exception:  # a fault of one connection must not keep the others from their end
        logger.exception("connection %d could not be ended, and its credential is not good", lease.number)
