"""What a program is told: changes, one after another, merged for one that is slow."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from twincast.client.link import Message
from twincast.core.model import Kind
from twincast.core.subscription import Subscription
from twincast.errors import TwincastError

EVERY_MAX = 4_096
"""How many changes wait for a watch in mode `every` before the connection is no longer read."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What may be missing: the first and the last seq, in the log that goes on.

    From 1 means that the log is another one, and that what came before does not count either; 0 to 0 that it is empty.
    """

    from_seq: int
    to_seq: int


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

    `kind` is "data_update": a reading of `device_id` with a `value`; or "control": a `command` to it, with `args`.
    `merged` says how many changes it stands for. `gap`, if it is not None, says which ones before it may be missing.
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
        return cls("data_update", message["device_id"], *common, message["value"], merged=merged)

    @classmethod
    def to_twin(cls, device_id: str, twin: Twin, epoch: str) -> Self:
        """Make a twin the change that it comes from."""
        return cls("data_update", device_id, twin.seq, epoch, twin.updated_at_utc, twin.source, twin.value)


class Feeder(Protocol):
    """Who fills a watch."""

    async def start(self, watch: "Watch") -> None:
        """Begin to offer it what it selects."""

    def end(self, watch: "Watch") -> None:
        """Offer it nothing more."""


class Watch:
    """Changes that a subscription selects, for as long as they are iterated over. Made by `Hub.watch`.

    A watch begins with its iteration, or with `async with`, whichever comes first.
    """

    def __init__(self, feeder: Feeder, subscription: Subscription, *, initial: bool) -> None:
        self.subscription = subscription
        self.initial = initial
        self._feeder = feeder
        self._waiting: OrderedDict[str | int, Change] = OrderedDict()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_over = False
        self._gap: Gap | None = None
        self._error: TwincastError | None = None
        self._is_started = False

    async def room(self) -> None:
        """Wait until more may be offered: in mode `every` nothing can be merged, so what waits is bounded."""
        while self.subscription.mode == "every" and len(self._waiting) >= EVERY_MAX and not self._is_over:
            self._taken.clear()
            await self._taken.wait()

    def offer(self, change: Change) -> None:
        """Take a change that is selected; in mode `latest` it takes the place of one that waits for the same device."""
        key: str | int = change.seq
        if self.subscription.mode == "latest" and change.kind == "data_update":
            key = change.device_id
            older = self._waiting.pop(key, None)
            if older is not None:
                change = replace(change, merged=older.merged + change.merged, gap=older.gap)
        if self._gap is not None and change.gap is None:
            change, self._gap = replace(change, gap=self._gap), None
        self._waiting[key] = change
        self._changed.set()

    def miss(self, gap: Gap) -> None:
        """Note what may be missing before the next change."""
        self._gap = gap if self._gap is None else Gap(min(self._gap.from_seq, gap.from_seq), gap.to_seq)

    def fail(self, error: TwincastError) -> None:
        """End the iteration with an error, once what waits was taken."""
        self._error = error
        self._changed.set()

    async def __aenter__(self) -> Self:
        if not self._is_started:
            self._is_started = True
            await self._feeder.start(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        self._taken.set()
        self._feeder.end(self)

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
                    yield self._waiting.popitem(last=False)[1]
                    self._taken.set()
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(max(0.0, due_s - clock_s()))  # what comes in the meantime merges
