"""What a program sends, by way of its own disk: accepted when it is there, sent in order, gone when the server has it.

Lines that come while others are written go together, as in the server: one fsync for all. In memory is only what one
connection sends ahead; the rest is read when it is its turn, so a backlog costs disk alone.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from twincast.client.events import Backlog
from twincast.client.failures import Retried
from twincast.client.link import Message, encode
from twincast.client.outgoing import IN_FLIGHT_MAX, Limits, Outgoing, refused
from twincast.client.spool_file import Refusal, Row, SpoolFile
from twincast.core.model import NOT_YET
from twincast.errors import ServerUnreachable, SpoolFull, SpoolUnusable, TwincastError, ValidationFailed

SPOOL_MIN_BYTES = 64 * 1024
"""The least that a spool may be told to hold: one message."""
REMOVE_INTERVAL_S = 1.0
"""How long what the server has may stay in the file, to go with the next line that comes: half of the writes."""

T = TypeVar("T")

logger = logging.getLogger("twincast.client")


class Spooling(Outgoing):
    """See Outgoing; of what is accepted each has a number for good, under which the server stores it once."""

    def __init__(self, file: SpoolFile, max_bytes: int, window_max_bytes: int) -> None:
        """Take a spool over; `start` begins.

        Args:
            file: where lines are kept.
            max_bytes: how much may wait there.
            window_max_bytes: how much of it is in memory.

        Raises:
            ValidationFailed: no spool can be so small.
        """
        if max_bytes < SPOOL_MIN_BYTES:
            raise ValidationFailed(f"`spool_max_bytes` takes at least {SPOOL_MIN_BYTES}, one message; not {max_bytes}")
        super().__init__(window_max_bytes)
        self._file = file
        self._spool_max_bytes = max_bytes
        self._kept_bytes = file.size_bytes  # of all that has no answer, in the file and under way there
        self._kept_lines = file.lines
        self._last_line = file.last_line
        self._sent_before = file.last_line  # up to here a line may have been sent by another process, or another time
        self._unread = file.lines  # in the file, behind what is in memory
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
        """Begin to write what comes, and to send what there is."""
        self._is_due.set()
        self._task = asyncio.create_task(self._run(), name="client's spool")

    async def close(self) -> None:
        """Write down what is under way; then the file may be closed."""
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
        """Take an update; the future is NOT_YET once it is on this disk, with the next number.

        Raises:
            SpoolFull: as much waits as may.
            TwincastError: there will be no connection any more; nothing was taken.
        """
        row = self._numbered(message, value_bytes)
        if (error := self._too_large(len(self._text(row)), value_bytes)) is not None:
            return refused(error)
        return self._enter(row)

    async def put(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """See Outgoing; returns once the update is on this disk. Raises what `begin` raises."""
        row = self._numbered(message, value_bytes)
        if (error := self._too_large(len(self._text(row)), value_bytes)) is not None:
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
        """Wait until the server has answered all that is in the spool, from before too."""
        while self._kept_lines and self._failed is None:
            self._is_empty.clear()
            await self._is_empty.wait()

    def fail(self, error: TwincastError) -> None:
        """See Outgoing; what is in the file stays there."""
        super().fail(error)
        for receipt in self._receipts.values():
            if not receipt.done():
                receipt.set_exception(error)
        self._receipts.clear()
        self._is_empty.set()

    def connected(self, limits: Limits, *, is_ordered: bool) -> None:
        """See Outgoing.

        Raises:
            Retried: this server would not keep the order of lines, nor know them again.
        """
        if not is_ordered:
            raise Retried(
                ServerUnreachable("the server is of a version that takes no numbered lines; a spool needs them")
            )
        super().connected(limits, is_ordered=is_ordered)

    def answer(self, message: Message) -> bool:
        """See Outgoing.

        Raises:
            SpoolUnusable: the server has lines of this producer that are not from this file as it is.
        """
        number, stored = message.get("id"), message.get("line")
        if isinstance(stored, int) and number in self._unanswered and number > self._sent_before:
            raise SpoolUnusable(
                f"the server has line {stored} of this spool already, and line {number} was sent for the first time:"
                " the file was set back or copied, and what is new in it would be taken for stored. The line is kept;"
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
                f"{self._kept_lines} lines of {self._kept_bytes} bytes wait for the server in the spool already, and it"
                f" may hold {self._spool_max_bytes}; `spool_max_bytes` allows more"
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
        """Write what has come and what may go, together."""
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
            if not written.done():  # whoever gave it may have given up
                written.set_result(NOT_YET)

    def _not_written(self, entered: list[tuple[Row, asyncio.Future[int]]], error: TwincastError) -> None:
        if not entered:
            logger.warning("what the server has stays in the spool for now, nothing is lost: %s", error.message)
            self._remove_later()
        for row, written in entered:  # its number is not used again, for nobody knows what a failed disk has kept
            self._kept_bytes -= row.size_bytes
            self._kept_lines -= 1
            if not written.done():
                written.set_exception(error)
        if not self._kept_lines:
            self._is_empty.set()

    async def _read_on(self) -> None:
        """Bring lines into memory, as many as are sent ahead."""
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
            if not rows:  # which cannot be, while nobody else has the file
                return

    def _has_room_for_more(self) -> bool:
        if self._failed is not None:
            return False
        is_full = len(self._window) >= IN_FLIGHT_MAX or self._size_bytes >= self._max_bytes
        return not (self._window and is_full)  # one goes in any case

    def _take(self, row: Row) -> bool:
        """Have a line sent, if it is within what is sent ahead of the oldest one's answer."""
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
                logger.warning("line %d of the spool was refused, and is kept aside in it: %s", number, error.message)
            if not self._kept_lines:
                self._is_empty.set()
            if self._unread and len(self._window) <= IN_FLIGHT_MAX // 2:  # not a read for each
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
    """Nobody has to wait for a receipt: what is refused is logged, and kept aside."""
    if not receipt.cancelled():
        receipt.exception()
