"""What waits for a program that is slower than its changes: merged, device by device, or bounded."""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from twincast.client.events import Change, Gap
from twincast.core.model import Position
from twincast.core.subscription import Mode

WAITING_MAX = 4_096
WAITING_MAX_BYTES = 8 * 1024 * 1024
"""How much that cannot be merged waits for a watch: in mode `every` the connection is no longer read then, in mode
`latest` the oldest commands go, and a gap says so."""
FEW = 256
"""How much waits for a watch that is fed by what can merge, or read back, by itself."""


class Mark(NamedTuple):
    """A place in what a client was told: `log` counts the logs that its server went on in, for seqs order only one."""

    log: int
    position: Position

    @property
    def order(self) -> tuple[int, int]:
        """What marks are compared by; a log has another epoch after each start of its server."""
        return self.log, self.position.seq


class Waiting:
    """Changes in order. In mode `latest` one takes the place of another that waits for the same device."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._items: OrderedDict[str | int, tuple[Change, int, Mark | None]] = OrderedDict()
        self._single: deque[int] = deque()  # the keys of what cannot be merged
        self._single_bytes = 0
        self._numbers = itertools.count()
        self._taken = asyncio.Event()
        self._gap: Gap | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether as much waits that cannot be merged as may."""
        return len(self._single) >= WAITING_MAX or self._single_bytes >= WAITING_MAX_BYTES

    def marks(self) -> Iterator[Mark]:
        """Yield where a client must go on to be told again of what waits."""
        return (mark for _, _, mark in self._items.values() if mark is not None)

    async def room(self, is_wanted: Callable[[], bool]) -> None:
        """Wait while it is full, and room is wanted."""
        while self.is_full and is_wanted():
            self._taken.clear()
            await self._taken.wait()

    async def few(self, is_wanted: Callable[[], bool]) -> None:
        """Wait until few changes wait, as long as that is wanted."""
        while len(self._items) > FEW and is_wanted():
            self._taken.clear()
            await self._taken.wait()

    def wake(self) -> None:
        """Have those who wait for room look whether it is wanted still."""
        self._taken.set()

    def put(self, change: Change, size_bytes: int, mark: Mark | None) -> None:
        """Add a change; `mark` is the place behind which a client goes on that is to be told of it again."""
        gap = change.gap
        key: str | int
        if self._mode == "latest" and change.kind != "control":
            key = change.device_id
            older, _, its_mark = self._items.pop(key, (None, 0, None))
            if older is not None:
                change = replace(change, merged=older.merged + change.merged)
                gap = older.gap or gap
                mark = its_mark if older.gap is not None else mark  # a gap is told again only from before it
        else:
            key = self._single_key(size_bytes)
        if self._gap is not None:
            gap, self._gap = self._gap if gap is None else gap.joined(self._gap), None
        self._items[key] = (change if gap is change.gap else replace(change, gap=gap), size_bytes, mark)

    def take(self) -> tuple[Change, Mark | None]:
        """Return the first change and its mark."""
        key, (change, size_bytes, mark) = self._items.popitem(last=False)
        if isinstance(key, int):
            self._single.popleft()
            self._single_bytes -= size_bytes
        self._taken.set()
        return change, mark

    def miss(self, gap: Gap) -> None:
        """Note what may be missing before the next change."""
        self._gap = gap if self._gap is None else self._gap.joined(gap)

    def follow(self, earlier: "Waiting", told: range) -> None:
        """Be what comes behind others, of which these seqs were told there: they are not told again."""
        for key, (change, size_bytes, _) in tuple(self._items.items()):
            if change.seq in told:
                del self._items[key]
                if isinstance(key, int):
                    self._single.remove(key)
                    self._single_bytes -= size_bytes
        self._taken.set()
        gap, earlier._gap = earlier._gap, None
        if gap is None:
            return
        first = next(iter(self._items), None)
        if first is None:
            self._gap = gap.joined(self._gap)
        else:
            change, size_bytes, mark = self._items[first]
            self._items[first] = (replace(change, gap=gap.joined(change.gap)), size_bytes, mark)

    def _single_key(self, size_bytes: int) -> int:
        while self._mode == "latest" and self._single and self.is_full:
            self._drop_oldest()
        key = next(self._numbers)
        self._single.append(key)
        self._single_bytes += size_bytes
        return key

    def _drop_oldest(self) -> None:
        """Let the oldest command go, and have the next one say so."""
        change, size_bytes, _ = self._items.pop(self._single.popleft())
        self._single_bytes -= size_bytes
        gap = Gap(change.seq, change.seq, "slow")
        gap = gap if change.gap is None else change.gap.joined(gap)
        if not self._single:
            self._gap = gap if self._gap is None else gap.joined(self._gap)
            return
        following, its_bytes, mark = self._items[self._single[0]]
        gap = gap.joined(following.gap)
        self._items[self._single[0]] = (replace(following, gap=gap), its_bytes, mark)
