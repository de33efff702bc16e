"""What is sent to NATS, bounded: no more than a window of it is unconfirmed at any time."""

import asyncio
from collections.abc import Callable

from twincast.core.peers import NOTHING_SENT
from twincast.errors import JournalUnavailable
from twincast.transports.nats import Link

WINDOW_BYTES = 4 << 20
"""How much may be on its way before NATS says that it has it; above it nothing more is asked of the log."""
CONFIRM_S = 0.05
"""At most so often NATS is asked. What was sent since the last time may be sent twice, by the server that goes on."""


class Outlet:
    """Sends to one connection, and knows up to where NATS has it. `run` asks NATS, until cancelled."""

    def __init__(self, link: Link, *, window_bytes: int = WINDOW_BYTES, confirm_s: float = CONFIRM_S) -> None:
        """Send nothing yet. `window_bytes` bounds what is unconfirmed; every `confirm_s`, at most, NATS is asked."""
        self._link = link
        self._window_bytes = window_bytes
        self._confirm_s = confirm_s
        self._unconfirmed_bytes = 0
        self._has_sent = asyncio.Event()
        self._connection = 0  # counts those that were lost
        self._sent_seq = NOTHING_SENT
        self.confirmed_seq = NOTHING_SENT
        """The position up to which NATS has everything for certain."""
        self.on_room: Callable[[], None] = _do_nothing
        """Called when the outlet is no longer full."""
        self.on_loss: Callable[[], None] = _do_nothing
        """Called when the connection is lost, and with it what was not confirmed."""
        link.on_connection.append(self._note_connection)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be sent, until `on_room`."""
        return self._unconfirmed_bytes >= self._window_bytes

    @property
    def sent_seq(self) -> int:
        """The position of the newest event that was sent."""
        return self._sent_seq

    def begin_behind(self, seq: int) -> None:
        """Take it that NATS has all events up to a position."""
        self._sent_seq = self.confirmed_seq = seq

    def skip_to(self, seq: int) -> None:
        """Take it that the events up to a position will not be sent, once those before them are confirmed."""
        self._sent_seq = seq
        self._has_sent.set()

    def send(self, lines: bytes, seq: int = 0) -> None:
        """Send lines, also when full.

        Args:
            lines: what to send.
            seq: the position of the last event in them; 0 if they have none.

        Raises:
            JournalUnavailable: there is no connection; what was sent and not confirmed may be lost.
        """
        self._link.send(lines)
        self._unconfirmed_bytes += len(lines)
        self._sent_seq = seq or self._sent_seq
        self._has_sent.set()

    async def run(self) -> None:
        """Ask NATS for what it has."""
        while True:
            await self._has_sent.wait()
            self._has_sent.clear()
            connection, sent_bytes, sent_seq = self._connection, self._unconfirmed_bytes, self._sent_seq
            try:
                await self._link.confirm()
            except JournalUnavailable:
                if self._link.is_connected:  # NATS is slow; a dead connection is ended by its own pings
                    self._has_sent.set()
            else:
                if connection == self._connection:
                    self._confirm(sent_bytes, sent_seq)
            await asyncio.sleep(self._confirm_s)

    def _confirm(self, sent_bytes: int, sent_seq: int) -> None:
        self.confirmed_seq = max(self.confirmed_seq, sent_seq)
        was_full = self.is_full
        self._unconfirmed_bytes -= sent_bytes
        if was_full and not self.is_full:
            self.on_room()

    def _note_connection(self, is_connected: bool) -> None:
        if not is_connected:
            self._connection += 1
            self._unconfirmed_bytes = 0
            self._sent_seq = self.confirmed_seq
            self.on_loss()


def line(subject: str, payload: bytes) -> bytes:
    """Return a message as NATS's protocol has it (https://docs.nats.io/reference/reference-protocols/nats-protocol)."""
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)


def _do_nothing() -> None:
    """Be called where nobody needs to know."""
