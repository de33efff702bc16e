"""`twincast send`: one value from the command line, or one a line from standard input."""

import asyncio
import sys
from collections.abc import Iterable
from functools import partial

from twincast.cli import rights
from twincast.cli.terminal import err, out, say_waiting
from twincast.cli.words import counted, raw_json, value_of
from twincast.client import Rest, connect
from twincast.errors import BadMessage, SettingUnusable, TwincastError


def send(url: str, device_id: str, text: str) -> None:
    """Send one value.

    Raises:
        ValueError: see `value_of`.
        TwincastError: the server refused it, or is not there.
    """
    value = value_of(text)
    with Rest(url) as rest:
        event = rest.publish(device_id, value)
    as_text = ", as text" if isinstance(value, str) else ""
    out.print(f"stored as number {event['seq']:,}{as_text}")


async def send_lines(url: str, device_id: str) -> None:
    """Send standard input, one JSON value a line, as it comes. A bad line is reported and passed over.

    Raises:
        TwincastError: some lines were not stored, or the server is not there.
    """
    failures = 0
    stored = 0

    def refuse(number: int, reason: str) -> None:
        nonlocal failures
        failures += 1
        err.print(f"line {number}: {reason}", soft_wrap=True)

    def count(number: int, future: asyncio.Future[int]) -> None:
        nonlocal stored
        if (error := future.exception()) is None:
            stored += 1
        else:
            refuse(number, str(error))

    async with connect(url, devices=(), timeout_s=0, on_link=say_waiting) as client:
        await rights.require_publish(url, device_id)
        number = 0
        while lines := await asyncio.to_thread(_some_lines):
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                try:
                    future = await client.submit(device_id, raw_json(line))
                except ValueError as error:
                    refuse(number, f"expected a JSON value, not {line.strip()[:60]!r}: {error}")
                    continue
                except BadMessage as error:
                    refuse(number, error.message)
                    continue
                future.add_done_callback(partial(count, number))
        await client.settle()
    out.print(f"stored: {counted(stored, 'reading')}")
    if failures:
        raise TwincastError(f"not stored: {counted(failures, 'line')}")


def _some_lines() -> Iterable[str]:
    """Wait for a line, and take with it what has come already, so that slow sources are live and fast ones fast."""
    if sys.stdin is None:
        raise SettingUnusable("standard input is closed, so there is nothing to send")
    return sys.stdin.readlines(1)
