"""`twincast send NAME -`: standard input, one JSON value a line, as it comes, perhaps behind its time."""

import asyncio
import sys
from collections.abc import Iterable
from functools import partial

from twincast.cli import preflight
from twincast.cli.arguments import raw_json
from twincast.cli.lasting import say_waiting
from twincast.cli.terminal import err, out
from twincast.cli.units import counted
from twincast.client import Client, connect
from twincast.core.times import read_time
from twincast.errors import BadMessage, BadTime, SettingUnusable, TwincastError


def send(url: str, device_id: str, *, is_timed: bool = False) -> None:
    """Send standard input, one JSON value a line, as it comes. A bad line is reported and skipped.

    Args:
        url: the server.
        device_id: the device.
        is_timed: whether each line begins with the time at which its value was measured.

    Raises:
        TwincastError: some lines were not stored, or the server is not there.
    """
    asyncio.run(send_lines(url, device_id, is_timed=is_timed))


async def send_lines(url: str, device_id: str, *, is_timed: bool = False) -> None:
    """Do as `send`, in a loop that runs."""
    lines = _Lines(is_timed=is_timed)
    async with connect(url, devices=(), timeout_s=0, on_link=say_waiting) as client:
        await preflight.require_publish(url, device_id)
        while came := await asyncio.to_thread(_some_lines):
            for line in came:
                await lines.send(client, device_id, line)
        await client.settle()
    out.print(f"stored: {counted(lines.stored, 'reading')}")
    if lines.failed:
        raise TwincastError(f"not stored: {counted(lines.failed, 'line')}")


class _Lines:
    """The lines of standard input by number, and what became of them."""

    def __init__(self, *, is_timed: bool) -> None:
        self._is_timed = is_timed
        self.stored = 0
        self.failed = 0
        self._number = 0

    async def send(self, client: Client, device_id: str, line: str) -> None:
        """Send the next line, unless it is empty; report one that is not a value."""
        self._number += 1
        if not line.strip():
            return
        try:
            measured_at, text = _timed(line) if self._is_timed else (None, line)
        except BadTime as error:
            self._refuse(self._number, error.message)
            return
        try:
            future = await client.submit(device_id, raw_json(text), measured_at=measured_at)
        except ValueError as error:
            self._refuse(self._number, f"expected a JSON value, not {text.strip()[:60]!r}: {error}")
        except BadMessage as error:
            self._refuse(self._number, error.message)
        else:
            future.add_done_callback(partial(self._count, self._number))

    def _count(self, number: int, future: asyncio.Future[int]) -> None:
        if (error := future.exception()) is None:
            self.stored += 1
        else:
            self._refuse(number, str(error))

    def _refuse(self, number: int, reason: str) -> None:
        self.failed += 1
        err.print(f"line {number}: {reason}")


def _timed(line: str) -> tuple[str, str]:
    """Return the time at which a line begins, and its value."""
    time, *value = line.split(maxsplit=1)
    if not value:
        raise BadTime("expected a time, a space and a JSON value")
    return read_time(time, "the time"), value[0]


def _some_lines() -> Iterable[str]:
    """Wait for a line; return it with what has come already: slow sources stay live, fast ones are read in blocks."""
    if sys.stdin is None:
        raise SettingUnusable("standard input is closed, so there is nothing to send")
    return sys.stdin.readlines(1)
