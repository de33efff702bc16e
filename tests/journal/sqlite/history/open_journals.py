"""Journals that are open in a test, and what is done to their files behind the commits."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.running import eventually_async
from twincast.history.times import text_of
from twincast.journal.retention import Retention
from twincast.journal.sqlite.history.files import OPEN_END
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.journal import SqliteJournal

MINUTE_US = 60_000_000
START_US = 1_800_000_000_000_000


class Clock:
    """The clock that entries are stamped by."""

    def __init__(self) -> None:
        self.at_us = START_US

    def __call__(self) -> str:
        return text_of(self.at_us)


@asynccontextmanager
async def opened(path: str, kept: Retention, now_utc: Callable[[], str]) -> AsyncIterator[SqliteJournal]:
    """Have a journal open for a while."""
    journal = await SqliteJournal.open(path, retention=kept, now_utc=now_utc)
    try:
        yield journal
    finally:
        await journal.close()


def names_in(path: str) -> list[str]:
    """Return which files of partitions a journal has, also those that are on their way."""
    folder = folder_of(path)
    return sorted(name for name in os.listdir(folder) if name != OPEN_END) if os.path.isdir(folder) else []


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to be done."""
    await eventually_async(condition, "what is done in the background")
