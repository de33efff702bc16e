"""What a program is told: changes, one after another, merged for one that is slow."""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self

from twincast.client.link import Message
from twincast.core.model import Kind, Position
from twincast.core.subscription import Subscription
from twincast.errors import TwincastError

WAITING_MAX = 4_096
WAITING_MAX_BYTES = 8 * 1024 * 1024
"""How much that cannot be merged waits for a watch: in mode `every` the connection is no longer read then, in mode
`latest` the oldest commands go, and a gap says so."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What may be missing before a change, and why.

    `reason` is "too_old" if the server could no longer bring the changes from `from_seq` to `to_seq` of its log one by
    one, and "slow" if commands among them were dropped because this watch did not take them. It is "epoch" if the
    server goes on in another log, and "ahead" if its log was set back: then what was told before may not be in it, and
    no numbers say what is missing, so both are None. What differs now is told either way: the newest value of devices
    that have another one, and the deletion of devices that are gone.
    """

    from_seq: int | None
    to_seq: int | None
    reason: Literal["too_old", "slow", "epoch", "ahead"] = "too_old"

    @classmethod
    def between(cls, before: Position, after: Position) -> "Gap | None":
        """Return what may be missing between two positions of a log; None if nothing lies between them."""
        return cls(before.seq + 1, after.seq) if before.seq < after.seq else None

    def joined(self, later: "Gap | None") -> "Gap":
        """Return this gap and one behind it as one."""
        if later is None:
            return self
        if self.from_seq is None or self.to_seq is None:
            return self
        if later.from_seq is None or later.to_seq is None:
            return later
        reason = self.reason if self.reason == later.reason else "too_old"
        return Gap(min(self.from_seq, later.from_seq), max(self.to_seq, later.to_seq), reason)


@dataclass(frozen=True, slots=True)
class Twin:
    """The newest state of one device."""

    value: Any
    updated_at_utc: str
    seq: int
    source: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as a watch yields it.

    `kind` is "data_update": a reading of `device_id` with a `value`; "control": a `command` to it, with `args`; or
    "deleted": the device is no more, until a later reading makes it anew.
    `merged` says how many changes it stands for. `gap`, if it is not None, says what may be missing before it.
    """

    kind: Kind
    device_id: str
    seq: int
    epoch: str
    timestamp_utc: str
    source: str
    value: Any = None
    command: str = ""
    args: Mapping[str, Any] | None = None
    merged: int = 1
    gap: Gap | None = None

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read an event from the wire."""
        common = (message["seq"], message["epoch"], message["timestamp_utc"], message["source"])
        if message["type"] == "control":
            return cls("control", message["target"], *common, None, message["command"], message["args"])
        merged = message.get("merged", 1)
        if message["type"] == "deleted":
            return cls("deleted", message["device_id"], *common, merged=merged)
        return cls("data_update", message["device_id"], *common, message["value"], merged=merged)

    @classmethod
    def to_twin(cls, device_id: str, twin: Twin, epoch: str) -> Self:
        """Make a twin the change that it comes from."""
        return cls("data_update", device_id, twin.seq, epoch, twin.updated_at_utc, twin.source, twin.value)

    @classmethod
    def to_deletion(cls, device_id: str, twin: Twin, position: Position) -> Self:
        """Make a change of it that a device is no more, somewhere before a position; when, nobody can say any more."""
        now_utc = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls("deleted", device_id, position.seq, position.epoch, now_utc, twin.source)


class Feeder(Protocol):
    """Who fills a watch."""

    async def start(self, watch: "Watch") -> None:
        """Begin to offer it what it selects. If this raises, or is cancelled, it is offered nothing."""

    def end(self, watch: "Watch") -> None:
        """Offer it nothing more."""


class Watch:
    """Changes that a subscription selects, for as long as they are iterated over. Made by `Hub.watch`.

    A watch begins with its iteration, or with `async with`, whichever comes first, and ends with the last of these that
    is left. One that has ended may begin again, with what comes then.
    """

    def __init__(self, feeder: Feeder, subscription: Subscription, *, initial: bool) -> None:
        self.subscription = subscription
        self.initial = initial
        self._feeder = feeder
        self._numbers = itertools.count()
        self._starting = asyncio.Lock()
        self._users = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._waiting: OrderedDict[str | int, tuple[Change, int]] = OrderedDict()
        self._single: deque[int] = deque()  # the keys of what cannot be merged
        self._single_bytes = 0
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_started = False
        self._gap: Gap | None = None
        self._error: TwincastError | None = None

    @property
    def _is_full(self) -> bool:
        return len(self._single) >= WAITING_MAX or self._single_bytes >= WAITING_MAX_BYTES

    async def room(self) -> None:
        """Wait until more may be offered: in mode `every` nothing can be merged, so what waits is bounded."""
        while self.subscription.mode == "every" and self._is_full and self._is_started:
            self._taken.clear()
            await self._taken.wait()

    def offer(self, change: Change, size_bytes: int = 0) -> None:
        """Take a change that is selected; in mode `latest` it takes the place of one that waits for the same device."""
        gap = change.gap
        key: str | int
        if self.subscription.mode == "latest" and change.kind != "control":
            key = change.device_id
            older, _ = self._waiting.pop(key, (None, 0))
            if older is not None:
                change = replace(change, merged=older.merged + change.merged)
                gap = older.gap or gap
        else:
            key = self._single_key(size_bytes)
        if self._gap is not None:
            gap, self._gap = self._gap if gap is None else gap.joined(self._gap), None
        self._waiting[key] = (change if gap is change.gap else replace(change, gap=gap), size_bytes)
        self._changed.set()

    def miss(self, gap: Gap) -> None:
        """Note what may be missing before the next change."""
        self._gap = gap if self._gap is None else self._gap.joined(gap)

    def fail(self, error: TwincastError) -> None:
        """End the iteration with an error, once what waits was taken."""
        self._error = error
        self._changed.set()
        self._taken.set()

    async def __aenter__(self) -> Self:
        self._users += 1
        try:
            async with self._starting:
                if not self._is_started:
                    await self._start()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes in the order of seq.

        Raises:
            TwincastError: the server refused the subscription, or the hub was closed.
        """
        interval_s = 1 / self.subscription.max_hz if self.subscription.max_hz else 0.0
        clock_s = asyncio.get_running_loop().time
        async with self:
            while True:
                due_s = clock_s() + interval_s
                while self._waiting:
                    yield self._take()
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(max(0.0, due_s - clock_s()))  # what comes in the meantime merges

    async def _start(self) -> None:
        self._begin_anew()
        self._is_started = True
        try:
            await self._feeder.start(self)
        except BaseException:
            self._is_started = False
            raise

    def _take(self) -> Change:
        key, (change, size_bytes) = self._waiting.popitem(last=False)
        if isinstance(key, int):
            self._single.popleft()
            self._single_bytes -= size_bytes
            self._taken.set()
        return change

    def _single_key(self, size_bytes: int) -> int:
        while self.subscription.mode == "latest" and self._single and self._is_full:
            self._drop_oldest()
        key = next(self._numbers)
        self._single.append(key)
        self._single_bytes += size_bytes
        return key

    def _drop_oldest(self) -> None:
        """Let the oldest command go, and have the next one say so."""
        change, size_bytes = self._waiting.pop(self._single.popleft())
        self._single_bytes -= size_bytes
        gap = Gap(change.seq, change.seq, "slow")
        gap = gap if change.gap is None else change.gap.joined(gap)
        if not self._single:
            self._gap = gap if self._gap is None else gap.joined(self._gap)
            return
        following, its_bytes = self._waiting[self._single[0]]
        gap = gap.joined(following.gap)
        self._waiting[self._single[0]] = (replace(following, gap=gap), its_bytes)

    def _leave(self) -> None:
        self._users -= 1
        if not self._users and self._is_started:
            self._is_started = False
            self._taken.set()
            self._feeder.end(self)
