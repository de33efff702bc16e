"""Updates by way of the program's own disk: accepted once on it, sent, and removed once the server has them.

Live readings are sent first, and beside them what waited for a connection, the backlog. Each of the two is a producer
of its own, so that the server stores each line once and keeps the order within each.

Lines that arrive while others are being written are written together, as in the server: one fsync for all. Memory
holds only what one connection sends ahead; the rest is read in its turn, so a backlog costs disk alone.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from twincast.client.failures import Retryable
from twincast.client.lane import Lane, Update
from twincast.client.limits import Limits
from twincast.client.message import MEASURED, Message, encode
from twincast.client.outgoing import IN_FLIGHT_MAX, Backlog, Outgoing, refused
from twincast.client.precedence import Precedence
from twincast.client.spool_file import SpoolFile
from twincast.client.spool_line import Refusal, Row
from twincast.client.spool_window import Window
from twincast.client.stamp import Stamps
from twincast.core.model import NOT_YET
from twincast.errors import ServerUnreachable, SpoolFull, SpoolUnusable, TwincastError, ValidationFailed

SPOOL_MIN_BYTES = 64 * 1024
"""The smallest spool: it has room for one message."""
REMOVE_INTERVAL_S = 1.0
"""How long a line that the server has may stay in the file: if a new line comes, both need one write."""
BACKLOG_AHEAD_BYTES = 64 * 1024
"""How much of the backlog is sent ahead of its answers: on a slow network live lines wait behind it."""
BACKLOG_SHARE = 5
"""Of so many lines one is of the backlog, while live ones wait: else a fast program would keep it waiting for ever."""
IN_ORDER_MAX_BYTES = 256 * 1024
"""Up to here what waited goes out in order, as it came, for its newest is there in a moment all the same."""
LIVE_MAX_LINES = 65_536
"""If more live lines wait than this, they are no longer the present. A burst of fewer keeps its order."""
PRESENT_SPANS = 16
"""Readings in so many spans of IN_FLIGHT_MAX lines before the last count as the newest of their device: a window has
lines of one span, so each of them takes a journey to the server and back."""

T = TypeVar("T")

logger = logging.getLogger("twincast.client")


class SpooledOutgoing(Outgoing):
    """See Outgoing. Each update is a line with a number that is never used again; under it the server stores it once.

    A line goes through these states:

    - *entered*: it has a number and a time, and waits for the next write (`_entered`).
    - *in the file*: the write succeeded, so its sender has NOT_YET or a receipt. A write that failed refuses the line;
      its number stays used, for nobody knows what a failing disk kept. In the file it is *undecided*, *live* or in the
      *backlog*; the latter two never change into one another, since the line may have been sent as what it is.
    - *in a window*: it is in memory too (`_live`, `_backlog`), and goes through the states of Outgoing.
    - *answered*: the server has it, or has refused it for good. It leaves the window at once, and the file with the
      next write (`_removed`); a refused one moves to the file's table of refusals (`_refusals`).

    Which part of the file a line belongs to depends on whether this client *is live* (`_is_live`):

    - At first, and after each loss of the connection, it is not, and new lines are undecided.
    - Once there is a connection, it decides (`_catch_up`), and is live. If few lines wait, all of them become live, in
      order. If there are more, it is the newest reading of each device: the present; the others are the backlog.
    - While it is live, new lines are live, but for those that must not pass the backlog (see Precedence).
    - If LIVE_MAX_LINES live lines wait, it is not live until all of them are answered.

    One task, `_run`, does all writes and reads, in one thread, so that they keep their order.
    """

    def __init__(self, file: SpoolFile, max_bytes: int, window_max_bytes: int, stamps: Stamps | None = None) -> None:
        """Take over a spool; `start` begins.

        Args:
            file: where lines are kept.
            max_bytes: how much may wait in it.
            window_max_bytes: how much of it may be in memory.
            stamps: the time at which lines are handed over.

        Raises:
            ValidationFailed: `max_bytes` is less than one message.
        """
        if max_bytes < SPOOL_MIN_BYTES:
            raise ValidationFailed(
                f"`spool_max_bytes` must be at least {SPOOL_MIN_BYTES}, one message; not {max_bytes}"
            )
        backlog_max_bytes = min(window_max_bytes, BACKLOG_AHEAD_BYTES)
        self._live = Window(f"{file.producer}-live", file.live, is_live=True, max_bytes=window_max_bytes)
        self._backlog = Window(file.producer, file.backlog, is_live=False, max_bytes=backlog_max_bytes)
        super().__init__(window_max_bytes, (self._live, self._backlog))
        self._precedence = Precedence(file.live, file.backlog, file.undecided, file.without_time())
        self._file = file
        self._stamps = stamps or Stamps()
        self._spool_max_bytes = max_bytes
        self._kept_bytes = file.size_bytes  # of all lines without an answer, in the file and on their way there
        self._kept_lines = file.lines
        self._last_line = file.last_line
        self._last_behind = file.backlog.last  # the newest line that did not pass the backlog
        self._is_live = self._is_released = self._must_take_back = False
        self._must_decide = True
        self._turns = 0
        self._receipts: dict[int, asyncio.Future[int]] = {}
        self._entered: list[tuple[Row, asyncio.Future[int]]] = []
        self._removed: list[int] = []
        self._refusals: list[Refusal] = []
        self._is_due = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="client's spool")
        self._task: asyncio.Task[None] | None = None

    @property
    def backlog(self) -> Backlog:
        """See Outgoing."""
        return Backlog(self._kept_lines, self._kept_bytes, self._file.refused + len(self._refusals))

    def start(self) -> None:
        """Begin to write what arrives, and to send what is in the file."""
        self._is_due.set()
        self._task = asyncio.create_task(self._run(), name="client's spool")

    async def close(self) -> None:
        """Finish the writes under way; then the file may be closed."""
        self._is_closing = True
        self._is_due.set()
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._task is not None:
                await self._task
        finally:
            self._thread.shutdown()

    async def begin(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """Take an update, under the next number; the future becomes NOT_YET once it is on this disk.

        Raises:
            SpoolFull: `max_bytes` wait already.
            TwincastError: there will be no connection any more; the update was not taken.
        """
        row = self._numbered(message, value_bytes)
        if (error := self._limits.refusal(len(self._text(row, self._live)), value_bytes)) is not None:
            return refused(error)
        return self._enter(row)

    async def put(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """See Outgoing; returns once the update is on this disk. Raises what `begin` raises."""
        row = self._numbered(message, value_bytes)
        if (error := self._limits.refusal(len(self._text(row, self._live)), value_bytes)) is not None:
            return refused(error)
        written = self._enter(row)
        receipt = self._receipts[row.line] = _receipt()
        try:
            await written
        except TwincastError:
            self._receipts.pop(row.line, None)
            raise
        return receipt

    async def settle(self) -> None:
        """Wait until the server has answered every line in the spool, those of earlier processes too."""
        while self._kept_lines and self._failed is None:
            self._is_empty.clear()
            await self._is_empty.wait()

    def fail(self, error: TwincastError) -> None:
        """See Outgoing; lines in the file stay there."""
        super().fail(error)
        for receipt in self._receipts.values():
            if not receipt.done():
                receipt.set_exception(error)
        self._receipts.clear()
        self._is_empty.set()

    def connected(self, limits: Limits, *, is_ordered: bool, server_utc: str = "") -> None:
        """See Outgoing.

        Raises:
            Retryable: this server knows no numbered lines, so it would neither keep their order nor store each once.
        """
        if not is_ordered:
            raise Retryable(
                ServerUnreachable("the server is of a version that knows no numbered lines; a spool needs them")
            )
        self._stamps.compare(server_utc)
        super().connected(limits, is_ordered=is_ordered, server_utc=server_utc)
        self._is_due.set()

    def disconnected(self, code: int | None = None) -> None:
        """See Outgoing."""
        super().disconnected(code)
        self._is_live = self._is_released = False
        self._must_decide = self._must_take_back = True
        self._is_due.set()

    def answer(self, message: Message) -> bool:
        """See Outgoing.

        Raises:
            SpoolUnusable: the server has lines of this producer that this file, as it is, did not send.
        """
        number, stored = message.get("id"), message.get("line")
        lane = next((lane for lane in (self._live, self._backlog) if number in lane.unanswered), None)
        if isinstance(stored, int) and lane is not None and isinstance(number, int) and number > lane.sent_before:
            raise SpoolUnusable(
                f"the server has line {stored} of this spool already, and line {number} was sent for the first time:"
                " the file was set back or copied, and its new lines would be taken for stored ones. The line is kept;"
                " see docs/client.md, A spool that was copied"
            )
        return super().answer(message)

    def _numbered(self, message: Message, value_bytes: int) -> Row:
        text = encode({name: part for name, part in message.items() if name != MEASURED}).decode()
        return Row(self._last_line + 1, text, value_bytes, self._stamps.stamp(), message.get(MEASURED))

    def _enter(self, row: Row) -> asyncio.Future[int]:
        if self._failed is not None:
            raise self._failed
        if self._kept_bytes + row.size_bytes > self._spool_max_bytes:
            raise SpoolFull(
                f"{self._kept_lines} lines with {self._kept_bytes} bytes wait in the spool already, and it may hold"
                f" {self._spool_max_bytes}; a larger `spool_max_bytes` allows more"
            )
        self._last_line = row.line
        self._kept_bytes += row.size_bytes
        self._kept_lines += 1
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._entered.append((row, written))
        self._is_due.set()
        return written

    def _text(self, row: Row, window: Window) -> bytes:
        ids = {"id": row.line, "producer": window.producer, "line": row.line}
        if row.has_time:
            ids[MEASURED] = row.accepted_at_utc if row.measured_at_utc is None else row.measured_at_utc
        return b"%b,%b" % (encode(ids)[:-1], row.message[1:].encode())

    async def _run(self) -> None:
        while not self._is_closing:
            await self._is_due.wait()
            self._is_due.clear()
            await self._write()
            await self._catch_up()
            await self._read_on(self._live)
            self._release()
            await self._read_on(self._backlog)
        await self._write()

    async def _write(self) -> None:
        """Write new lines and remove answered ones, in one transaction."""
        entered, self._entered = self._entered, []
        removed, self._removed = self._removed, []
        refusals, self._refusals = self._refusals, []
        if not entered and not removed:
            return
        rows = [self._place(row) for row, _ in entered]
        try:
            write = partial(self._file.write, rows, removed, refusals, refused_max_bytes=self._spool_max_bytes)
            await self._in_thread(write)
        except Exception as error:
            self._removed, self._refusals = removed + self._removed, refusals + self._refusals
            for row, part in rows:
                self._precedence.remove(row, part)
            unknown = SpoolUnusable(f"the spool failed: {type(error).__name__}")
            self._not_written(entered, error if isinstance(error, TwincastError) else unknown)
            return
        for row, part in rows:
            if part is not None:
                window = self._live if part else self._backlog
                window.unread += bool(window.unread) or not self._take(window, row)
        for _, written in entered:
            if not written.done():  # its caller may have given up
                written.set_result(NOT_YET)

    def _not_written(self, entered: list[tuple[Row, asyncio.Future[int]]], error: TwincastError) -> None:
        if not entered:
            logger.warning("lines that the server has stay in the spool for now; nothing is lost: %s", error.message)
            self._remove_later()
        for row, written in entered:  # its number is not used again: the failing disk may have kept the line
            self._kept_bytes -= row.size_bytes
            self._kept_lines -= 1
            if not written.done():
                written.set_exception(error)
        if not self._kept_lines:
            self._is_empty.set()

    def _place(self, row: Row) -> tuple[Row, bool | None]:
        if self._precedence.live >= LIVE_MAX_LINES:
            self._is_live = False
        row = self._precedence.timed(row)
        part = self._precedence.place(row, is_live=self._is_live)
        if part is False:
            self._last_behind = row.line
        return row, part

    async def _catch_up(self) -> None:
        """Decide what is live, once there is a connection; before that take back what was not sent."""
        try:
            if not self.is_connected:
                await self._take_back()
            elif not self._is_live and (self._must_decide or not self._precedence.live):
                await self._decide()
                self._is_live = self.is_connected
        except TwincastError as error:
            logger.warning("the spool cannot be written yet, and the backlog goes on without its newest: %s", error)
            self._remove_later()
        if self.is_connected:
            self._must_decide = False

    def _release(self) -> None:
        """Have the backlog sent, once the newest of it is among the live lines."""
        if self.is_connected and not self._must_decide:
            self._is_released = True
            self._has_work.set()

    async def _take_back(self) -> None:
        """Make live lines undecided that were never sent, and that no line of the backlog has passed."""
        if not self._must_take_back or self._is_closing:
            return
        if self._live.unread:
            after = max(self._live.read_until, self._live.sent_before, self._last_behind, self._file.decided_until)
            lines, without_time = await self._in_thread(partial(self._file.take_back, after))
            self._live.unread -= lines.number
            self._precedence.take_back(lines, without_time)
        self._must_take_back = False

    async def _decide(self) -> None:
        precedence = self._precedence
        if not precedence.undecided:
            return
        are_few = precedence.undecided <= IN_FLIGHT_MAX and precedence.undecided_bytes <= IN_ORDER_MAX_BYTES
        if are_few and precedence.may_all_be_live:
            await self._in_thread(self._file.make_all_live)
            self._live.unread += precedence.undecided
            precedence.decide_all_live()
            return
        span, but = PRESENT_SPANS * IN_FLIGHT_MAX, precedence.held
        live = await self._in_thread(partial(self._file.make_newest_live, span, IN_FLIGHT_MAX, but))
        self._live.unread += live.number
        self._backlog.unread += precedence.undecided - live.number
        precedence.decide_backlog(live)

    async def _read_on(self, window: Window) -> None:
        """Read lines into a window, until it is full."""
        while window.unread and window.has_room and self._failed is None:
            count, size_bytes = window.max_lines - len(window.rows), window.room_bytes
            read = partial(self._file.read, window.read_until, count, size_bytes, is_live=window.is_live)
            try:
                rows = await self._in_thread(read)
            except TwincastError as error:
                logger.warning("the backlog cannot be read yet: %s", error.message)
                self._remove_later()
                return
            for row in rows:
                if not self._take(window, row):
                    return
                window.unread -= 1
            if not rows:  # impossible, as long as no other program has the file
                return

    def _take(self, window: Window, row: Row) -> bool:
        """Put a line into a window, if there is room; one beyond the limits of this server is refused."""
        if self._failed is not None or not (window.has_room and window.reaches(row.line)):
            return False
        window.read_until = row.line
        window.rows[row.line] = row
        receipt = self._receipts.get(row.line) or _receipt()
        text = self._text(row, window)
        update = Update(text.decode(), len(text), row.value_bytes, row.is_deletion, receipt)
        self._add(window, row.line, update)
        if (error := self._limits.refusal(len(text), row.value_bytes)) is not None:
            self._settle(row.line, error)
        return True

    def _next_lane(self) -> Lane | None:
        """See Outgoing. Live lines go first, but the backlog gets its share."""
        may_backlog = self._is_released and not self._precedence.holds_backlog and self._may_send(self._backlog)
        if not self._may_send(self._live):
            return self._backlog if may_backlog else None
        self._turns += may_backlog
        return self._backlog if may_backlog and not self._turns % BACKLOG_SHARE else self._live

    def _settle(self, number: int, error: TwincastError | None, seq: int = 0) -> None:
        window = self._live if number in self._live.rows else self._backlog
        row = window.rows.pop(number, None)
        if row is not None:
            self._precedence.remove(row, window.is_live)
            self._receipts.pop(number, None)
            self._kept_bytes -= row.size_bytes
            self._kept_lines -= 1
            self._removed.append(number)
            if error is not None:
                self._refusals.append(Refusal(number, error.code, error.message))
                logger.warning(
                    "line %d of the spool was refused, and is kept in its table of refusals: %s", number, error.message
                )
            if not self._kept_lines:
                self._is_empty.set()
            is_drained = window.is_live and not self._precedence.live and not self._is_live
            if is_drained or (window.unread and window.is_half_empty):
                self._is_due.set()
            self._remove_later()
            if not row.has_time:  # the backlog may have waited for it
                self._has_work.set()
        super()._settle(number, error, seq)

    def _remove_later(self) -> None:
        if self._timer is None and not self._is_closing:
            self._timer = asyncio.get_running_loop().call_later(REMOVE_INTERVAL_S, self._remove)

    def _remove(self) -> None:
        self._timer = None
        self._is_due.set()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _receipt() -> asyncio.Future[int]:
    receipt: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    receipt.add_done_callback(_retrieve)
    return receipt


def _retrieve(receipt: asyncio.Future[int]) -> None:
    """Mark its error as retrieved: waiting for a receipt is optional; a refusal is logged and kept in the file."""
    if not receipt.cancelled():
        receipt.exception()
