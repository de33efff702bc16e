"""What the server sends, folded: the cursor, the state of the devices, and the events for each watch."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from twincast.client.event_queue import Mark
from twincast.client.events import (
    Event,
    Gap,
    Reading,
    Twin,
    deletion_before,
    event_of,
    reading_of,
    twin_of,
    twins_in,
)
from twincast.client.message import Message
from twincast.client.watch import Watch
from twincast.core.model import KINDS, Kind, Position
from twincast.core.subscription import Mode, Subscription
from twincast.errors import NotYet, TwincastError


class Incoming:
    """Folds messages into `followed`, and offers events to the watches. The cursor moves as docs/delivery.md says.

    Two states:

    - *current*: `_known` is the state at the cursor. An event is folded and offered, and moves the cursor.
    - *replacing*, while `_fresh` is not None: the server sends its state anew, in pages, because it could not resume at
      the cursor (a greeting that is not `resumed`), or because this client fell behind (a `gap`). The last page
      replaces the state, and the watches are offered what is new in it, behind a gap. The cursor moves only then, so a
      connection that is lost in between resumes where it was.
    """

    def __init__(self, following: Subscription, on_move: Callable[[], object] = lambda: None) -> None:
        """Begin without a state; `on_move` is called whenever the cursor has moved."""
        self._on_move = on_move
        self._logs = 0
        self._following = following
        self._wanted: dict[Watch, None] = {}  # those that are not live yet, too
        self._watches: dict[Watch, None] = {}
        self._known: dict[str, Twin] = {}
        self._fresh: dict[str, Twin] | None = None
        self._reason = ""
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self._failed: TwincastError | None = None
        self.followed: dict[str, Twin] = {}
        self.position: Position | None = None

    @property
    def mark(self) -> Mark | None:
        """The cursor as a mark, in order with all earlier ones."""
        return None if self.position is None else Mark(self._logs, self.position)

    def needed(self, *, soon: bool = True) -> Subscription:
        """Return what is followed and watched, as one subscription; with the watches that are not live yet, if `soon`.

        Raises:
            ValidationFailed: it is more than a subscription may have.
        """
        subscriptions = [watch.subscription for watch in (self._wanted if soon else self._watches)]
        every = any(subscription.mode == "every" for subscription in subscriptions)
        if self._following.rules:
            subscriptions.append(self._following)
        rules: dict[str, frozenset[Kind]] = {}
        for subscription in subscriptions:
            for text, kinds in with_deletions(subscription).rules:
                rules[text] = rules.get(text, frozenset()) | kinds
        rates = [subscription.max_hz for subscription in subscriptions]
        max_hz = None if every or None in rates else max((rate for rate in rates if rate), default=None)
        mode: Mode = "every" if every else "latest"
        return Subscription(frozenset(rules.items()), mode, max_hz)

    def want(self, watch: Watch) -> None:
        """Count a watch that is not live yet for `needed`.

        Raises:
            ValidationFailed: together it is more than a subscription may have.
        """
        self._wanted[watch] = None
        self.needed()

    def add(self, watch: Watch) -> None:
        """Offer a watch what it selects, from here on."""
        self._watches[watch] = None
        if watch.initial and self.position is not None:
            for device_id, twin in sorted(self._known.items(), key=lambda item: item[1].seq):
                if watch.subscription.selects(("data_update", device_id)):
                    watch.offer(reading_of(device_id, twin, self.position.epoch))

    def remove(self, watch: Watch) -> None:
        """Offer a watch nothing more."""
        self._wanted.pop(watch, None)
        self._watches.pop(watch, None)

    def forget_all_but(self, kept: Subscription) -> None:
        """Forget the devices that the connection no longer covers: their state would become stale."""
        if "data_update" in dict(kept.rules).get("*", ()):
            return
        self._known = {
            device_id: twin for device_id, twin in self._known.items() if kept.selects(("data_update", device_id))
        }

    def fail(self, error: TwincastError) -> None:
        """End all watches and all waits with an error."""
        self._failed = error
        for watch in tuple(self._watches):
            watch.fail(error)
        self._end_waits(error)

    async def reached(self, seq: int) -> None:
        """Wait until the cursor is at a seq or behind it.

        Raises:
            NotYet: before that, the server continued in another log, or in one that was set back.
            TwincastError: there will be no connection any more.
        """
        if self.position is not None and self.position.seq >= seq:
            return
        if self._failed is not None:
            raise self._failed
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((seq, future))
        await future

    async def take(self, message: Message, size_bytes: int = 0) -> bool:
        """Take one message that is not an answer; return whether the state is complete.

        Waits while the queue of a watch in mode `every` is full.
        """
        kind = message["type"]
        if kind in KINDS:
            await self._event(event_of(message), size_bytes)
        elif kind == "hello":
            return self._hello(message)
        elif kind == "snapshot":
            return self._page(message)
        elif kind == "gap":
            self._fresh, self._reason = {}, "too_old"
        elif kind == "pong" and "seq" in message:
            self._move(Position(message["epoch"], message["seq"]))
        return True

    def _hello(self, message: Message) -> bool:
        if not message["resumed"]:
            self._fresh, self._reason = {}, message.get("reason", "epoch")
            return self._page(message)
        self._fresh = None
        if self.position is not None:  # the same place; after a restart of the server the epoch is another one
            self.position = Position(message["epoch"], self.position.seq)
        return True

    async def _event(self, event: Event, size_bytes: int) -> None:
        if isinstance(event, Reading):
            self._learn(event.device_id, twin_of(event))
        elif event.kind == "deleted":
            self._known.pop(event.device_id, None)
            self.followed.pop(event.device_id, None)
        topic = (event.kind, event.device_id)
        offered = [watch for watch in self._watches if watch.subscription.selects(topic)]
        mark = self.mark if offered else None
        for watch in offered:
            watch.offer(event, size_bytes, mark)
        # Before the wait: a connection that is lost during it must not bring the event again.
        self._move(Position(event.epoch, event.seq))
        for watch in offered:
            await watch.wait_for_room()

    def _page(self, message: Message) -> bool:
        twins = twins_in(message["data_snapshot"])
        if self._fresh is None:  # the state of devices that the connection did not cover before
            for device_id, twin in twins.items():
                self._learn(device_id, twin)
            return True
        self._fresh.update(twins)
        if message.get("more"):
            return False
        fresh, self._fresh = self._fresh, None
        self._replace(fresh, Position(message["epoch"], message["seq"]))
        return True

    def _replace(self, fresh: dict[str, Twin], position: Position) -> None:
        """Replace the state; offer the watches what is new in it, behind what may be missing."""
        older, before, mark = self._known, self.position, self.mark
        self._known = fresh
        self.followed.clear()
        for device_id, twin in fresh.items():
            self._follow(device_id, twin)
        self.position = position
        self._on_move()
        if before is None:
            self._release(position)
            return
        is_same_log = self._reason == "too_old"
        self._logs += not is_same_log
        other: Literal["epoch", "ahead"] = "ahead" if self._reason == "ahead" else "epoch"
        gap = Gap.between(before, position) if is_same_log else Gap(None, None, other)
        news: list[Event] = [
            reading_of(device_id, twin, position.epoch)
            for device_id, twin in sorted(fresh.items(), key=lambda item: item[1].seq)
            if _is_news(twin, older.get(device_id), is_same_log=is_same_log)
        ]
        news += [
            deletion_before(position, device_id, twin) for device_id, twin in older.items() if device_id not in fresh
        ]
        self._offer_news(gap, news, mark)
        if is_same_log:
            self._release(position)
        else:
            self._end_waits(
                NotYet("the server's log is another one, or was set back; the seq that you wait for is not in it")
            )

    def _offer_news(self, gap: Gap | None, news: list[Event], mark: Mark | None) -> None:
        for watch in self._watches:
            if gap is not None:
                watch.add_gap(gap)
            for event in news:
                if watch.subscription.selects((event.kind, event.device_id)):
                    watch.offer(event, mark=mark)

    def _learn(self, device_id: str, twin: Twin) -> None:
        self._known[device_id] = twin
        self._follow(device_id, twin)

    def _follow(self, device_id: str, twin: Twin) -> None:
        if self._following.selects(("data_update", device_id)):
            self.followed[device_id] = twin

    def _move(self, position: Position) -> None:
        if self.position is not None and position <= self.position and position.epoch == self.position.epoch:
            return
        self.position = position
        self._on_move()
        self._release(position)

    def _release(self, position: Position) -> None:
        for seq, future in self._awaited:
            if seq <= position.seq and not future.done():
                future.set_result(None)
        self._awaited = [(seq, future) for seq, future in self._awaited if not future.done()]

    def _end_waits(self, error: TwincastError) -> None:
        for _, future in self._awaited:
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._awaited = []


def with_deletions(subscription: Subscription) -> Subscription:
    """Return a subscription with the deletions for its readings: without them the state would become stale."""
    more: dict[bool, frozenset[Kind]] = {True: frozenset({"deleted"}), False: frozenset()}
    rules = frozenset((text, kinds | more["data_update" in kinds]) for text, kinds in subscription.rules)
    return replace(subscription, rules=rules)


def _is_news(twin: Twin, older: Twin | None, *, is_same_log: bool) -> bool:
    """Whether a device's newest state is new to a watch."""
    if older is None:
        return True
    return twin.seq > older.seq if is_same_log else twin != older
