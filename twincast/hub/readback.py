"""The log read back for clients that resume or fell behind: in blocks, each read and encoded once for all of them."""

import asyncio
import logging
from collections.abc import Sequence

from twincast.core.model import Entry
from twincast.delivery.cache import Cache
from twincast.delivery.cast import Cast
from twincast.delivery.stream import OnBlock
from twincast.errors import TwincastError
from twincast.journal.stores import Journal
from twincast.wire.messages import encode

logger = logging.getLogger("twincast.replay")

BLOCK_ENTRIES = 512
BLOCK_MAX_BYTES = 256 * 1024
"""At most so much is in one block: as much as a client is sent at once."""
CACHE_MAX_BYTES = 16 * 1024 * 1024

Span = tuple[int, int]
"""What names a block: the position before its first entry, and the last position that was asked for."""


class ReadBack:
    """Blocks of a journal's log, cached for as long as other clients are likely to ask for the same."""

    def __init__(self, journal: Journal) -> None:
        """Read a journal back. Blocks that are not in memory come only while `run` runs."""
        self._journal = journal
        self._cache: Cache[Span, Cast] = Cache(CACHE_MAX_BYTES)
        self._version = 0
        self._asked: dict[Span, list[OnBlock]] = {}
        self._unread: asyncio.Queue[Span] = asyncio.Queue()  # each span once: at most as many as there are clients

    def read(self, since: int, until: int, on_block: OnBlock) -> Cast | None:
        """See Stream.read_back in delivery/stream."""
        # Blocks end at multiples of their size, so that clients that come from different positions share them.
        span = since, min(until, (since // BLOCK_ENTRIES + 1) * BLOCK_ENTRIES)
        block = self._cache.get(span)
        if block is not None:
            return block
        limit = span[1] - since
        entries = self._journal.recent(since, limit)[:limit]
        if entries:
            return self._keep(span, entries)
        if span in self._asked:
            self._asked[span].append(on_block)
        else:
            self._asked[span] = [on_block]
            self._unread.put_nowait(span)
        return None

    def forget(self) -> None:
        """Forget all blocks: something of the log was erased."""
        self._cache = Cache(CACHE_MAX_BYTES)
        self._version += 1

    async def run(self) -> None:
        """Read what is asked for, one block after another, until cancelled."""
        while True:
            await self._fetch(await self._unread.get())

    async def _fetch(self, span: Span) -> None:
        since, until = span
        try:
            version = -1
            while version != self._version:  # else what was read may be erased meanwhile
                version = self._version
                entries = await self._journal.read(since, until - since, max_bytes=BLOCK_MAX_BYTES)
            result: Cast | TwincastError = self._keep(span, entries)
        except TwincastError as error:
            logger.warning("entries after %d cannot be read back: %s", since, error)
            result = error
        for on_block in self._asked.pop(span):
            on_block(result)

    def _keep(self, span: Span, entries: Sequence[Entry]) -> Cast:
        messages: list[bytes] = []
        size_bytes = 0
        for entry in entries:  # one by one: what memory has of a span may be many times a block
            if size_bytes >= BLOCK_MAX_BYTES:
                break
            messages.append(encode(entry))
            size_bytes += len(messages[-1])
        block = Cast(messages, entries[: len(messages)])
        self._cache.keep(span, block, _cost_bytes(block))
        return block


def _cost_bytes(block: Cast) -> int:
    """Return about what a block takes: its texts, the frames that join them, its entries."""
    return 2 * block.size_bytes + 600 * len(block.entries)
