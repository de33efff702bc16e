"""How much in a time: token buckets (https://en.wikipedia.org/wiki/Token_bucket), one a key."""

import math
from collections.abc import Callable
from itertools import islice

from twincast.core.rights import Rate

BUCKETS_MAX = 10_000
"""How many keys are remembered: a few megabytes. Those whose bucket has filled again go first."""

STEPS_A_UNIT = 100
"""How many steps of a search cost as much as one update: about ten microseconds."""
DEBT_MAX_S = 60.0
"""More is forgiven: whoever asked for too much can read again after a minute."""


class _Bucket:
    __slots__ = ("at_s", "rate", "tokens")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self.rate = rate
        self.tokens = rate.burst
        self.at_s = now_s

    def fill(self, now_s: float) -> None:
        self.tokens = min(self.rate.burst, self.tokens + (now_s - self.at_s) * self.rate.per_s)
        self.at_s = now_s


class Buckets:
    """A bucket for each key, such as an identity or an address, made full when it is first seen."""

    def __init__(self, max_keys: int = BUCKETS_MAX) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, rate: Rate, amount: float, now_s: float) -> float:
        """Return when so much may be spent: 0 for now, or in how many seconds.

        What is more than the burst is let pass once the bucket is full, and owed: it could never be otherwise.
        """
        bucket = self._buckets.get(key)
        if bucket is None or bucket.rate != rate:
            return 0.0
        bucket.fill(now_s)
        lacks = min(amount, rate.burst) - bucket.tokens
        return max(0.0, lacks / rate.per_s)

    def spend(self, key: str, rate: Rate, amount: float, now_s: float) -> float:
        """Spend, if it may be, and return what `wait_s` does."""
        wait_s = self.wait_s(key, rate, amount, now_s)
        if wait_s > 0.0:
            return wait_s
        self._bucket(key, rate, now_s).tokens -= amount
        return 0.0

    def refund(self, key: str, rate: Rate, amount: float, now_s: float) -> None:
        """Take back what was spent; a bucket is never fuller than full."""
        bucket = self._bucket(key, rate, now_s)
        bucket.fill(now_s)
        bucket.tokens = min(rate.burst, bucket.tokens + amount)

    def charge(self, key: str, rate: Rate, amount: float, now_s: float, debt_max_s: float = math.inf) -> float:
        """Spend whether it may be or not, and return in how many seconds the debt is paid; 0 if there is none."""
        if not amount and key not in self._buckets:
            return 0.0
        bucket = self._bucket(key, rate, now_s)
        bucket.fill(now_s)
        bucket.tokens = max(bucket.tokens - amount, -debt_max_s * rate.per_s)
        return max(0.0, -bucket.tokens / rate.per_s)

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
        if len(self._buckets) >= self._max_keys:
            # A good part at once: a flood of keys must not cost a look at all of them for each.
            for key in tuple(islice(self._buckets, self._max_keys // 4 + 1)):
                del self._buckets[key]


class AccountBudget:
    """What one account may spend on work that it asks for; see Budget in delivery/turns."""

    __slots__ = ("_buckets", "_clock_s", "_rate", "account")

    def __init__(self, account: str, buckets: Buckets, rate: Rate, clock_s: Callable[[], float]) -> None:
        """Make the means of an account.

        Args:
            account: whose.
            buckets: where they are counted.
            rate: how many units a second, of `STEPS_A_UNIT` steps each.
            clock_s: a monotonic clock.
        """
        self.account = account
        self._buckets = buckets
        self._rate = rate
        self._clock_s = clock_s

    @property
    def now_s(self) -> float:
        """The time of its clock."""
        return self._clock_s()

    def seconds(self, steps: int) -> float:
        """Return how long it takes to earn so many steps."""
        return steps / STEPS_A_UNIT / self._rate.per_s

    def spend(self, steps: int) -> float:
        """See Budget."""
        return self._buckets.charge(self.account, self._rate, steps / STEPS_A_UNIT, self._clock_s(), DEBT_MAX_S)
