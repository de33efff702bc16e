"""Feeds a watch of this process: by a feed of its own over the hub, as a connection has, without a socket."""

import asyncio
import itertools
import logging
from typing import Any

import msgspec

from twincast.client.event_queue import Mark
from twincast.client.events import Event, Gap, Twin, event_of, reading_of, twins_in
from twincast.client.watch import Watch
from twincast.core.model import Entry, Position
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.delivery.scheduler import Unmetered
from twincast.errors import FellBehind, NotReady, TwincastError
from twincast.hub.hub import Hub
from twincast.inside.running import Running
from twincast.transports.buffer import Buffer
from twincast.wire.messages import encode_merged

HELD_MAX_BYTES = 256 * 1024
"""Limit of what a feed has written and its watch has not taken; above it the feed merges, or reads the log again."""
OUTBOX_MAX_BYTES = 1024 * 1024
"""Limit of the feed's own outbox, as for any client."""
PAGE = 1_000
AGAIN_S = 0.5
"""How long to wait before a journal that could not be read is read again."""

logger = logging.getLogger("twincast.inside")
_numbers = itertools.count(1)


class Feeding:
    """See Feeder: the first iteration of a watch begins at a position, later ones with what comes then."""

    def __init__(self, running: Running, since: Position | None) -> None:
        self._running = running
        self._since = since
        self._line: _Line | None = None

    async def start(self, watch: Watch) -> None:
        """See Feeder."""
        since, self._since = self._since, None
        line = self._line = _Line(self._running, watch, since)
        self._running.keep(asyncio.create_task(line.run(), name="watch"), line.end)

    def end(self, watch: Watch) -> None:
        """See Feeder."""
        if self._line is not None:
            self._line.leave()
            self._line = None

    def done(self, watch: Watch, mark: Mark) -> None:
        """See Feeder. Only the program keeps the position of a watch of this process."""


class _Line:
    """Carries entries from the hub to one watch. When its feed has ended, it opens another where that one was."""

    def __init__(self, running: Running, watch: Watch, since: Position | None) -> None:
        hub = running.hub
        self._running = running
        self._watch = watch
        self._budget = Unmetered(f"inside {next(_numbers)}")
        self._why: TwincastError | None = None  # the feed ended
        self._is_over = False
        self._gap: Gap | None = None  # what is missing before the state that is coming in
        self._fresh: dict[str, Twin] | None = None
        self._newer: dict[str, int] = {}  # what the state had that is newer than its position: devices' seqs
        now = Position(hub.state.epoch, hub.state.seq)
        self._position = now if since is None else since
        self._open(hub, None if watch.initial and since is None else self._position)
        running.app.parts.watches_inside.add(self._cut_off)

    def end(self, error: TwincastError) -> None:
        """End the watch with an error, after what it has been offered."""
        self._watch.fail(error)
        self.leave()

    def leave(self) -> None:
        """Offer nothing more."""
        self._is_over = True
        self._running.app.parts.watches_inside.discard(self._cut_off)
        self._feed.close()
        self._buffer.end()

    async def run(self) -> None:
        """Offer the watch what comes, until `leave`."""
        try:
            while True:
                await self._buffer.drain_to(self._take)
                if self._is_over:
                    return
                assert self._why is not None
                if not self._why.retryable:
                    raise self._why
                await self._open_again(self._why)
        except TwincastError as error:
            self.end(error)
        except Exception:
            logger.exception("a watch could not be given its events")
            self.end(TwincastError("a watch could not be given its events; the log says why"))

    async def _open_again(self, why: TwincastError) -> None:
        """Open another feed where the last one was, as soon as there is a hub for it."""
        while not self._is_over:
            if not isinstance(why, FellBehind):
                await asyncio.sleep(AGAIN_S)
            if self._is_over:
                return
            try:
                self._open(self._running.hub, self._position)
            except NotReady as error:
                why = error
            else:
                return

    def _open(self, hub: Hub, since: Position | None) -> None:
        self._why = None
        self._buffer = Buffer(HELD_MAX_BYTES)
        self._feed = Feed(
            self._buffer.write, hub, self._cut_off, budget=self._budget, outbox_max_bytes=OUTBOX_MAX_BYTES
        )
        self._buffer.flow = self._feed.sender
        self._feed.begin(self._watch.subscription, since=since, page_size=PAGE)

    def _cut_off(self, error: TwincastError) -> None:
        self._why = error
        self._feed.close()
        self._buffer.end()

    async def _take(self, cast: Cast) -> None:
        for index, message in enumerate(cast.messages):
            if self._is_over:
                return
            if cast.entries:
                await self._tell(cast.entries[index], 1 if cast.merged is None else cast.merged[index], len(message))
            else:
                await self._hear(msgspec.json.decode(message))

    async def _tell(self, entry: Entry, merged: int, size_bytes: int) -> None:
        self._position = Position(entry.epoch, entry.seq)
        if self._newer and entry.changes_twin and entry.seq <= self._newer.get(entry.subject, 0):
            return  # the state that was offered has it
        self._watch.offer(_event_of(entry, merged), size_bytes)
        await self._watch.wait_until_nearly_taken()

    async def _hear(self, message: dict[str, Any]) -> None:
        """Take a hello, a gap, or a part of the state."""
        kind = message["type"]
        if kind == "gap":
            self._gap = Gap(message["from"], message["to"])
            self._fresh = {}
        elif kind == "hello" and not message["resumed"]:
            self._gap = self._gap_before(message)
            self._fresh = {}
        if self._fresh is None or "data_snapshot" not in message:
            return
        self._fresh |= twins_in(message["data_snapshot"])
        if not message.get("more"):
            twins, self._fresh = self._fresh, None
            await self._tell_state(twins, Position(message["epoch"], message["seq"]))

    def _gap_before(self, hello: dict[str, Any]) -> Gap | None:
        match hello.get("reason"):
            case None:
                return None  # the state was asked for
            case "too_old":
                return Gap.between(self._position, Position(hello["epoch"], hello["seq"]))
            case reason:
                return Gap(None, None, "ahead" if reason == "ahead" else "epoch")

    async def _tell_state(self, twins: dict[str, Twin], after: Position) -> None:
        """Offer the devices whose value differs from what the watch was offered last, oldest first."""
        gap, self._gap = self._gap, None
        if gap is not None:
            self._watch.add_gap(gap)
        self._newer = {device_id: twin.seq for device_id, twin in twins.items() if twin.seq > after.seq}
        known_seq = self._position.seq if gap is not None and gap.from_seq is not None else 0
        for device_id, twin in sorted(twins.items(), key=lambda item: item[1].seq):
            if twin.seq > known_seq and self._watch.subscription.selects(("data_update", device_id)):
                self._watch.offer(reading_of(device_id, twin, after.epoch))
                await self._watch.wait_until_nearly_taken()
        self._position = after


def _event_of(entry: Entry, merged: int) -> Event:
    return event_of(msgspec.json.decode(encode_merged(entry, merged)))  # as a client of the wire does
