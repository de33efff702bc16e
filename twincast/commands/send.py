"""`twincast send`: one value from the command line, or one a line from standard input."""

import asyncio
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from twincast.client import Rest, connect
from twincast.commands.terminal import err, out, say_waiting
from twincast.errors import SettingUnusable, TwincastError

LINES_AT_ONCE = 256


def value_of(text: str) -> Any:
    """Return what a word of the command line means: JSON if it is JSON, else the text itself."""
    try:
        return raw_json(text)
    except ValueError:
        return text


def raw_json(text: str) -> msgspec.Raw:
    """Check that a text is one JSON value, and keep it as it is written.

    Raises:
        ValueError: it is not.
    """
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return msgspec.Raw(text.strip().encode())


def send(url: str, device_id: str, text: str) -> None:
    """Send one value.

    Raises:
        TwincastError: the server refused it, or is not there.
    """
    with Rest(url) as rest:
        event = rest.publish(device_id, value_of(text))
    out.print(f"stored as number {event['seq']:,}")


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

    async with connect(url, devices=(), timeout_s=0, on_link=say_waiting) as hub:
        number = 0
        while lines := await asyncio.to_thread(_some_lines):
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                try:
                    future = await hub.submit(device_id, raw_json(line))
                except ValueError as error:
                    refuse(number, f"expected a JSON value, not {line.strip()[:60]!r}: {error}")
                    continue
                future.add_done_callback(partial(count, number))
        await hub.settle()
    out.print(f"stored: {stored:,} readings")
    if failures:
        raise TwincastError(f"not stored: {failures:,} of the lines")


def _some_lines() -> Iterable[str]:
    """Wait for a line, and take with it what has come already, so that slow sources are live and fast ones fast."""
    if sys.stdin is None:
        raise SettingUnusable("standard input is closed, so there is nothing to send")
    return sys.stdin.readlines(1)
