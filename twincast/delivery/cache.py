"""What was made once and may be asked for again: a least recently used cache, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """A mapping that drops what was used least recently."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._max_bytes = max_bytes
        self.size_bytes = 0
        """The sum of the costs of all that is kept."""

    def get(self, key: K) -> V | None:
        """Return what is kept under a key; None if nothing is."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def keep(self, key: K, value: V, cost_bytes: int) -> None:
        """Keep a value, and drop what was used least recently until all fits."""
        replaced = self._kept.pop(key, None)
        self.size_bytes += cost_bytes - (replaced[1] if replaced is not None else 0)
        self._kept[key] = (value, cost_bytes)
        while self.size_bytes > self._max_bytes:
            self.size_bytes -= self._kept.popitem(last=False)[1][1]
