"""An open journal, as those know it that work on its files behind the commits."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from twincast.journal.retention import Retention
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.worker import Worker


@dataclass(frozen=True, eq=False)
class OpenJournal:
    """What trims, closes, erases and thins one journal has this in common, all on one event loop."""

    file: SqliteFile
    worker: Worker
    """The one that appends to the file."""
    retention: Retention
    """What is kept."""
    now_utc: Callable[[], str]
    """The clock that entries are stamped by."""
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever makes partitions or what is left of some, or puts some in the place of others."""

    @property
    def path(self) -> str:
        """Where the file is, with links resolved."""
        return self.file.path
