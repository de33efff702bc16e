"""`twincast send`: one value from the command line, or one a line from standard input."""

import asyncio
import sys
from collections.abc import Iterable
from functools import partial
from typing import Annotated

import typer

from twincast.cli import preflight
from twincast.cli.arguments import one_word, raw_json, value_of
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import err, out, say_waiting
from twincast.cli.units import counted
from twincast.client import Client, Rest, connect
from twincast.errors import BadMessage, SettingUnusable, TwincastError

app = commands()


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def command(
    context: typer.Context,
    device: Device,
    value: Annotated[
        str,
        typer.Argument(
            help="What is JSON is that: 21.5, true, null and, quoted for a shell, '{\"rpm\": 900}' or '\"21.5\"'."
            ' All else is text, but what begins with {, \\[ or " must be JSON.'
            " - reads one JSON value a line from standard input."
        ),
    ],
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Send a reading, or one a line from standard input."""
    try:
        text = one_word([value, *context.args])
        if text == "-":
            asyncio.run(send_lines(server_url(url, fingerprint), device))
        else:
            send(server_url(url, fingerprint), device, text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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
    """Send standard input, one JSON value a line, as it comes. A bad line is reported and skipped.

    Raises:
        TwincastError: some lines were not stored, or the server is not there.
    """
    lines = _Lines()
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

    def __init__(self) -> None:
        self.stored = 0
        self.failed = 0
        self._number = 0

    async def send(self, client: Client, device_id: str, line: str) -> None:
        """Send the next line, unless it is empty; report one that is not a value."""
        self._number += 1
        if not line.strip():
            return
        try:
            future = await client.submit(device_id, raw_json(line))
        except ValueError as error:
            self._refuse(self._number, f"expected a JSON value, not {line.strip()[:60]!r}: {error}")
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
        err.print(f"line {number}: {reason}", soft_wrap=True)


def _some_lines() -> Iterable[str]:
    """Wait for a line; return it with what has come already: slow sources stay live, fast ones are read in blocks."""
    if sys.stdin is None:
        raise SettingUnusable("standard input is closed, so there is nothing to send")
    return sys.stdin.readlines(1)
