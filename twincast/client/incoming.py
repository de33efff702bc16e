"""What a program is told: the cursor, the state that follows from it, and the watches that take their part."""

import asyncio
from collections.abc import Mapping, Sequence

from twincast.client.link import Message
from twincast.client.watch import Change, Gap, Twin, Watch
from twincast.core.model import Kind, Position
from twincast.core.subscription import Mode, Subscription
from twincast.errors import TwincastError


class Incoming:
    """Folds what the server sends into `followed`, and passes it on. The cursor moves as docs/delivery.md says."""

    def __init__(self, following: Subscription) -> None:
        self._following = following
        self._watches: dict[Watch, None] = {}
        self._known: dict[str, Twin] = {}
        self._fresh: dict[str, Twin] | None = None
        self._is_same_log = False  # whether what is fresh goes on from what was known
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self._held = Subscription(frozenset())
        self.followed: dict[str, Twin] = {}
        self.position: Position | None = None

    def wanted(self) -> Subscription:
        """Return what a server is to be asked for: what is followed and what is watched, together."""
        self._held = self._needed()
        return self._held

    def no_longer_needed(self) -> Sequence[str]:
        """Return the patterns that a connection may stop to bring."""
        before, self._held = self._held, self._needed()
        return sorted(dict(before.rules).keys() - dict(self._held.rules).keys())

    def _needed(self) -> Subscription:
        every = any(watch.subscription.mode == "every" for watch in self._watches)
        subscriptions = [watch.subscription for watch in self._watches]
        if self._following.rules:
            subscriptions.append(self._following)
        rules: dict[str, frozenset[Kind]] = {}
        for subscription in subscriptions:
            for text, kinds in subscription.rules:
                rules[text] = rules.get(text, frozenset()) | kinds
        rates = [subscription.max_hz for subscription in subscriptions]
        max_hz = None if every or None in rates else max((rate for rate in rates if rate), default=None)
        mode: Mode = "every" if every else "latest"
        return Subscription(frozenset(rules.items()), mode, max_hz)

    def lacks(self, subscription: Subscription) -> Subscription | None:
        """Return what a connection must be asked for in addition, None if it brings all of a subscription already."""
        held = self._held
        rules = dict(held.rules)
        missing = {text: rules.get(text, frozenset()) | kinds for text, kinds in subscription.rules}
        missing = {text: kinds for text, kinds in missing.items() if rules.get(text) != kinds}
        if held.is_everything:
            missing = {}
        mode: Mode = "every" if "every" in {held.mode, subscription.mode} else "latest"
        max_hz = None
        if mode == "latest" and held.rules and held.max_hz is not None and subscription.max_hz is not None:
            max_hz = max(held.max_hz, subscription.max_hz)
        elif mode == "latest" and not held.rules:
            max_hz = subscription.max_hz
        if not missing and (mode, max_hz) == (held.mode, held.max_hz):
            return None
        self._held = Subscription(frozenset((rules | missing).items()), mode, max_hz)
        return Subscription(frozenset(missing.items()), mode, max_hz)

    def add(self, watch: Watch) -> None:
        """Pass on to a watch what it selects, from here on."""
        self._watches[watch] = None
        if watch.initial and self.position is not None:
            for device_id, twin in sorted(self._known.items(), key=lambda item: item[1].seq):
                if watch.subscription.selects(("data_update", device_id)):
                    watch.offer(Change.to_twin(device_id, twin, self.position.epoch))

    def remove(self, watch: Watch) -> None:
        """Pass nothing more on to a watch."""
        self._watches.pop(watch, None)

    def fail(self, error: TwincastError) -> None:
        """End all watches and waits with an error."""
        for watch in tuple(self._watches):
            watch.fail(error)
        for _, future in self._awaited:
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._awaited = []

    async def reached(self, seq: int) -> None:
        """Wait until the cursor is at a seq or behind it."""
        if self.position is None or self.position.seq < seq:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.append((seq, future))
            await future

    async def take(self, message: Message) -> bool:
        """Take one message that is not an answer; return whether the state is whole, so that the cursor counts.

        Waits while a watch in mode `every` has as much as it may hold.
        """
        kind = message["type"]
        if kind in {"data_update", "control"}:
            await self._event(Change.of(message))
        elif kind == "hello":
            return self._hello(message)
        elif kind == "snapshot":
            return self._page(message)
        elif kind == "gap":
            self._fresh, self._is_same_log = {}, True
        elif kind == "pong" and "seq" in message:
            self._move(Position(message["epoch"], message["seq"]))
        return True

    def _hello(self, message: Message) -> bool:
        """Take the epoch of this run of the server; the log behind the cursor is the same if the server says so."""
        if message["resumed"]:
            self._fresh = None
            self.position = Position(message["epoch"], message["seq"])
            return True
        self._fresh, self._is_same_log = {}, message.get("reason") == "too_old"
        return self._page(message)

    async def _event(self, change: Change) -> None:
        if change.kind == "data_update":
            self._learn(change.device_id, Twin(change.value, change.timestamp_utc, change.seq, change.source))
        topic = (change.kind, change.device_id)
        for watch in tuple(self._watches):
            if watch.subscription.selects(topic):
                watch.offer(change)
                await watch.room()
        self._move(Position(change.epoch, change.seq))

    def _page(self, message: Message) -> bool:
        twins = {device_id: Twin(**twin) for device_id, twin in message["data_snapshot"].items()}
        if self._fresh is None:  # the state of devices that were not covered until now
            for device_id, twin in twins.items():
                self._learn(device_id, twin)
            return True
        self._fresh.update(twins)
        if "more" in message:
            return False
        fresh, self._fresh = self._fresh, None
        self._replace(fresh, Position(message["epoch"], message["seq"]))
        return True

    def _replace(self, fresh: Mapping[str, Twin], position: Position) -> None:
        """Begin anew with a state; tell the watches what is new in it, and what may be missing."""
        older, before = self._known, self.position
        self._known = {}
        self.followed.clear()
        for device_id, twin in fresh.items():
            self._learn(device_id, twin)
        if before is not None:
            is_same_log = self._is_same_log
            gap = Gap(before.seq + 1 if is_same_log else min(1, position.seq), position.seq)
            news = [
                Change.to_twin(device_id, twin, position.epoch)
                for device_id, twin in sorted(fresh.items(), key=lambda item: item[1].seq)
                if not is_same_log or device_id not in older or older[device_id].seq < twin.seq
            ]
            for watch in self._watches:
                watch.miss(gap)
                for change in news:
                    if watch.subscription.selects(("data_update", change.device_id)):
                        watch.offer(change)
        self.position = None
        self._move(position)

    def _learn(self, device_id: str, twin: Twin) -> None:
        self._known[device_id] = twin
        if self._following.selects(("data_update", device_id)):
            self.followed[device_id] = twin

    def _move(self, position: Position) -> None:
        if self.position is not None and position <= self.position and position.epoch == self.position.epoch:
            return
        self.position = position
        for seq, future in self._awaited:
            if seq <= position.seq and not future.done():
                future.set_result(None)
        self._awaited = [(seq, future) for seq, future in self._awaited if not future.done()]
