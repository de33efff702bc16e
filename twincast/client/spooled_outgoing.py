"""Updates by way of the program's own disk: accepted once on it, sent in order, removed once the server has them.

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
from twincast.client.limits import Limits
from twincast.client.link import Message, encode
from twincast.client.outgoing import IN_FLIGHT_MAX, Backlog, Outgoing, refused
from twincast.client.spool_file import Refusal, Row, SpoolFile
from twincast.core.model import NOT_YET
from twincast.errors import ServerUnreachable, SpoolFull, SpoolUnusable, TwincastError, ValidationFailed

SPOOL_MIN_BYTES = 64 * 1024
"""The smallest spool: it has room for one message."""
REMOVE_INTERVAL_S = 1.0
"""How long a line that the server has may stay in the file: if a new line comes, both need one write."""

T = TypeVar("T")

logger = logging.getLogger("twincast.client")


class SpooledOutgoing(Outgoing):
    """See Outgoing. Each update is a line with a number that is never used again; under it the server stores it once.

    A line goes through these states:

    - *entered*: it has a number, and waits for the next write (`_entered`).
    - *in the file*: the write succeeded, so its sender has NOT_YET or a receipt. Lines beyond what one connection sends
      ahead are only there (`_unread` counts them). A write that failed refuses the line; its number stays used, for
      nobody knows what a failing disk kept.
    - *in the window*: it is in memory too (`_window`), and goes through the states of Outgoing.
    - *answered*: the server has it, or has refused it for good. It leaves the window at once, and the file with the
      next write (`_removed`); a refused one moves to the file's table of refusals (`_refusals`).

    One task, `_run`, does all writes and reads, in one thread, so that they keep their order.
    """

    def __init__(self, file: SpoolFile, max_bytes: int, window_max_bytes: int) -> None:
        """Take over a spool; `start` begins.

        Args:
            file: where lines are kept.
            max_bytes: how much may wait in it.
            window_max_bytes: how much of it may be in memory.

        Raises:
            ValidationFailed: `max_bytes` is less than one message.
        """
        if max_bytes < SPOOL_MIN_BYTES:
            raise ValidationFailed(
                f"`spool_max_bytes` must be at least {SPOOL_MIN_BYTES}, one message; not {max_bytes}"
            )
        super().__init__(window_max_bytes)
        self._file = file
        self._spool_max_bytes = max_bytes
        self._kept_bytes = file.size_bytes  # of all lines without an answer, in the file and on their way there
        self._kept_lines = file.lines
        self._last_line = file.last_line
        self._sent_before = file.last_line  # up to here an earlier process or connection may have sent a line
        self._unread = file.lines  # lines in the file behind the window
        self._read_until = 0
        self._window: dict[int, Row] = {}
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
        if (error := self._limits.refusal(len(self._text(row)), value_bytes)) is not None:
            return refused(error)
        return self._enter(row)

    async def put(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """See Outgoing; returns once the update is on this disk. Raises what `begin` raises."""
        row = self._numbered(message, value_bytes)
        if (error := self._limits.refusal(len(self._text(row)), value_bytes)) is not None:
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

    def connected(self, limits: Limits, *, is_ordered: bool) -> None:
        """See Outgoing.

        Raises:
            Retryable: this server knows no numbered lines, so it would neither keep their order nor store each once.
        """
        if not is_ordered:
            raise Retryable(
                ServerUnreachable("the server is of a version that knows no numbered lines; a spool needs them")
            )
        super().connected(limits, is_ordered=is_ordered)

    def answer(self, message: Message) -> bool:
        """See Outgoing.

        Raises:
            SpoolUnusable: the server has lines of this producer that this file, as it is, did not send.
        """
        number, stored = message.get("id"), message.get("line")
        if isinstance(stored, int) and number in self._unanswered and number > self._sent_before:
            raise SpoolUnusable(
                f"the server has line {stored} of this spool already, and line {number} was sent for the first time:"
                " the file was set back or copied, and its new lines would be taken for stored ones. The line is kept;"
                " see docs/client.md, A spool that was copied"
            )
        return super().answer(message)

    def _numbered(self, message: Message, value_bytes: int) -> Row:
        return Row(self._last_line + 1, encode(message).decode(), value_bytes)

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

    def _text(self, row: Row) -> bytes:
        ids = {"id": row.line, "producer": self._file.producer, "line": row.line}
        return b"%b,%b" % (encode(ids)[:-1], row.message[1:].encode())

    async def _run(self) -> None:
        while not self._is_closing:
            await self._is_due.wait()
            self._is_due.clear()
            await self._write()
            await self._read_on()
        await self._write()

    async def _write(self) -> None:
        """Write new lines and remove answered ones, in one transaction."""
        entered, self._entered = self._entered, []
        removed, self._removed = self._removed, []
        refusals, self._refusals = self._refusals, []
        if not entered and not removed:
            return
        rows = [row for row, _ in entered]
        try:
            write = partial(self._file.write, rows, removed, refusals, refused_max_bytes=self._spool_max_bytes)
            await self._in_thread(write)
        except Exception as error:
            self._removed, self._refusals = removed + self._removed, refusals + self._refusals
            unknown = SpoolUnusable(f"the spool failed: {type(error).__name__}")
            self._not_written(entered, error if isinstance(error, TwincastError) else unknown)
            return
        fits = not self._unread
        for row in rows:
            fits = fits and self._take(row)
            self._unread += not fits
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

    async def _read_on(self) -> None:
        """Read lines into the window, until it is full."""
        while self._unread and self._has_room_for_more():
            try:
                count, size_bytes = IN_FLIGHT_MAX - len(self._window), self._max_bytes - self._size_bytes
                rows = await self._in_thread(partial(self._file.read, self._read_until, count, size_bytes))
            except TwincastError as error:
                logger.warning("the backlog cannot be read yet: %s", error.message)
                self._remove_later()
                return
            for row in rows:
                if not self._take(row):
                    return
                self._unread -= 1
            if not rows:  # impossible, as long as no other program has the file
                return

    def _has_room_for_more(self) -> bool:
        if self._failed is not None:
            return False
        is_full = len(self._window) >= IN_FLIGHT_MAX or self._size_bytes >= self._max_bytes
        return not (self._window and is_full)  # one line fits in any case

    def _take(self, row: Row) -> bool:
        """Put a line into the window, if it is at most IN_FLIGHT_MAX behind the oldest one there."""
        oldest = next(iter(self._window), row.line)
        if not self._has_room_for_more() or row.line - oldest >= IN_FLIGHT_MAX:
            return False
        self._read_until = row.line
        self._window[row.line] = row
        receipt = self._receipts.get(row.line) or _receipt()
        is_barrier = row.message.startswith('{"type":"delete"')
        self._add(row.line, self._text(row), row.value_bytes, receipt, is_barrier=is_barrier)
        return True

    def _rewind(self) -> None:
        self._sent_before = max(self._sent_before, self._unsent - 1)
        super()._rewind()

    def _settle(self, number: int, error: TwincastError | None, seq: int = 0) -> None:
        row = self._window.pop(number, None)
        if row is not None:
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
            if self._unread and len(self._window) <= IN_FLIGHT_MAX // 2:  # not one read for each line
                self._is_due.set()
            self._remove_later()
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
