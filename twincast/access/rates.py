"""Token buckets (https://en.wikipedia.org/wiki/Token_bucket), one for each key, and the budget of an account. Pure."""

import math
from collections.abc import Callable
from itertools import islice

from twincast.core.rights import Rate

BUCKETS_MAX = 10_000
"""How many keys are remembered: a few megabytes. Keys whose bucket is full again are forgotten first."""

STEPS_A_UNIT = 100
"""How many steps of a search cost as much as one update: about ten microseconds."""
DEBT_MAX_S = 60.0
"""A debt is at most what is earned in this time: after a minute every account can read again."""


class _Bucket:
    __slots__ = ("at_s", "rate", "tokens")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self.rate = rate
        self.tokens = rate.burst
        self.at_s = now_s

    def fill(self, now_s: float) -> None:
        self.tokens = min(self.rate.burst, self.tokens + (now_s - self.at_s) * self.rate.per_s)
        self.at_s = now_s

    def take(self, amount: float, now_s: float, debt_max_s: float) -> float:
        """Fill and spend; see `charge`. Each read of a connection comes here, so nothing is called on the usual way."""
        per_s, burst = self.rate
        filled = self.tokens + (now_s - self.at_s) * per_s
        tokens = (filled if filled < burst else burst) - amount
        self.at_s = now_s
        if tokens < 0.0:
            self.tokens = max(tokens, -debt_max_s * per_s)
            return -self.tokens / per_s
        self.tokens = tokens
        return 0.0


class Buckets:
    """A bucket for each key, such as an identity or an address. It is full when the key is first seen."""

    def __init__(self, max_keys: int = BUCKETS_MAX) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, rate: Rate, amount: float, now_s: float) -> float:
        """Return in how many seconds an amount may be spent; 0 for now.

        An amount above the burst passes when the bucket is full and leaves it negative; otherwise it could never pass.
        """
        bucket = self._buckets.get(key)
        if bucket is None or bucket.rate != rate:
            return 0.0
        bucket.fill(now_s)
        lacks = min(amount, rate.burst) - bucket.tokens
        return max(0.0, lacks / rate.per_s)

    def spend(self, key: str, rate: Rate, amount: float, now_s: float) -> float:
        """Spend an amount if that is allowed now, and return what `wait_s` does; above 0, nothing was spent."""
        wait_s = self.wait_s(key, rate, amount, now_s)
        if wait_s > 0.0:
            return wait_s
        self._bucket(key, rate, now_s).tokens -= amount
        return 0.0

    def refund(self, key: str, rate: Rate, amount: float, now_s: float) -> None:
        """Put back what was spent, at most until the bucket is full."""
        bucket = self._bucket(key, rate, now_s)
        bucket.fill(now_s)
        bucket.tokens = min(rate.burst, bucket.tokens + amount)

    def charge(self, key: str, rate: Rate, amount: float, now_s: float, debt_max_s: float = math.inf) -> float:
        """Spend an amount in any case, and return for how many seconds the bucket stays negative; 0 if it is not."""
        bucket = self._buckets.get(key)
        if bucket is None or (bucket.rate is not rate and bucket.rate != rate):
            if bucket is None and not amount:
                return 0.0
            bucket = self._bucket(key, rate, now_s)
        return bucket.take(amount, now_s, debt_max_s)

    def charge_known(self, key: str, amount: float, now_s: float) -> None:
        """Spend an amount that was spent elsewhere, if there is a bucket; its debt does not pass DEBT_MAX_S by that.

        Where there is none, the key was not seen here, and has its burst still to spend.
        """
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.fill(now_s)
            bucket.take(amount, now_s, max(DEBT_MAX_S, -bucket.tokens / bucket.rate.per_s))

    def _bucket(self, key: str, rate: Rate, now_s: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None or bucket.rate != rate:
            self._make_room(now_s)
            bucket = self._buckets[key] = _Bucket(rate, now_s)
        return bucket

    def _make_room(self, now_s: float) -> None:
        if len(self._buckets) < self._max_keys:
            return
        for key, bucket in tuple(self._buckets.items()):
            bucket.fill(now_s)
            if bucket.tokens >= bucket.rate.burst:
                del self._buckets[key]
        # A quarter of the room at once, also if some were full: of many keys that come one after another, not each may
        # cost a look at all.
        surplus = len(self._buckets) - (self._max_keys - self._max_keys // 4)
        for key in tuple(islice(self._buckets, max(0, surplus))):
            del self._buckets[key]


class AccountBudget:
    """What one account may spend on work that it asks for; see Budget in delivery/scheduler."""

    __slots__ = ("_buckets", "_clock_s", "_rate", "account")

    def __init__(self, account: str, buckets: Buckets, rate: Rate, clock_s: Callable[[], float]) -> None:
        """Make the budget of an account.

        Args:
            account: its name.
            buckets: where its units are counted.
            rate: how many units it earns a second, of `STEPS_A_UNIT` steps each.
            clock_s: a monotonic clock.
        """
        self.account = account
        self._buckets = buckets
        self._rate = rate
        self._clock_s = clock_s

    @property
    def now_s(self) -> float:
        """The time by the budget's clock."""
        return self._clock_s()

    def seconds(self, steps: int) -> float:
        """Return in how many seconds the account earns so many steps."""
        return steps / STEPS_A_UNIT / self._rate.per_s

    def spend(self, steps: int) -> float:
        """See Budget."""
        return self._buckets.charge(self.account, self._rate, steps / STEPS_A_UNIT, self._clock_s(), DEBT_MAX_S)
