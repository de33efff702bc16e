"""The screen of `twincast watch`: every device live, with keys to scroll and sort."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from rich.live import Live

from twincast.cli import preflight
from twincast.cli.keyboard import keyboard
from twincast.cli.live_table import LiveTable
from twincast.cli.terminal import out
from twincast.client import Link, connect

REDRAW_S = 0.2


class Screen:
    """The terminal while it shows a live table; afterwards it is as it was, however that ends."""

    def __init__(self, url: str, patterns: Sequence[str]) -> None:
        self._url = url
        self._patterns = patterns
        self._table = LiveTable()
        self._keyboard = keyboard(self._pressed)
        self._live = Live(console=out.console, screen=True, auto_refresh=False)
        self._touched = asyncio.Event()
        self._quit = asyncio.Event()

    async def show(self) -> None:
        """Show events until the person quits."""
        loop = asyncio.get_running_loop()
        tasks = [
            asyncio.create_task(self._follow(), name="watch follows"),
            asyncio.create_task(self._draw(), name="watch draws"),
            asyncio.create_task(self._quit.wait(), name="watch is left"),
        ]
        try:
            self._begin()
            with suppress(NotImplementedError, AttributeError):  # Windows has neither
                loop.add_signal_handler(signal.SIGTSTP, self._pause)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            finally:
                self._end()
        for task in done:
            task.result()

    def _begin(self) -> None:
        self._table.has_keys = self._keyboard.start()
        self._live.start()

    def _end(self) -> None:
        try:
            self._live.stop()
        finally:
            self._keyboard.stop()

    def _pause(self) -> None:
        """Give the terminal back while the shell has stopped this process, as Ctrl-Z asks for."""
        self._end()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._begin()
        self._touched.set()

    def _pressed(self, key: str) -> None:
        if key == "quit":
            self._quit.set()
        self._table.press(key)
        self._touched.set()

    def _linked(self, link: Link) -> None:
        self._table.waiting = link.reason if link.phase == "waiting" else ""
        self._touched.set()

    async def _draw(self) -> None:
        while True:
            self._keyboard.poll()
            self._touched.clear()
            size = out.console.size
            self._live.update(self._table.drawn(datetime.now(UTC), size.width, size.height), refresh=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(REDRAW_S):  # ages grow, too
                    await self._touched.wait()

    async def _follow(self) -> None:
        async with connect(self._url, self._patterns or "*", timeout_s=None, on_link=self._linked) as client:
            await preflight.require_read(self._url, self._patterns)
            began_seq = client.position.seq if client.position else 0
            async for event in client.watch(*self._patterns, initial=True):
                self._table.take(event, is_new=event.seq > began_seq)
                if event.seq % 256 == 0:
                    await asyncio.sleep(0)  # a large state must not keep keys waiting
