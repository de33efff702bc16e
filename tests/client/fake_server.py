"""A server and a network in the test's own loop: the server's core over a log in memory, and links that a test moves.

Nothing is heard on either side before the test says so, and time passes only when the test lets it.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from tests.fakes import AnyonesVisit, CommittingStream
from twincast.client.failures import Retryable
from twincast.core.audit import Actor
from twincast.core.batch import Lane
from twincast.core.idempotency import IdempotencyIndex, IdempotencyKey, IdempotencyRecord, OnCommitted
from twincast.core.lateness import decide, horizon_in
from twincast.core.model import DataUpdate, Deleted, Entry, Position
from twincast.core.producers import NumberedLine, ProducerId, ProducerIndex
from twincast.core.times import stored_form
from twincast.delivery.cast import Cast
from twincast.delivery.session import Session
from twincast.errors import (
    JournalUnavailable,
    LinePassed,
    NotFound,
    OutOfOrder,
    ServerUnreachable,
    TooLarge,
    UnsupportedMedia,
)
from twincast.wire.messages import SizeLimits, encode_all


class _TimelessSelector(selectors.SelectSelector):
    """Waits for nothing: the time until the next timer has passed at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for somebody else"
        self.now_s += timeout
        return super().select(0)


class TimelessLoop(asyncio.SelectorEventLoop):
    """An event loop in which hours pass at once, but only while nothing can be done without them."""

    def __init__(self) -> None:
        self.selector = _TimelessSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s


class LogServer(CommittingStream):
    """The hub's promises about retries, deletions and lanes, over a log in memory."""

    def __init__(self, epoch: str = "epoch-1", *, resumes_back: int = 1_000) -> None:
        super().__init__()
        self.state.epoch = epoch
        self._log = epoch
        self.epochs = {epoch}
        self._keys = IdempotencyIndex([])
        self._producers = ProducerIndex([])
        self._waiting: list[tuple[Entry, OnCommitted, set[Lane | ProducerId], IdempotencyKey | NumberedLine]] = []
        self._resumes_back = resumes_back
        self.stored_lines: list[tuple[str, int]] = []
        """Of each numbered line in the log, in its order: the producer and the number."""

    def submit(
        self,
        entry: Entry,
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> None:
        assert idempotency_key is not None, "each update of the client can be sent again"
        pending = self._keys.admit(idempotency_key, 1, done, self.state.seq)
        if pending is not None:
            self._take(entry, pending.settle, lane, idempotency_key)

    def submit_together(
        self,
        readings: Sequence[DataUpdate],
        size_bytes: int,
        done: OnCommitted,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> bool:
        raise AssertionError("each update of the client can be sent again")

    def submit_all(
        self,
        entries: Sequence[Entry],
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
        line: NumberedLine | None = None,
    ) -> None:
        (entry,) = entries
        assert line is not None
        try:
            admitted = self._producers.admit(line, done)
        except LinePassed as error:
            done(error, 0)
            return
        if admitted is not None:
            self._take(entry, admitted, lane, line)

    def _take(self, entry: Entry, done: OnCommitted, lane: Lane | None, how: IdempotencyKey | NumberedLine) -> None:
        if isinstance(entry, Deleted) and not self._will_have(entry.device_id):
            done(NotFound("there is no such device"), 0)
            return
        lanes: set[Lane | ProducerId] = {lane} if lane is not None else set()
        if isinstance(how, NumberedLine):
            lanes.add(how.producer_id)
        self._waiting.append((entry, done, lanes, how))

    def _will_have(self, device_id: str) -> bool:
        """Whether there is a device, counting what waits for the disk."""
        waiting = [entry for entry, *_ in self._waiting if isinstance(entry, DataUpdate | Deleted)]
        newest = next((entry for entry in reversed(waiting) if entry.device_id == device_id), None)
        return device_id in self.state.twins if newest is None else isinstance(newest, DataUpdate)

    def why_not_resume(self, since: Position) -> str:
        if since.epoch not in self.epochs:
            return "epoch"
        if since.seq > self.state.seq:
            return "ahead"
        return "too_old" if since.seq < self.state.seq - self._resumes_back else ""

    def commit(self) -> None:
        batch, self._waiting = self._waiting, []
        for entry, done, _, how in batch:
            self.cast(entry)
            seq = self.state.seq
            if isinstance(how, NumberedLine):
                self._producers.learn(self._producers.marks([(seq, how)]))
                self.stored_lines.append((how.producer, how.number))
            else:
                self._keys.learn([IdempotencyRecord(how.key, seq, seq, how.digest)])
            done(None, seq)

    def now_utc(self) -> str:
        return stored_form(datetime.now(UTC))

    def drafted(self, entries: Iterable[Entry]) -> Cast:
        """Return the cast of the next entries, as a server with a clock makes them: some may be late."""
        stamped, now_utc = list(entries), self.now_utc()
        for entry in stamped:
            entry.timestamp_utc = now_utc
        decide(stamped, horizon_in(self.state.twins, self.state.deletions))
        for seq, entry in enumerate(stamped, self.state.seq + 1):
            entry.seq, entry.epoch = seq, self.state.epoch
        return Cast(encode_all(stamped), stamped)

    def refuse_some(self, count: int) -> None:
        """Fail a commit of the first `count` updates; what waits behind it in their lanes fails too."""
        batch, behind = self._waiting[:count], self._waiting[count:]
        lanes = set().union(*(waiting[2] for waiting in batch))
        lost, self._waiting = [], []
        for waiting in behind:
            if waiting[2] & lanes:
                lanes |= waiting[2]
                lost.append(waiting)
            else:
                self._waiting.append(waiting)
        for _, done, *_ in batch:
            done(JournalUnavailable("the disk is full"), 0)
        for _, done, *_ in lost:
            done(OutOfOrder("behind one that failed"), 0)

    def new_run(self) -> None:
        """Start anew on the same log: what was not committed is forgotten, and the epoch is another one."""
        self._waiting = []
        self._keys = IdempotencyIndex(self._keys._stored.counting(self.state.seq))
        self._producers = ProducerIndex(self._producers._marks.values())
        self.state.epoch = f"{self._log}-{len(self.epochs) + 1}"
        self.epochs.add(self.state.epoch)


class FakeLink:
    """One connection. What each side says waits until the test lets the other one hear it."""

    def __init__(self, server: LogServer, query: str, message_max_bytes: int) -> None:
        self.to_server: deque[str] = deque()
        self.to_client: deque[str] = deque()
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self._ended: asyncio.Future[Close | None] = asyncio.get_running_loop().create_future()
        self._message_max_bytes = message_max_bytes
        self.session = Session(self, server, AnyonesVisit, outbox_max_bytes=1 << 30)
        self.session.begin(query)

    # For the session.

    def write(self, cast: Cast) -> None:
        self.to_client.extend(message.decode() for message in cast.messages)

    def close(self, code: int, reason: str) -> None:
        self.end(Close(code, reason))

    # For the client.

    async def send(self, text: str) -> None:
        if self._ended.done():
            raise self._lost()
        self.to_server.append(text)
        await asyncio.sleep(0)

    async def recv(self) -> str:
        if self._heard.empty() and not self._ended.done():
            getting = asyncio.ensure_future(self._heard.get())
            either: list[asyncio.Future[Any]] = [getting, self._ended]
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    return getting.result()
            finally:
                getting.cancel()
        if not self._heard.empty():
            return self._heard.get_nowait()
        raise self._lost()

    # For the test.

    @property
    def is_open(self) -> bool:
        return not self._ended.done()

    @property
    def is_all_taken(self) -> bool:
        """Whether the client has taken all that it was let hear."""
        return self._heard.empty()

    def let_server_hear(self, count: int) -> None:
        """Let the server hear some messages, as far as they are within what somebody on the way takes."""
        for _ in range(min(count, len(self.to_server))):
            text = self.to_server.popleft()
            if len(text) > self._message_max_bytes:
                self.end(Close(TooLarge.close_code, "too large for somebody on the way"))
            if "poison" in text:
                self.end(Close(UnsupportedMedia.close_code, "not this one"))
            if not self.is_open:
                return
            self.session.receive(text.encode())

    def let_client_hear(self, count: int) -> None:
        for _ in range(min(count, len(self.to_client))):
            if self.is_open:
                self._heard.put_nowait(self.to_client.popleft())

    def end(self, close: Close | None = None) -> None:
        """End the connection: cut off, or by a close frame, behind what the client was let hear."""
        if self.is_open:
            self.session.end()
            self._ended.set_result(close)

    def _lost(self) -> ConnectionClosedError:
        return ConnectionClosedError(self._ended.result(), None)


class FakeNetwork:
    """Opens links to a server that may be away, and may be another one the next time."""

    def __init__(self, server: LogServer) -> None:
        self.server = server
        self.link: FakeLink | None = None
        self.is_away = False
        self.message_max_bytes = 1 << 30

    @asynccontextmanager
    async def open(self, base: str, query: str, **_: Any) -> AsyncIterator[FakeLink]:
        """Stand in for open_link."""
        await asyncio.sleep(0)
        if self.is_away:
            raise Retryable(ServerUnreachable("the server is away"))
        link = self.link = FakeLink(self.server, query, self.message_max_bytes)
        try:
            yield link
        finally:
            link.end()
            await asyncio.sleep(0)

    def limit(self, message_max_bytes: int, value_max_bytes: int) -> None:
        """Lower or raise what the server says that it takes, for connections from now on."""
        self.server.sizes = SizeLimits(message_max_bytes=message_max_bytes, value_max_bytes=value_max_bytes)
        self.server.snapshots._sizes = self.server.sizes

    def replace(self, server: LogServer) -> None:
        """Put another server, with another log, in the place of this one."""
        if self.link is not None:
            self.link.end()
        self.server = server
